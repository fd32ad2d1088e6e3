"""The public surface as a list to diff, and what importing it costs."""

import ast
import pathlib

import pytest

import eet_tf
import eet_tf.audit
import eet_tf.data
import eet_tf.index

PUBLIC = {
    eet_tf: [
        "ArcFaceLoss",
        "AttributeLoss",
        "Batch",
        "BinomialDevianceLoss",
        "CombinedLoss",
        "DistillationLoss",
        "EETLoss",
        "MetricLearner",
        "MetricLoss",
        "MultiSimilarityLoss",
        "NormalizedSoftmaxLoss",
        "PrefixLoss",
        "ProxyAnchorLoss",
        "RecallAtKLoss",
        "RetrievalEvaluation",
        "RoadmapLoss",
        "SmoothAPLoss",
        "SoftBinomialDevianceLoss",
        "SupervisedContrastiveLoss",
        "TrainingAdvice",
        "TripletLoss",
        "arcface_loss",
        "attribute_accuracy",
        "attribute_loss",
        "binomial_deviance",
        "build_embedder",
        "eet_loss",
        "evaluate_retrieval",
        "export_embedder",
        "load_embedder",
        "make_batch",
        "make_strategy",
        "multi_similarity_loss",
        "normalized_softmax_loss",
        "proxy_anchor_loss",
        "recall_at_k_loss",
        "roadmap_loss",
        "smooth_ap_loss",
        "soft_binomial_deviance",
        "supervised_contrastive_loss",
        "triplet_loss",
    ],
    eet_tf.audit: ["AuditResult", "Finding", "audit_catalog", "write_page"],
    eet_tf.data: [
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
    ],
    eet_tf.index: [
        "CatalogIndexError",
        "ExactIndex",
        "KeptPhotos",
        "MilvusIndex",
        "Neighbors",
        "ScannConfiguration",
        "ScannIndex",
        "UpdatePlan",
        "attribute_values",
        "bytes_on_disk",
        "check_replaceable",
        "count_values",
        "load_index",
        "lookup_photos",
        "plan_update",
        "read_where",
        "splits_of",
        "typed_columns",
        "verify_index",
    ],
}


def imported_by(code, run_python):
    """The top-level packages that are loaded once `code` has run in a fresh process."""
    report = "import sys; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    return set(run_python(f"{code}\n{report}", fresh=True)[0].split())


def test_exactly_these_names_are_public():
    assert {package.__name__: package.__all__ for package in PUBLIC} == {
        package.__name__: names for package, names in PUBLIC.items()
    }


def test_every_public_name_can_be_had():
    for package, names in PUBLIC.items():
        for name in names:
            assert callable(getattr(package, name)), name


def test_names_are_offered_for_completion():
    assert dir(eet_tf) == PUBLIC[eet_tf]
    assert dir(eet_tf.data) == PUBLIC[eet_tf.data]
    assert dir(eet_tf.audit) == PUBLIC[eet_tf.audit]


@pytest.mark.parametrize("package", [eet_tf, eet_tf.data], ids=lambda package: package.__name__)
def test_type_checkers_see_the_same_names(package):
    """The stub beside a package of lazy names imports each from where it is defined."""
    stub = ast.parse(pathlib.Path(package.__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    imports = [node for node in stub.body if isinstance(node, ast.ImportFrom)]
    assert {alias.name: node.module for node in imports for alias in node.names} == package._NAMES
    listed = next(node for node in stub.body if isinstance(node, ast.Assign))
    assert ast.literal_eval(listed.value) == package.__all__


def test_a_name_that_is_not_there_is_an_attribute_error():
    for package in (eet_tf, eet_tf.data):
        assert not hasattr(package, "NoSuchName")


def test_importing_the_package_does_not_start_tensorflow(run_python):
    heavy = {"tensorflow", "keras", "numpy", "keras_cv", "scann", "matplotlib", "PIL", "scipy", "apache_beam"}
    assert not imported_by("import eet_tf, eet_tf.audit, eet_tf.data, eet_tf.doctor.facts", run_python) & heavy


def test_importing_a_loss_imports_no_augmentation_index_or_plots(run_python):
    """Keras itself imports matplotlib where it is installed, so what counts is what comes on top of Keras."""
    loaded = imported_by("from eet_tf import EETLoss", run_python)
    of_keras = imported_by("import keras, tensorflow", run_python)
    assert "keras" in loaded
    assert not loaded & {"keras_cv", "keras_core", "tensorflow_datasets", "scann"}
    assert not (loaded - of_keras) & {"matplotlib", "PIL"}


def test_catalogues_metrics_and_indexes_do_without_tensorflow(run_python):
    code = """
import eet_tf.evaluation.comparison, eet_tf.embedding.files, eet_tf.index
from eet_tf.audit import audit_catalog, write_page
from eet_tf import evaluate_retrieval
from eet_tf.data import Catalog, PKSampler, encode_attributes, load_cars196, load_sop, make_synthetic_catalog
"""
    heavy = {"tensorflow", "keras", "keras_cv", "scann", "matplotlib", "scipy", "pymilvus", "milvus_lite", "grpc"}
    assert not imported_by(code, run_python) & heavy
