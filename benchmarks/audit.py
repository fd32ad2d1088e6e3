"""Which copies an audit finds: photos are changed on purpose, and looked for among all the others.

python benchmarks/audit.py --dataset=sop --data_dir=DATA/fashion --output_dir=runs/audit
"""

import os
import tempfile
import time

import numpy as np
from absl import app, flags
from PIL import Image, ImageEnhance
from tables import write_table

from eet_tf.audit.duplicates import TOLERANCE, near_groups
from eet_tf.audit.prints import PhotoPrints, read_prints
from eet_tf.data import load_dataset

FLAGS = flags.FLAGS
flags.DEFINE_string("dataset", "synthetic", "Layout of the photos, as in train/main.py.")
flags.DEFINE_string("data_dir", None, "Where they are; synthetic: where they are drawn to.")
flags.DEFINE_integer("photos", 200, "How many are changed, in each way.", lower_bound=1)
flags.DEFINE_float("near", TOLERANCE, "Largest difference in colour between near copies, of 255.", lower_bound=0.0)
flags.DEFINE_string("output_dir", "runs/audit", "Where table.md goes.")


def _compressed(quality: int):
    return lambda image, file: image.save(file, "JPEG", quality=quality)


def _resized(width: float, height: float):
    def change(image, file):
        size = max(1, round(width * image.width)), max(1, round(height * image.height))
        image.resize(size, Image.Resampling.LANCZOS).save(file, "JPEG", quality=90)

    return change


def _lit(light: float):
    return lambda image, file: ImageEnhance.Brightness(image).enhance(light).save(file, "JPEG", quality=90)


CHANGES = {
    "JPEG, quality 75": _compressed(75),
    "JPEG, quality 60": _compressed(60),
    "JPEG, quality 50": _compressed(50),
    "80 % of its size": _resized(0.8, 0.8),
    "two thirds of its size": _resized(2 / 3, 2 / 3),
    "half its size": _resized(0.5, 0.5),
    "five sixths of its height": _resized(1, 5 / 6),
    "15 % darker": _lit(0.85),
    "5 % lighter": _lit(1.05),
    "15 % lighter": _lit(1.15),
}


def _together(one: PhotoPrints, other: PhotoPrints) -> PhotoPrints:
    columns = ("grey", "color", "sizes", "digests")
    return PhotoPrints(*(np.concatenate([getattr(one, name), getattr(other, name)]) for name in columns), {})


def _changed(files, change) -> PhotoPrints:
    with tempfile.TemporaryDirectory() as folder:
        copies = [os.path.join(folder, f"{number}.jpg") for number in range(len(files))]
        for file, copy in zip(files, copies):
            with Image.open(file) as image:
                change(image.convert("RGB"), copy)
        return read_prints(copies)


def _row(name: str, prints: PhotoPrints, rows: np.ndarray, files: np.ndarray, known: dict[int, int]) -> str:
    """A copy is found if it is with its original, and wrong if it is with a photo that its original is not with."""
    groups = near_groups(_together(prints, _changed(files[rows], CHANGES[name])), FLAGS.near)
    number, found, wrong = len(prints.grey), 0, 0
    for group in groups:
        for copy in group[group >= number]:
            original = rows[copy - number]
            others = {known.get(row, -1 - row) for row in group[group < number].tolist()}
            found += original in group
            wrong += bool(others - {known.get(int(original), -1 - int(original))})
    return f"| {name} | {100 * found / len(rows):.0f} % | {wrong} |"


def main(argv):
    """Writes one row for each change."""
    del argv
    catalog = load_dataset(FLAGS.dataset, FLAGS.data_dir)
    started = time.monotonic()
    prints = read_prints(catalog.files.tolist())
    read = time.monotonic()
    groups = near_groups(prints, FLAGS.near)
    done = time.monotonic()
    known = {int(row): number for number, group in enumerate(groups) for row in group}
    across = sum(len(set(catalog.labels[group].tolist())) > 1 for group in groups)
    rows = np.random.default_rng(0).permutation(np.flatnonzero(prints.is_readable))[: FLAGS.photos]
    lines = [
        f"{len(catalog):,} photos: read in {read - started:.1f} s, compared in {done - read:.1f} s; "
        f"{len(groups)} groups of near copies, {across} of them of different products.",
        "",
        f"| of {len(rows)} photos, changed | found | put to other photos |",
        "|---|---|---|",
        *(_row(name, prints, rows, catalog.files, known) for name in CHANGES),
    ]
    write_table(FLAGS.output_dir, "\n".join(lines) + "\n")


if __name__ == "__main__":
    app.run(main)
