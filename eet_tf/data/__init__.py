"""Catalogues and what is made of them: readers, batches of photos, datasets."""

from eet_tf._lazy import lazy_names

_NAMES = {
    "Catalog": "eet_tf.data.catalog",
    "CatalogError": "eet_tf.data.catalog",
    "PKSampler": "eet_tf.data.sampling",
    "augmentation": "eet_tf.data.pipeline",
    "check_photos": "eet_tf.data.pipeline",
    "decode_and_resize": "eet_tf.data.images",
    "gallery_dataset": "eet_tf.data.pipeline",
    "load_csv": "eet_tf.data.benchmarks",
    "load_dataset": "eet_tf.data.benchmarks",
    "load_folder": "eet_tf.data.benchmarks",
    "load_sop": "eet_tf.data.benchmarks",
    "make_synthetic_catalog": "eet_tf.data.synthetic",
    "training_dataset": "eet_tf.data.pipeline",
}
__all__ = sorted(_NAMES)
__getattr__, __dir__ = lazy_names(__name__, _NAMES)
