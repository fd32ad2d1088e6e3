"""How a SavedModel lies on disk: numbered versions, each there whole or not at all, with a manifest."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence

import keras
import tensorflow as tf

from eet_tf.data.limits import MAX_PIXELS, SERVED_MAX_PIXELS
from eet_tf.embedder.heads import attribute_names
from eet_tf.embedder.pixels import photo_fit
from eet_tf.files import why_no_folder
from eet_tf.index import CatalogIndex
from eet_tf.serving.catalog import served_catalog
from eet_tf.serving.compilation import leave_compilation_to_the_server
from eet_tf.serving.fingerprint import embedder_fingerprint
from eet_tf.serving.graph import ServingModule, describing, output_sizes
from eet_tf.serving.scann_graph import SCANN_OPS, ScannSearch
from eet_tf.serving.search_graph import CatalogSearch
from eet_tf.serving.servable import SavedModelError, is_brought_to_unit_length, prefix_of, servable
from eet_tf.terminal import escaped, is_utf8

MANIFEST = os.path.join("assets.extra", "eet_tf.json")


def export_embedder(
    embedder: keras.Model,
    output_dir: str,
    metadata: Mapping | None = None,
    whitening=None,
    catalog_index: CatalogIndex | str | os.PathLike | None = None,
    k: int = 10,
    catalog_storage: str | None = None,
    scann_in_graph: bool = False,
    image_size: int | None = None,
    max_pixels: int = SERVED_MAX_PIXELS,
    prefix: int | None = None,
    compatible_with: Sequence[str] = (),
) -> str:
    """Writes an embedder as the next version for TF Serving, `<output_dir>/<version>/`.

    A version appears whole or not at all; older ones stay. Its signatures:

    * `serving_default`: `image_bytes` (string `[None]`, encoded photos) -> `embedding` (float32 `[None, D]`, unit
      length) and `ok` (bool `[None]`). Bytes that are no image, declare more than `max_pixels`, or ask for more than
      `data/limits.py` allows, get `ok` false and a zero vector, and change nothing for the other rows.
    * `embed_images`: `images` (uint8 `[None, H, W, 3]`, any H and W, resized as decoded photos are) -> `embedding`.
    * `search`, with a `catalog_index`: `image_bytes` -> `sku` (string `[None, k]`), `score` (float32 `[None, k]`,
      cosine) and `ok`: the `k` nearest different products, each by its best photo, best first, as
      `catalog_index.search(..., group_by_sku=True)` finds them. Where `ok` is false, skus are `""` and scores 0.

    * `describe`: `query` (string `[None]`, anything) -> `fingerprint` (string `[None]`) and `embedding_dim` (int32
      `[None]`): which embedder it is, since a server says nothing of a model but its signatures. With an attribute
      head also `attribute_names` (string `[None, A]`).

    An embedder with an attribute head also gives `attributes` (float32 `[None, A]`, probabilities; zeros where `ok` is
    false) beside each `embedding`; `describe` and the manifest have their names.

    Args:
        embedder: a model `[B, S, S, 3]` in [0, 255] -> `[B, D]`, or to a dict with `"embedding"`, as `build_embedder`
            makes it; or a `MetricLearner`, whose embedder it then is. It is served in inference. Vectors that are not
            of length 1 are brought to it, and the manifest says so: `"brought_to_unit_length"`.
        output_dir: the model's base path on the server.
        metadata: JSON-able facts to keep with it, e.g. the training run's figures.
        whitening: a `postprocessing.Whitening` that every embedding goes through before it is given out; D is then its
            `dim`, and the fingerprint another.
        catalog_index: an index of this embedder, or its folder, of whose photos `search` keeps a copy as they are now.
        k: products that `search` finds.
        catalog_storage: how `search` keeps vectors: `"float32"`, `"bfloat16"` or `"int8"`; None: as the index does.
        scann_in_graph: whether `search` lets ScaNN find candidates, as a `ScannIndex` is configured. Only for servers
            that have its operations: a stock one loads such a version, but answers no `search`.
        image_size: S, exactly where the embedder takes images of any size.
        max_pixels: of a photo, from 1 to `data.limits.MAX_PIXELS`. The default, 40 million, bounds the memory of a
            server, which decodes as many photos at once as it has cores; docs/serving.md says what a photo takes.
        prefix: how many leading dimensions of the embedding are served, brought to length 1, of an embedder that was
            trained with `PrefixLoss`; None: all. D is then `prefix`, and the fingerprint another.
        compatible_with: fingerprints of embedders whose indexes this one can search, such as that of the teacher it
            was trained with by `DistillationLoss`. The manifest and `describe` name them. Nothing can check that this
            is so: `eet train --teacher` measures how well it is.

    Returns:
        The version's folder.

    Raises:
        SavedModelError: if `output_dir` is a file, the embedder takes other images, gives no vectors, or NaN, `prefix`
            is no number of its dimensions, or the whitening is of embeddings of another length or of an embedder whose
            vectors are not of length 1; or `scann_in_graph` is asked for without an index or without `scann`; or
            `max_pixels` is out of range, or `compatible_with` no list of fingerprints.
        CatalogIndexError: if the index cannot be read, is of another whitening or of an embedder that is neither this
            one nor in `compatible_with`, or has fewer than `k` products; or `catalog_storage` is none.

    Example:

    >>> import tempfile
    >>> folder = export_embedder(build_embedder("small_cnn", 8, image_size=32), tempfile.mkdtemp())
    >>> os.path.basename(folder)
    '1'
    """
    embedder = servable(embedder, image_size, prefix)
    compatible_with = _checked_fingerprints(compatible_with)
    if not (isinstance(max_pixels, int) and not isinstance(max_pixels, bool) and 1 <= max_pixels <= MAX_PIXELS):
        raise SavedModelError(
            f"`max_pixels` must be a whole number from 1 to {MAX_PIXELS}. Received: max_pixels={max_pixels!r}."
        )
    why = why_no_folder(output_dir) if is_utf8(output_dir) else "whose name is not UTF-8"
    if why:
        raise SavedModelError(f"`output_dir` must be a folder. Received: output_dir='{escaped(output_dir)}', {why}.")
    embedding_dim = output_sizes(embedder)["embedding"]
    if whitening is not None and len(whitening.mean) != embedding_dim:
        raise SavedModelError(
            f"`whitening` must be of embeddings of length {embedding_dim}. Received: one of {len(whitening.mean)}. "
            "Fit it with this embedder."
        )
    if whitening is not None and is_brought_to_unit_length(embedder):
        raise SavedModelError(
            "`whitening` must be None for an embedder whose vectors are not of length 1: it was fitted to vectors that "
            "are not served. End the model in keras.layers.UnitNormalization() and fit the whitening with it."
        )
    fingerprint = embedder_fingerprint(embedder, whitening)
    dim = output_sizes(embedder, whitening)["embedding"]
    accepted = (fingerprint, *compatible_with)
    search, facts = _search(catalog_index, k, catalog_storage, scann_in_graph, accepted, dim)
    os.makedirs(output_dir, exist_ok=True)
    version = max(_versions(output_dir), default=0) + 1
    aside = os.path.join(output_dir, f".{version}.{os.getpid()}")
    try:
        module = ServingModule(embedder, whitening, search, max_pixels)
        describe = describing(fingerprint, dim, attribute_names(embedder), compatible_with)
        signatures = {**module.functions, "describe": describe}
        tf.saved_model.save(module, aside, signatures=signatures)
        leave_compilation_to_the_server(aside)
        own = {"fingerprint": fingerprint, "embedding_dim": dim, "max_pixels": max_pixels}
        own |= {"prefix": prefix_of(embedder), "compatible_with": list(compatible_with)}
        facts = {**own, "signatures": list(signatures), **facts}
        _write_manifest(aside, embedder, metadata or {}, facts)
        target = os.path.join(output_dir, str(version))
        os.rename(aside, target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return target


def _checked_fingerprints(fingerprints) -> tuple[str, ...]:
    given = tuple(fingerprints) if isinstance(fingerprints, (list, tuple)) else (None,)
    if not all(isinstance(each, str) and each for each in given):
        raise SavedModelError(
            "`compatible_with` must be a list of fingerprints of embedders. Received: "
            f"compatible_with={fingerprints!r}."
        )
    return given


def _search(index, k: int, storage: str | None, with_scann: bool, fingerprints: Sequence[str], dim: int):
    """What the signature `search` runs, None without an index; and what the manifest says of it."""
    if index is None:
        if with_scann:
            raise SavedModelError("`scann_in_graph` must come with `catalog_index`. Received: catalog_index=None.")
        return None, {"search": None, "needs_ops": []}
    catalog = served_catalog(index, k, storage, fingerprints, dim)
    facts = {"search": {"k": k, **catalog.facts()}, "needs_ops": []}
    if not with_scann:
        return CatalogSearch(catalog, k), facts
    try:
        return ScannSearch(catalog, k), {**facts, "needs_ops": list(SCANN_OPS)}
    except ImportError as error:
        raise SavedModelError(f"`scann_in_graph` must be False here. Received: True. {error}") from error


def _write_manifest(folder: str, embedder: keras.Model, metadata: Mapping, facts: Mapping) -> None:
    manifest = {
        "format": 1,
        "image_size": embedder.input_shape[1],
        "fit": photo_fit(embedder),
        **facts,
        "attribute_names": list(attribute_names(embedder)),
        "brought_to_unit_length": is_brought_to_unit_length(embedder),
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
    """Returns the folder of a SavedModel: `path` itself, or its version with the largest number.

    Raises:
        SavedModelError: if there is none.
    """
    if os.path.isfile(os.path.join(path, "saved_model.pb")):
        return path
    versions = _versions(path) if os.path.isdir(path) else []
    if not versions:
        raise SavedModelError(
            f"`path` must be a SavedModel or a folder of numbered versions of one. Received: path={path!r}. "
            "Make one with `eet export`."
        )
    return os.path.join(path, str(max(versions)))
