"""What query expansion, whitening and re-ranking add to trained embeddings of real photos, and what they cost.

    RECIPE="--recipe=fashion --methods=eet --data_dir=DATA/fashion --weights=MOBILENET_V2.h5 --notuned"
    python benchmarks/methods.py $RECIPE --keep_embeddings --output_dir=runs/expanded
    python benchmarks/methods.py $RECIPE --keep_embeddings --output_dir=runs/expanded_held_out --seeds=1 \
        --measure_on=held_out
    python benchmarks/postprocessing.py --runs=runs/expanded --held_out=runs/expanded_held_out

Settings are chosen among `CHOICES` by mAP@R on the held-out products, which no figure comes from. Whitening is fitted
to the photos that were trained on. Writes `postprocessing.md` into the folder of the runs.
"""

import glob
import os
import sys
import time

from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_string("runs", None, "What methods.py wrote, with --keep_embeddings.", required=True)
flags.DEFINE_string("held_out", None, "The same with --measure_on=held_out: settings are chosen there.", required=True)
NAMES = {"plain": "as they are", "expansion": "alpha-QE", "whitening": "PCA whitening", "rerank": "k-reciprocal"}
CHOICES = {
    "plain": [{}],
    "expansion": [{"num_neighbors": number, "alpha": 3.0} for number in (1, 2, 5, 10)],
    "whitening": [{"dim": dim} for dim in (32, 64, 128, 256, 512)],
    "rerank": [{"k1": 20, "k2": 6}, {"k1": 10, "k2": 3}, {"k1": 5, "k2": 2}, {"k1": 5, "k2": 1}],
}
KS = (1, 10)


def read(folder: str) -> list[dict]:
    """The embeddings of each run."""
    import numpy as np

    files = sorted(glob.glob(os.path.join(folder, "*.npz")))
    if not files:
        sys.exit(f"error: {folder!r} must hold runs of methods.py with --keep_embeddings. Received: none.")
    runs = []
    for file in files:
        with np.load(file) as arrays:
            runs.append(dict(arrays))
    return runs


def ranked(what: str, settings: dict, run: dict):
    """The result with one kind of post-processing, and how many seconds that took beyond a plain ranking."""
    import numpy as np

    from eet_tf.evaluation import metrics, postprocessing

    vectors, labels = run["embeddings"], np.unique(run["skus"], return_inverse=True)[1]
    queries, start = vectors, time.perf_counter()
    if what == "expansion":
        queries = postprocessing.expand_queries(vectors, **settings)
    elif what == "whitening":
        queries = vectors = postprocessing.fit_whitening(run["learned"], **settings).apply(vectors)
    elif what == "rerank":
        found = postprocessing.rerank(vectors, **settings)
    seconds = time.perf_counter() - start
    result = metrics.rank_queries(queries, labels, vectors, labels, leave_out_self=True)
    if what == "rerank":
        result = metrics.reorder(result, *found, labels, leave_out_self=True)
    return result, seconds


def chosen(what: str, runs: list[dict]) -> dict:
    """The settings with the highest mAP@R on the held-out products."""

    def quality(settings: dict) -> float:
        return sum(ranked(what, settings, run)[0].summary(KS)["map@r"] for run in runs)

    dim = runs[0]["embeddings"].shape[1]
    return max((settings for settings in CHOICES[what] if settings.get("dim", 0) <= dim), key=quality)


def table(runs: list[dict], held_out: list[dict]) -> str:
    """In percent, with what each gains over the embeddings as they are."""
    import numpy as np

    from eet_tf.evaluation.comparison import ClassResults, compare

    lines = [
        f"{len(runs)} runs, {len(runs[0]['embeddings']):,} photos; gains with the 95 % interval of a paired bootstrap "
        "over products.",
        "",
        "| | settings, chosen on held-out products | R@1 | R@10 | mAP@R | gain in R@1 | gain in mAP@R | s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    plain = None
    for what, name in NAMES.items():
        settings = chosen(what, held_out)
        ranks, seconds = zip(*(ranked(what, settings, run) for run in runs))
        results = [ClassResults.of(rank, KS, np.unique(run["skus"])) for rank, run in zip(ranks, runs)]
        plain = plain or results
        gains = ["", ""] if what == "plain" else [_gain(compare(plain, results, m)) for m in ("recall@1", "map@r")]
        shares = [100 * np.mean([one.mean(m) for one in results]) for m in ("recall@1", "recall@10", "map@r")]
        told = ", ".join(f"{key} {value:g}" for key, value in settings.items())
        figures = [*(f"{share:.1f}" for share in shares), *gains, f"{min(seconds):.1f}"]
        lines.append(f"| {name} | {told} | {' | '.join(figures)} |")
    return "\n".join(lines) + "\n"


def _gain(comparison) -> str:
    text = f"{100 * comparison.difference:+.1f} ({100 * comparison.low:+.1f} to {100 * comparison.high:+.1f})"
    return f"**{text}**" if comparison.is_different else text


def main(argv):
    """Chooses, measures and writes the table."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown argument {argv[1]!r}; flags begin with --")
    text = table(read(FLAGS.runs), read(FLAGS.held_out))
    with open(os.path.join(FLAGS.runs, "postprocessing.md"), "w", encoding="utf-8") as file:
        file.write(text)
    print(text)


if __name__ == "__main__":
    app.run(main)
