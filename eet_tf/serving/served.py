"""A SavedModel in this process: photos are embedded as a server would."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable

import numpy as np
import tensorflow as tf

from eet_tf.data import reasons
from eet_tf.data.catalog import Catalog, CatalogError
from eet_tf.data.limits import MAX_PIXELS
from eet_tf.data.pipeline import check_photos
from eet_tf.data.reading import read_batches
from eet_tf.files import without_pattern
from eet_tf.serving.saved_model import MANIFEST, SavedModelError, newest_version
from eet_tf.wording import said_by


class ServedEmbedder:
    """Embeds photos as a server would, by a SavedModel that `export_embedder` wrote.

    Args:
        path: the version's folder, or the base path, of which the newest version is taken.

    Attributes:
        folder: the version's folder.
        fingerprint: which embedder it is.
        embedding_dim: D.
        compatible_with: the fingerprints of embedders whose indexes it can search, such as its teacher's.
        attribute_names: the A attributes it predicts; empty if it predicts none.
        max_pixels: photos that declare more get `ok` false.

    Raises:
        SavedModelError: if there is none, or it is not one of this package.
    """

    def __init__(self, path: str):
        self.folder = newest_version(path)
        try:
            with open(os.path.join(self.folder, MANIFEST), encoding="utf-8") as file:
                manifest = json.load(file)
            self.fingerprint = manifest["fingerprint"]
            self.compatible_with = tuple(manifest.get("compatible_with", ()))  # older versions have none
            self.embedding_dim = manifest["embedding_dim"]
            self.attribute_names = tuple(manifest.get("attribute_names", ()))  # nor attributes
            self.max_pixels = manifest.get("max_pixels", MAX_PIXELS)  # nor a limit of their own
            with without_pattern(self.folder) as folder:
                self._model = tf.saved_model.load(folder)
        except (OSError, ValueError, LookupError, RuntimeError, tf.errors.OpError) as error:
            raise SavedModelError(
                f"{self.folder!r} is no complete SavedModel of this package: {_why_no_model(error)}. "
                "Write it again with `eet export`."
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

        At the first photo that cannot be read it embeds no more: the rest is looked through, and all such photos are
        named. `check_photos(catalog, max_pixels=embedder.max_pixels)` names them before anything is embedded.

        Args:
            catalog: the photos.
            batch_size: photos embedded at once.
            on_batch: is told after each batch how many photos are done.

        Returns:
            `[N, D]` float32.

        Raises:
            CatalogError: if some cannot be read; it names them, with file and line and the reason.
        """
        files = catalog.files.tolist()
        embeddings = np.zeros([len(files), self.embedding_dim], np.float32)
        done = 0
        for photos in read_batches(files, batch_size, catalog.photo_cache):
            rows = slice(done, done + len(photos))
            embeddings[rows], is_image = self.embed(photos)
            if not is_image.all():
                self._refuse(catalog, done + int(np.argmin(is_image)))
            done += len(photos)
            if on_batch is not None:
                on_batch(done)
        return embeddings

    def _refuse(self, catalog: Catalog, first: int) -> None:
        """Names the photos that cannot be read, of which the first is known."""
        check_photos(catalog, max_pixels=self.max_pixels)
        file = catalog.files[first]
        why = f"{catalog.where(first)}: {file!r}: it could not be read, but now it can; start again"
        raise CatalogError(reasons.unreadable_message([why], len(catalog)))

    def predict_attributes(self, photos: Iterable[bytes]) -> np.ndarray:
        """Returns the probability of each of `attribute_names`: `[N, A]` float32, zeros where `ok` would be false."""
        outputs = self._outputs(photos)
        return outputs["attributes"].numpy() if self.attribute_names else np.zeros([len(outputs["ok"]), 0], np.float32)

    def _outputs(self, photos: Iterable[bytes]) -> dict[str, tf.Tensor]:
        photos = list(photos)
        return self._serve(image_bytes=tf.constant(photos, dtype=tf.string, shape=[len(photos)]))


def _why_no_model(error: Exception) -> str:
    """What keeps a SavedModel from being loaded, in words: TensorFlow names its own operations and nodes."""
    if isinstance(error, OSError) and error.filename:
        return f"{os.path.basename(error.filename)} cannot be read: {said_by(error)}"
    if isinstance(error, LookupError):
        return f"{MANIFEST} lacks {error}"
    if isinstance(error, UnicodeError | json.JSONDecodeError):
        return f"{MANIFEST} is damaged"
    if "Op type not registered" in str(error):
        return "it has operations that this installation lacks, such as ScaNN's"
    return "its graph or its variables are missing or damaged"
