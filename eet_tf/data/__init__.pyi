"""What type checkers and editors see of the names that are imported lazily; a test compares the two."""

from eet_tf.data.arrays import array_dataset
from eet_tf.data.attributes import AttributeTable, encode_attributes
from eet_tf.data.augment import augmentation
from eet_tf.data.benchmarks import load_dataset, load_folder, load_sop
from eet_tf.data.catalog import Catalog, CatalogError, MissingPhotosError
from eet_tf.data.crops import photo_crop
from eet_tf.data.deepfashion import load_consumer_to_shop, load_inshop
from eet_tf.data.fine_grained import load_cars196, load_cub
from eet_tf.data.images import decode_and_resize
from eet_tf.data.layouts import detect_layout
from eet_tf.data.listings import catalog_from_frame, load_csv, load_parquet, load_xlsx
from eet_tf.data.pipeline import (
    SkippedPhoto,
    check_photos,
    decode_photos,
    gallery_dataset,
    naming_unreadable,
    readable,
    training_dataset,
    write_skipped,
)
from eet_tf.data.roles import read_columns
from eet_tf.data.sampling import PKSampler
from eet_tf.data.splits import Parts, parts_of
from eet_tf.data.synthetic import make_synthetic_catalog

__all__ = [
    "AttributeTable",
    "Catalog",
    "CatalogError",
    "MissingPhotosError",
    "PKSampler",
    "Parts",
    "SkippedPhoto",
    "array_dataset",
    "augmentation",
    "catalog_from_frame",
    "check_photos",
    "decode_and_resize",
    "decode_photos",
    "detect_layout",
    "encode_attributes",
    "gallery_dataset",
    "load_cars196",
    "load_consumer_to_shop",
    "load_csv",
    "load_cub",
    "load_dataset",
    "load_folder",
    "load_inshop",
    "load_parquet",
    "load_sop",
    "load_xlsx",
    "make_synthetic_catalog",
    "naming_unreadable",
    "parts_of",
    "photo_crop",
    "read_columns",
    "readable",
    "training_dataset",
    "write_skipped",
]
