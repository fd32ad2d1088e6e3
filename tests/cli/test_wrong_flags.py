"""Every flag of every command, given something wrong: refused before long work, by a message that names the flag."""

import contextlib
import functools
import importlib
import io
import json
import re

import numpy as np
import pytest

import eet_tf
from eet_tf import serving
from eet_tf.cli import door
from eet_tf.cli.main import COMMANDS as COMMANDS_OF_EET
from eet_tf.data.synthetic import make_synthetic_catalog
from eet_tf.index import ExactIndex
from eet_tf.serving import ServedEmbedder

NO_FOLDER = ["", "{file}", "{file}/below", "/proc/none", "x" * 300]
NO_FILE = ["", "{folder}", "{file}/below", "/proc/none", "x" * 250, "/dev/null"]
NOTHING = ["", "{gone}"]
NO_BOOL = ["maybe"]
NO_ENUM = ["nonsense", ""]
NO_SHARE = ["-0.1", "1.1", "nan", "abc"]
NO_WEIGHT = ["-1", "nan", "inf", "abc", ""]
NO_COUNT = ["0", "-1", "abc", "1.5", ""]
NO_KS = ["", "1,1", "0", "-1", "1,abc", "1.5", "1,,2", "\u0663", "10000000000"]
NO_INDEX = ["", "{gone}", "{folder}", "{file}"]
# of every command that reads a catalogue
OF_CATALOG = {
    "dataset": NO_ENUM,
    "data": NOTHING,
    "columns": ["", "path", "picture:path", "path:nowhere", "path:path,path:sku"],
    "separator": [""],
    "photo_cache": ["{file}", "{file}/below"],
}

# Of each command: flags that make it work, and wrong values of every flag.
COMMANDS = {
    "train": (
        {
            "dataset": "csv",
            "data": "{photos}",
            "model_dir": "{new}",
            "image_size": "32",
            "classes_per_batch": "2",
            "examples_per_class": "2",
        },
        {
            **dict.fromkeys(
                ["positives", "negatives", "distance", "weighting", "granularity", "pooling", "neck", "fit"],
                NO_ENUM,
            ),
            **dict.fromkeys(
                ["recipe", "projection", "optimizer", "schedule", "mixed_precision", "jit", "strategy"], NO_ENUM
            ),
            **dict.fromkeys(["drop_singles", "check_photos", "cache", "symmetric_margin", "soft_margin"], NO_BOOL),
            **dict.fromkeys(["margin", "equidistant_weight", "equidistributed_weight", "alpha"], NO_WEIGHT),
            **dict.fromkeys(["negative_cost", "attribute_weight", "noise", "color"], NO_WEIGHT),
            **dict.fromkeys(["preserved_share", "category_probability", "drop_at", "ema", "momentum"], NO_SHARE),
            **dict.fromkeys(["embedding_dim", "microbatch", "epochs", "steps_per_epoch"], NO_COUNT),
            **OF_CATALOG,
            "skip_unreadable": NO_BOOL,
            **dict.fromkeys(["freeze_batch_norm", "mirror"], NO_BOOL),
            "hold_out": [*NO_SHARE, "1"],
            "model_dir": NO_FOLDER,
            "beta": ["nan", "inf", "abc"],
            **dict.fromkeys(["positive_scale", "negative_scale", "temperature"], ["0", *NO_WEIGHT]),
            "loss": [*NO_ENUM, "eet+", "eet+eet", "eet+tfa_lifted", "EET", "eet, arcface"],
            "loss_weights": ["1", "1,2", "-1", "abc"],
            "scale": ["0", *NO_WEIGHT],
            "label_smoothing": NO_SHARE,
            "subcenters": [*NO_COUNT, "100000"],
            "sampled_classes": [*NO_COUNT, "1"],
            **dict.fromkeys(["trunk_learning_rate", "class_learning_rate"], ["0", "-1", "nan", "inf", "abc"]),
            "head_only_steps": ["-1", "abc", "1.5"],
            "epsilon": NO_WEIGHT,
            "prefixes": ["0", "64,32", "32,32", "32,65537", "abc", "1.5"],
            "teacher": ["", "{gone}", "{file}"],
            "distillation_weight": ["-1", "nan", "abc", "2"],
            "teacher_references": ["maybe", "true"],
            "threshold": ["-1.1", "1.1", "nan", "abc"],
            "calibration_weight": NO_SHARE,
            "freeze_until": ["", "conv5_block9"],
            "last_stride": ["0", "3", "abc", "1.5"],
            "attributes": ["brand", "colour,brand", ","],
            "backbone": ["resnet51", "", "gone.keras", "{file}.keras"],
            "pixel_scaling": NO_ENUM,
            "weights": ["", "{gone}", "{folder}"],
            "image_size": [*NO_COUNT, "8", str(10**9)],
            "classes_per_batch": [*NO_COUNT, "1", "99", str(10**7)],
            "examples_per_class": [*NO_COUNT, "1", str(10**7)],
            "memory_size": ["-1", "abc", str(10**12)],
            "memory_start": ["-1", "abc"],
            "category_column": ["brand"],
            "crop": ["0", "1.5", "-1", "nan"],
            "photo_crop": ["0", "1.5", "-1", "nan"],
            "rand_augment": ["-1", "11", "nan", "abc"],
            "random_erasing": NO_SHARE,
            "cutout": NO_SHARE,
            "learning_rate": ["0", "-1", "nan", "inf", "abc"],
            "warmup_steps": ["-1", "abc"],
            "weight_decay": NO_WEIGHT,
            "clip_norm": ["0", "-1", "nan"],
            "seed": ["-1", str(2**32), str(10**30), "abc"],
            "ks": NO_KS,
            "virtual_devices": ["-1", "abc", str(10**6)],
        },
    ),
    "evaluate": (
        {"model_dir": "{run}", "dataset": "csv", "data": "{photos}", "output": "{new}.json"},
        {
            "model_dir": NO_INDEX,
            "saved_model": NO_INDEX,
            **OF_CATALOG,
            "skip_unreadable": NO_BOOL,
            "split": ["none", ""],
            "gallery": NOTHING,
            "by": ["brand", "colour,brand", ","],
            "ks": NO_KS,
            "query_expansion": ["-1", "abc"],
            "alpha": NO_WEIGHT,
            "rerank": NO_BOOL,
            "whitening": ["", "{gone}", "{file}", "{folder}"],
            "fit_whitening": NO_FILE,
            "whitening_dim": NO_COUNT,
            "output": NO_FILE,
        },
    ),
    "export": (
        {"model": "{run}", "output_dir": "{new}"},
        {
            "model": NO_INDEX,
            "output_dir": NO_FOLDER,
            "backbone": ["resnet51", "", "gone.keras", "{file}.keras", "small_cnn"],
            "weights": ["imagenet", "", "{gone}", "{folder}"],
            "pooling": [*NO_ENUM, "cls"],
            **dict.fromkeys(["pixel_scaling", "fit"], NO_ENUM),
            **OF_CATALOG,
            "split": ["none", ""],
            "whiten_dim": ["-1", "abc", "1.5", str(10**6)],
            "prefix": [*NO_COUNT, "9999"],
            "whitening": ["", "{gone}", "{file}", "{folder}"],
            "bundle": NO_BOOL,
            "name": ["", "1", "a b", "a/b", '"'],
            "max_batch_size": [*NO_COUNT, "1025"],
            "pad_batches": NO_BOOL,
            "keep_versions": ["1", "-1", "abc"],
            "op_library": NOTHING,
            "index_dir": NO_INDEX,
            "k": NO_COUNT,
            "catalog_storage": NO_ENUM,
            "scann_in_graph": NO_BOOL,
            "image_size": ["0", "-1", "33", "abc", "1.5"],
            "max_megapixels": [*NO_COUNT, "90"],
        },
    ),
    "index build": (
        {"saved_model": "{serving}", "dataset": "csv", "data": "{photos}", "output_dir": "{new}", "index": "exact"},
        {
            "saved_model": NO_INDEX,
            "embeddings_dir": NO_INDEX,
            **OF_CATALOG,
            "skip_unreadable": NO_BOOL,
            "check_photos": NO_BOOL,
            "split": ["none", ""],
            "index": NO_ENUM,
            "target_recall": ["0", "1.5", "nan", "abc"],
            "search_prefix": ["0", "abc", "1.5", "9999"],
            "storage": NO_ENUM,
            "milvus_uri": ["nonsense", "http://["],
            "milvus_collection": ["a b"],
            "milvus_consistency": NO_ENUM,
            "milvus_timeout": ["0", "-1", "nan", "abc"],
            "output_dir": [*NO_FOLDER, "{folder}"],
            "batch_size": NO_COUNT,
        },
    ),
    "search": (
        {"index_dir": "{index}", "query": "{photo}", "report": "{new}.html"},
        {
            "index_dir": NO_INDEX,
            "query": ["", "{gone}", "{folder}"],
            "k": NO_COUNT,
            "where": ["", "colour", "brand=x", "=x"],
            "group_by_sku": NO_BOOL,
            "json": NO_BOOL,
            "csv": NO_BOOL,
            "saved_model": ["{gone}", "{folder}", "{file}"],
            "server": ["ftp://x", "nonsense"],
            "server_version": ["abc", "-1"],
            "server_deadline": ["0", "-1", "nan", "abc"],
            "server_max_megapixels": ["0", "-1", "nan", "abc"],
            "photo_root": NOTHING,
            "report": NO_FILE,
        },
    ),
    "report": (
        {"model_dir": "{run}", "index_dir": "{index}", "output": "{new}.html"},
        {
            "model_dir": NO_INDEX,
            "index_dir": NO_INDEX,
            "output": NO_FILE,
            "num_queries": NO_COUNT,
            "k": NO_COUNT,
        },
    ),
    "serve": (
        {"index_dir": "{index}", "port": "0"},
        {
            "index_dir": NO_INDEX,
            "saved_model": ["{gone}", "{folder}", "{file}"],
            "server": ["ftp://x", "nonsense"],
            "server_version": ["abc", "-1"],
            "server_deadline": ["0", "-1", "nan", "abc"],
            "server_max_megapixels": ["0", "-1", "nan", "abc"],
            "photo_root": NOTHING,
            "host": ["1.2.3.4.5", "256.0.0.1"],
            "port": ["-1", "65536", "abc"],
            "max_upload_mb": NO_COUNT,
        },
    ),
    "index upsert": (
        {"index_dir": "{index}", "data": "{photos}"},
        {
            "index_dir": NO_INDEX,
            **OF_CATALOG,
            "skip_unreadable": NO_BOOL,
            "check_photos": NO_BOOL,
            "split": ["none", ""],
            "saved_model": ["{gone}", "{folder}", "{file}"],
            "batch_size": NO_COUNT,
        },
    ),
    "embed": (
        {"saved_model": "{serving}", "dataset": "csv", "data": "{photos}", "output_dir": "{new}"},
        {
            "saved_model": NO_INDEX,
            **OF_CATALOG,
            "split": ["none", ""],
            "output_dir": [*NO_FOLDER, "{folder}"],
            "num_shards": NO_COUNT,
            "batch_size": NO_COUNT,
        },
    ),
    "publish": (
        {"output_dir": "{bundles}", "version": "2", "label": "stable", "server": "localhost:1"},
        {
            "output_dir": NO_INDEX,
            "name": ["", "hats"],
            "version": [*NO_COUNT, "3"],
            "label": ["", "a b", "ä"],
            "retire": [*NO_COUNT, "2"],
            "server": ["", "localhost", "http://localhost:8501", "localhost:x"],
            "stopped": [*NO_BOOL, "true"],
            "timeout": NO_COUNT,
        },
    ),
    "compare": ({"{classes}": "", "{classes} ": ""}, {"metric": ["recall@7", ""]}),
    "audit": (
        {"data": "{photos}", "output": "{new}.html"},
        {
            **OF_CATALOG,
            "split": ["none", ""],
            "examples_per_class": ["1", "0", "-1", "abc", "1.5", ""],
            "output": NO_FILE,
            "near": ["-1", "nan", "inf", "abc", "256", ""],
            "skip_unreadable": NO_BOOL,
        },
    ),
    "convert": (
        {"data": "{photos}", "output_dir": "{new}"},
        {**OF_CATALOG, "output_dir": ["", "{file}", "{file}/below", "/proc/none"]},
    ),
}
# flags that take any text, or are wrong for other actions than that of the table only
ANYTHING = {
    "search": {"server_model"},
    "serve": {"server_model", "title"},
}
LONG_WORK = {  # what a command calls once it has checked all
    "train": "training_parts.make_learner",
    "evaluate": "evaluate._embeddings",
    "export": "export._training_facts",
    "index build": "index_build._embeddings",
    "search": "search._embed",
    "report": "report._results",
    "serve": "serve._serve",
    "index upsert": "index_upsert.readable",
    "embed": "embed._prepare",
    "publish": "publish._publish",
    "compare": "compare._side",
    "audit": "audit.Progress",
    "convert": "convert.Progress",
}


class LongWork(Exception):
    """The command has found nothing wrong."""


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Names of what commands are given, and of what is none of it."""
    root = tmp_path_factory.mktemp("places")
    catalog = make_synthetic_catalog(root / "photos", num_products=12, photos_per_product=3, image_size=32)
    embedder = eet_tf.build_embedder("small_cnn", 4, image_size=32)
    version = eet_tf.export_embedder(embedder, str(root / "serving"))
    vectors = np.random.default_rng(0).normal(size=[len(catalog), 4]).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    metadata = {"saved_model": "../serving/1", "photo_root": "../photos"}
    how = {"fingerprint": ServedEmbedder(version).fingerprint, "metadata": metadata}
    ExactIndex.build(vectors, catalog.skus, catalog.paths, catalog.columns(), **how).save(root / "index")
    (root / "run").mkdir()
    embedder.save(root / "run" / "model.keras")
    (root / "run" / "flags.txt").write_text("--loss=eet\n")
    (root / "run" / "metrics.json").write_text(json.dumps({"before": {"recall@5": 0.1}, "after": {"recall@5": 0.2}}))
    (root / "classes.csv").write_text("sku,num_queries,recall@1,map@r\nmug,2,1,0.5\ncup,2,2,1.5\n")
    (root / "file").write_text("no folder, no photo, no model")
    for number in ("1", "2"):
        (root / "bundles" / "embedder" / number).mkdir(parents=True)
        (root / "bundles" / "embedder" / number / "saved_model.pb").write_text("")
    (root / "folder").mkdir()
    (root / "folder" / "notes.txt").write_text("no index")
    names = ["photos", "serving", "index", "run", "file", "folder", "gone", "new", "bundles"]
    return {
        **{name: str(root / name) for name in names},
        "classes": str(root / "classes.csv"),
        "photo": str(catalog.files[0]),
    }


@pytest.fixture(scope="module", params=COMMANDS)
def command(request, places):
    """A command in this process: called with flags, it says how it ended and what it printed as an error."""
    if request.param == "publish":
        pytest.importorskip("tensorflow_serving")
    if request.param == "embed":
        pytest.importorskip("apache_beam")
    if request.param == "serve":
        pytest.importorskip("flask")
    module, attribute, _ = COMMANDS_OF_EET[request.param]
    command = getattr(importlib.import_module(f"eet_tf.cli.{module}"), attribute)
    quick = pytest.MonkeyPatch()

    def long_work(*_, **__):
        raise LongWork

    quick.setattr(f"eet_tf.cli.{LONG_WORK[request.param]}", long_work)
    # what is right is loaded once
    quick.setattr(eet_tf, "load_embedder", functools.cache(eet_tf.load_embedder))
    quick.setattr(serving, "ServedEmbedder", functools.cache(ServedEmbedder))
    own = {name for name in command.flags if name != "data_dir"}
    yield request.param, lambda given: ended(command, given, places), own
    quick.undo()


def ended(command, given, places):
    """(status, message): 0 where the long work would have begun."""
    arguments = [f"--{name}={value}" if value or name[0] != "{" else name for name, value in given.items()]
    arguments = [re.sub(r"\{(\w+)\}", lambda found: places[found[1]], argument).rstrip() for argument in arguments]
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        try:
            status = door.run(command, "eet", arguments)
        except LongWork:
            return 0, ""
    return status, errors.getvalue()


def assert_names(message, flag):
    is_named = re.search(rf"--{flag}\b|`{flag}`|{flag}=|has no column 'brand'", message)
    assert is_named, f"--{flag} is not named in: {message}"
    for foreign in ("Traceback", "np.", "array(", "tensorflow", "Error:", "object at 0x", "<class", "{{function_node"):
        assert foreign not in message, message


def test_right_flags_begin_the_long_work(command):
    name, call, _ = command
    assert call(COMMANDS[name][0]) == (0, "") or name == "report"


def test_every_flag_has_its_wrong_values(command):
    name, _, own = command
    assert own == COMMANDS[name][1].keys() | ANYTHING.get(name, set()), f"add the flag to COMMANDS of {name}"


def test_a_wrong_value_is_refused_by_its_name(command):
    name, call, _ = command
    right, wrong = COMMANDS[name]
    failed = []
    for flag, values in wrong.items():
        for value in values:
            instead = {"embeddings_dir": "saved_model", "saved_model": "model_dir"}.get(flag)
            others = {key: text for key, text in right.items() if key != instead}
            is_of_bundle = flag in ("name", "max_batch_size", "keep_versions", "op_library") and name == "export"
            bundle = {"bundle": "true"} if is_of_bundle else {}
            index = {"index_dir": "{index}"} if flag in ("k", "catalog_storage") and name == "export" else {}
            scann = {"index": "scann"} if flag in ("target_recall", "search_prefix") else {}
            status, message = call({**others, **bundle, **index, **scann, flag: value})
            try:
                assert status != 0, "it was taken"
                assert_names(message, flag)
            except AssertionError as error:
                failed.append(f"--{flag}={value}: {error}"[:400])
    assert not failed, "\n".join(failed)


def test_all_that_is_wrong_is_said_at_once(command):
    """The second and third complaint as well as the first."""
    name, call, _ = command
    several = {
        "train": {"seed": "-1", "ks": "0", "model_dir": "{file}", "learning_rate": "0", "backbone": "resnet51"},
        "evaluate": {"ks": "0", "output": "{folder}", "model_dir": "{gone}", "data": "{gone}"},
        "export": {"output_dir": "{file}", "model": "{gone}", "index_dir": "{folder}", "whitening": "{file}"},
        "index build": {"output_dir": "{file}", "saved_model": "{gone}", "data": "{gone}"},
        "search": {"report": "{folder}", "index_dir": "{gone}", "query": "{gone}", "photo_root": "{gone}"},
        "report": {"output": "{folder}", "model_dir": "{gone}", "index_dir": "{gone}"},
        "serve": {"photo_root": "{gone}", "index_dir": "{gone}"},
        "index upsert": {"data": "{gone}", "saved_model": "{gone}"},
        "embed": {"output_dir": "{file}", "saved_model": "{gone}", "data": "{gone}"},
        "publish": {"version": "3", "server": "localhost", "stopped": "true"},
        "compare": {"metric": "recall@7"},
        "audit": {"data": "{gone}", "output": "{folder}", "near": "300"},
        "convert": {"data": "{gone}", "output_dir": "{file}"},
    }[name]
    status, message = call({**COMMANDS[name][0], **several})
    assert status != 0
    for flag in several:
        assert_names(message, flag)
