"""What measuring retrieval costs: every photo of a catalogue among all the others, time and memory over the embeddings.

    python benchmarks/evaluation.py  # SOP's size: 60,502 photos, 512 dimensions
    python benchmarks/evaluation.py --catalogs=products --peers=  # without faiss
    python benchmarks/evaluation.py --tensorflow --peers=  # on a GPU

The embeddings are drawn. Each measurement runs in a process of its own, in which `rank_queries`, or faiss's exact index
asked for 1,000 others, stands next to the bare product: blocks of the same embeddings against all of them, into one
buffer, nothing looked at. faiss comes with `pip install faiss-cpu`; it gives R@K up to its k, neither mAP@R of larger
classes nor places of ties against us.
"""

import importlib.util
import json
import subprocess
import sys
import time

from absl import app, flags
from tables import write_table

FLAGS = flags.FLAGS
BLOCK_ROWS, FAISS_K = 256, 1000
# name: what it is in the table
CATALOGS = {
    "products": "2 to 9 photos of each product",
    "narrow": "the same, all cosines above 0.9, as of an untrained net",
    "large": "10 classes of 6,000",
    "point": "the same, all on nearly one point, as of a collapsed net",
}
PEERS = {"faiss": f"faiss, exact, k = {FAISS_K:,}"}

flags.DEFINE_list("catalogs", list(CATALOGS), "Which, with commas between.")
flags.DEFINE_list("peers", list(PEERS), "What to measure beside ours, on the first of the catalogues; empty: nothing.")
flags.DEFINE_integer("photos", 60_502, "Photos.", lower_bound=100)
flags.DEFINE_integer("dim", 512, "Length of an embedding.", lower_bound=2)
flags.DEFINE_integer("repeats", 1, "Timings of each; the table holds the shortest.", lower_bound=1)
flags.DEFINE_bool("tensorflow", False, "Import TensorFlow first, so that a GPU does the work where there is one.")
flags.DEFINE_string("output_dir", "runs/evaluation", "Where the table goes.")
flags.DEFINE_string("only", None, "WHAT:CATALOG, for this tool's own use: measures one and prints it.")


def draw(catalog: str):
    """`(embeddings, labels)`: a few directions carry most of the variance, as in a trained net's."""
    import numpy as np

    rng = np.random.default_rng(0)
    sizes = np.full(10, FLAGS.photos // 10 + 1) if catalog == "large" else rng.integers(2, 10, size=FLAGS.photos)
    labels = rng.permutation(np.repeat(np.arange(len(sizes)), sizes)[: FLAGS.photos])
    scales = ((np.arange(FLAGS.dim) + 10.0) ** -0.5).astype(np.float32)
    centres = rng.normal(size=[labels.max() + 1, FLAGS.dim]).astype(np.float32)
    embeddings = scales * (centres[labels] + 1.6 * rng.standard_normal([FLAGS.photos, FLAGS.dim], np.float32))
    if catalog in ("narrow", "point"):
        embeddings *= {"narrow": 0.2, "point": 1e-4}[catalog] / np.linalg.norm(embeddings, axis=1, keepdims=True)
        embeddings[:, 0] += 1
    return embeddings, labels


def product(embeddings) -> None:
    """The product that nothing exact can do without."""
    import numpy as np

    scores = np.empty([BLOCK_ROWS, len(embeddings)], np.float32)
    for start in range(0, len(embeddings), BLOCK_ROWS):
        block = embeddings[start : start + BLOCK_ROWS]
        np.matmul(block, embeddings.T, out=scores[: len(block)])


def by_ours(embeddings, labels) -> float:
    """R@1."""
    from eet_tf.evaluation.metrics import rank_queries

    return rank_queries(embeddings, labels).summary([1, 10, 100, FAISS_K])["recall@1"]


def by_faiss(embeddings, labels) -> float:
    """R@1, from which R@K for K up to 1,000 could be had: the place of the first right answer among the nearest."""
    import faiss
    import numpy as np

    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    index = faiss.IndexFlatIP(unit.shape[1])
    index.add(unit)
    _, rows = index.search(unit, min(FAISS_K + 1, len(unit)))  # one is the photo itself
    first_places = np.zeros(len(rows), np.int64)
    is_answered = np.bincount(labels)[labels] > 1
    for query, found in enumerate(rows):
        is_right = labels[found[found != query]] == labels[query]
        first_places[query] = np.argmax(is_right) + 1 if is_right.any() else FAISS_K + 1
    return float(np.mean(first_places[is_answered] == 1))


def measure(what: str, catalog: str) -> dict:
    """Seconds of one way and of the product, megabytes over the embeddings, and R@1."""
    from memory import PeakMemory

    if FLAGS.tensorflow:
        importlib.import_module("tensorflow")
    call = {"ours": by_ours, "faiss": by_faiss}[what]
    embeddings, labels = draw(catalog)
    call(embeddings[:2000], labels[:2000] % 99)
    with PeakMemory() as memory:
        recall = call(embeddings, labels)
    seconds = {"product": [], what: []}
    for _ in range(FLAGS.repeats):
        for name, timed in (("product", lambda: product(embeddings)), (what, lambda: call(embeddings, labels))):
            started = time.perf_counter()
            timed()
            seconds[name].append(time.perf_counter() - started)
    return {
        "seconds": min(seconds[what]),
        "product_seconds": min(seconds["product"]),
        "megabytes": memory.megabytes,
        "recall@1": recall,
    }


def as_markdown(found: dict) -> str:
    """The table."""
    text = f"{FLAGS.photos:,} photos, {FLAGS.dim} dimensions.\n\n| | s | bare product, s | ratio | MB | R@1 |\n"
    text += "|---|---|---|---|---|---|\n"
    for (what, catalog), row in found.items():
        name = CATALOGS[catalog] if what == "ours" else f"{PEERS[what]}: {CATALOGS[catalog]}"
        ratio = row["seconds"] / row["product_seconds"]
        text += f"| {name} | {row['seconds']:.1f} | {row['product_seconds']:.1f} | {ratio:.2f} "
        text += f"| {row['megabytes']:,.0f} | {100 * row['recall@1']:.1f} % |\n"
    return text


def main(argv):
    """Measures one, or all and writes the table."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown argument {argv[1]!r}; flags begin with --")
    if FLAGS.only:
        print(json.dumps(measure(*FLAGS.only.split(":"))))
        return 0
    peers = [name for name in FLAGS.peers if name]
    unknown = sorted({*FLAGS.catalogs, *peers} - {*CATALOGS, *PEERS})
    if unknown:
        sys.exit(f"error: known are {', '.join([*CATALOGS, *PEERS])}. Received: {', '.join(unknown)}.")
    if "faiss" in peers and not importlib.util.find_spec("faiss"):
        sys.exit("error: --peers=faiss needs faiss: pip install faiss-cpu, or give --peers= to do without.")
    found = {}
    for what, catalog in [*[("ours", each) for each in FLAGS.catalogs], *[(peer, FLAGS.catalogs[0]) for peer in peers]]:
        print(f"{what}, {CATALOGS[catalog]}", flush=True)
        command = [sys.executable, *sys.argv, f"--only={what}:{catalog}"]
        printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        found[what, catalog] = json.loads(printed.splitlines()[-1])
    write_table(FLAGS.output_dir, as_markdown(found))
    return 0


if __name__ == "__main__":
    app.run(main)
