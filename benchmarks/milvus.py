"""What a Milvus cluster costs and finds as a `MilvusIndex`: building, searching, filters, updates of others, deleting.

    python tests/milvus_server.py /tmp/milvus 19530 &       a real server of one machine, on port 19530 of 127.0.0.1
    python benchmarks/milvus.py --uri=http://127.0.0.1:19530

Drawn vectors in clusters, as those of products are; a tag with which a condition leaves half of them, a hundredth, or a
thousandth. Recall is that of the true 10 nearest, by comparing with all. The collection is dropped at the end.
"""

import os
import subprocess
import sys
import tempfile
import time

import numpy as np
from absl import app, flags
from tables import write_table

FLAGS = flags.FLAGS
flags.DEFINE_string("uri", "http://127.0.0.1:19530", "Of the server.")
flags.DEFINE_integer("rows", 100_000, "Vectors.", lower_bound=1000)
flags.DEFINE_integer("dim", 128, "Of each.", lower_bound=2)
flags.DEFINE_string("output_dir", "runs/milvus", "Where the table goes.")
_SHARES = (1.0, 0.5, 0.01, 0.001)
_ONE_BY_ONE = 200
# tells what another process has written: the time on this machine's clock, which all processes share
_WRITER = """
import sys, time
import numpy as np
from eet_tf.index import load_index
index = load_index(sys.argv[1])
vector = np.zeros((1, index.dim), np.float32)
vector[0, 0] = 1.0
index.upsert(vector, ["warm"], ["warm"], {"tag": [2.0]})
for number in range(20):
    sys.stdin.readline()
    index.upsert(vector, ["late"], [f"late-{number}"], {"tag": [3.0 + number]})
    print(time.time(), flush=True)
"""


def draw(count: int, dim: int, seed: int) -> np.ndarray:
    """Unit vectors around a square root of their number of centres, always the same centres."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(size=(round(FLAGS.rows**0.5), dim))
    vectors = centres[rng.integers(len(centres), size=count)] + 0.5 * rng.normal(size=(count, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def timed(function):
    """What it returns, and the seconds it took."""
    start = time.perf_counter()
    return function(), time.perf_counter() - start


def searched(index, queries, vectors, tag) -> list[str]:
    """A line for each share of the photos that a condition leaves."""
    lines = []
    for share in _SHARES:
        how = {"where": {"tag": {"max": share}}} if share < 1 else {}
        found, together = timed(lambda how=how: index.search(queries, k=10, **how))
        waits = [
            timed(lambda row=row, how=how: index.search(queries[row], k=10, **how))[1] for row in range(_ONE_BY_ONE)
        ]
        allowed = np.flatnonzero(tag <= share)
        scores = queries @ vectors[allowed].T
        true = allowed[np.argpartition(-scores, 9, axis=1)[:, :10]]
        hits = [len(set(map(int, ours)) & set(theirs)) for ours, theirs in zip(found.photos.tolist(), true.tolist())]
        p50, p99 = 1000 * np.percentile(waits, [50, 99])
        recall, rate = np.mean(hits) / 10, len(queries) / together
        lines.append(f"| {100 * share:g} % | {recall:.3f} | {p50:.1f} | {p99:.1f} | {rate:,.0f} |")
    return lines


def strongly(folder: str):
    """The same index as if it had been built with `consistency="strong"`."""
    from eet_tf.index import load_index

    path = os.path.join(folder, "manifest.json")
    with open(path, encoding="utf-8") as file:
        text = file.read()
    with open(path, "w", encoding="utf-8") as file:
        file.write(text.replace('"session"', '"strong"'))
    index = load_index(folder, read_only=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return index


def seen_after(index, folder) -> np.ndarray:
    """Seconds after which a search sees what another process was told is written."""
    query = np.zeros(index.dim, np.float32)
    query[0] = 1.0
    command, delays = [sys.executable, "-c", _WRITER, folder], []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        for number in range(20):
            writer.stdin.write("\n")
            writer.stdin.flush()
            told = float(writer.stdout.readline())
            while not index.search(query, k=1, where={"tag": 3.0 + number}).photos.size:
                pass
            delays.append(time.time() - told)
    return np.asarray(delays)


def main(argv):
    """Builds, measures, drops, writes the table."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown argument {argv[1]!r}; flags begin with --")
    import pymilvus

    from eet_tf.index import MilvusIndex, load_index

    vectors, queries = draw(FLAGS.rows, FLAGS.dim, 1), draw(1000, FLAGS.dim, 2)
    tag = np.random.default_rng(3).random(FLAGS.rows)
    rows = {"skus": [f"sku-{row // 3}" for row in range(FLAGS.rows)], "attributes": {"tag": tag}}
    index, building = timed(lambda: MilvusIndex.build(vectors, **rows, uri=FLAGS.uri))
    try:
        lines = [f"{FLAGS.rows:,} x {FLAGS.dim}, built and indexed in {building:.1f} s. By default (session):", ""]
        lines += ["| photos that the condition leaves | recall | p50 ms | p99 ms | queries/s, 1,000 at once |"]
        lines += ["|---|---|---|---|---|", *searched(index, queries, vectors, tag), ""]
        with tempfile.TemporaryDirectory() as folder:
            index.save(folder)
            strong = strongly(folder)
            waits = [timed(lambda: strong.search(queries[0], k=10))[1] for _ in range(20)]
            lines += [f"One search with consistency=strong: {1000 * np.median(waits):.0f} ms."]
            delays = seen_after(load_index(folder, read_only=True), folder)
            lines += [
                "What another process has written is seen by default after "
                f"{1000 * np.median(delays):.0f} ms in the middle, {1000 * delays.max():.0f} at most, of {len(delays)}."
            ]
            number = min(90_000, FLAGS.rows // 10 * 9)
            _, deleting = timed(lambda: index.delete(photos=[str(row) for row in range(number)]))
            lines += [f"{number:,} photos deleted by their ids in {deleting:.1f} s."]
    finally:
        pymilvus.MilvusClient(uri=FLAGS.uri, token=os.environ.get("MILVUS_TOKEN", "")).drop_collection(index.collection)
    write_table(FLAGS.output_dir, "\n".join(lines) + "\n")


if __name__ == "__main__":
    app.run(main)
