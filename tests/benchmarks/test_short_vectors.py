"""The script of prefixes and students trains what it says, and measures queries that no training saw."""

import csv
import pathlib
import subprocess
import sys

from eet_tf.data import make_synthetic_catalog

REPOSITORY = pathlib.Path(__file__).parents[2]


def test_the_tables_hold_what_was_trained(tmp_path):
    make_synthetic_catalog(tmp_path / "photos", num_products=16, photos_per_product=4)
    flagfile = tmp_path / "few.flags"
    flagfile.write_text("--recipe=none\n--hold_out=0\n--classes_per_batch=4\n--steps_per_epoch=2\n--epochs=1\n")
    command = [sys.executable, "benchmarks/short_vectors.py", f"--data={tmp_path}/photos"]
    command += [f"--flagfile_of_training={flagfile}", "--prefixes=4,8", "--teacher=small_cnn", "--student=small_cnn"]
    command += ["--image_size=32", "--embedding_dim=8", "--more_of_student=epochs=2", f"--output_dir={tmp_path}/out"]
    environment = {"PYTHONPATH": str(REPOSITORY), "PATH": ""}
    for _ in range(2):  # the second time nothing is trained
        subprocess.run(command, cwd=REPOSITORY, check=True, env=environment)
    rows = [line.strip("| ").split(" | ") for line in (tmp_path / "out" / "table.md").read_text().splitlines()]
    assert [row[0] for row in rows if row[0] in ("4", "8")] == ["4", "8"]
    teacher, student = ([*row[:2]] for row in rows if row[0].endswith("small_cnn") and row[1] == "teacher")
    assert (teacher, student) == (["teacher, small_cnn", "teacher"], ["student, small_cnn", "teacher"])
    with open(tmp_path / "out" / "catalogue" / "catalog.csv", encoding="utf-8") as opened:
        photos = list(csv.DictReader(opened))
    assert len({photo["path"] for photo in photos}) == len(photos) == 64
    queries = {photo["sku"] for photo in photos if photo["split"] == "test"}
    learned = {photo["sku"] for photo in photos if photo["split"] == "train"}
    assert queries and not queries & learned and {f"gallery, {sku}" for sku in queries} <= learned
