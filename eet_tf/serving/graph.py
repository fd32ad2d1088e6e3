"""What a server runs: the functions from photos to embeddings, attributes and products, without this package."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import keras
import tensorflow as tf

from eet_tf import compat
from eet_tf.data import images
from eet_tf.data.limits import SERVED_MAX_PIXELS
from eet_tf.embedder.heads import attribute_names
from eet_tf.embedder.pixels import photo_fit


class ServingModule(tf.Module):
    """What is saved: the embedder's variables, the catalogue's if it is searched, and a function for each signature.

    Args:
        embedder: `[B, S, S, 3]` in [0, 255] -> `[B, D]`, or a dict with `"embedding"`.
        whitening: a `postprocessing.Whitening`, or None.
        search: `[B, D]` -> (`[B, k]` skus, `[B, k]` scores), a `tf.Module`; None for no search.
        max_pixels: encoded photos that declare more are refused before they are decoded.

    Attributes:
        functions: by the names of the signatures that they become.
    """

    def __init__(
        self,
        embedder: keras.Model,
        whitening=None,
        search: Callable | None = None,
        max_pixels: int = SERVED_MAX_PIXELS,
    ):
        super().__init__()
        self.weights = compat.raw_variables(embedder)
        self.whitening = [] if whitening is None else [tf.Variable(whitening.mean), tf.Variable(whitening.projection)]
        self.searched = search
        image_size, sizes = embedder.input_shape[1], output_sizes(embedder, whitening)
        fit = photo_fit(embedder)

        def embed(batch):
            # not every kernel takes a batch of no rows
            return tf.cond(
                tf.shape(batch)[0] > 0,
                lambda: _served_outputs(embedder, batch, self.whitening),
                lambda: {name: tf.zeros([0, size]) for name, size in sizes.items()},
            )

        def embed_encoded(image_bytes):
            batch, is_image = images.decode_batch(image_bytes, image_size, max_pixels, fit)
            outputs = {name: tf.where(is_image[:, tf.newaxis], rows, 0.0) for name, rows in embed(batch).items()}
            return {**outputs, "ok": is_image}

        def embed_decoded(pixels):
            # nothing can be resized to a batch of no rows
            is_empty = tf.equal(tf.shape(pixels)[0], 0)
            batch = tf.cond(
                is_empty,
                lambda: tf.zeros([0, image_size, image_size, 3]),
                lambda: images.resize(pixels, image_size, fit),
            )
            return embed(batch)

        def search_encoded(image_bytes):
            outputs = embed_encoded(image_bytes)
            skus, scores = search(outputs["embedding"])  # type: ignore[misc]  # traced only where there is one
            is_image = outputs["ok"][:, tf.newaxis]
            return {"sku": tf.where(is_image, skus, ""), "score": tf.where(is_image, scores, 0.0), "ok": outputs["ok"]}

        encoded = [tf.TensorSpec([None], tf.string, name="image_bytes")]
        decoded = [tf.TensorSpec([None, None, None, 3], tf.uint8, name="images")]
        self.embed_bytes = tf.function(embed_encoded, input_signature=encoded)
        self.embed_images = tf.function(embed_decoded, input_signature=decoded)
        self.functions = {"serving_default": self.embed_bytes, "embed_images": self.embed_images}
        if search is not None:
            self.search_bytes = tf.function(search_encoded, input_signature=encoded)
            self.functions["search"] = self.search_bytes


def _served_outputs(embedder: keras.Model, batch: tf.Tensor, whitening) -> dict[str, tf.Tensor]:
    """The unit vectors and, with an attribute head, the probabilities of attributes; float32."""
    outputs = embedder(batch, training=False)
    if not isinstance(outputs, Mapping):
        outputs = {"embedding": outputs}
    served = {"embedding": tf.cast(outputs["embedding"], tf.float32)}
    if whitening:
        mean, projection = [tf.cast(each, tf.float64) for each in whitening]
        # in float64, since a server's GPU may round the factors of a float32 product
        whitened = tf.matmul(tf.cast(served["embedding"], tf.float64) - mean, projection)
        served["embedding"] = tf.cast(tf.math.l2_normalize(whitened, axis=1), tf.float32)
    if attribute_names(embedder):
        served["attributes"] = tf.sigmoid(tf.cast(outputs["attributes"], tf.float32))
    return served


def output_sizes(embedder: keras.Model, whitening=None) -> dict[str, int]:
    """How many numbers a photo has in each of `_served_outputs`."""
    shapes = compat.output_shape(embedder)
    own = (shapes["embedding"] if isinstance(shapes, Mapping) else shapes)[-1]
    sizes = {"embedding": own if whitening is None else whitening.dim}
    return {**sizes, "attributes": len(attribute_names(embedder))} if attribute_names(embedder) else sizes


def describing(
    fingerprint: str, embedding_dim: int, attribute_names: Sequence[str] = (), compatible_with: Sequence[str] = ()
):
    """The function behind the signature `describe`: which embedder it is, once for each row of `query`.

    A server tells its clients nothing of a model but its signatures, so the model says it itself.

    Args:
        fingerprint: of the embedder, `embedder_fingerprint`.
        embedding_dim: D.
        attribute_names: the A attributes that the embedder predicts; none by default.
        compatible_with: the fingerprints of C embedders whose indexes this one can search; none by default.

    Returns:
        A function from `query` (string `[None]`, of which only the number counts) to `fingerprint` (string `[None]`),
        `embedding_dim` (int32 `[None]`) and, where there are any, `attribute_names` (string `[None, A]`) and
        `compatible_with` (string `[None, C]`).

    Example:

    >>> described = describing("0123456789abcdef", 8)(tf.constant([""]))
    >>> described["fingerprint"].numpy().tolist(), described["embedding_dim"].numpy().tolist()
    ([b'0123456789abcdef'], [8])
    """

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="query")])
    def describe(query):
        rows = tf.shape(query)
        described = {"fingerprint": tf.fill(rows, fingerprint), "embedding_dim": tf.fill(rows, embedding_dim)}
        for name, texts in (("attribute_names", attribute_names), ("compatible_with", compatible_with)):
            if texts:
                described[name] = tf.tile(tf.constant([list(texts)]), [rows[0], 1])
        return described

    return describe
