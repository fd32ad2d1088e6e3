"""What a list of a million photos costs to load: seconds, and the most memory the process ever had.

    python benchmarks/catalog.py
    python benchmarks/catalog.py --rows=100000

It writes a CSV of that many photos with six attribute columns, of which one cell is very long, and loads it in a
process of its own. The photos are 1,000 files, seen through as many folders as are needed, so that every path is
another one.
"""

import csv
import json
import os
import resource
import subprocess
import sys
import tempfile
import time

from absl import app, flags

FLAGS = flags.FLAGS
FILES = 1000
flags.DEFINE_integer("rows", 1_000_000, "Photos in the list.", lower_bound=FILES)
flags.DEFINE_string("only", None, "FOLDER, for this tool's own use: loads it and prints what that cost.")


def write_list(folder: str, rows: int) -> None:
    """A list of `rows` photos of a fifth as many products."""
    os.mkdir(os.path.join(folder, "photos"))
    for number in range(FILES):
        with open(os.path.join(folder, "photos", f"{number:04d}.jpg"), "wb") as file:
            file.write(b"x")
    for number in range(-(-rows // FILES)):
        os.symlink("photos", os.path.join(folder, f"part{number:05d}"))
    with open(os.path.join(folder, "catalog.csv"), "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "sku", "category", "split", "colour", "brand", "price", "size", "vendor_id", "text"])
        for row in range(rows):
            part = "train" if row < rows // 10 * 9 else "test"
            product = row // 5
            cells = [f"colour{product % 20}", f"brand{product % 3000}", f"{product % 900}.90", f"{product % 40}"]
            text = "x" * 60_000 if row == 5 else f"text {row % 1000}"
            path = f"part{row // FILES:05d}/{row % FILES:04d}.jpg"
            writer.writerow([path, f"sku-{product:07d}", f"category{product % 30}", part, *cells, 10**15 + row, text])


def load(folder: str) -> dict[str, float]:
    """Loads the list and takes its parts; what that cost."""
    from eet_tf import data

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.monotonic()
    catalog = data.load_csv(folder)
    loaded = time.monotonic() - started
    data.parts_of(catalog)
    seconds = time.monotonic() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"load": loaded, "parts": seconds - loaded, "peak_mb": peak / 1024, "before_mb": before / 1024}


def main(argv):
    """Writes, loads, prints."""
    if FLAGS.only:
        print(json.dumps(load(FLAGS.only)))
        return
    with tempfile.TemporaryDirectory() as folder:
        write_list(folder, FLAGS.rows)
        done = subprocess.run([sys.executable, argv[0], f"--only={folder}"], capture_output=True, text=True, check=True)
        size = os.path.getsize(os.path.join(folder, "catalog.csv")) / 2**20
    cost = json.loads(done.stdout)
    print(
        f"{FLAGS.rows:,} photos, a list of {size:,.0f} MB: loaded in {cost['load']:.1f} s, its parts taken in "
        f"{cost['parts']:.1f} s, at most {cost['peak_mb']:,.0f} MB in the process ({cost['before_mb']:,.0f} MB before)."
    )


if __name__ == "__main__":
    app.run(main)
