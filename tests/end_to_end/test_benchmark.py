"""One whole comparison of methods, taken up again, refused where runs would be mixed."""

import csv
import json
import os
import shutil

import pytest

from eet_tf import compat
from eet_tf.evaluation.comparison import ClassResults

pytestmark = pytest.mark.skipif(compat.KERAS_2, reason="its tables were measured in the default set of versions")


@pytest.fixture(scope="module")
def compared(tmp_path_factory, run_script):
    """Three methods with one seed, of which one run was there already: the folder, and how both calls ended."""
    folder = tmp_path_factory.mktemp("methods")
    flags = ["--recipe=synthetic", f"--data_dir={folder / 'photos'}", f"--output_dir={folder / 'out'}", "--set=steps=4"]
    flags += ["--seeds=1", "--jobs=2"]
    first = run_script("benchmarks/methods.py", *flags, "--methods=batch_hard").succeeded()
    made = os.stat(folder / "out" / "batch_hard-0.csv").st_mtime_ns
    methods = "--methods=batch_hard,sbdl_informativeness,softmax,online_sampling_categories"
    second = run_script("benchmarks/methods.py", *flags, methods).succeeded()
    assert os.stat(folder / "out" / "batch_hard-0.csv").st_mtime_ns == made
    return folder, flags, first, second


def test_a_finished_run_is_not_trained_again(compared):
    _, _, first, second = compared
    assert "1 of 1: batch_hard-0." in first.printed
    assert "of 3: " in second.printed and "batch_hard-0." not in second.printed


def test_the_tables_hold_every_method(compared):
    folder, _, _, second = compared
    with open(folder / "out" / "table.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4
    for row in rows:
        assert 0 < float(row["recall@1"]) <= float(row["recall@10"]) <= float(row["recall@100"]) <= 1
    assert rows[0]["difference"] == ""
    for row in rows[1:]:
        assert float(row["low"]) <= float(row["difference"]) <= float(row["high"])
        expected = float(row["whole@1"]) - float(rows[0]["whole@1"])
        assert float(row["difference"]) == pytest.approx(expected, abs=1e-9)
    table = (folder / "out" / "table.md").read_text()
    assert table.strip() in second.printed
    assert all(f"| {row['name']} |" in table for row in rows)
    assert (folder / "out" / "table.png").read_bytes()[:4] == b"\x89PNG"


def test_runs_of_other_settings_are_not_mixed_in(compared, run_script):
    folder, flags, _, _ = compared
    outcome = run_script("benchmarks/methods.py", *flags, "--methods=batch_hard", "--set=steps=4,learning_rate=0.1")
    outcome.refused("batch_hard-0.json was made with another learning_rate", "--output_dir")
    outcome = run_script("benchmarks/methods.py", *flags, "--methods=batch_hard", "--set=steps=4,loss.margin=0.5")
    outcome.refused("batch_hard-0.json was made with another arguments", "--output_dir")


def test_nor_runs_of_other_photos(compared, tmp_path, run_script):
    folder, flags, _, _ = compared
    shutil.copytree(folder / "out", tmp_path / "out")
    record = json.loads((tmp_path / "out" / "batch_hard-0.json").read_text())
    record["made_of"]["photos"] = "0123456789ab"
    (tmp_path / "out" / "batch_hard-0.json").write_text(json.dumps(record))
    outcome = run_script("benchmarks/methods.py", *flags, "--methods=batch_hard", f"--output_dir={tmp_path / 'out'}")
    outcome.refused("batch_hard-0.json was made with another photos", "--output_dir")


def test_settings_are_searched_on_held_out_products_and_then_trained(tmp_path, run_script):
    """Nine trials of a sum of losses and a training with the best; another call trains nothing and prints the same."""
    flags = ["--recipe=synthetic", f"--data_dir={tmp_path / 'photos'}", f"--output_dir={tmp_path / 'out'}", "--tuned"]
    flags += ["--seeds=1", "--jobs=2", "--methods=eet_softmax", "--set=steps=2"]
    first = run_script("benchmarks/methods.py", *flags).succeeded()
    assert first.printed.count("of 9: eet_softmax-trial-") == 9 and "1 of 1: eet_softmax-0." in first.printed
    tried, shares = [], []
    for number in range(9):
        settings = json.loads((tmp_path / "out" / f"eet_softmax-trial-{number}.json").read_text())["settings"]
        assert (settings["measure_on"], settings["seed"]) == ("held_out", 0)
        tried.append((settings["learning_rate"], settings["arguments"]["softmax_weight"]))
        shares.append(ClassResults.read(tmp_path / "out" / f"eet_softmax-trial-{number}-whole.csv").mean("map@r"))
    assert sorted(tried) == [(rate, weight) for rate in (1e-4, 3e-4, 1e-3) for weight in (0.1, 0.3, 1.0)]
    final = json.loads((tmp_path / "out" / "eet_softmax-0.json").read_text())["settings"]
    assert final["measure_on"] == "test"
    assert (final["learning_rate"], final["arguments"]["softmax_weight"]) == tried[shares.index(max(shares))]
    own, whole = (ClassResults.read(tmp_path / "out" / f"eet_softmax-0{end}.csv") for end in ("", "-whole"))
    assert own.num_queries.tolist() == whole.num_queries.tolist()
    assert whole.mean("recall@1") <= own.mean("recall@1")
    table = (tmp_path / "out" / "table.md").read_text()
    assert f"| EET + normalised softmax | {100 * whole.mean('recall@1'):.1f} |" in table
    again = run_script("benchmarks/methods.py", *flags).succeeded()
    assert " of 1: " not in again.printed and table.strip() in again.printed


def test_a_recipe_is_searched_on_held_out_products_and_then_measured_on_test_products(tmp_path, run_script):
    flags = ["--recipe=synthetic", f"--data_dir={tmp_path / 'photos'}", f"--output_dir={tmp_path / 'out'}"]
    flags += ["--steps=2", "--jobs=2", "--seeds=1"]
    run_script("benchmarks/recipes.py", *flags, "--do=best").refused("must hold a search", "Run --do=search first")
    first = run_script("benchmarks/recipes.py", *flags, "--do=search", "--trainings=2").succeeded()
    assert "mAP@R" in first.printed
    run_script("benchmarks/recipes.py", *flags, "--do=search", "--trainings=3").succeeded()
    records = {file.stem: json.loads(file.read_text()) for file in (tmp_path / "out").glob("search-*.json")}
    assert sorted(records) == ["search-0000", "search-0001", "search-0002"]
    assert {record["settings"]["measure_on"] for record in records.values()} == {"held_out"}
    changes = [json.loads((tmp_path / "out" / f"{name}.changes").read_text()) for name in records]
    assert all(changes.count(each) == 1 for each in changes)
    best = max(records, key=lambda name: ClassResults.read(tmp_path / "out" / f"{name}-whole.csv").mean("map@r"))
    last = run_script("benchmarks/recipes.py", *flags, "--do=best").succeeded()
    assert "the best found: R@1" in last.printed and "as it is: R@1" in last.printed
    final = json.loads((tmp_path / "out" / f"best-{best}-0.json").read_text())["settings"]
    assert final == {**records[best]["settings"], "measure_on": "test"}


def test_the_parts_of_the_kit_are_measured_on_every_quarter_of_the_training_products(tmp_path, run_script):
    """Each product once, and none of the test products."""
    flags = ["--recipe=synthetic", f"--data_dir={tmp_path / 'photos'}", f"--output_dir={tmp_path / 'out'}"]
    run_script("benchmarks/recipes.py", *flags, "--steps=2", "--jobs=2", "--do=parts").succeeded()
    with open(tmp_path / "photos" / "catalog.csv", newline="") as file:
        products = {(row["sku"], row["split"]) for row in csv.DictReader(file)}
    of_first = sorted((tmp_path / "out").glob("part-as_it_is-?.csv"))
    measured = [ClassResults.read(file).skus.tolist() for file in of_first]
    assert len(measured) == 4 and max(map(len, measured)) - min(map(len, measured)) <= 1
    assert sorted(sum(measured, [])) == sorted(sku for sku, split in products if split == "train")
    with open(tmp_path / "out" / "table.csv", newline="") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["as it is", "pooling: average"]
    for name, short in (("as it is", "as_it_is"), ("pooling: average", "pooling__average")):
        whole = [ClassResults.read(file) for file in (tmp_path / "out").glob(f"part-{short}-?-whole.csv")]
        hits, queries = (sum(each) for each in zip(*[(w.sums["recall@1"].sum(), w.num_queries.sum()) for w in whole]))
        assert float(rows[name]["whole@1"]) == pytest.approx(hits / queries)
    assert "on the others: all training products; " in (tmp_path / "out" / "table.md").read_text()


def test_prefixes_and_a_student_have_tables(root, tiny, tmp_path, run_script):
    """Each figure is that of its training; another call trains nothing and prints the same."""
    (tmp_path / "tiny.flags").write_text("\n".join([*tiny, "--dataset=csv", "--epochs=1", "--recipe=none"]) + "\n")
    out = tmp_path / "out"
    flags = [f"--data={root / 'photos'}", f"--flagfile_of_training={tmp_path / 'tiny.flags'}", f"--output_dir={out}"]
    flags += ["--image_size=32", "--prefixes=4,16", "--embedding_dim=16", "--teacher=small_cnn", "--student=small_cnn"]
    first = run_script("benchmarks/short_vectors.py", *flags, "--more_of_student=epochs=2").succeeded()
    figures = {name: json.loads((out / name / "metrics.json").read_text()) for name in ("prefixes", "student")}
    four, all_of_them = (100 * figures["prefixes"]["prefixes"][length]["recall@1"] for length in ("4", "16"))
    table = (out / "table.md").read_text()
    assert f"| {four:.1f} | {100 * four / all_of_them:.1f} % |" in table and f"| {all_of_them:.1f} | 100.0 % |" in table
    assert f"| student, small_cnn | teacher | 0.39 | {100 * figures['student']['teacher']['recall@1']:.1f} |" in table
    made = [os.stat(file).st_mtime_ns for file in sorted(out.glob("*/model.keras"))]
    again = run_script("benchmarks/short_vectors.py", *flags, "--more_of_student=epochs=2").succeeded()
    assert table.strip() in again.printed and table.strip() in first.printed
    assert [os.stat(file).st_mtime_ns for file in sorted(out.glob("*/model.keras"))] == made


def test_a_search_without_the_weights_it_needs_is_refused(tmp_path, run_script):
    flags = ["--recipe=grocery", "--do=search", f"--output_dir={tmp_path / 'out'}", f"--data_dir={tmp_path}"]
    run_script("benchmarks/recipes.py", *flags).refused("this recipe needs --weights, a file")


def test_an_unknown_method_is_refused(run_script):
    run_script("benchmarks/methods.py", "--methods=eet,contrastive").refused(
        "--methods must be of .*eet", "contrastive"
    )


@pytest.mark.parametrize(
    "flag, message",
    [
        ("--measure_on=held_out", "--measure_on=held_out needs --notuned: those products choose the settings"),
        ("--set=learning_rate=0.1", "--set=learning_rate needs --notuned: it is searched for each method"),
        ("--set=steps=4,loss.margin=0.5", "--set=loss.margin needs --notuned: it is searched"),
    ],
)
def test_what_a_search_would_overwrite_or_measure_again_is_refused(flag, message, run_script):
    run_script("benchmarks/methods.py", "--recipe=synthetic", "--tuned", "--methods=batch_hard", flag).refused(message)


@pytest.mark.parametrize(
    "change, culprit",
    [
        ("margin=0.5", "--set must be name=value with a name of .*crop.*'margin=0.5'"),
        ("attributes=colour", "--set must be name=value with a name of .*'attributes=colour'"),
        ("steps=many", "--set=steps must be int. Received: 'many'"),
        ("loss.margin=wide", "--set=loss.margin must be float. Received: 'wide'"),
    ],
)
def test_a_wrong_change_of_the_recipe_is_refused(change, culprit, run_script):
    run_script("benchmarks/methods.py", "--recipe=synthetic", f"--set={change}").refused(culprit)


def test_a_loss_is_measured_and_kept(tmp_path, run_script):
    flags = (f"--output_dir={tmp_path / 'out'}", "--losses=EET,naive_eet", "--sizes=64", "--repeats=5")
    first = run_script("benchmarks/loss.py", *flags).succeeded()
    assert "EETLoss, B = 64" in first.printed and "| EET, full matrix | " in first.printed
    assert "EETLoss, B = 64" not in run_script("benchmarks/loss.py", *flags).succeeded().printed


def test_an_unknown_loss_is_refused(run_script):
    run_script("benchmarks/loss.py", "--losses=EET,mine").refused("--losses must be of EET, .* Received: mine")
