"""The SavedModel: encoded photos in, embeddings out, on a server that has neither this package nor Keras."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping

import keras
import numpy as np
import tensorflow as tf

from eet_tf import compat
from eet_tf.data import images
from eet_tf.data.catalog import Catalog, CatalogError
from eet_tf.embedder import attribute_head, attribute_names

MANIFEST = os.path.join("assets.extra", "eet_tf.json")


class SavedModelError(ValueError):
    """A SavedModel that cannot be written or read; the message names the folder and the mend."""


def export_embedder(embedder: keras.Model, output_dir: str, metadata: Mapping | None = None, whitening=None) -> str:
    """Writes an embedder as the next version for TF Serving, `<output_dir>/<version>/`.

    A version appears whole or not at all; older ones stay. Its signature `serving_default` takes `image_bytes`
    (string `[None]`, encoded photos) and gives `embedding` (float32 `[None, D]`, unit length) and `ok` (bool `[None]`).
    Bytes that are no image get `ok` false and a zero vector, and change nothing for the other rows. An embedder with
    an attribute head also gives `attributes` (float32 `[None, A]`, probabilities; zeros where `ok` is false); the
    manifest has their names.

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
    embedding_dim = _output_sizes(embedder)["embedding"]
    if whitening is not None and len(whitening.mean) != embedding_dim:
        raise SavedModelError(
            f"`whitening` must be of embeddings of length {embedding_dim}. Received: one of {len(whitening.mean)}. "
            "Fit it with this embedder."
        )
    os.makedirs(output_dir, exist_ok=True)
    version = max(_versions(output_dir), default=0) + 1
    aside = os.path.join(output_dir, f".{version}.{os.getpid()}")
    try:
        module = _ServingModule(embedder, whitening)
        tf.saved_model.save(module, aside, signatures={"serving_default": module.embed_bytes})
        _write_manifest(aside, embedder, metadata or {}, whitening)
        target = os.path.join(output_dir, str(version))
        os.rename(aside, target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return target


class _ServingModule(tf.Module):
    """What is saved: the embedder's variables and one function from bytes to embeddings and attributes."""

    def __init__(self, embedder: keras.Model, whitening=None):
        super().__init__()
        self.weights = compat.raw_variables(embedder)
        self.whitening = [] if whitening is None else [tf.Variable(whitening.mean), tf.Variable(whitening.projection)]
        image_size = embedder.input_shape[1]

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
        def embed_bytes(image_bytes):
            batch, is_image = images.decode_batch(image_bytes, image_size)
            # not every kernel takes a batch of no rows
            outputs = tf.cond(
                tf.size(image_bytes) > 0,
                lambda: _served_outputs(embedder, batch, self.whitening),
                lambda: {name: tf.zeros([0, size]) for name, size in _output_sizes(embedder, whitening).items()},
            )
            zeroed = {name: tf.where(is_image[:, tf.newaxis], rows, 0.0) for name, rows in outputs.items()}
            return {**zeroed, "ok": is_image}

        self.embed_bytes = embed_bytes


def _served_outputs(embedder: keras.Model, batch: tf.Tensor, whitening) -> dict[str, tf.Tensor]:
    """The unit vectors and, with an attribute head, the probabilities of attributes; float32."""
    outputs = embedder(batch, training=False)
    if not isinstance(outputs, Mapping):
        outputs = {"embedding": outputs}
    served = {"embedding": tf.cast(outputs["embedding"], tf.float32)}
    if whitening:
        mean, projection = whitening
        served["embedding"] = tf.math.l2_normalize(tf.matmul(served["embedding"] - mean, projection), axis=1)
    if attribute_names(embedder):
        served["attributes"] = tf.sigmoid(tf.cast(outputs["attributes"], tf.float32))
    return served


def _output_sizes(embedder: keras.Model, whitening=None) -> dict[str, int]:
    """How many numbers a photo has in each of `_served_outputs`."""
    shapes = compat.output_shape(embedder)
    own = (shapes["embedding"] if isinstance(shapes, Mapping) else shapes)[-1]
    sizes = {"embedding": own if whitening is None else whitening.dim}
    return {**sizes, "attributes": len(attribute_names(embedder))} if attribute_names(embedder) else sizes


def embedder_fingerprint(embedder: keras.Model, whitening=None) -> str:
    """A short name of the function from photo to vector: its weights, its layers, its whitening and the decoding.

    Vectors of two embedders can be compared only if their fingerprints are equal. An attribute head is no part of it.
    """
    digest = hashlib.sha256()
    digest.update(f"decoding {images.RULES_VERSION}, input {embedder.input_shape[1:]}".encode())
    for fact in _layer_facts(embedder):
        digest.update(fact.encode())
    head = attribute_head(embedder)
    no_part = {id(variable) for variable in (head.weights if head else ())}
    weights = [weight for each, weight in zip(embedder.weights, embedder.get_weights()) if id(each) not in no_part]
    for weight in (*weights, *([] if whitening is None else [whitening.mean, whitening.projection])):
        digest.update(str((weight.shape, weight.dtype)).encode())
        digest.update(np.ascontiguousarray(weight).tobytes())
    return digest.hexdigest()[:16]


def _layer_facts(model: keras.Model) -> Iterator[str]:
    """What each layer is and was told, of models in it too, but for what does not change its answers."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _layer_facts(layer)
            continue
        if layer is attribute_head(model):
            continue
        config = {name: value for name, value in layer.get_config().items() if name not in ("name", "trainable")}
        plain = {name: value for name, value in config.items() if isinstance(value, str | int | float | list | tuple)}
        yield f"{type(layer).__name__} {json.dumps(plain, sort_keys=True, default=str)}"


def _write_manifest(folder: str, embedder: keras.Model, metadata: Mapping, whitening) -> None:
    manifest = {
        "format": 1,
        "fingerprint": embedder_fingerprint(embedder, whitening),
        "image_size": embedder.input_shape[1],
        "embedding_dim": _output_sizes(embedder, whitening)["embedding"],
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


class ServedEmbedder:
    """A SavedModel written by `export_embedder`, loaded to embed photos as a server would.

    Args:
        path: the version's folder, or the base path, of which the newest version is taken.

    Attributes:
        folder: the version's folder.
        fingerprint: which embedder it is.
        embedding_dim: D.
        attribute_names: the A attributes it predicts; empty if it predicts none.

    Raises:
        SavedModelError: if there is none, or it is not one of this package.
    """

    def __init__(self, path: str):
        self.folder = newest_version(path)
        try:
            with open(os.path.join(self.folder, MANIFEST), encoding="utf-8") as file:
                manifest = json.load(file)
            self.fingerprint = manifest["fingerprint"]
            self.embedding_dim = manifest["embedding_dim"]
            self.attribute_names = tuple(manifest.get("attribute_names", ()))  # older versions have none
            self._model = tf.saved_model.load(self.folder)
        except (OSError, ValueError, LookupError, RuntimeError, tf.errors.OpError) as error:
            raise SavedModelError(
                f"{self.folder!r} is no complete SavedModel of this package: {error}. "
                "Write it again with export/main.py."
            ) from error
        self._serve = self._model.signatures["serving_default"]

    def embed(self, photos: Iterable[bytes]) -> tuple[np.ndarray, np.ndarray]:
        """Embeds encoded photos: (`[N, D]` float32, `[N]` bool, false where bytes are no image)."""
        outputs = self._outputs(photos)
        return outputs["embedding"].numpy(), outputs["ok"].numpy()

    def embed_catalog(
        self, catalog: Catalog, batch_size: int = 64, on_batch: Callable[[int], None] | None = None
    ) -> np.ndarray:
        """Embeds all photos of a catalogue, in its order.

        Args:
            catalog: whose files exist.
            batch_size: photos embedded at once.
            on_batch: is told after each batch how many photos are done.

        Returns:
            `[N, D]` float32.

        Raises:
            CatalogError: if some are no images; it names the first of them, with file and line.
        """
        files, embeddings, unreadable = catalog.files, [], []
        for start in range(0, len(files), batch_size):
            photos = []
            for file in files[start : start + batch_size]:
                with open(file, "rb") as photo:
                    photos.append(photo.read())
            vectors, is_image = self.embed(photos)
            embeddings.append(vectors)
            unreadable.extend(start + np.flatnonzero(~is_image))
            if on_batch is not None:
                on_batch(start + len(photos))
        if unreadable:
            shown = "\n".join(f"{catalog.where(row)}: {files[row]!r}" for row in unreadable[:5])
            raise CatalogError(f"{len(unreadable)} photos are no images. Replace them or delete their rows:\n{shown}")
        return np.concatenate(embeddings)

    def predict_attributes(self, photos: Iterable[bytes]) -> np.ndarray:
        """The probability of each of `attribute_names`: `[N, A]` float32, zeros where bytes are no image."""
        outputs = self._outputs(photos)
        return outputs["attributes"].numpy() if self.attribute_names else np.zeros([len(outputs["ok"]), 0], np.float32)

    def _outputs(self, photos: Iterable[bytes]) -> dict[str, tf.Tensor]:
        photos = list(photos)
        return self._serve(image_bytes=tf.constant(photos, dtype=tf.string, shape=[len(photos)]))
