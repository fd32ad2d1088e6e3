"""What a prefix of an embedding keeps, and what a student of a quarter of its teacher's size loses.

    python benchmarks/short_vectors.py --data=DATA/grocery --flagfile_of_training=train/flagfiles/grocery.flags \
        --weights=MOBILENET_V2.h5 --more=pooling=gem,freeze_until=block_3_project_BN

Trains with `eet train`, as a user does: with the flag file and `--prefixes`; then the flag file's teacher with another
backbone, and its student. Every training is a folder in `--output_dir`: one that is finished is not trained again, one
that was killed goes on, one with other flags is refused. Writes `table.md`, of products that were never trained on.

The student learns from the photos of an index: those that its teacher learned from, and a half of the photos of each
other product. It learns their vectors alone: `--loss=none` makes no use of products, which have other names here. The
other half are the queries; the gallery is all that the student learned from, as the teacher embeds it.
"""

import csv
import json
import os
import random
import subprocess
import sys

import numpy as np
from absl import app, flags
from tables import write_table

FLAGS = flags.FLAGS
_OF_GALLERY = "gallery, "  # before the names of products that the teacher did not learn
flags.DEFINE_string("data", None, "Where the photos are.", required=True)
flags.DEFINE_string("flagfile_of_training", None, "Flags of `eet train` that all trainings share.", required=True)
flags.DEFINE_string("weights", None, "Path of the backbones' weights; by default none.")
flags.DEFINE_list("prefixes", ["64", "512"], "Dimensions: those that are searched with, and all.")
flags.DEFINE_string("teacher", "mobilenet_v2", "Backbone of the teacher.")
flags.DEFINE_string("student", "mobilenet_v2_stride16", "Backbone of the student.")
flags.DEFINE_integer("image_size", 112, "Side of the photos in pixels, for all trainings.")
flags.DEFINE_integer("embedding_dim", 128, "Dimensions of teacher and student.")
flags.DEFINE_list("more", [], "Further flags of all trainings, name=value with commas between.")
flags.DEFINE_list(
    "more_of_student",
    ["epochs=10", "learning_rate=1e-3", "crop=0.8"],
    "Further flags of the student, name=value with commas between.",
)
flags.DEFINE_string("output_dir", "runs/short_vectors", "Where trainings and table go.")


def trained(name: str, *own: str, data: str | None = None) -> dict:
    """The figures of a training with flags of its own; ends with what `eet train` says if it does not train."""
    folder = os.path.join(FLAGS.output_dir, name)
    command = [sys.executable, "-m", "eet_tf", "train", f"--flagfile={FLAGS.flagfile_of_training}"]
    command += [f"--data={data or FLAGS.data}", f"--image_size={FLAGS.image_size}", f"--model_dir={folder}", *own]
    command += [f"--weights={FLAGS.weights}"] if FLAGS.weights else []
    done = subprocess.run([*command, *(f"--{each}" for each in FLAGS.more)], text=True, stderr=subprocess.PIPE)
    if done.returncode:
        sys.exit(done.stderr)
    with open(os.path.join(folder, "metrics.json"), encoding="utf-8") as opened:
        return json.load(opened)


def lines_of_prefixes() -> list[str]:
    """R@1 of each prefix, and what it is of that of all dimensions."""
    given = f"--prefixes={','.join(FLAGS.prefixes)}"
    figures = trained("prefixes", given, f"--embedding_dim={FLAGS.prefixes[-1]}")
    whole, own = figures["whole_catalogue"]["prefixes"], figures["prefixes"]
    lines = [
        "| dimensions | R@1 in the whole catalogue | of that of all | R@1 among unseen products | of that of all |"
    ]
    lines.append("|---|---|---|---|---|")
    for length in FLAGS.prefixes:
        cells = []
        for each in (whole, own):
            found = each[length]["recall@1"]
            cells += [f"{100 * found:.1f}", f"{100 * found / each[FLAGS.prefixes[-1]]['recall@1']:.1f} %"]
        lines.append(f"| {' | '.join([length, *cells])} |")
    return lines


def write_catalog() -> str:
    """The folder of a catalogue for the student: what it learns from is `train`, the queries are `test`."""
    from eet_tf.data import load_dataset

    catalog = load_dataset("auto", FLAGS.data)
    unseen: dict[str, list[str]] = {}
    rows = []
    for path, sku, split in zip(catalog.paths, catalog.skus, catalog.splits):
        path = os.path.abspath(os.path.join(catalog.root, path))
        if split == "test":
            unseen.setdefault(sku, []).append(path)
        else:
            rows.append((path, sku, "train"))
    shuffle = random.Random(0).shuffle
    for sku, paths in unseen.items():
        shuffle(paths)
        rows += [(path, f"{_OF_GALLERY}{sku}", "train") for path in paths[::2]]
        rows += [(path, sku, "test") for path in paths[1::2]]
    folder = os.path.join(FLAGS.output_dir, "catalogue")
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "catalog.csv"), "w", encoding="utf-8", newline="") as opened:
        csv.writer(opened).writerows([("path", "sku", "split"), *rows])
    return folder


def figures(folder: str) -> list[tuple[str, str, float, float, float]]:
    """(queries by, gallery by, millions of parameters, R@1 in all of the gallery, R@1 in its unseen products)."""
    import eet_tf
    from eet_tf.data import gallery_dataset, load_csv
    from eet_tf.embedder import photo_fit
    from eet_tf.evaluation.callback import embed

    catalog = load_csv(folder)
    is_query = catalog.splits == "test"
    skus = np.array([sku.removeprefix(_OF_GALLERY) for sku in catalog.skus])
    galleries = ~is_query, np.array([sku.startswith(_OF_GALLERY) for sku in catalog.skus])
    vectors, sizes = {}, {}
    for name in ("teacher", "student"):
        embedder = eet_tf.load_embedder(os.path.join(FLAGS.output_dir, name))
        photos = gallery_dataset(catalog, FLAGS.image_size, fit=photo_fit(embedder))
        vectors[name], sizes[name] = embed(embedder, photos), embedder.count_params() / 1e6
    rows = []
    for queries, gallery in (("teacher", "teacher"), ("student", "teacher"), ("student", "student")):
        found = [
            eet_tf.evaluate_retrieval(
                vectors[queries][is_query], skus[is_query], [1], vectors[gallery][each], skus[each]
            )["recall@1"]
            for each in galleries
        ]
        rows.append((queries, gallery, sizes[queries], *found))
    return rows


def lines_of_student() -> list[str]:
    """R@1 of unseen products: the teacher's, the student's queries in its gallery, and the student alone."""
    dim = f"--embedding_dim={FLAGS.embedding_dim}"
    trained("teacher", f"--backbone={FLAGS.teacher}", dim)
    of_student = [f"--{each}" for each in FLAGS.more_of_student]
    given = f"--teacher={os.path.join(FLAGS.output_dir, 'teacher')}"
    folder = write_catalog()
    trained("student", f"--backbone={FLAGS.student}", dim, given, "--loss=none", *of_student, data=folder)
    lines = [
        "| queries by | gallery by | parameters, millions | R@1 in the whole gallery | R@1 among unseen products |",
        "|---|---|---|---|---|",
    ]
    backbones = {"teacher": FLAGS.teacher, "student": FLAGS.student}
    for queries, gallery, size, whole, own in figures(folder):
        cells = [f"{queries}, {backbones[queries]}", gallery, f"{size:.2f}", f"{100 * whole:.1f}", f"{100 * own:.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main(argv):
    """Trains what is missing, and writes the tables."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown argument {argv[1]!r}; flags begin with --")
    write_table(FLAGS.output_dir, "\n".join([*lines_of_prefixes(), "", *lines_of_student()]) + "\n")


if __name__ == "__main__":
    app.run(main)
