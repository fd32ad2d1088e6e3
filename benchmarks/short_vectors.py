"""What a prefix of an embedding keeps, and what a student of a quarter of its teacher's size loses.

    python benchmarks/short_vectors.py --data=DATA/grocery --flagfile_of_training=train/flagfiles/grocery.flags \
        --weights=MOBILENET_V2.h5 --more=pooling=gem,freeze_until=block_3_project_BN

Trains with `eet train`, as a user does: with the flag file and `--prefixes`; then the flag file's teacher with another
backbone, and its student. Every training is a folder in `--output_dir`: one that is finished is not trained again, one
that was killed goes on, one with other flags is refused. Writes `table.md`, of products that were never trained on.
"""

import json
import os
import subprocess
import sys

from absl import app, flags
from tables import write_table

FLAGS = flags.FLAGS
flags.DEFINE_string("data", None, "Where the photos are.", required=True)
flags.DEFINE_string("flagfile_of_training", None, "Flags of `eet train` that all trainings share.", required=True)
flags.DEFINE_string("weights", None, "Path of the backbones' weights; by default none.")
flags.DEFINE_list("prefixes", ["64", "512"], "Dimensions: those that are searched with, and all.")
flags.DEFINE_string("teacher", "mobilenet_v2", "Backbone of the teacher.")
flags.DEFINE_string("student", "mobilenet_v2_stride16", "Backbone of the student.")
flags.DEFINE_integer("image_size", 112, "Side of the photos in pixels, for all trainings.")
flags.DEFINE_integer("embedding_dim", 128, "Dimensions of teacher and student.")
flags.DEFINE_list("more", [], "Further flags of all trainings, name=value with commas between.")
flags.DEFINE_list("more_of_student", ["epochs=8"], "Further flags of the student, name=value with commas between.")
flags.DEFINE_string("output_dir", "runs/short_vectors", "Where trainings and table go.")


def trained(name: str, *own: str) -> dict:
    """The figures of a training with flags of its own; ends with what `eet train` says if it does not train."""
    folder = os.path.join(FLAGS.output_dir, name)
    command = [sys.executable, "-m", "eet_tf", "train", f"--flagfile={FLAGS.flagfile_of_training}"]
    command += [f"--data={FLAGS.data}", f"--image_size={FLAGS.image_size}", f"--model_dir={folder}", *own]
    command += [f"--weights={FLAGS.weights}"] if FLAGS.weights else []
    done = subprocess.run([*command, *(f"--{each}" for each in FLAGS.more)], text=True, stderr=subprocess.PIPE)
    if done.returncode:
        sys.exit(done.stderr)
    with open(os.path.join(folder, "metrics.json"), encoding="utf-8") as opened:
        return json.load(opened)


def parameters(name: str) -> int:
    """The size of an embedder that was trained."""
    import eet_tf

    return eet_tf.load_embedder(os.path.join(FLAGS.output_dir, name)).count_params()


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


def lines_of_student() -> list[str]:
    """R@1 among unseen products: the teacher's, the student's queries in its gallery, and the student alone."""
    dim = f"--embedding_dim={FLAGS.embedding_dim}"
    teacher = trained("teacher", f"--backbone={FLAGS.teacher}", dim)
    of_student = [f"--{each}" for each in FLAGS.more_of_student]
    given = f"--teacher={os.path.join(FLAGS.output_dir, 'teacher')}"
    student = trained("student", f"--backbone={FLAGS.student}", dim, given, "--loss=none", *of_student)
    sizes = [parameters(name) / 1e6 for name in ("teacher", "student")]
    rows = [
        (f"teacher, {FLAGS.teacher}", "teacher", sizes[0], teacher["after"]),
        (f"student, {FLAGS.student}", "teacher", sizes[1], student["teacher"]),
        (f"student, {FLAGS.student}", "student", sizes[1], student["after"]),
    ]
    lines = ["| queries by | gallery by | parameters, millions | R@1 among unseen products |", "|---|---|---|---|"]
    for queries, gallery, size, figures in rows:
        lines.append(f"| {queries} | {gallery} | {size:.2f} | {100 * figures['recall@1']:.1f} |")
    return lines


def main(argv):
    """Trains what is missing, and writes the tables."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown argument {argv[1]!r}; flags begin with --")
    write_table(FLAGS.output_dir, "\n".join([*lines_of_prefixes(), "", *lines_of_student()]) + "\n")


if __name__ == "__main__":
    app.run(main)
