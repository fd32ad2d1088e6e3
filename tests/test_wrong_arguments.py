"""Every public name, called with something wrong: our own error names the argument, in words and not in arrays."""

import dataclasses
import re

import numpy as np
import pytest

import eet_tf
import eet_tf.audit
import eet_tf.client
import eet_tf.data
import eet_tf.index
import eet_tf.serving
from eet_tf.client import ServingError
from eet_tf.data import Catalog
from eet_tf.data.synthetic import make_synthetic_catalog
from eet_tf.index import ExactIndex, ScannIndex
from eet_tf.training.run import RunError

OURS = (
    ValueError,
    TypeError,
    RunError,
    ServingError,
)  # CatalogError, CatalogIndexError, SavedModelError are ValueErrors
PACKAGES = (eet_tf, eet_tf.audit, eet_tf.client, eet_tf.data, eet_tf.index, eet_tf.serving)
FOREIGN = re.compile(
    r"np\.|array\(|\{\{|node |Op type|Traceback|object at 0x|<class|tf\.Tensor|InvalidArgument|unexpected keyword|"
    r"dtype=|NoneType|not supported between|unsupported operand|cannot be interpreted|invalid literal|could not convert"
)
# Only hold what others have checked, or only raised.
CHECK_NOTHING = {"AuditResult", "Batch", "Finding", "AttributeTable", "KeptPhotos", "Neighbors", "Parts", "UpdatePlan"}
CHECK_NOTHING |= {"CatalogError", "CatalogIndexError", "MissingPhotosError", "SavedModelError", "ServingError"}
CHECK_NOTHING |= {"SkippedPhoto", "TrainingAdvice", "naming_unreadable"}

LABELS = np.arange(8) // 2
EMBEDDINGS = (np.random.default_rng(0).normal(size=[8, 4]) / 2).astype(np.float32)
UNIT = EMBEDDINGS / np.linalg.norm(EMBEDDINGS, axis=1, keepdims=True)
WEIGHTS = [-0.1, np.nan, "x", None]
LOSSES = {"margin": WEIGHTS, "reduction": ["total"]}
TRIPLETS = {"margin": WEIGHTS, "positives": ["none", 1], "negatives": ["easy"], "distance": ["manhattan"]}
DEVIANCE = {"alpha": [0.0, *WEIGHTS], "negative_cost": [0.0, *WEIGHTS]}
SIMILARITIES = {
    "positive_scale": [0.0, *WEIGHTS],
    "negative_scale": [0.0, *WEIGHTS],
    "threshold": [-1.1, np.nan, "x", None],
    "epsilon": WEIGHTS,
}
ROADMAP = {
    "calibration_weight": [1.1, *WEIGHTS],
    "temperature": [0.0, *WEIGHTS],
    "slope": [0.0, *WEIGHTS],
    "delta": [2.1, *WEIGHTS],
    "positive_threshold": [-1.1, np.nan, "x", None],
    "negative_threshold": [1.1, np.nan, "x", None],
}
RECALLS = {"ks": [[], [0], [1.5], 5, None, "x"], "temperature": [0.0, *WEIGHTS], "rank_temperature": [0.0, *WEIGHTS]}
_CLASSES = {"sampled_classes": [1, -1, 2.5, "x"]}
_SMOOTHED = {**_CLASSES, "label_smoothing": [-0.1, 1.1, float("nan"), "x", None]}
SOFTMAX = {"temperature": [0.0, *WEIGHTS], **_SMOOTHED}
ARCFACE = {"margin": [3.2, *WEIGHTS], "scale": [0.0, *WEIGHTS], **_SMOOTHED}
PROXIES = {"margin": WEIGHTS, "scale": [0.0, *WEIGHTS], **_CLASSES}
OF_CLASSES = {"num_classes": [1, 0, -1, 2.5, "x", None]}
# how a message names what was given: by what it becomes, or by the place in the catalogue
NAMED = {"conditions": "`where", "texts": r"`attributes\[", "catalog_index": "`folder`"}
NAMED |= dict.fromkeys(["paths", "skus", "roles", "catalog", "columns"], "the catalogue|catalog.csv|`skus`")


class Given:
    """What calls are made of: made once."""

    def __init__(self, folder):
        self.folder = folder
        self.catalog = make_synthetic_catalog(folder / "photos", num_products=4, photos_per_product=2, image_size=48)
        self.embedder = eet_tf.build_embedder("small_cnn", 4, image_size=32)
        self.index = ExactIndex.build(UNIT, LABELS, attributes={"price": range(8), "colour": list("abababab")})
        self.index.save(folder / "index")
        (folder / "file").write_text("no folder")
        (folder / "strange").mkdir()
        (folder / "strange" / "notes.txt").write_text("no index")
        self.file, self.gone, self.strange = (str(folder / name) for name in ("file", "gone", "strange"))
        self.places = ["", self.file, self.gone, self.strange]


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    return Given(tmp_path_factory.mktemp("given"))


def calls(given):
    """`{name: (function, right arguments, {argument: wrong values})}`."""
    catalog, index, columns = given.catalog, given.index, {"price": "number"}
    how = {"paths": ["a.jpg", "b.jpg"], "skus": ["mug", "cup"]}
    build = {"embeddings": UNIT, "skus": LABELS, "photos": list("abcdefgh"), "attributes": None, "fingerprint": None}
    rows = {
        "embeddings": [
            UNIT[:, 0],
            EMBEDDINGS,
            UNIT * np.nan,
            UNIT[:0],
            "x",
            None,
            [["a", "b"]] * 8,
            np.ones([8, 4], int),
        ],
        "skus": [LABELS[:3], [None] * 8, [""] * 8, [1.5] * 8, [["a"]] * 8, np.full(8, np.nan)],
        "photos": [list("abc"), list("aacdefgh"), [None] * 8, [np.float64(1.0)] * 8],
        "attributes": [
            {"": range(8)},
            {"price": range(3)},
            {"price": [1, "x"] * 4},
            {"price": np.full(8, 2**53 + 1)},
            {"price": [[1], [2, 3]] * 4},
            {"price": 5},
            [1],
            {1: range(8)},
        ],
        "fingerprint": [1, "", np.str_("")],
        "metadata": [[1], {"a": object()}, {"a": np.float32(1)}],
    }
    table = {
        "columns": ["path:image", {"photo": np.str_("x")}, {"sku": None}],
        "separator": ["", "a", 5],
    }
    return {
        "EETLoss": (
            eet_tf.EETLoss,
            {},
            {**LOSSES, "equidistant_weight": WEIGHTS, "equidistributed_weight": WEIGHTS},
        ),
        "TripletLoss": (
            eet_tf.TripletLoss,
            {},
            {**LOSSES, **TRIPLETS},
        ),
        "BinomialDevianceLoss": (eet_tf.BinomialDevianceLoss, {}, DEVIANCE),
        "SoftBinomialDevianceLoss": (
            eet_tf.SoftBinomialDevianceLoss,
            {},
            {**DEVIANCE, "weighting": ["x"], "granularity": ["x"], "preserved_share": [-0.1, 1.1, float("nan")]},
        ),
        "MultiSimilarityLoss": (eet_tf.MultiSimilarityLoss, {}, SIMILARITIES),
        "SupervisedContrastiveLoss": (eet_tf.SupervisedContrastiveLoss, {}, {"temperature": [0.0, *WEIGHTS]}),
        "SmoothAPLoss": (eet_tf.SmoothAPLoss, {}, {"temperature": [0.0, *WEIGHTS]}),
        "RoadmapLoss": (eet_tf.RoadmapLoss, {}, ROADMAP),
        "PrefixLoss": (
            eet_tf.PrefixLoss,
            {"prefixes": [2, 4]},
            {
                "loss": ["eet", 5, eet_tf.EETLoss, eet_tf.AttributeLoss(), eet_tf.EETLoss(from_normalized=True)],
                "prefixes": [[], [0], [4, 2], [2, 2], [1.5], "x", 5, [True]],
                "weights": [[], [1.0], [-1.0, 1.0], [0, 0], ["x", 1], [np.nan, 1.0], 5],
            },
        ),
        "DistillationLoss": (
            eet_tf.DistillationLoss,
            {},
            {"loss": ["eet", eet_tf.EETLoss, 5], "weight": WEIGHTS, "teacher_references": [True]},
        ),
        "RecallAtKLoss": (eet_tf.RecallAtKLoss, {}, RECALLS),
        "NormalizedSoftmaxLoss": (eet_tf.NormalizedSoftmaxLoss, {"num_classes": 4}, {**OF_CLASSES, **SOFTMAX}),
        "ArcFaceLoss": (
            eet_tf.ArcFaceLoss,
            {"num_classes": 4},
            {**OF_CLASSES, **ARCFACE, "subcenters": [0, -1, 1.5, "x", None]},
        ),
        "ProxyAnchorLoss": (eet_tf.ProxyAnchorLoss, {"num_classes": 4}, {**OF_CLASSES, **PROXIES}),
        "CombinedLoss": (
            eet_tf.CombinedLoss,
            {"losses": [eet_tf.EETLoss()]},
            {
                "losses": [[], None, "eet", ["eet"], [eet_tf.EETLoss], [eet_tf.EETLoss(), eet_tf.EETLoss()]],
                "weights": [[1.0, 2.0], 1.0, [-1.0], ["x"], [float("nan")]],
            },
        ),
        "AttributeLoss": (eet_tf.AttributeLoss, {}, {"reduction": ["total"]}),
        "build_embedder": (
            eet_tf.build_embedder,
            {"backbone": "small_cnn", "embedding_dim": 4, "image_size": 32},
            {
                "backbone": ["resnet51", "", None, 5, "gone.keras"],
                "embedding_dim": [0, -1, 1.5, "x"],
                "image_size": [0, 31, 32.5, "x", None],
                "weights": [given.gone, given.strange, ""],
                "pooling": ["sum", "cls", "none", 5],
                "pixel_scaling": ["siglip", "affine", "", 5],
                "freeze_until": ["stage_9", "", 5],
                "neck": ["sum", "", 5, ["batch_norm"]],
                "fit": ["crop", "", None, 5],
                "last_stride": [0, 3, "x", None],
                "attribute_names": ["red", ["a", "a"], [""], [1]],
            },
        ),
        "load_embedder": (eet_tf.load_embedder, {}, {"path": [*given.places, None, 5]}),
        "make_strategy": (eet_tf.make_strategy, {}, {"name": ["all", "", None, 5]}),
        "MetricLearner": (
            eet_tf.MetricLearner,
            {"embedder": given.embedder},
            {"memory_size": [-1], "embedder": [None, "model.keras"]},
        ),
        "RetrievalEvaluation": (
            eet_tf.RetrievalEvaluation,
            {"dataset": eet_tf.data.gallery_dataset(catalog, 32), "labels": catalog.labels},
            {"ks": [[0], [1.5], [1, 1]], "labels": [[None] * len(catalog), [[1, 2]] * len(catalog)]},
        ),
        "evaluate_retrieval": (
            eet_tf.evaluate_retrieval,
            {"embeddings": UNIT, "labels": LABELS},
            {
                "embeddings": [UNIT[:, 0], UNIT * np.nan, UNIT[:3]],
                "labels": [LABELS[:3], [[1, 2]] * 8, [None] * 8, [1.5] * 8],
                "ks": [[0], [1.5], ["1"], [1, 1]],
            },
        ),
        "export_embedder": (
            eet_tf.export_embedder,
            {"embedder": given.embedder, "output_dir": given.gone},
            {
                "output_dir": [given.file, given.file + "/below", ""],
                "catalog_index": [given.gone, given.strange, ""],
                "scann_in_graph": [True],
            },
        ),
        "MetricLoss": (eet_tf.MetricLoss, {}, {"reduction": ["total"]}),
        "make_batch": (eet_tf.make_batch, {"labels": LABELS, "embeddings": EMBEDDINGS}, {}),
        "attribute_accuracy": (
            eet_tf.attribute_accuracy,
            {"predictions": np.zeros([2, 1]), "attributes": np.ones([2, 1]), "names": ["red"]},
            {
                "predictions": [np.zeros([2, 2]), [0.5, 0.5], [["a"], ["b"]], [[np.nan], [0.0]], None],
                "attributes": [np.ones([1, 1]), [[2], [0]], [["yes"], ["no"]], [[np.nan], [1]], None],
            },
        ),
        "attribute_loss": (
            eet_tf.attribute_loss,
            {"attributes": np.zeros([2, 3]), "predictions": np.zeros([2, 3], np.float32)},
            {},
        ),
        "eet_loss": (
            eet_tf.eet_loss,
            {"labels": LABELS, "embeddings": EMBEDDINGS},
            {name: WEIGHTS for name in ("margin", "equidistant_weight", "equidistributed_weight")},
        ),
        "triplet_loss": (eet_tf.triplet_loss, {"labels": LABELS, "embeddings": EMBEDDINGS}, TRIPLETS),
        "binomial_deviance": (
            eet_tf.binomial_deviance,
            {"labels": LABELS, "embeddings": EMBEDDINGS},
            {"alpha": [0.0, *WEIGHTS], "negative_cost": [0.0, *WEIGHTS]},
        ),
        "multi_similarity_loss": (
            eet_tf.multi_similarity_loss,
            {"labels": LABELS, "embeddings": EMBEDDINGS},
            SIMILARITIES,
        ),
        "supervised_contrastive_loss": (
            eet_tf.supervised_contrastive_loss,
            {"labels": LABELS, "embeddings": EMBEDDINGS},
            {"temperature": [0.0, *WEIGHTS]},
        ),
        "smooth_ap_loss": (
            eet_tf.smooth_ap_loss,
            {"labels": LABELS, "embeddings": EMBEDDINGS},
            {"temperature": [0.0, *WEIGHTS]},
        ),
        "roadmap_loss": (eet_tf.roadmap_loss, {"labels": LABELS, "embeddings": EMBEDDINGS}, ROADMAP),
        "recall_at_k_loss": (eet_tf.recall_at_k_loss, {"labels": LABELS, "embeddings": EMBEDDINGS}, RECALLS),
        **{
            name: (
                getattr(eet_tf, name),
                {"labels": LABELS, "embeddings": EMBEDDINGS, "class_vectors": EMBEDDINGS},
                {**wrong, "class_vectors": [EMBEDDINGS[0], EMBEDDINGS[:, :2]]},
            )
            for name, wrong in (
                ("normalized_softmax_loss", SOFTMAX),
                ("arcface_loss", ARCFACE),
                ("proxy_anchor_loss", PROXIES),
            )
        },
        "soft_binomial_deviance": (
            eet_tf.soft_binomial_deviance,
            {"labels": LABELS, "embeddings": EMBEDDINGS, "attributes": np.zeros([8, 2], np.float32)},
            {"weighting": ["x"], "preserved_share": [-0.1, 1.1], "alpha": [0.0, *WEIGHTS]},
        ),
        "audit_catalog": (
            eet_tf.audit.audit_catalog,
            {"catalog": catalog},
            {"examples_per_class": [1, "x", 2.5, None], "tolerance": [-1, float("nan"), "x", None]},
        ),
        "write_page": (
            eet_tf.audit.write_page,
            {"path": given.gone, "result": eet_tf.audit.audit_catalog(catalog), "title": "Mugs"},
            {"path": [given.strange, given.file + "/below", ""]},
        ),
        "EmbeddingClient": (
            eet_tf.client.EmbeddingClient,
            {"target": "localhost:1"},
            {
                "target": ["nonsense", "ftp://x:1", None, 5, ""],
                "batch_size": [0, -1],
                "max_pixels": [0],
                "timeout": [0, -1.0],
            },
        ),
        "Catalog": (
            Catalog,
            how,
            {
                "paths": [[], ["a.jpg", "a.jpg"], ["a.jpg"]],
                "skus": [["mug"], ["", "cup"]],
                "categories": [["x"]],
                "attributes": [{"colour": ["red"]}],
                "splits": [["train"]],
                "roles": [["asked", ""], [""]],
            },
        ),
        "PKSampler": (
            eet_tf.data.PKSampler,
            {"labels": LABELS, "classes_per_batch": 2, "examples_per_class": 2},
            {
                "classes_per_batch": [1, 99],
                "examples_per_class": [1, 0],
                "category_probability": [-0.1, 1.1, float("nan")],
                "categories": [["a"]],
            },
        ),
        "array_dataset": (
            eet_tf.data.array_dataset,
            {"images": EMBEDDINGS, "labels": LABELS, "sampler": eet_tf.data.PKSampler(LABELS, 2, 2)},
            {
                "images": [[[1], [1, 2]], LABELS, [["a"]] * 8, None, EMBEDDINGS.astype(complex)],
                "labels": [LABELS[:3], [None] * 8, [1.5] * 8],
                "sampler": [None, eet_tf.data.PKSampler(LABELS[:6], 2, 2)],
                "attributes": [np.zeros(8), np.zeros([3, 2])],
                "part": [(0, 3), (2, 2), (-1, 2)],
            },
        ),
        "augmentation": (
            eet_tf.data.augmentation,
            {"image_size": 32},
            {"crop": [0, 1.5, float("nan")], "color": [-1.0], "cutout": [-0.1, 1.5], "noise": [-1.0]}
            | {"random_erasing": [-0.1, 1.1], "rand_augment": [-1, 11, float("nan")]},
        ),
        "photo_crop": (eet_tf.data.photo_crop, {}, {"smallest_area": [0, 1.5, float("nan"), "x", None]}),
        "check_photos": (eet_tf.data.check_photos, {}, {"catalog": [missing_photo(given)]}),
        "decode_photos": (
            eet_tf.data.decode_photos,
            {"catalog": catalog, "image_size": 32},
            {"catalog": [missing_photo(given)], "fit": ["crop", "", None]},
        ),
        "readable": (eet_tf.data.readable, {}, {"catalog": [missing_photo(given)]}),
        "write_skipped": (
            eet_tf.data.write_skipped,
            {"path": given.gone, "skipped": []},
            {"path": ["", given.strange]},
        ),
        "encode_attributes": (
            eet_tf.data.encode_attributes,
            {"catalog": catalog, "columns": "all"},
            {"columns": [["brand"], "brand", []], "names": [["brand=x"]]},
        ),
        "load_dataset": (
            eet_tf.data.load_dataset,
            {"name": "csv", "data_dir": str(given.folder / "photos")},
            {
                "name": ["nonsense", "", None],
                "data_dir": [None, "", given.gone, given.strange],
                "photo_cache": [given.file],
                **table,
            },
        ),
        "detect_layout": (eet_tf.data.detect_layout, {}, {"path": given.places}),
        **{
            name: (getattr(eet_tf.data, name), {}, {"data_dir": ["", given.gone, given.strange, given.file]})
            for name in ("load_cars196", "load_consumer_to_shop", "load_cub", "load_inshop", "load_sop")
        },
        **{
            name: (
                getattr(eet_tf.data, name),
                {"data_dir": str(given.folder / "photos")},
                {"data_dir": ["", given.gone, given.strange, given.file], **table},
            )
            for name in ("load_csv", "load_parquet", "load_xlsx")
        },
        "catalog_from_frame": (eet_tf.data.catalog_from_frame, {"frame": {}}, {"frame": [{}, None, 5, []], **table}),
        "read_columns": (
            eet_tf.data.read_columns,
            {},
            {"text": ["image", "photo:image", "path:a,path:b", "path:a,sku:a", np.str_("x:y")]},
        ),
        "load_folder": (eet_tf.data.load_folder, {}, {"data_dir": ["", given.gone, given.strange, given.file]}),
        "make_synthetic_catalog": (
            make_synthetic_catalog,
            {"folder": str(given.folder / "drawn")},
            {"num_products": [3, 1.5, "x"], "photos_per_product": [0], "image_size": [1], "seed": [-1, "x"]},
        ),
        "ExactIndex": (ExactIndex.build, build, rows),
        "ScannIndex": (
            ScannIndex.build,
            build,
            {**rows, "target_recall": [0.0, 1.5, float("nan"), "x"], "storage": ["x"], "configuration": ["x"]},
        ),
        "MilvusIndex": (
            eet_tf.index.MilvusIndex.build,
            build,
            {**rows, "uri": ["x", "http://[", 5], "collection": ["a"]},
        ),
        "ScannConfiguration": (
            lambda **how: ScannIndex.build(UNIT, LABELS, configuration=eet_tf.index.ScannConfiguration(**how)),
            {},
            {"num_candidates": [-1, 1.5, "x"], "num_leaves": [-1, 99], "num_leaves_to_search": [-1, 99]},
        ),
        "attribute_values": (
            eet_tf.index.attribute_values,
            {"index": index},
            {"name": ["brand", None, np.str_("brand")]},
        ),
        "count_values": (eet_tf.index.count_values, {"index": index}, {"name": ["brand", None]}),
        "lookup_photos": (eet_tf.index.lookup_photos, {"index": index}, {"photos": [["x"], [None], 5, [np.str_("x")]]}),
        "plan_update": (
            eet_tf.index.plan_update,
            {
                "index": index,
                "skus": LABELS,
                "photos": list("abcdefgh"),
                "attributes": {"price": range(8), "colour": list("abababab")},
            },
            {"skus": [LABELS[:3], None], "photos": [["a"] * 8, None, 5], "attributes": [None, {"price": range(8)}, 5]},
        ),
        "bytes_on_disk": (eet_tf.index.bytes_on_disk, {}, {"folder": given.places}),
        "check_replaceable": (eet_tf.index.check_replaceable, {}, {"folder": [given.strange, given.file]}),
        "load_index": (eet_tf.index.load_index, {}, {"folder": given.places}),
        "verify_index": (eet_tf.index.verify_index, {"index": index}, {"folder": given.places}),
        "read_where": (
            eet_tf.index.read_where,
            {"conditions": ["price=5"], "kinds": columns},
            {
                "conditions": [
                    ["price"],
                    ["brand=x"],
                    ["price=cheap"],
                    ["price>=nan"],
                    [np.str_("=x")],
                    ["price==5"],
                    ['price="5'],
                ]
            },
        ),
        "typed_columns": (
            eet_tf.index.typed_columns,
            {"texts": {"price": ["5"]}, "kinds": columns},
            {"texts": [{"price": ["007"]}, {"price": [np.str_("nan")]}]},
        ),
        "ServedEmbedder": (eet_tf.serving.ServedEmbedder, {}, {"path": given.places}),
        "newest_version": (eet_tf.serving.newest_version, {}, {"path": given.places}),
    }


def missing_photo(given):
    return dataclasses.replace(Catalog(["a.jpg"], ["mug"], root=str(given.folder)))


def public_names():
    return {name for package in PACKAGES for name in package.__all__}


def test_every_public_name_has_wrong_arguments(given):
    others = {
        "embedder_fingerprint",
        "decode_and_resize",
        "gallery_dataset",
        "training_dataset",
        "parts_of",
        "splits_of",
    }  # of checked things
    known = calls(given).keys() | CHECK_NOTHING | others
    assert public_names() == known, "add a new name to `calls`, with something wrong for each argument that is checked"


def test_something_wrong_is_refused_by_the_name_of_the_argument(given):
    pytest.importorskip("scann")
    failed = []
    for name, (function, right, wrong) in calls(given).items():
        for argument, values in wrong.items():
            for value in values:
                said = refusal(function, {**right, argument: value}, argument)
                if said is not None:
                    failed.append(f"{name}({argument}={str(value)[:60]}): {said[:250]}")
    assert not failed, "\n".join(failed)


def refusal(function, arguments, argument):
    """What is wrong with how it refuses; None if nothing is."""
    try:
        function(**arguments)
    except OURS as error:
        said = str(error)
        if FOREIGN.search(said):
            return f"{type(error).__name__} in words of others: {said}"
        path = arguments[argument] if isinstance(arguments[argument], str) else ""
        is_named = f"`{argument}" in said or f"{argument}=" in said or (path and path in said)
        is_named = is_named or (argument in NAMED and re.search(NAMED[argument], said))
        return None if is_named else f"{type(error).__name__} does not name it: {said}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "was taken"
