"""What candidates by a prefix save: queries per second and memory at a promised recall, with and without.

    python benchmarks/prefix_index.py --output_dir=runs/prefix_index

200,000 drawn unit vectors of 512 numbers of a Matryoshka kind: leading dimensions vary more than those behind them, and
products have five photos each. Queries are further photos of them. Each index is built, and then loaded and searched,
in a process of its own. Writes `table.md`.
"""

import json
import os
import subprocess
import sys
import tempfile
import time

import numpy as np
from absl import app, flags
from tables import write_table

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

FLAGS = flags.FLAGS
K, NUM_QUERIES, PHOTOS_PER_PRODUCT, NOISE = 10, 5_000, 5, 0.5

flags.DEFINE_integer("rows", 200_000, "Photos in the index.", lower_bound=20_000)
flags.DEFINE_integer("dim", 512, "Numbers of a vector.", lower_bound=2)
flags.DEFINE_list("prefixes", ["0", "32", "64", "128"], "Dimensions that find candidates; 0 for all.")
flags.DEFINE_list("storages", ["float32", "int8"], "How vectors are kept.")
flags.DEFINE_float("target_recall", 0.95, "Recall that is promised.")
flags.DEFINE_string("output_dir", "runs/prefix_index", "Where the table goes.")
flags.DEFINE_string("only", None, "For this tool's own use: builds or serves one index and prints what was measured.")


def draw(count: int, seed: int) -> np.ndarray:
    """Photos of products; the variance of dimension d falls as 1 / (1 + d / 16)."""
    num_products = FLAGS.rows // PHOTOS_PER_PRODUCT
    centres = np.random.default_rng(0).standard_normal((num_products, FLAGS.dim), np.float32)
    rng = np.random.default_rng(seed)
    vectors = centres[rng.integers(num_products, size=count)]
    vectors += NOISE * rng.standard_normal(vectors.shape, np.float32)
    vectors *= (1 + np.arange(FLAGS.dim, dtype=np.float32) / 16) ** -0.5
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _peak_mb() -> float:
    """The largest memory that was this process's own, without files that are mapped."""
    with open("/proc/self/status", encoding="utf-8") as file:
        facts = dict(line.split(":", 1) for line in file)
    return int(facts["RssAnon"].split()[0]) / 1024


def build(folder: str, prefix: int, storage: str) -> dict:
    """Builds and saves an index."""
    from eet_tf.index import ScannIndex

    vectors, start = draw(FLAGS.rows, 1), time.perf_counter()
    how = {"storage": storage, "target_recall": FLAGS.target_recall, "search_prefix": prefix or None}
    index = ScannIndex.build(vectors, np.arange(FLAGS.rows) // PHOTOS_PER_PRODUCT, **how)
    seconds = time.perf_counter() - start
    index.save(folder)
    disk = sum(os.path.getsize(os.path.join(top, name)) for top, _, names in os.walk(folder) for name in names)
    return {"build_seconds": seconds, "disk_mb": disk / 2**20, "configuration": str(index.configuration)}


def serve(folder: str) -> dict:
    """Loads an index, searches, and compares with the exact answers."""
    from eet_tf.index import load_index
    from eet_tf.index.search import exact_top_k

    queries = draw(NUM_QUERIES, 2)
    before, index = _peak_mb(), load_index(folder, read_only=True)
    found, seconds = None, []
    for _ in range(3):
        start = time.perf_counter()
        found = index.search(queries, K)
        seconds.append(time.perf_counter() - start)
    memory = _peak_mb() - before
    some = slice(0, 500)
    true, _ = exact_top_k(index._snapshot.rows.base.vectors, queries[some], K)
    hits = [len(set(map(int, ours)) & set(theirs.tolist())) / K for ours, theirs in zip(found.photos[some], true)]
    return {"recall": float(np.mean(hits)), "queries_per_second": NUM_QUERIES / np.median(seconds), "memory_mb": memory}


def _in_its_own_process(task: str) -> dict:
    command = [sys.executable, __file__, *sys.argv[1:], f"--only={task}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def main(argv):
    """Measures each prefix with each storage, and writes the table."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown argument {argv[1]!r}; flags begin with --")
    if FLAGS.only:
        task, prefix, storage, folder = FLAGS.only.split(":")
        print(json.dumps(build(folder, int(prefix), storage) if task == "build" else serve(folder)))
        return
    lines = [f"| candidates of {FLAGS.rows:,} x {FLAGS.dim} by | recall@{K} | queries/s | own memory MB | disk MB |"]
    lines[0] += " build s | configuration |"
    lines.append("|---|---|---|---|---|---|---|")
    for storage in FLAGS.storages:
        for prefix in FLAGS.prefixes:
            with tempfile.TemporaryDirectory() as folder:
                built = _in_its_own_process(f"build:{prefix}:{storage}:{folder}")
                served = _in_its_own_process(f"serve:{prefix}:{storage}:{folder}")
            name = f"the first {prefix}" if int(prefix) else "all dimensions"
            lines.append(
                f"| {name}, {storage} | {served['recall']:.3f} | {served['queries_per_second']:,.0f} | "
                f"{served['memory_mb']:,.0f} | {built['disk_mb']:,.0f} | {built['build_seconds']:.0f} | "
                f"{built['configuration']} |"
            )
            print(lines[-1], flush=True)
    os.makedirs(FLAGS.output_dir, exist_ok=True)
    write_table(FLAGS.output_dir, "\n".join(lines) + "\n")


if __name__ == "__main__":
    app.run(main)
