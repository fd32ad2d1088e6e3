"""What a search costs: recall against queries per second, beside ScaNN itself and faiss, and what else a shop asks.

    python benchmarks/index.py --output_dir=runs/index
    python benchmarks/index.py --output_dir=runs/index_fashion --vectors_of=runs/fashion/index

A million drawn unit vectors of 128 numbers: categories, in them products, of each five photos; queries are further
photos. With --vectors_of the vectors of an index are repeated with noise instead. Each method runs in a process of its
own and is kept when done: the same command goes on. faiss is needed (`pip install faiss-cpu`) where it is compared
with. Writes `table.md` and `recall.png`.
"""

import json
import os
import subprocess
import sys
import time

import numpy as np
from absl import app, flags
from tables import write_table

from eet_tf.files import replaced

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

FLAGS = flags.FLAGS
METHODS = {
    "ours": "ScannIndex",
    "plain_scann": "ScaNN, same parameters",
    "faiss_hnsw": "faiss HNSW, M = 32",
    "faiss_ivf_pq": "faiss IVF-PQ fast scan, reordered",
}
STORAGES = ("float32", "bfloat16", "int8")
SHARES = (0.5, 0.05, 0.005, 0.0005)
K, NUM_QUERIES, PHOTOS_PER_PRODUCT, NUM_CATEGORIES = 10, 10_000, 5, 1_000
TARGET = 0.95

flags.DEFINE_list("methods", list(METHODS), "Which, with commas between.")
flags.DEFINE_integer("rows", 1_000_000, "Photos in the index.", lower_bound=1_000)
flags.DEFINE_integer("dim", 128, "Numbers of a vector.")
flags.DEFINE_string("vectors_of", None, "An index whose vectors are repeated with noise, instead of drawn ones.")
flags.DEFINE_integer("repeats", 3, "Timings of each; medians are shown.", lower_bound=1)
flags.DEFINE_string("output_dir", "runs/index", "Where measurements, the table and the plot go.")
flags.DEFINE_string("only", None, "For this tool's own use: measures one thing and prints it.")


def _path(*names: str) -> str:
    return os.path.join(FLAGS.output_dir, *names)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def draw() -> dict[str, np.ndarray]:
    """Vectors, queries, and the category of each vector."""
    rng = np.random.default_rng(0)
    if FLAGS.vectors_of:
        from eet_tf.index import load_index

        index = load_index(FLAGS.vectors_of, read_only=True)
        originals = index.embeddings
        # noise as large as the distance between photos of one product: cosines of about 0.85
        noise = np.float32(0.6 / np.sqrt(originals.shape[1]))
        rows = np.arange(FLAGS.rows) % len(originals)
        picked = rng.integers(len(originals), size=NUM_QUERIES)
        return {
            "vectors": _unit(originals[rows] + noise * rng.standard_normal((FLAGS.rows, originals.shape[1]), "f4")),
            "queries": _unit(originals[picked] + noise * rng.standard_normal((NUM_QUERIES, originals.shape[1]), "f4")),
            "categories": rows % NUM_CATEGORIES,
        }
    products = rng.integers(NUM_CATEGORIES, size=FLAGS.rows // PHOTOS_PER_PRODUCT)
    centres = rng.standard_normal((NUM_CATEGORIES, FLAGS.dim), "f4")[products]
    centres += np.float32(0.7) * rng.standard_normal(centres.shape, "f4")
    of_row, of_query = np.arange(FLAGS.rows) % len(centres), rng.integers(len(centres), size=NUM_QUERIES)
    vectors, queries = (
        _unit(centres[rows] + np.float32(0.5) * rng.standard_normal((len(rows), FLAGS.dim), "f4"))
        for rows in (of_row, of_query)
    )
    return {"vectors": vectors, "queries": queries, "categories": products[of_row]}


def prepare() -> None:
    """Writes the vectors and the true neighbours, once."""
    if os.path.exists(_path("data", "truth.npy")):
        return
    from eet_tf.index import ExactIndex

    os.makedirs(_path("data"), exist_ok=True)
    data = draw()
    for name, array in data.items():
        np.save(_path("data", f"{name}.npy"), array)
    index = ExactIndex.build(data["vectors"], range(len(data["vectors"])))
    np.save(_path("data", "truth.npy"), index.search(data["queries"], k=K).photos.astype(np.int32))


def _data(name: str) -> np.ndarray:
    return np.load(_path("data", f"{name}.npy"), mmap_mode="r")


def _recall(found: np.ndarray, true: np.ndarray) -> float:
    return float(np.mean((found[:, :, np.newaxis] == true[:, np.newaxis, :]).any(axis=1)))


def _timed(search, queries) -> tuple:
    """What it finds, and queries per second."""
    found, seconds = search(queries[:100]), []
    for _ in range(FLAGS.repeats):
        start = time.perf_counter()
        found = search(queries)
        seconds.append(time.perf_counter() - start)
    return found, len(queries) / float(np.median(seconds))


def _curve(settings, search_with, rows_of=lambda found: found) -> list[dict]:
    """Recall and speed of each setting; `search_with(setting)` gives what searches, `rows_of` reads its answer."""
    queries, truth, rows = np.asarray(_data("queries")), np.asarray(_data("truth")), []
    for setting in settings:
        found, speed = _timed(search_with(setting), queries)
        rows.append({"setting": setting, "recall": _recall(rows_of(found), truth), "queries_per_second": speed})
        print(rows[-1], file=sys.stderr)
    return rows


def _peak_mb() -> float:
    """Of this process alone; `ru_maxrss` begins with what its parent held."""
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 1024


def _settings() -> list[tuple[int, int]]:
    """(leaves searched, candidates) of ScaNN, from fast to thorough."""
    return [(3, 50), (5, 50), (8, 80), (12, 80), (20, 100), (30, 120), (50, 150), (80, 200), (120, 300)]


def measure_ours() -> dict:
    """ScannIndex in memory, then the promise."""
    from eet_tf.index import ScannConfiguration, ScannIndex

    vectors, start = _data("vectors"), time.perf_counter()
    num_leaves = ScannConfiguration.for_size(len(vectors)).num_leaves or round(np.sqrt(len(vectors)))
    index = ScannIndex.build(vectors, range(len(vectors)), configuration=ScannConfiguration(100, num_leaves, 20))
    built = time.perf_counter() - start
    searches = {
        setting: index.with_configuration(ScannConfiguration(setting[1], num_leaves, setting[0]))
        for setting in _settings()
    }
    curve = _curve(_settings(), lambda setting: lambda queries: searches[setting].search(queries, k=K), _numbers)
    return {"build_seconds": built, "peak_mb": _peak_mb(), "curve": curve}


def measure_plain_scann() -> dict:
    """ScaNN as its own example uses it, with what ScannIndex gives it."""
    from scann.scann_ops.py import scann_ops_pybind

    vectors, start = np.asarray(_data("vectors")), time.perf_counter()
    num_leaves = round(np.sqrt(len(vectors)))
    builder = scann_ops_pybind.builder(vectors, K, "dot_product").tree(num_leaves, 20, training_sample_size=100_000)
    searcher = builder.score_ah(2, 0.2, training_sample_size=100_000).reorder(100).build()
    built = time.perf_counter() - start

    def search_with(setting):
        options = {"leaves_to_search": setting[0], "pre_reorder_num_neighbors": setting[1]}
        return lambda queries: searcher.search_batched_parallel(queries, final_num_neighbors=K, **options)[0]

    return {"build_seconds": built, "peak_mb": _peak_mb(), "curve": _curve(_settings(), search_with)}


def _faiss():
    try:
        import faiss
    except ImportError as error:
        sys.exit(f"error: this method needs faiss: `pip install faiss-cpu`, or name other --methods. ({error})")
    return faiss


def measure_faiss_hnsw() -> dict:
    """The graph index that most people take first."""
    faiss = _faiss()
    vectors, start = np.asarray(_data("vectors")), time.perf_counter()
    index = faiss.IndexHNSWFlat(vectors.shape[1], 32, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = 100
    index.add(vectors)
    built = time.perf_counter() - start

    def search_with(setting):
        parameters = faiss.SearchParametersHNSW(efSearch=setting)
        return lambda queries: index.search(queries, K, params=parameters)[1]

    curve = _curve([10, 16, 24, 32, 48, 64, 96, 128, 192, 256], search_with)
    return {"build_seconds": built, "peak_mb": _peak_mb(), "curve": curve}


def measure_faiss_ivf_pq() -> dict:
    """The nearest thing to ScaNN in faiss: 4-bit codes looked up in registers, then exact comparison."""
    faiss = _faiss()
    vectors, start = np.asarray(_data("vectors")), time.perf_counter()
    num_leaves, dim = round(np.sqrt(len(vectors))), vectors.shape[1]
    index = faiss.index_factory(dim, f"IVF{num_leaves},PQ{dim // 2}x4fs,RFlat", faiss.METRIC_INNER_PRODUCT)
    index.train(vectors[:: max(1, len(vectors) // 100_000)])
    index.add(vectors)
    built = time.perf_counter() - start

    def search_with(setting):
        leaves, candidates = setting
        inner = faiss.SearchParametersIVF(nprobe=leaves)
        parameters = faiss.IndexRefineSearchParameters(k_factor=candidates / K, base_index_params=inner)
        return lambda queries: index.search(queries, K, params=parameters)[1]

    return {"build_seconds": built, "peak_mb": _peak_mb(), "curve": _curve(_settings(), search_with)}


def _skus(count: int) -> np.ndarray:
    return np.char.add("sku-", (np.arange(count) % max(1, count // PHOTOS_PER_PRODUCT)).astype(np.str_))


def measure_build(storage: str) -> dict:
    """Builds with a promise, as `build_index.py --target_recall` does, and saves."""
    from eet_tf.index import ScannIndex

    vectors = _data("vectors")
    attributes = {
        "category": np.char.add("category-", np.asarray(_data("categories")).astype(np.str_)),
        "spread": np.random.default_rng(1).random(len(vectors)),
    }
    photos = np.char.add("photos/", np.arange(len(vectors)).astype(np.str_))
    start = time.perf_counter()
    index = ScannIndex.build(vectors, _skus(len(vectors)), photos, attributes, storage=storage, target_recall=TARGET)
    built = time.perf_counter()
    index.save(_path(f"index_{storage}"))
    return {
        "build_seconds": built - start,
        "save_seconds": time.perf_counter() - built,
        "peak_mb": _peak_mb(),
        "configuration": str(index.configuration),
        "promised": index.recall["recall"],
    }


def measure_serve(storage: str) -> dict:
    """Loads in a fresh process, searches, filters, groups; float32 then takes updates."""
    from eet_tf.index import bytes_on_disk, load_index, scann

    scann._import_scann()  # is paid once by a server, whatever it loads
    start = time.perf_counter()
    index = load_index(_path(f"index_{storage}"))
    loaded = time.perf_counter() - start
    queries, truth = np.asarray(_data("queries")), np.asarray(_data("truth"))
    found, speed = _timed(lambda some: index.search(some, k=K), queries)
    result = {
        "load_seconds": loaded,
        "recall": _recall(_numbers(found), truth),
        "queries_per_second": speed,
        "peak_mb": _peak_mb(),
        "disk_mb": bytes_on_disk(_path(f"index_{storage}")) / 2**20,
    }
    alone = []
    for query in queries[:500]:
        start = time.perf_counter()
        index.search(query, k=K)
        alone.append(1000 * (time.perf_counter() - start))
    result["single_p50_ms"], result["single_p99_ms"] = np.percentile(alone, [50, 99]).tolist()
    if storage == "float32":
        result.update(filters=_filters(index, queries[:500]), updates=_updates(index, queries))
    return result


def _numbers(neighbors) -> np.ndarray:
    """Photos are strings; here they are numbers."""
    return np.char.replace(neighbors.photos, "photos/", "").astype(np.int32)


def _filters(index, queries) -> dict:
    """Recall and speed of filters of every width, against comparing with all that is allowed; and of products."""
    from eet_tf.index import ExactIndex

    spread, categories = np.random.default_rng(1).random(index.size), np.asarray(_data("categories"))
    cases = {f"{100 * share:g} %, spread evenly": ({"spread": {"max": share}}, spread <= share) for share in SHARES}
    several = [f"category-{number}" for number in range(NUM_CATEGORIES // 20)]
    cases["5 %, whole categories"] = ({"category": several}, categories < NUM_CATEGORIES // 20)
    rows = {}
    for name, (where, is_allowed) in cases.items():
        allowed = np.flatnonzero(is_allowed)
        exact = ExactIndex.build(np.asarray(_data("vectors"))[allowed], range(len(allowed)))
        true = allowed[exact.search(queries, k=K).photos.astype(np.int64)]
        found, speed = _timed(lambda some, where=where: index.search(some, k=K, where=where), queries)
        one_by_one = time.perf_counter()
        for query in queries[:50]:
            index.search(query, k=K, where=where)
        rows[name] = {
            "recall": _recall(_numbers(found), true),
            "queries_per_second": speed,
            "single_ms": 20 * (time.perf_counter() - one_by_one),
        }
    skus, speed = _timed(lambda some: index.search(some, k=K, group_by_sku=True).skus, queries)
    assert all(len(set(row)) == K for row in skus.tolist())  # noqa: S101
    rows["different products"] = {"recall": None, "queries_per_second": speed, "single_ms": None}
    return rows


def _updates(index, vectors) -> dict:
    """Acknowledged, that is on the disk: one photo at a time, and a hundred."""
    result = {}
    for size, calls in ((1, 300), (100, 50)):
        start = time.perf_counter()
        for call in range(calls):
            names = [f"new/{size}-{call}-{number}" for number in range(size)]
            some = vectors[np.arange(call * size, (call + 1) * size) % len(vectors)]
            index.upsert(some, names, names, {"category": ["new"] * size, "spread": [2.0] * size})
        result[f"upserts_per_second_{size}"] = size * calls / (time.perf_counter() - start)
    _, result["queries_per_second_after"] = _timed(lambda some: index.search(some, k=K), vectors)
    result["added"] = index.num_recent
    start = time.perf_counter()
    from eet_tf.index import load_index

    load_index(_path("index_float32"))
    result["load_seconds_after"] = time.perf_counter() - start
    return result


def measured(name: str) -> dict:
    """What one process measured, now or earlier."""
    kept = _path("measured", f"{name}.json")
    if not os.path.exists(kept):
        print(f"measuring {name}", file=sys.stderr, flush=True)
        done = subprocess.run(
            [sys.executable, *sys.argv, f"--only={name}"], stdout=subprocess.PIPE, text=True, check=False
        )
        if done.returncode:
            sys.exit(done.returncode)
        with replaced(kept) as aside, open(aside, "w", encoding="utf-8") as file:
            file.write(done.stdout.splitlines()[-1] + "\n")
    with open(kept, encoding="utf-8") as file:
        return json.load(file)


def _speed_at(curve: list[dict], target: float) -> float:
    """Queries per second of the fastest setting that finds as much."""
    return max((row["queries_per_second"] for row in curve if row["recall"] >= target), default=float("nan"))


def _table(curves: dict, builds: dict, serves: dict) -> str:
    lines = [f"| {K} of {FLAGS.rows:,} | queries/s at recall {TARGET} | best recall tried | build s | peak MB |"]
    lines += ["|---|---|---|---|---|"]
    for name, result in curves.items():
        best = max(row["recall"] for row in result["curve"])
        lines.append(
            f"| {METHODS[name]} | {_speed_at(result['curve'], TARGET):,.0f} | {best:.4f} | "
            f"{result['build_seconds']:.0f} | {result['peak_mb']:,.0f} |"
        )
    lines += ["", "| ours, promised 0.95 | recall | queries/s | one query, ms (p50, p99) | load s | disk MB |"]
    lines[-1] += " build s | peak MB building, serving |"
    lines += ["|---|---|---|---|---|---|---|---|"]
    for storage, serve in serves.items():
        build = builds[storage]
        peaks = f"{build['peak_mb']:,.0f}, {serve['peak_mb']:,.0f}"
        lines.append(
            f"| {storage} | {serve['recall']:.3f} | {serve['queries_per_second']:,.0f} | "
            f"{serve['single_p50_ms']:.2f}, {serve['single_p99_ms']:.2f} | {serve['load_seconds']:.2f} | "
            f"{serve['disk_mb']:,.0f} | {build['build_seconds']:.0f} | {peaks} |"
        )
    lines += ["", "| filter | recall | queries/s in batches | one query, ms |", "|---|---|---|---|"]
    for name, row in serves["float32"]["filters"].items():
        recall, single = (("-" if row[key] is None else f"{row[key]:.3f}") for key in ("recall", "single_ms"))
        lines.append(f"| {name} | {recall} | {row['queries_per_second']:,.0f} | {single} |")
    updates = serves["float32"]["updates"]
    lines += [
        "",
        f"Upserts per second, each on the disk: {updates['upserts_per_second_1']:,.0f} one by one, "
        f"{updates['upserts_per_second_100']:,.0f} in hundreds. With {updates['added']:,} photos added: "
        f"{updates['queries_per_second_after']:,.0f} queries/s, loaded in {updates['load_seconds_after']:.2f} s.",
    ]
    return "\n".join(lines) + "\n"


def _plot(curves: dict) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5))
    for name, result in curves.items():
        rows = sorted(result["curve"], key=lambda row: row["recall"])
        axes.plot([r["recall"] for r in rows], [r["queries_per_second"] for r in rows], marker="o", label=METHODS[name])
    axes.set(xlabel=f"recall@{K}", ylabel="queries per second, 2 cores", yscale="log")
    axes.axvline(TARGET, color="grey", linewidth=0.8)
    axes.legend()
    figure.tight_layout()
    figure.savefig(_path("recall.png"), dpi=130)


def main(argv):
    """Measures what is not measured yet, each in a process of its own, and writes the table and the plot."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown argument {argv[1]!r}; flags begin with --")
    if FLAGS.only:
        kind, _, storage = FLAGS.only.partition(":")
        measure = globals()[f"measure_{kind}"]
        print(json.dumps(measure(storage) if storage else measure()))
        return
    unknown = set(FLAGS.methods) - set(METHODS)
    if unknown:
        raise app.UsageError(f"--methods must be some of {', '.join(METHODS)}. Received: {', '.join(sorted(unknown))}.")
    prepare()
    curves = {name: measured(name) for name in FLAGS.methods}
    builds = {storage: measured(f"build:{storage}") for storage in STORAGES}
    serves = {storage: measured(f"serve:{storage}") for storage in STORAGES}
    write_table(FLAGS.output_dir, _table(curves, builds, serves))
    _plot(curves)


if __name__ == "__main__":
    app.run(main)
