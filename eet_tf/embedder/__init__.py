"""The embedder room: a network from photos to unit vectors, of a backbone, pooling and heads."""

from eet_tf._lazy import lazy_names

_NAMES = {
    "AttributeHead": "eet_tf.embedder.heads",
    "GeMPooling": "eet_tf.embedder.pooling",
    "GridPooling": "eet_tf.embedder.pooling",
    "PixelScaling": "eet_tf.embedder.backbones",
    "UnitLength": "eet_tf.embedder.heads",
    "attribute_head": "eet_tf.embedder.heads",
    "attribute_names": "eet_tf.embedder.heads",
    "build_embedder": "eet_tf.embedder.build",
}
__all__ = sorted(_NAMES)
__getattr__, __dir__ = lazy_names(__name__, _NAMES)
