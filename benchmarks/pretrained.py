"""What pretrained features find without any training, and what whitening adds to them.

    python benchmarks/pretrained.py --data_dir=DATA/fashion --weights=MOBILENET_V2.h5
    python benchmarks/pretrained.py --data_dir=DATA/grocery --dataset=csv --weights=MOBILENET_V2.h5

The number of dimensions is chosen on the training products: whitening is learnt from the photos of every other one and
measured on the rest. Then it is learnt from all of them, and the figures are of the test products, whose photos are
searched among all others of them. Writes `table.md` into `--output_dir`.
"""

import os

from absl import app, flags

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

FLAGS = flags.FLAGS
flags.DEFINE_string("data_dir", None, "Where the photos are, with splits train and test.", required=True)
flags.DEFINE_string("dataset", "sop", "Layout of the photos.")
flags.DEFINE_string("backbone", "mobilenet_v2_stride16", "Backbone, as eet export takes it.")
flags.DEFINE_string("weights", None, "Path of its weights.")
flags.DEFINE_string("pixel_scaling", None, "Scaling of pixels, for a backbone of your own.")
flags.DEFINE_list("poolings", ["gem", "avg"], "Poolings to try.")
flags.DEFINE_integer("image_size", 96, "Side of the photos in pixels.")
flags.DEFINE_list("dims", ["16", "32", "64", "128", "256", "512"], "Dimensions to choose from.")
flags.DEFINE_string("output_dir", "runs/pretrained", "Folder of the table.")
KS = (1, 10)


def vectors(pooling: str, catalogs):
    """Features of each catalogue's photos."""
    import eet_tf
    from eet_tf import data
    from eet_tf.evaluation.callback import embed

    embedder = eet_tf.build_embedder(
        FLAGS.backbone,
        None,
        FLAGS.image_size,
        FLAGS.weights,
        pooling,
        pixel_scaling=FLAGS.pixel_scaling,
    )
    return [embed(embedder, data.gallery_dataset(catalog, FLAGS.image_size)) for catalog in catalogs]


def ranking(embeddings, skus):
    """Each photo searched among all the others."""
    import numpy as np

    from eet_tf.evaluation import metrics

    labels = np.unique(skus, return_inverse=True)[1]
    return metrics.rank_queries(embeddings, labels, embeddings, labels, leave_out_self=True)


def choose_dim(embeddings, skus) -> tuple[int, dict[int, float]]:
    """The dimensions with the highest R@1 on every other training product, and the R@1 of each."""
    import numpy as np

    from eet_tf.evaluation.postprocessing import fit_whitening

    is_measured = np.unique(skus, return_inverse=True)[1] % 2 == 1
    learnt, measured = embeddings[~is_measured], embeddings[is_measured]
    found = {0: ranking(measured, skus[is_measured]).summary(KS)["recall@1"]}
    for dim in map(int, FLAGS.dims):
        if dim <= embeddings.shape[1]:
            whitened = fit_whitening(learnt, dim).apply(measured)
            found[dim] = ranking(whitened, skus[is_measured]).summary(KS)["recall@1"]
    return max(list(found)[1:], key=lambda dim: found[dim]), found


def table() -> str:
    """In percent, with what whitening gains."""
    import numpy as np

    from eet_tf import data
    from eet_tf.evaluation.comparison import ClassResults, compare
    from eet_tf.evaluation.postprocessing import fit_whitening

    catalog = data.load_dataset(FLAGS.dataset, FLAGS.data_dir)
    train, test = catalog.split("train"), catalog.split("test")
    lines = [
        f"{FLAGS.backbone}, {FLAGS.image_size} px, no training; {len(test):,} photos of {test.num_classes:,} test "
        "products; gains with the 95 % interval of a paired bootstrap over products.",
        "",
        "| pooling | | D | R@1 | R@10 | mAP@R | gain in R@1 |",
        "|---|---|---|---|---|---|---|",
    ]
    for pooling in FLAGS.poolings:
        learnt, measured = vectors(pooling, (train, test))
        dim, tried = choose_dim(learnt, train.skus)
        print(pooling, "R@1 on every other training product by dimensions (0: as they are):", tried, flush=True)
        plain = None
        for name, found in (("as they are", measured), ("whitened", fit_whitening(learnt, dim).apply(measured))):
            rank = ranking(found, test.skus)
            results = [ClassResults.of(rank, KS, np.unique(test.skus))]
            plain = plain or results
            gain = "" if plain is results else _gain(compare(plain, results, "recall@1"))
            shares = " | ".join(f"{100 * rank.summary(KS)[m]:.1f}" for m in ("recall@1", "recall@10", "map@r"))
            lines.append(f"| {pooling} | {name} | {found.shape[1]} | {shares} | {gain} |")
    return "\n".join(lines) + "\n"


def _gain(comparison) -> str:
    return f"{100 * comparison.difference:+.1f} ({100 * comparison.low:+.1f} to {100 * comparison.high:+.1f})"


def main(argv):
    """Chooses, measures and writes the table."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown argument {argv[1]!r}; flags begin with --")
    from tables import write_table

    write_table(FLAGS.output_dir, table())


if __name__ == "__main__":
    app.run(main)
