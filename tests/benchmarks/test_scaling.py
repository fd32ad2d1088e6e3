"""The page on many GPUs says what the script says, and the script counts what a hand counts."""

import pathlib
import subprocess
import sys

import pytest

REPOSITORY = pathlib.Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs" / "scaling.md").read_text(encoding="utf-8")


def table(*arguments):
    """What the script prints."""
    command = [sys.executable, "benchmarks/scaling.py", *arguments]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("arguments", [(), ("--photos_per_gpu=256", "--examples_per_class=2")], ids=["64", "256"])
def test_the_page_has_its_tables(arguments):
    assert table(*arguments) in PAGE


def test_eight_gpus_by_hand():
    """100 photos each of 10 numbers, 4 of a product: of 800 rows 700 come from others, 28,000 bytes; what they give
    back goes round twice; sums of five times 800 numbers of 4 bytes go round twice; four multiplications of 100 x 800
    x 10."""
    rows = dict(
        line.strip("| ").split(" | ", 1)
        for line in table("--photos_per_gpu=100", "--embedding_dim=10").splitlines()
        if line.startswith("| ")
    )
    columns = {name: float(values.split(" | ")[1].replace(",", "")) for name, values in rows.items()}
    assert columns["photos in the batch"] == 800
    assert columns["products in the batch"] == 200
    assert columns["embeddings gathered, MB"] == 0.028
    assert columns["their gradient, MB"] == 0.056
    assert columns["sums of classes, MB"] == pytest.approx(2 * 7 / 8 * 5 * 800 * 4 / 1e6, rel=0.05)
    assert columns["matrix multiplications of EET, GFLOP"] == pytest.approx(4 * 2 * 100 * 800 * 10 / 1e9, rel=0.05)
