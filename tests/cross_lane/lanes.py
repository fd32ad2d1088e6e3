"""Runs with either set of versions: `write FOLDER`; then, with the other, `serve`, `search`, `weights` or `keras`."""

import io
import json
import pathlib
import sys

import keras
import numpy as np
from PIL import Image

import eet_tf
from eet_tf import index
from eet_tf.serving import ServedEmbedder

ARGUMENTS = ("small_cnn", 16, 32)
RNG = np.random.default_rng(5)
IMAGES = RNG.integers(0, 256, size=[12, 32, 32, 3]).astype(np.uint8)
SKUS = [f"sku{row // 2}" for row in range(12)]


def jpegs():
    found = []
    for image in IMAGES:
        buffer = io.BytesIO()
        Image.fromarray(image).resize((50, 40)).save(buffer, "JPEG")
        found.append(buffer.getvalue())
    return found


def of_images(embedder):
    return embedder(IMAGES.astype(np.float32)).numpy().tolist()


def serve(folder):
    served = ServedEmbedder(str(folder / "serving"))
    return {"embeddings": served.embed(jpegs())[0].tolist(), "fingerprint": served.fingerprint}


def search(folder):
    queries = np.array(json.loads((folder / "queries.json").read_text()), np.float32)
    neighbors = index.load_index(str(folder / "index")).search(queries, k=3)
    return {"skus": np.asarray(neighbors.skus).tolist(), "scores": np.asarray(neighbors.scores).tolist()}


def write(folder):
    """Two epochs of training, so that no weight and no statistic is what a new model begins with."""
    keras.utils.set_random_seed(3)
    embedder = eet_tf.build_embedder(*ARGUMENTS)
    learner = eet_tf.MetricLearner(embedder)
    learner.compile("adam", eet_tf.EETLoss())
    learner.fit(IMAGES.astype(np.float32), np.arange(12) // 2, batch_size=12, epochs=2, verbose=0)
    embedder.save(str(folder / "model.keras"))
    embedder.save_weights(str(folder / "model.weights.h5"))
    eet_tf.export_embedder(embedder, str(folder / "serving"))
    served = serve(folder)
    vectors = np.array(served["embeddings"], np.float32)
    (folder / "queries.json").write_text(json.dumps(vectors.tolist()))
    index.ExactIndex.build(vectors, SKUS, fingerprint=served["fingerprint"]).save(str(folder / "index"))
    return {**served, **search(folder), "of_images": of_images(embedder)}


def weights(folder):
    embedder = eet_tf.build_embedder(*ARGUMENTS)
    embedder.load_weights(str(folder / "model.weights.h5"))
    return {"embeddings": of_images(embedder)}


def from_keras_file(folder):
    try:
        return {"embeddings": of_images(eet_tf.load_embedder(str(folder / "model.keras"))), "refused": ""}
    except ValueError as error:
        return {"refused": str(error)}


def main(what, folder):
    tasks = {"write": write, "serve": serve, "search": search, "weights": weights, "keras": from_keras_file}
    print(json.dumps({"keras": keras.__version__, **tasks[what](pathlib.Path(folder))}))


if __name__ == "__main__":
    main(*sys.argv[1:])
