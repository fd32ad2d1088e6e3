"""Shares of right answers, counted by loops over what is known."""

import numpy as np
import pytest

from eet_tf import attribute_accuracy

NAMES = ("red", "striped", "silk", "nothing known", "round")


def looped(logits, attributes):
    found = {}
    for column, name in enumerate(NAMES):
        right, yes, known = 0, 0, 0
        for row in range(len(logits)):
            if attributes[row][column] != -1:
                known += 1
                yes += attributes[row][column]
                right += (logits[row][column] > 0) == (attributes[row][column] == 1)
        if known:
            found[name] = {"accuracy": right / known, "majority": max(yes, known - yes) / known, "num_known": known}
    return found


@pytest.mark.parametrize("seed", range(3))
def test_it_is_what_loops_count(seed):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0.3, 2.0, size=[23, 5]).astype(np.float32)
    attributes = rng.choice([1, 0, -1], size=[23, 5], p=[0.2, 0.5, 0.3])
    attributes[:, 3] = -1
    expected = looped(logits, attributes)
    assert len(expected) == 4
    assert attribute_accuracy(logits, attributes, NAMES) == expected
    probabilities = 1 / (1 + np.exp(-logits.astype(np.float64)))
    assert attribute_accuracy(probabilities, attributes.tolist(), NAMES, from_logits=False) == expected


def test_a_head_that_decides_nothing_says_no():
    found = attribute_accuracy([[0.0], [0.0], [0.0]], [[1], [0], [0]], ["red"])
    assert found == {"red": {"accuracy": 2 / 3, "majority": 2 / 3, "num_known": 3}}


def test_what_it_returns_can_be_written_as_json():
    values = attribute_accuracy(np.ones([2, 1], np.float32), np.ones([2, 1], np.int8), ["red"])["red"].values()
    assert [type(value) for value in values] == [float, float, int]


def test_a_wrong_value_is_named_by_its_place():
    with pytest.raises(ValueError, match=r"^`attributes` must be 1 .yes., .* Received: attributes\[1, 0\]=2\.$"):
        attribute_accuracy([[0.5], [0.5]], [[1], [2]], ["red"])
    with pytest.raises(
        ValueError, match=r"^`predictions` must be in \[0, 1\]; .* Received: predictions\[0, 1\]=-0.5\.$"
    ):
        attribute_accuracy([[0.5, -0.5]], [[1, 0]], ["red", "wet"], from_logits=False)
