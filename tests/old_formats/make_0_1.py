"""Writes one small file or folder of each format that a user keeps, and the numbers that they must give for ever.

    .venv/bin/python tests/old_formats/make_0_1.py FOLDER           TensorFlow 2.20 and Keras 3
    .venv-addons/bin/python tests/old_formats/make_0_1.py FOLDER    TensorFlow 2.15 and Keras 2

Run it with the package of the version whose formats are wanted in PYTHONPATH; README.md says which commits these were.
Weights repeat a short pattern, so that all of it together compresses to a few kilobytes.
"""

import base64
import io
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"

import drawn  # beside this script
import keras
import numpy as np
import tensorflow as tf
from eet_tf.embedding_files import EmbeddingFolder
from eet_tf.postprocessing import fit_whitening
from PIL import Image

import eet_tf
from eet_tf.embedder import AttributeHead, GeMPooling, GridPooling, PixelScaling, UnitLength
from eet_tf.index import ExactIndex, MilvusIndex, ScannConfiguration, ScannIndex
from eet_tf.losses.triplet import TripletLoss
from eet_tf.serving import ServedEmbedder

HERE = pathlib.Path(__file__).parent
REPOSITORY = pathlib.Path(os.path.dirname(eet_tf.__file__)).parent
KERAS_2 = keras.__version__.startswith("2.")
SAVES_LEARNERS = hasattr(eet_tf.MetricLearner, "get_compile_config") and "get_config" in vars(eet_tf.MetricLearner)
NAMES = ("striped", "red")


def fill(model):
    """Weights that repeat a short pattern: they compress, and every embedding is still another."""
    pattern = np.random.default_rng(8).normal(size=61).round(2)
    filled = []
    for weight, value in zip(model.weights, model.get_weights()):
        scale = 1 / np.sqrt(max(np.prod(value.shape[:-1]), 1))
        new = np.resize(pattern, value.shape) * (scale if value.ndim > 1 else 0.1)
        is_one = any(word in weight.name for word in ("gamma", "variance"))
        new = new + 3 if "exponent" in weight.name else new + is_one
        filled.append(new.astype(value.dtype))
    model.set_weights(filled)
    return model


def tiny(pooling="gem", heads=False):
    """An embedder of a few weights, with the layers of this package."""
    taken = keras.Input([16, 16, 3], name="images")
    x = PixelScaling("tf" if pooling == "gem" else "caffe", name="pixel_scaling")(taken)
    x = keras.layers.Conv2D(4, 3, strides=2, padding="same", activation="relu", name="convolution")(x)
    x = keras.layers.BatchNormalization(name="norm")(x)
    pooled = (GeMPooling(name="pooling") if pooling == "gem" else GridPooling(4, name="pooling"))(x)
    projected = keras.layers.Dense(8, name="projection")(pooled)
    outputs = UnitLength(dtype="float32", name="embedding")(projected)
    if heads:
        head = AttributeHead(NAMES, dtype="float32", name="attributes")
        outputs = {"embedding": outputs, "attributes": head(pooled)}
    return fill(keras.Model(taken, outputs, name=f"tiny_{pooling}"))


def learners():
    """The name of a file -> (embedder, arguments of the learner, arguments of `compile`)."""
    made = {
        "eet_memory_microbatch": (
            tiny(),
            {"memory_size": 11, "memory_start": 1},
            {"loss": eet_tf.EETLoss(margin=0.4, symmetric_margin=True, equidistant_weight=0.5), "microbatch": 3},
        ),
        "triplet_hard": (tiny("grid"), {}, {"loss": TripletLoss()}),
        "triplet_all_soft": (
            tiny(),
            {"name": "mine"},
            {"loss": TripletLoss(positives="all", negatives="all", distance="cosine", soft_margin=True)},
        ),
        "triplet_partner_semi_hard": (
            tiny(),
            {},
            {"loss": TripletLoss(0.2, positives="partner", negatives="semi_hard", distance="squared")},
        ),
        "deviance": (tiny(), {}, {"loss": eet_tf.BinomialDevianceLoss(alpha=3.0, beta=0.4, negative_cost=10.0)}),
        "soft_deviance_labels": (
            tiny(heads=True),
            {},
            {
                "loss": eet_tf.SoftBinomialDevianceLoss(granularity="labels"),
                "attribute_loss": eet_tf.AttributeLoss(),
                "attribute_weight": 0.3,
            },
        ),
        "soft_deviance_predictions": (
            tiny(heads=True),
            {},
            {
                "loss": eet_tf.SoftBinomialDevianceLoss(
                    weighting="preserving", granularity="predictions", preserved_share=0.25
                ),
                "attribute_loss": eet_tf.AttributeLoss(),
            },
        ),
    }
    if KERAS_2:
        from eet_tf.addons import AddonsLoss

        loss = AddonsLoss("tfa_triplet_semihard", margin=0.5, distance="squared")
        made["addons"] = (tiny(), {}, {"loss": loss})
    return made


def write_embedder(folder):
    """`build_embedder`'s own network with both heads."""
    embedder = fill(eet_tf.build_embedder("small_cnn", 8, image_size=32, attribute_names=NAMES))
    embedder.save(str(folder / "embedder.keras"))
    return {"embedder": drawn.as_lists(embedder(drawn.images()))}


def write_learners(folder):
    """Each after a step; what it logs in the two that follow."""
    found = {}
    for name, (embedder, arguments, compiled) in learners().items() if SAVES_LEARNERS else ():
        learner = eet_tf.MetricLearner(embedder, **arguments)
        learner.compile(keras.optimizers.SGD(0.01, momentum=0.5, global_clipnorm=0.5), **compiled)
        drawn.steps(learner, 1)
        learner.save(str(folder / f"learner_{name}.keras"))
        found[name] = {
            "embeddings": drawn.as_lists(learner.embedder(drawn.images(16))),
            "config": {key: value for key, value in learner.get_config().items() if key != "embedder"},
            "next": drawn.steps(learner, 2),
        }
    return {"learners": found}


def write_compiled(folder):
    """A model of plain Keras that was compiled with a loss of this package."""
    model = keras.Sequential([keras.Input([6]), keras.layers.Dense(4, name="projection")])
    fill(model).compile("sgd", eet_tf.EETLoss(margin=0.5, reduction="sum_over_batch_size"))
    model.train_on_batch(drawn.vectors(8, 6), drawn.labels())
    model.save(str(folder / "compiled.keras"))
    loss = model.evaluate(drawn.vectors(8, 6), drawn.labels(), batch_size=8, verbose=0)
    return {"compiled": {"outputs": drawn.as_lists(model(drawn.vectors(8, 6))), "loss": float(loss)}}


def write_run(folder):
    """What train/main.py leaves: with weights that compress, and steps too small to change them."""
    with tempfile.TemporaryDirectory() as aside:
        weights = os.path.join(aside, "backbone.weights.h5")
        embedder = eet_tf.build_embedder("small_cnn", 8, image_size=32)
        fill(drawn.backbone_of(embedder)).save_weights(weights)
        settings = {
            "data_dir": "photos",
            "model_dir": "run",
            "image_size": 32,
            "embedding_dim": 8,
            "weights": "backbone.weights.h5",
            "optimizer": "sgd",
            "learning_rate": "1e-44",
            "epochs": 1,
            "steps_per_epoch": 2,
            "classes_per_batch": 4,
            "examples_per_class": 2,
            "ks": "1,5",
        }
        drawn.write_photos(os.path.join(aside, "photos"))
        flags = [f"--{name}={value}" for name, value in settings.items()]
        command = [sys.executable, str(REPOSITORY / "train" / "main.py"), "--dataset=csv", *flags]
        subprocess.run(command, cwd=aside, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, check=True)
        run = pathlib.Path(aside, "run")
        shutil.copytree(run, folder / "run")
        embedder = eet_tf.load_embedder(str(run))
        history = (run / "history.csv").read_text(encoding="utf-8").splitlines()
        return {
            "run": {
                "files": sorted(str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()),
                "flags": (run / "flags.txt").read_text(encoding="utf-8").splitlines(),
                "history": history,
                "metrics": json.loads((run / "metrics.json").read_text(encoding="utf-8")),
                "embeddings": drawn.as_lists(embedder(drawn.images())),
            }
        }


def write_indexes(folder):
    """Each kind, saved with 40 photos and changed twice since: what is in its log counts too."""
    skus = [f"sku{row // 2}" for row in range(40)]
    facts = {
        "price": [None if row == 7 else row * 1.5 for row in range(40)],
        "colour": ["red" if row % 3 else "blau, grün" for row in range(40)],
    }
    kinds = {
        "exact": (ExactIndex, {}),
        "exact_int8": (ExactIndex, {"storage": "int8"}),
        "scann": (ScannIndex, {}),
        "scann_leaves": (ScannIndex, {"configuration": ScannConfiguration(20, 4, 4)}),
        **({} if KERAS_2 else {"milvus": (MilvusIndex, {})}),
    }
    found = {}
    for name, (kind, arguments) in kinds.items():
        index = kind.build(
            drawn.vectors(),
            skus,
            photos=[f"p/{row}.jpg" for row in range(40)],
            attributes=facts,
            fingerprint="f00d",
            metadata={"made": "0.1"},
            **arguments,
        )
        index.save(str(folder / f"index_{name}"))
        index.upsert(
            drawn.vectors(3, seed=9),
            ["new", "new", "sku1"],
            photos=["p/n1.jpg", "p/n2.jpg", "p/2.jpg"],
            attributes={"price": [1.0, 2.0, None], "colour": ["red", None, "green"]},
        )
        index.delete(photos=["p/5.jpg", "p/39.jpg"])
        found[name] = {
            "size": len(index),
            "kind": index.kind,
            "storage": getattr(index, "storage", None),
            **drawn.answers(index),
        }
    return {"indexes": found}


def write_embeddings(folder):
    """What export/embed_beam.py writes, in two shards, of which one photo is no image."""
    photos = [f"p/{row}.jpg" for row in range(12)]
    (folder / "embeddings").mkdir()
    files = EmbeddingFolder(str(folder / "embeddings"), "f00d", 8, num_shards=2, saved_model="../serving/1")
    files.save()
    for shard, rows in enumerate(files.deal(photos)):
        files.write(shard, [photos[row] for row in rows], drawn.vectors(12)[rows], rows != 3)
    good = [photo for photo in photos if photo != "p/3.jpg"]
    return {"embeddings": {"photos": good, "vectors": files.read(good).tolist(), "unreadable": [3]}}


def write_whitening(folder):
    """Fitted to 40 vectors, of which it keeps 5 directions."""
    whitening = fit_whitening(drawn.vectors(), dim=5)
    whitening.write(str(folder / "whitening.npz"))
    return {"whitening": whitening.apply(drawn.vectors(4, seed=10)).tolist()}


def write_serving(folder):
    """A SavedModel of two heads that searches an index of its own embeddings."""
    embedder = tiny(heads=True)
    photos = [jpeg(image) for image in drawn.images(24)]
    skus = [f"sku{row // 2}" for row in range(8)]
    with tempfile.TemporaryDirectory() as aside:
        first = ServedEmbedder(eet_tf.export_embedder(embedder, aside))
        index = ExactIndex.build(first.embed(photos)[0], skus, fingerprint=first.fingerprint)
    where = str(folder / "serving")
    eet_tf.export_embedder(embedder, where, metadata={"made": "0.1"}, catalog_index=index, k=3)
    served = ServedEmbedder(where)
    return {
        "serving": {
            "photos": [base64.b64encode(photo).decode() for photo in photos],
            "embeddings": served.embed(photos)[0].tolist(),
            "attributes": served.predict_attributes(photos).tolist(),
            "attribute_names": list(served.attribute_names),
            "fingerprint": served.fingerprint,
            "search": drawn.found_by_server(tf.saved_model.load(os.path.join(where, "1")), photos),
        }
    }


def jpeg(image):
    """An image as the bytes of a small JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(image.astype(np.uint8)).resize((20, 16)).save(buffer, "JPEG", quality=60)
    return buffer.getvalue()


def archive(folder, path):
    """Packs a folder; without locks, and without what is drawn for people and for TensorBoard."""
    with tarfile.open(path, "w:xz", preset=9) as file:
        for each in sorted(folder.rglob("*")):
            if each.is_file() and each.name != "curves.png" and "tfevents" not in each.name:
                file.add(each, str(each.relative_to(folder)))


WRITERS = (
    write_embedder,
    write_learners,
    write_compiled,
    write_run,
    write_indexes,
    write_embeddings,
    write_whitening,
    write_serving,
)


def main(folder):
    """Writes FOLDER/keras2.tar.xz or FOLDER/keras3.tar.xz, and the numbers beside it."""
    name = "keras2" if KERAS_2 else "keras3"
    expected = {"eet_tf": eet_tf.__version__, "tensorflow": tf.__version__, "keras": keras.__version__}
    with tempfile.TemporaryDirectory() as aside:
        for write in WRITERS:
            expected.update(write(pathlib.Path(aside)))
        os.makedirs(folder, exist_ok=True)
        archive(pathlib.Path(aside), os.path.join(folder, f"{name}.tar.xz"))
    with open(os.path.join(folder, f"{name}.json"), "w", encoding="utf-8") as file:
        json.dump(drawn.rounded(expected), file, ensure_ascii=False)
        file.write("\n")


if __name__ == "__main__":
    main(sys.argv[1])
