"""What is handed to those who run servers: a model with all a server wants beside it, checked, then put in place."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2

from eet_tf import files
from eet_tf.data.images import decode_and_resize
from eet_tf.embedder.pixels import photo_fit
from eet_tf.serving.deployment import write_deployment
from eet_tf.serving.models_config import held_versions, versions
from eet_tf.serving.saved_model import MANIFEST, SavedModelError
from eet_tf.serving.warmup import read_signatures, sample_photos, warmup_sizes, write_warmup

BATCHING = "batching_params.pbtxt"
REFERENCE = os.path.join("assets.extra", "reference.npz")
_ASIDE = ".aside"
_MOST_PHOTOS = 1024  # of a batch: its warm-up requests have 50 MB for each signature


def write_bundle(
    write_model: Callable[[str], str],
    output_dir: str,
    name: str = "embedder",
    reference: Callable[[Sequence[bytes]], np.ndarray] | None = None,
    max_batch_size: int = 32,
    pad_batches: bool = False,
    keep_versions: int = 0,
    verify: Callable[[str], None] | None = None,
) -> str:
    """Writes the next version of a model for TF Serving with its warm-up, batching and the files to start a server.

    ```
    <output_dir>/<name>/<version>/    the SavedModel, with
        batching_params.pbtxt         for --enable_batching --enable_per_model_batching_parameters
        assets.extra/                 tf_serving_warmup_requests, eet_tf.json (the manifest), reference.npz
    <output_dir>/                     models.config, docker-compose.yml, monitoring.config, prometheus.yml, README.md
    ```

    There is no docker-compose.yml where a model needs operations that a stock server does not have.

    The version is made aside, verified there and then renamed; before that no server sees any of it, and a process
    killed at any moment leaves at most a hidden folder, which the next call removes. One process at a time writes
    versions of a model; others wait.

    Args:
        write_model: given a folder, writes a SavedModel with a manifest as a version in it and returns that version's
            folder, as `export_embedder` does.
        output_dir: the folder of all models of a server.
        name: of the model on the server: letters, digits, `_` and `-`.
        reference: the training model, encoded photos -> `[N, D]`; what it says of sample photos is kept, to be
            compared with what a server says. Without it, nothing is kept. See `training_vectors`.
        max_batch_size: the most photos of a request, and of a batch that the server puts together from several; from
            1 to 1,024. Batches of 1, 2, 4, ... photos up to it are warmed up.
        pad_batches: whether the server pads batches to those sizes (`allowed_batch_sizes`), so that a GPU meets no
            others. It has a price: a gRPC request without photos then ends the server for all, and padding decodes
            the first photo of a request again, up to `max_batch_size / 2 - 1` times.
        keep_versions: how many versions stay, at least 2; 0 keeps all. Older ones are removed once the new one is in
            place. The one before the newest always stays, since it answers until the newest has been loaded, and so
            does any that `models.config` names in a version policy or a label.
        verify: is given the finished folder and raises if it may not ship.

    Returns:
        The version's folder.

    Raises:
        SavedModelError: if an argument is wrong, `models.config` cannot be read, or a signature cannot be warmed up.

    Example:

    >>> import functools, tempfile
    >>> write_model = functools.partial(export_embedder, build_embedder("small_cnn", 8, image_size=32))
    >>> output_dir = tempfile.mkdtemp()
    >>> version = write_bundle(write_model, output_dir, max_batch_size=2)
    >>> os.path.relpath(version, output_dir)
    'embedder/1'
    >>> [entry for entry in sorted(os.listdir(output_dir)) if entry.endswith("config")]
    ['models.config', 'monitoring.config']
    """
    check_bundle_arguments(output_dir, name, max_batch_size, keep_versions)
    base, photos = os.path.join(output_dir, name), sample_photos()
    os.makedirs(base, exist_ok=True)
    with _only_writer(base):
        held = held_versions(output_dir, name) if keep_versions else set()
        aside = os.path.join(base, _ASIDE)
        shutil.rmtree(aside, ignore_errors=True)
        try:
            folder = write_model(aside)
            manifest = _complete(folder, name, max_batch_size, pad_batches, photos, reference)
            if verify is not None:
                verify(folder)
            _flush_tree(folder)
            target = os.path.join(base, str(max(versions(base), default=0) + 1))
            os.rename(folder, target)
            files.flush(base)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        write_deployment(output_dir, manifest, _needed_operations(output_dir), photos[0])
        if keep_versions:
            _remove_old(base, keep_versions, held)
    return target


def training_vectors(embedder: keras.Model, photos: Sequence[bytes], whitening=None) -> np.ndarray:
    """What the training model says of encoded photos, by the way of training: `[N, D]` float32.

    Args:
        embedder: as `build_embedder` makes it.
        photos: encoded, at least one.
        whitening: a `postprocessing.Whitening`, if the served embeddings go through one.
    """
    images = tf.stack([decode_and_resize(photo, embedder.input_shape[1], fit=photo_fit(embedder)) for photo in photos])
    outputs = embedder(images, training=False)
    vectors = np.asarray(outputs["embedding"] if isinstance(outputs, Mapping) else outputs, np.float32)
    return vectors if whitening is None else np.asarray(whitening.apply(vectors), np.float32)


def describe(signature: meta_graph_pb2.SignatureDef) -> dict[str, dict]:
    """A signature as JSON: `{"inputs": {"image_bytes": {"dtype": "string", "shape": [None]}}, "outputs": {...}}`."""
    return {
        side: {name: _describe_tensor(info) for name, info in sorted(getattr(signature, side).items())}
        for side in ("inputs", "outputs")
    }


def _describe_tensor(info: meta_graph_pb2.TensorInfo) -> dict:
    shape = tf.TensorShape(info.tensor_shape)
    return {
        "dtype": tf.dtypes.as_dtype(info.dtype).name,
        "shape": None if shape.rank is None else shape.as_list(),
    }


def check_bundle_arguments(output_dir: str, name: str, max_batch_size: int, keep_versions: int) -> None:
    """Refuses what `write_bundle` would refuse of these, before anything is loaded or written.

    Raises:
        SavedModelError: if one of them is wrong.
    """
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]*", name) or name.isdecimal():
        raise SavedModelError(
            f"`name` must be letters, digits, _ and -, with a letter among them. Received: name={name!r}."
        )
    if not 1 <= max_batch_size <= _MOST_PHOTOS:
        raise SavedModelError(
            f"`max_batch_size` must be from 1 to {_MOST_PHOTOS}: warm-up sends as many photos at once. Received: "
            f"max_batch_size={max_batch_size}."
        )
    if keep_versions != 0 and keep_versions < 2:
        raise SavedModelError(
            "`keep_versions` must be 0 (all) or at least 2, since the version before the newest answers until the "
            f"newest has been loaded. Received: keep_versions={keep_versions}."
        )
    for path in (output_dir, os.path.join(output_dir, name)):
        if os.path.exists(path) and not os.path.isdir(path):
            raise SavedModelError(f"`output_dir` must be a folder of models. Received: {path!r}, which is a file.")


def _needed_operations(output_dir: str) -> dict[str, list[str]]:
    """For each model in the folder the operations that its newest version needs and a stock server has not."""
    needed: dict[str, list[str]] = {}
    for base in sorted(entry.path for entry in os.scandir(output_dir) if entry.is_dir() and versions(entry.path)):
        needed[os.path.basename(base)] = []
        with contextlib.suppress(FileNotFoundError):  # a model of others has no manifest
            path = os.path.join(base, str(max(versions(base))), MANIFEST)
            with open(path, encoding="utf-8") as file:
                needed[os.path.basename(base)] = json.load(file).get("needs_ops", [])
    return needed


def _complete(folder: str, name: str, max_batch_size: int, pad_batches: bool, photos: list[bytes], reference) -> dict:
    """Writes all that a bundle has beside the graph into a SavedModel's folder; the manifest, which lists it, last."""
    batch_sizes = warmup_sizes(max_batch_size)
    path = os.path.join(folder, MANIFEST)
    with open(path, encoding="utf-8") as file:
        manifest = json.load(file)
    write_warmup(folder, batch_sizes, photos, manifest["image_size"], name)
    with open(os.path.join(folder, BATCHING), "w", encoding="utf-8") as file:
        file.write(batching_parameters(max_batch_size, batch_sizes if pad_batches else ()))
    if reference is not None:
        encoded: dict = {f"photo_{row}": np.frombuffer(photo, np.uint8) for row, photo in enumerate(photos)}
        np.savez(os.path.join(folder, REFERENCE), vectors=reference(photos), **encoded)
    manifest["name"] = name
    manifest["batch_sizes"] = batch_sizes
    manifest["pad_batches"] = pad_batches
    manifest["signatures"] = {name: describe(each) for name, each in sorted(read_signatures(folder).items())}
    manifest["files"] = {name: _checksum(os.path.join(folder, name)) for name in _file_names(folder, path)}
    with files.replaced(path) as aside, open(aside, "w", encoding="utf-8") as file:
        json.dump(manifest, file, indent=2)
        file.write("\n")
    return manifest


def batching_parameters(max_batch_size: int, allowed_batch_sizes: Sequence[int] = ()) -> str:
    """The text of `batching_params.pbtxt`; how many threads work is left to the server, which knows its machine.

    Args:
        max_batch_size: photos in a batch at most.
        allowed_batch_sizes: that batches are padded to, ascending, the last `max_batch_size`; none for no padding.

    Example:

    >>> print(batching_parameters(8))
    max_batch_size { value: 8 }
    batch_timeout_micros { value: 2000 }
    max_enqueued_batches { value: 100 }
    <BLANKLINE>
    """
    lines = [
        f"max_batch_size {{ value: {max_batch_size} }}",
        "batch_timeout_micros { value: 2000 }",
        "max_enqueued_batches { value: 100 }",
        *[f"allowed_batch_sizes: {size}" for size in allowed_batch_sizes],
    ]
    return "\n".join(lines) + "\n"


def _file_names(folder: str, manifest: str) -> list[str]:
    """All files in a folder but its manifest, relative to it."""
    paths = [os.path.join(place, name) for place, _, names in os.walk(folder) for name in names]
    return sorted(os.path.relpath(path, folder) for path in paths if path != manifest)


def _checksum(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _flush_tree(folder: str) -> None:
    for place, _, names in os.walk(folder):
        for path in (*[os.path.join(place, name) for name in names], place):
            files.flush(path)


@contextlib.contextmanager
def _only_writer(base: str) -> Iterator[None]:
    """Waits until no other process writes versions of this model; a killed one lets go by itself."""
    with open(os.path.join(base, ".lock"), "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _remove_old(base: str, keep_versions: int, held: set[int]) -> None:
    for version in set(versions(base)[:-keep_versions]) - held:
        aside = os.path.join(base, _ASIDE)
        # a folder that is a number is taken for a version, and this one is about to lose its parts
        os.rename(os.path.join(base, str(version)), aside)
        shutil.rmtree(aside)
