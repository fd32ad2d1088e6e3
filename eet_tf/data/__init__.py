"""Catalogues and what is made of them: readers, batches of photos, datasets."""

from eet_tf._lazy import lazy_names

_NAMES = {
    "AttributeTable": "eet_tf.data.attributes",
    "Catalog": "eet_tf.data.catalog",
    "CatalogError": "eet_tf.data.catalog",
    "MissingPhotosError": "eet_tf.data.catalog",
    "Parts": "eet_tf.data.splits",
    "PKSampler": "eet_tf.data.sampling",
    "array_dataset": "eet_tf.data.arrays",
    "SkippedPhoto": "eet_tf.data.pipeline",
    "augmentation": "eet_tf.data.augment",
    "catalog_from_frame": "eet_tf.data.listings",
    "check_photos": "eet_tf.data.pipeline",
    "decode_and_resize": "eet_tf.data.images",
    "decode_photos": "eet_tf.data.pipeline",
    "detect_layout": "eet_tf.data.layouts",
    "encode_attributes": "eet_tf.data.attributes",
    "gallery_dataset": "eet_tf.data.pipeline",
    "load_cars196": "eet_tf.data.fine_grained",
    "load_consumer_to_shop": "eet_tf.data.deepfashion",
    "load_csv": "eet_tf.data.listings",
    "load_cub": "eet_tf.data.fine_grained",
    "load_dataset": "eet_tf.data.benchmarks",
    "load_folder": "eet_tf.data.benchmarks",
    "load_inshop": "eet_tf.data.deepfashion",
    "load_parquet": "eet_tf.data.listings",
    "load_sop": "eet_tf.data.benchmarks",
    "load_xlsx": "eet_tf.data.listings",
    "make_synthetic_catalog": "eet_tf.data.synthetic",
    "naming_unreadable": "eet_tf.data.pipeline",
    "parts_of": "eet_tf.data.splits",
    "photo_crop": "eet_tf.data.crops",
    "read_columns": "eet_tf.data.roles",
    "readable": "eet_tf.data.pipeline",
    "training_dataset": "eet_tf.data.pipeline",
    "write_skipped": "eet_tf.data.pipeline",
}
__all__ = sorted(_NAMES)
__getattr__, __dir__ = lazy_names(__name__, _NAMES)
