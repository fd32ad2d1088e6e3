"""The script that times the signatures runs, and its table has a row for everything that was asked for."""

import pathlib
import subprocess
import sys

REPOSITORY = pathlib.Path(__file__).parents[2]


def test_it_times_what_was_asked_for(tmp_path):
    sizes = ("--batch_sizes=1,3", "--image_size=32", "--catalog_size=300", "--dim=8", "--repeats=5")
    command = [sys.executable, "benchmarks/serving.py", "--backbones=small_cnn", *sizes, f"--output_dir={tmp_path}"]
    environment = {"PYTHONPATH": str(REPOSITORY), "CUDA_VISIBLE_DEVICES": "-1", "PATH": ""}
    printed = subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, check=True, env=environment
    ).stdout
    table = (tmp_path / "table.md").read_text()
    assert table in printed
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| ")]
    assert [row[0] for row in rows] == ["embedder", "small_cnn", "small_cnn", "storage", "float32", "bfloat16", "int8"]
    assert [row[1] for row in rows[1:3]] == ["1", "3"]
    assert all(float(figure) > 0 for row in (*rows[1:3], *rows[4:]) for figure in row[1:4])
