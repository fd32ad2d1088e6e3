"""The tables of the pages are those of the runs and measurements that are stored beside the benchmarks."""

import pathlib
import shutil

import pytest

from eet_tf import compat

pytestmark = pytest.mark.skipif(compat.KERAS_2, reason="its tables were measured in the default set of versions")
REPOSITORY = pathlib.Path(__file__).parents[2]
RESULTS = sorted({run.parent for run in (REPOSITORY / "benchmarks" / "results").glob("*/batch_hard-0.csv")})


@pytest.mark.parametrize("results", RESULTS, ids=lambda folder: folder.name)
def test_the_published_tables_are_those_of_the_published_runs(results, tmp_path, run_script):
    """From copies of what each training gave, without photos or weights: the same table, which the page shows."""
    again = tmp_path / results.name
    shutil.copytree(results, again)
    for table in again.glob("table.*"):
        table.unlink()
    run_script("benchmarks/methods.py", f"--recipe={results.name}", f"--output_dir={again}").succeeded()
    table = (again / "table.md").read_text()
    assert table == (results / "table.md").read_text()
    assert table.strip() in (REPOSITORY / "docs" / "methods.md").read_text()


def test_the_published_costs_are_those_that_were_measured(tmp_path, run_script):
    """From copies of the measurements, without measuring anything: the same tables, which the page shows."""
    results = REPOSITORY / "benchmarks" / "results" / "loss"
    again = tmp_path / "loss"
    shutil.copytree(results, again)
    (again / "table.md").unlink()
    run_script("benchmarks/loss.py", f"--output_dir={again}").succeeded()
    table = (again / "table.md").read_text()
    assert table == (results / "table.md").read_text()
    assert table.strip() in (REPOSITORY / "docs" / "performance.md").read_text()


@pytest.mark.parametrize(
    "folder, page",
    [
        *(("kit_grocery", "methods.md"), ("kit_fashion", "methods.md")),
        *(("backbones", "backbones.md"), ("short_vectors", "short_vectors.md")),
    ],
)
def test_tables_of_other_scripts_are_on_their_page(folder, page):
    """Each part of what a script wrote; a page may say something between them."""
    shown = (REPOSITORY / "docs" / page).read_text(encoding="utf-8")
    parts = (
        (REPOSITORY / "benchmarks" / "results" / folder / "table.md").read_text(encoding="utf-8").strip().split("\n\n")
    )
    assert len(parts) == 2
    for part in parts:
        assert part in shown
