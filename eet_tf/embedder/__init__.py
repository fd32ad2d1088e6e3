"""The embedder room: a network from photos to unit vectors, of a backbone, pooling and heads."""

from eet_tf._lazy import lazy_names

_NAMES = {
    "AttributeHead": "eet_tf.embedder.heads",
    "ClassToken": "eet_tf.embedder.pooling",
    "GeMPooling": "eet_tf.embedder.pooling",
    "GridPooling": "eet_tf.embedder.pooling",
    "PatchTokens": "eet_tf.embedder.pooling",
    "PixelScaling": "eet_tf.embedder.pixels",
    "UnitLength": "eet_tf.embedder.heads",
    "attribute_head": "eet_tf.embedder.heads",
    "attribute_names": "eet_tf.embedder.heads",
    "backbone_features": "eet_tf.embedder.features",
    "begin_as_whitening": "eet_tf.embedder.features",
    "build_embedder": "eet_tf.embedder.build",
    "photo_fit": "eet_tf.embedder.pixels",
    "pooled_features": "eet_tf.embedder.features",
    "whitened": "eet_tf.embedder.features",
}
__all__ = sorted(_NAMES)
__getattr__, __dir__ = lazy_names(__name__, _NAMES)
