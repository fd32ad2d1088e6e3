"""Photos of kinds that TensorFlow does not read, such as HEIC, AVIF and TIFF, as JPEG or PNG."""

from eet_tf._lazy import lazy_names

_NAMES = {
    "Conversion": "eet_tf.convert.conversion",
    "convert_catalog": "eet_tf.convert.conversion",
    "load_folder_of_any_kind": "eet_tf.convert.conversion",
}
__all__ = sorted(_NAMES)
__getattr__, __dir__ = lazy_names(__name__, _NAMES)
