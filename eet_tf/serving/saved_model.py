"""How a SavedModel lies on disk: numbered versions, each there whole or not at all, with a manifest."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping

import keras
import tensorflow as tf

from eet_tf.embedder import attribute_names
from eet_tf.serving.fingerprint import embedder_fingerprint
from eet_tf.serving.graph import ServingModule, describing, output_sizes

MANIFEST = os.path.join("assets.extra", "eet_tf.json")


class SavedModelError(ValueError):
    """A SavedModel that cannot be written or read; the message names the folder and the mend."""


def export_embedder(embedder: keras.Model, output_dir: str, metadata: Mapping | None = None, whitening=None) -> str:
    """Writes an embedder as the next version for TF Serving, `<output_dir>/<version>/`.

    A version appears whole or not at all; older ones stay. Its signature `serving_default` takes `image_bytes`
    (string `[None]`, encoded photos) and gives `embedding` (float32 `[None, D]`, unit length) and `ok` (bool `[None]`).
    Bytes that are no image get `ok` false and a zero vector, and change nothing for the other rows. An embedder with
    an attribute head also gives `attributes` (float32 `[None, A]`, probabilities; zeros where `ok` is false); the
    manifest has their names. Its signature `describe` says which embedder it is: `fingerprint` and `embedding_dim`.

    Args:
        embedder: a model `[B, S, S, 3]` in [0, 255] -> `[B, D]`, or to a dict with `"embedding"`, as `build_embedder`
            makes it.
        output_dir: the model's base path on the server.
        metadata: JSON-able facts to keep with it, e.g. the training run's figures.
        whitening: a `postprocessing.Whitening` that every embedding goes through before it is given out; D is then its
            `dim`, and the fingerprint another.

    Returns:
        The version's folder.

    Raises:
        SavedModelError: if `output_dir` is a file, the embedder's input is no square of a fixed size, or the whitening
            is of embeddings of another length.

    Example:

    >>> import tempfile
    >>> folder = export_embedder(build_embedder("small_cnn", 8, image_size=32), tempfile.mkdtemp())
    >>> os.path.basename(folder)
    '1'
    """
    shape = embedder.input_shape
    if len(shape) != 4 or shape[1] is None or shape[1] != shape[2]:
        raise SavedModelError(f"`embedder` must take images [B, S, S, 3], S fixed. Received: input shape {shape}.")
    if os.path.exists(output_dir) and not os.path.isdir(output_dir):
        raise SavedModelError(f"`output_dir` must be a folder. Received: output_dir={output_dir!r}, which is a file.")
    embedding_dim = output_sizes(embedder)["embedding"]
    if whitening is not None and len(whitening.mean) != embedding_dim:
        raise SavedModelError(
            f"`whitening` must be of embeddings of length {embedding_dim}. Received: one of {len(whitening.mean)}. "
            "Fit it with this embedder."
        )
    os.makedirs(output_dir, exist_ok=True)
    version = max(_versions(output_dir), default=0) + 1
    aside = os.path.join(output_dir, f".{version}.{os.getpid()}")
    try:
        module = ServingModule(embedder, whitening)
        signatures = {"serving_default": module.embed_bytes}
        served_dim = output_sizes(embedder, whitening)["embedding"]
        signatures["describe"] = describing(embedder_fingerprint(embedder, whitening), served_dim)
        tf.saved_model.save(module, aside, signatures=signatures)
        _write_manifest(aside, embedder, metadata or {}, whitening)
        target = os.path.join(output_dir, str(version))
        os.rename(aside, target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return target


def _write_manifest(folder: str, embedder: keras.Model, metadata: Mapping, whitening) -> None:
    manifest = {
        "format": 1,
        "fingerprint": embedder_fingerprint(embedder, whitening),
        "image_size": embedder.input_shape[1],
        "embedding_dim": output_sizes(embedder, whitening)["embedding"],
        "attribute_names": list(attribute_names(embedder)),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "metadata": dict(metadata),
    }
    os.makedirs(os.path.join(folder, os.path.dirname(MANIFEST)), exist_ok=True)
    with open(os.path.join(folder, MANIFEST), "w", encoding="utf-8") as file:
        json.dump(manifest, file, indent=2)
        file.write("\n")


def _versions(output_dir: str) -> list[int]:
    return [int(entry.name) for entry in os.scandir(output_dir) if entry.name.isdecimal() and entry.is_dir()]


def newest_version(path: str) -> str:
    """The folder of a SavedModel: `path` itself, or the version with the largest number in it.

    Raises:
        SavedModelError: if there is none.
    """
    if os.path.isfile(os.path.join(path, "saved_model.pb")):
        return path
    versions = _versions(path) if os.path.isdir(path) else []
    if not versions:
        raise SavedModelError(
            f"`path` must be a SavedModel or a folder of numbered versions of one. Received: path={path!r}. "
            "Make one with export/main.py."
        )
    return os.path.join(path, str(max(versions)))
