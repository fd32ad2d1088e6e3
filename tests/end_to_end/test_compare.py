"""train/compare.py as a person runs it: one sentence about two results, several seeds a side, and refusals."""

import json

import pytest

from eet_tf.evaluation.comparison import ClassResults

SKUS = [f"sku-{number}" for number in range(200)]


def write(folder, name, hits, num_queries=2, in_file="classes.csv"):
    """The results of a training in which every product had as many hits; returns its folder."""
    sums = {"recall@1": [hits] * 200, "map@r": [0.5 * hits] * 200}
    ClassResults(SKUS, [num_queries] * 200, sums).write(folder / name / in_file)
    return str(folder / name)


def test_two_results_make_one_sentence(tmp_path, run_script):
    """One hit of two queries for every product, then two: 50 % and 100 %, and no chance in which are asked for."""
    first, second = write(tmp_path, "first", hits=1), write(tmp_path, "second", hits=2)
    outcome = run_script("train/compare.py", first, f"{second}/classes.csv").succeeded()
    assert outcome.printed.splitlines() == [
        f"{first}: recall@1 50.00 % over 400 queries",
        f"{second}/classes.csv: recall@1 100.00 % over 400 queries",
        "second against first: better by 50.00 points (95 % interval 50.00 to 50.00 over 200 products).",
    ]


def test_the_whole_catalogue_comes_first(tmp_path, run_script):
    """Where both folders have it; beside a folder of an older version only what both have is compared."""
    first, second, older = (write(tmp_path, name, hits) for name, hits in {"1": 1, "2": 2, "old": 1}.items())
    for name, hits in {"1": 1, "2": 0}.items():
        write(tmp_path, name, hits, in_file="classes_in_whole_catalogue.csv")
    assert run_script("train/compare.py", first, second).succeeded().printed.splitlines() == [
        "In the whole catalogue:",
        f"{first}: recall@1 50.00 % over 400 queries",
        f"{second}: recall@1 0.00 % over 400 queries",
        "second against first: worse by 50.00 points (95 % interval 50.00 to 50.00 over 200 products).",
        "Among the products measured on alone:",
        f"{first}: recall@1 50.00 % over 400 queries",
        f"{second}: recall@1 100.00 % over 400 queries",
        "second against first: better by 50.00 points (95 % interval 50.00 to 50.00 over 200 products).",
    ]
    heading, *lines = run_script("train/compare.py", first, older).succeeded().printed.splitlines()
    assert heading == (
        f"Among the products measured on alone, since {older} has no classes_in_whole_catalogue.csv, which older "
        "versions did not write:"
    )
    assert len(lines) == 3


def test_a_file_is_compared_with_the_same_file_of_a_folder(tmp_path, run_script):
    """One file of the whole catalogue, and a folder with both; two files of one gallery each are refused."""
    first, second = write(tmp_path, "1", hits=1), write(tmp_path, "2", hits=2)
    for name, hits in {"1": 1, "2": 0}.items():
        write(tmp_path, name, hits, in_file="classes_in_whole_catalogue.csv")
    whole = f"{first}/classes_in_whole_catalogue.csv"
    printed = run_script("train/compare.py", whole, second).succeeded().printed
    assert printed.splitlines()[:3] == [
        "In the whole catalogue:",
        f"{whole}: recall@1 50.00 % over 400 queries",
        f"{second}: recall@1 0.00 % over 400 queries",
    ]
    outcome = run_script("train/compare.py", whole, f"{second}/classes.csv")
    outcome.refused("give classes_in_whole_catalogue.csv of all, or of none: figures in the whole catalogue are lower")


def test_whole_catalogues_of_several_sizes_are_said(tmp_path, run_script):
    for name, size in {"1": 5000, "2": 4800}.items():
        folder = write(tmp_path, name, hits=1)
        write(tmp_path, name, hits=1, in_file="classes_in_whole_catalogue.csv")
        (tmp_path / name / "flags.txt").write_text("--loss=eet\n")
        (tmp_path / name / "metrics.json").write_text(json.dumps({"whole_catalogue": {"num_photos": size}}))
    printed = run_script("train/compare.py", str(tmp_path / "1"), folder).succeeded().printed
    assert printed.splitlines()[-1] == (
        "The whole catalogues were not the same: from 4,800 to 5,000 photos. A part of the difference may come from "
        "that."
    )


def test_several_seeds_a_side(tmp_path, run_script):
    """map@r of 0.5 and 0.25 has mean 0.375, and the half width 12.706 * 0.25 / 2 by t with one degree of freedom."""
    seeds = ",".join([write(tmp_path, "a", hits=2), write(tmp_path, "b", hits=1)])
    one = write(tmp_path, "c", hits=2)
    outcome = run_script("train/compare.py", one, seeds, "--metric=map@r").succeeded()
    assert outcome.printed.splitlines() == [
        f"{one}: map@r 50.00 % over 400 queries",
        f"{seeds}: map@r 37.50 % over 400 queries, mean of 2 runs (95 % interval over runs +- 158.82 points)",
        "second against first: worse by 12.50 points (95 % interval 12.50 to 12.50 over 200 products).",
    ]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    write(folder, "good", hits=1)
    write(folder, "other", hits=1, num_queries=3)
    (folder / "none").mkdir()
    (folder / "bad.csv").write_text("sku,num_queries,recall@1\nmug,2,three\n")
    return folder


@pytest.mark.parametrize(
    "arguments, pattern",
    [
        (["good"], "give two results: .* Received: 1"),
        (["good", "good", "good"], "give two results: .* Received: 3"),
        (["good", "none"], "none/classes.csv' does not exist. Give the folder of a finished training"),
        (["good", "bad.csv"], r"bad.csv:2: recall@1 must be a whole number from 0 to 2. Received: 'three'"),
        (["good", "good,other"], "with 2 in .*good/classes.csv and 3 in .*other/classes.csv"),
        (["good", "good", "--metric=recall@7"], "`metric` must be one of recall@1, map@r, .*good/classes.csv"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_compared_is_refused_in_one_line(results, run_script, arguments, pattern):
    places = [
        name if name.startswith("--") else ",".join(f"{results}/{part}" for part in name.split(","))
        for name in arguments
    ]
    outcome = run_script("train/compare.py", *places)
    outcome.refused(pattern)
    assert outcome.printed == ""
