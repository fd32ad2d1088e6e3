"""The command that measures a GPU runs small on a CPU, keeps what it measured, and goes on after what fails."""

import json
import pathlib
import re
import subprocess
import sys

import pytest

from benchmarks.gpu_parts.processes import last_error, message_of
from benchmarks.gpu_parts.record import FAILED, FINISHED, Record
from eet_tf import compat

REPOSITORY = pathlib.Path(__file__).parents[2]
SMALL = ("--losses=eet,binomial_deviance,full_binomial_deviance", "--sizes=32", "--ways=bare_compiled,mirrored")
MACHINE = {"device": "a card"}
needs_keras_3 = pytest.mark.skipif(compat.KERAS_2, reason="its figures are for the default set of versions")


def gpu(folder, *flags):
    """Runs the command; returns its exit status, what it printed and its errors."""
    command = [sys.executable, "benchmarks/gpu.py", f"--output_dir={folder}", *SMALL, "--photos=300", *flags]
    environment = {"PYTHONPATH": str(REPOSITORY), "CUDA_VISIBLE_DEVICES": "-1", "PATH": ""}
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, env=environment, timeout=300)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Two parts of which one has no time, then all parts, then nothing that is left: the folder and the three ends."""
    folder = tmp_path_factory.mktemp("gpu")
    hurried = gpu(folder, "--parts=steps,evaluation", "--limits=steps=1")
    return folder, hurried, gpu(folder), gpu(folder)


def rows(folder, part):
    return list(json.loads((folder / f"{part}.json").read_text())["rows"].values())


@needs_keras_3
def test_a_part_out_of_time_is_named_and_the_others_go_on(measured):
    _, hurried, _, _ = measured
    assert "steps: timed out after 1 s" in hurried.stdout
    assert "evaluation: finished, 2 of 2 measured." in hurried.stdout
    assert hurried.returncode == 1  # no figure of a step


@needs_keras_3
def test_the_same_command_measures_what_is_missing_and_then_nothing(measured):
    _, _, second, third = measured
    assert second.returncode == 0, second.stdout + second.stderr
    assert "evaluation: measured before." in second.stdout and "steps: finished, 4 of 4 measured." in second.stdout
    assert third.returncode == 0
    assert " ms" not in third.stdout.partition("## ")[0]
    again = [line for line in third.stdout.partition("## ")[0].splitlines() if not line.startswith("torch_losses")]
    assert again == [f"{part}: measured before." for part in ("losses", "evaluation", "serving", "train", "steps")]


@needs_keras_3
def test_losses_have_times_memory_and_the_cpus_values(measured):
    found = [row for row in rows(measured[0], "losses") if "way" in row]
    assert sorted((row["name"], row["way"]) for row in found) == [
        (name, way) for name in ("binomial_deviance", "eet", "full_binomial_deviance") for way in ("compiled", "graph")
    ]
    for row in found:
        assert row["size"] == 32 and 0 < row["ms"] < 1000 * row["first_call_s"]
        assert row["megabytes"] >= 0
        assert row["value_off"] < 1e-5 and row["gradient_off"] < 1e-5


@needs_keras_3
def test_steps_stand_beside_the_bare_network(measured):
    found = rows(measured[0], "steps")
    expected = [(way, precision) for way in ("bare_compiled", "mirrored") for precision in ("bfloat16", "float32")]
    assert sorted((row["way"], row["precision"]) for row in found) == expected
    for row in found:
        assert row["steps"] >= 10
        assert row["photos_per_s"] == pytest.approx(1000 * row["batch_size"] / row["ms"])
    assert "of the bare compiled network" in measured[2].stdout


@needs_keras_3
def test_training_serving_and_evaluation_have_figures(measured):
    (training,) = rows(measured[0], "train")
    assert training["seconds"] > training["seconds in fit"] > 0
    assert 0 <= training["recall@1 before"] <= 1 and 0 <= training["recall@1 after"] <= 1
    served = rows(measured[0], "serving")
    assert [row["photos"] for row in served] == [1, 16, 256]
    assert all(row["photos_per_s"] == pytest.approx(1000 * row["photos"] / row["ms"]) for row in served)
    product, evaluation = rows(measured[0], "evaluation")
    assert product["seconds"] > 0 and evaluation["seconds"] > 0
    assert 0 < evaluation["map@r"] < evaluation["recall@1"] < 1


@needs_keras_3
def test_the_tables_have_every_part_and_name_the_machine(measured):
    folder, _, second, _ = measured
    table = (folder / "table.md").read_text()
    assert table.strip() in second.stdout
    titles = ["Losses", "pytorch-metric-learning", "Evaluation", "Serving", "A training", "Training steps"]
    assert [line[3:] for line in table.splitlines() if line.startswith("## ")] == titles
    assert "On device CPU, " in table and "TensorFlow 2." in table and "| BinomialDevianceLoss | " in table
    kept = json.loads((folder / "table.json").read_text())
    assert {part: content["outcome"] for part, content in kept.items() if part != "torch_losses"} == dict.fromkeys(
        ("losses", "steps", "evaluation", "serving", "train"), FINISHED
    )


@pytest.mark.parametrize(
    "flag, culprit",
    [
        ("--parts=losses,mine", "--parts must be of losses, .* Received: mine"),
        ("--limits=losses", "--limits must be PART=SECONDS .* Received: losses"),
        ("--sizes=1", "--sizes must be numbers of at least 16. Received: 1"),
    ],
)
def test_wrong_flags_are_refused(flag, culprit, tmp_path):
    ended = gpu(tmp_path, flag)
    assert ended.returncode == 1
    assert re.search(culprit, ended.stderr)


def test_a_loss_that_does_not_exist_is_named(tmp_path):
    ended = gpu(tmp_path, "--parts=losses", "--losses=mine")
    assert "there is no mine" in ended.stdout


def test_a_measurement_that_takes_its_process_along_is_blamed_and_tried_again(tmp_path):
    record = Record(tmp_path, "losses")
    record.begin(MACHINE, ["first", "second", "third"], "all")
    record.keep("first", {"ms": 1.0})
    record.start_row("second")  # and here the process ends
    seen = Record(tmp_path, "losses")
    assert seen.blame("Check failed") and not seen.blame("of nothing")
    assert Record(tmp_path, "losses").errors == {"second": "Check failed"}
    assert Record(tmp_path, "losses").missing == ["third"]
    assert Record(tmp_path, "losses").progress == "1 of 3 measured, 1 failed"
    Record(tmp_path, "losses").forget_errors()
    assert Record(tmp_path, "losses").missing == ["second", "third"]


def test_a_part_is_complete_if_all_that_is_asked_for_is_there(tmp_path):
    record = Record(tmp_path, "losses")
    record.begin(MACHINE, ["first"], "all")
    record.keep("first", {"ms": 1.0})
    assert not record.is_complete("all")
    record.end(FINISHED)
    assert record.is_complete("all") and not record.is_complete("more")
    record.keep("first", {"error": "it fails"})
    assert not record.is_complete("all")
    record.end(FAILED, "it fails")
    assert not Record(tmp_path, "losses").is_complete("all")


def test_figures_of_two_machines_are_not_mixed(tmp_path):
    record = Record(tmp_path, "losses")
    record.begin(MACHINE, ["first"], "all")
    record.keep("first", {"ms": 1.0})
    with pytest.raises(RuntimeError, match="another machine or version: give another --output_dir"):
        Record(tmp_path, "losses").begin({"device": "another card"}, ["first"], "all")


def test_of_an_error_the_line_that_tells_something_is_kept():
    graph = "Graph execution error:\n\nDetected at node X defined at (most recent call last):\n"
    graph += "<stack traces unavailable>\nCustomCall failed: Buffers have different size at runtime\n\t [[{{node X}}]]"
    assert message_of(ValueError(graph)) == "ValueError: CustomCall failed: Buffers have different size at runtime"
    assert message_of(MemoryError()) == "MemoryError: "
    log = "I0000 something\nTraceback (most recent call last):\n  File x\nKeyError: 'y'\nsome more\n"
    assert last_error(log, 1) == "KeyError: 'y'"
    assert last_error("", -6) == "the process ended with -6"
