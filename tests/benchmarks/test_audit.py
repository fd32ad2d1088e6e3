"""The script that makes copies and looks for them runs, and finds those that are no trouble."""

import pathlib
import subprocess
import sys

from eet_tf.data import make_synthetic_catalog

REPOSITORY = pathlib.Path(__file__).parents[2]


def test_it_finds_copies(tmp_path):
    make_synthetic_catalog(tmp_path / "photos", num_products=12, photos_per_product=4)
    command = [sys.executable, "benchmarks/audit.py", "--dataset=csv", "--photos=20", f"--output_dir={tmp_path}/table"]
    environment = {"PYTHONPATH": str(REPOSITORY), "PATH": ""}
    subprocess.run([*command, f"--data_dir={tmp_path}/photos"], cwd=REPOSITORY, check=True, env=environment)
    table = (tmp_path / "table" / "table.md").read_text()
    assert "0 groups of near copies, 0 of them of different products." in table
    rows = dict(line.strip("| ").split(" | ", 1) for line in table.splitlines() if line.startswith("| "))
    assert len(rows) == 11
    assert rows["15 % darker"] == rows["80 % of its size"] == "100 % | 0"
