"""Photos per second of the training pipeline, against nothing but decoding and resizing the same files.

    python benchmarks/pipeline.py --dataset=sop --data_dir=DATA/fashion --image_size=64
    python benchmarks/pipeline.py  # photos that it draws, of 96 px
    python benchmarks/pipeline.py --photo_size=400 --image_size=96

In turns, with the same threads: `tf.io.decode_image` and `tf.image.resize` in a parallel map; the training pipeline,
which checks formats, turns photos upright, draws balanced batches and augments; and the same with photos that were
decoded once (`--cache`).
"""

import os
import sys
import tempfile
import time

from absl import app, flags
from tables import write_table

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

FLAGS = flags.FLAGS
flags.DEFINE_string("dataset", "synthetic", "Layout of the photos.")
flags.DEFINE_string("data_dir", None, "Where they are; synthetic draws them somewhere by default.")
flags.DEFINE_integer("photo_size", 96, "Side of the photos that it draws; without effect on others.", lower_bound=32)
flags.DEFINE_integer("image_size", 96, "Side of the photos that come out.")
flags.DEFINE_integer("photos", 3000, "Photos of one timing.")
flags.DEFINE_integer("repeats", 5, "Timings of each; the figures are medians.", lower_bound=5)
flags.DEFINE_string("output_dir", "runs/pipeline", "Where the table goes.")


def bare(catalog):
    """Decode and resize, again and again over the files in a mixed order."""
    import numpy as np
    import tensorflow as tf

    files = np.random.default_rng(0).permutation(catalog.files)

    def read(file):
        image = tf.io.decode_image(tf.io.read_file(file), channels=3, expand_animations=False)
        return tf.image.resize(image, [FLAGS.image_size, FLAGS.image_size], antialias=True)

    dataset = tf.data.Dataset.from_tensor_slices(files).repeat()
    return dataset.map(read, os.cpu_count()).batch(64).prefetch(2)


def pipelines(catalog) -> dict:
    """What is compared, by its name in the table."""
    from eet_tf import data

    sampler = data.PKSampler(catalog.labels, 16, 4)
    augment = data.augmentation(FLAGS.image_size, crop=0.6, color=0.05, cutout=0, seed=0)
    decoded = data.decode_photos(catalog, FLAGS.image_size)

    off = {"crop": 1, "color": 0, "cutout": 0, "seed": 0}
    erasing = data.augmentation(FLAGS.image_size, **off, random_erasing=0.5)
    rand_augment = data.augmentation(FLAGS.image_size, **off, rand_augment=5)

    def training(augment, decoded, **how):
        return data.training_dataset(catalog, sampler, FLAGS.image_size, augment, 0, None, None, decoded, **how)

    return {
        "decode and resize alone": bare(catalog),
        "training pipeline without augmentation": training(None, None),
        "training pipeline": training(augment, None),
        "training pipeline, decoded once": training(augment, decoded),
        "letterbox, without augmentation": training(None, None, fit="letterbox"),
        "crops of the photo": training(None, None, photo_crop=data.photo_crop(0.16)),
        "random erasing": training(erasing, None),
        "RandAugment": training(rand_augment, None),
    }


def photos_per_second(iterator) -> float:
    """Of the next photos."""
    num_batches = -(-FLAGS.photos // 64)
    started = time.perf_counter()
    for _ in range(num_batches):
        next(iterator)
    return 64 * num_batches / (time.perf_counter() - started)


def main(argv):
    """Times each in turns and writes the table."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown argument {argv[1]!r}; flags begin with --")
    import numpy as np

    from eet_tf import data

    with tempfile.TemporaryDirectory() as folder:
        try:
            if FLAGS.dataset == "synthetic":
                drawn = FLAGS.data_dir or os.path.join(folder, "photos")
                catalog = data.make_synthetic_catalog(drawn, num_products=40, image_size=FLAGS.photo_size).split(
                    "train"
                )
            else:
                catalog = data.load_dataset(FLAGS.dataset, FLAGS.data_dir).split("train")
        except (ValueError, data.CatalogError) as error:
            sys.exit(f"error: {error}")
        datasets = pipelines(catalog)
        rates = {name: [] for name in datasets}
        for _ in range(FLAGS.repeats + 1):
            for name, dataset in datasets.items():
                iterator = iter(dataset)
                for _ in range(4):  # what is read ahead of the first batch
                    next(iterator)
                rates[name].append(photos_per_second(iterator))
                del iterator
    medians = {name: float(np.median(values[1:])) for name, values in rates.items()}
    floor = medians["decode and resize alone"]
    text = f"{len(catalog):,} photos, {FLAGS.image_size} px.\n\n| | photos/s | |\n|---|---|---|\n"
    text += "".join(f"| {name} | {rate:,.0f} | {rate / floor:.2f} |\n" for name, rate in medians.items())
    write_table(FLAGS.output_dir, text)
    return 0


if __name__ == "__main__":
    app.run(main)
