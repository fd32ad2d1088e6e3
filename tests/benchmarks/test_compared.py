"""What the tables of methods and recipes draw."""

import importlib
import pathlib

import matplotlib.axes
import numpy as np
import pytest

BENCHMARKS = pathlib.Path(__file__).parents[2] / "benchmarks"
BASE = {"name": "as it is", "whole@1": 0.5}
OTHER = {"name": "other", "whole@1": 0.53, "difference": 0.03, "low": -0.01, "high": 0.08}


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """A function: what `draw` makes of rows, as the values, both sides of the intervals in points, and the label."""

    monkeypatch.syspath_prepend(BENCHMARKS)  # as scripts find each other
    compared = importlib.import_module("compared")

    def draw(rows):
        calls = []
        monkeypatch.setattr(matplotlib.axes.Axes, "errorbar", lambda *given, **more: calls.append((given[1], more)))
        monkeypatch.setattr(matplotlib.axes.Axes, "set_xlabel", lambda _, text: calls.append(text))
        compared.draw(rows, "as it is", tmp_path / "table.png")
        (values, more), label = calls
        assert (tmp_path / "table.png").stat().st_size > 1000
        return values, np.array(more["xerr"]), label

    return draw


def test_of_several_runs_the_interval_over_them_is_drawn(drawn):
    values, errors, label = drawn([{**OTHER, "+-whole@1": 0.02}, {**BASE, "+-whole@1": 0.01}])
    assert values == pytest.approx([50, 53])
    np.testing.assert_allclose(errors, [[1, 2], [1, 2]])
    assert "over runs" in label


def test_of_one_run_the_interval_of_its_difference_is_drawn(drawn):
    """The baseline has none."""
    values, errors, label = drawn([{**OTHER, "+-whole@1": float("nan")}, {**BASE, "+-whole@1": float("nan")}])
    assert values == pytest.approx([50, 53])
    np.testing.assert_allclose(errors, [[0, 4], [0, 5]])
    assert label.endswith("(95 % interval of the difference from: as it is)")
