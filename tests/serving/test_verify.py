"""The proof of a bundle: a good one passes, and each way in which one can be bad is found, named and located."""

import functools
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

pytest.importorskip("tensorflow_serving", reason="needs pip install 'eet-tf[serving]'")

from tensorflow_serving.apis import prediction_log_pb2

from eet_tf.serving.bundle import REFERENCE, write_bundle
from eet_tf.serving.saved_model import MANIFEST
from eet_tf.serving.warmup import WARMUP, read_signatures
from tests.serving.model_server import ModelServer

ROOT = pathlib.Path(__file__).parents[2]
VARIABLES = "variables/variables.data-00000-of-00001"


@pytest.fixture(scope="session")
def faults_of(bundle_checks, bundle_files):
    """Of a folder {check: its faults, or None if it was not done}, of the checks that do not pass."""

    def faults_of(folder, subject=None):
        bundle = bundle_files.Bundle(str(folder))
        subject = subject or bundle_files.SavedModelSubject(bundle)
        outcomes = dict(bundle_checks.run_checks(bundle, subject))
        (fault,) = outcomes.pop("independence")
        assert fault.what == "this process has imported ['eet_tf', 'keras']"
        return {name: faults for name, faults in outcomes.items() if faults != []}

    return faults_of


@pytest.fixture(scope="module")
def loaded(bundle_files, version):
    """The good bundle's model, loaded once for all bad bundles that have the same one."""

    class Loaded(bundle_files.SavedModelSubject):
        def __init__(self, bundle):
            super().__init__(bundle)
            super().load()

        def load(self):
            """It is."""

    return Loaded(bundle_files.Bundle(version))


def test_a_good_one_has_no_fault(faults_of, version):
    assert faults_of(version) == {}


# Bad ones


def warmup_of(folder):
    """The warm-up records: [(record, its number among those of `serving_default`, or 0), ...]."""
    records, number = [], 0
    for record in tf.data.TFRecordDataset(os.path.join(folder, WARMUP)):
        log = prediction_log_pb2.PredictionLog.FromString(record.numpy())
        is_main = log.predict_log.request.model_spec.signature_name == "serving_default"
        number += is_main
        records.append((log, is_main and number))
    return records


def change_warmup(folder, change):
    """Rewrites the warm-up records: `change` is given each request of `serving_default` with its number."""
    records = warmup_of(folder)
    with tf.io.TFRecordWriter(os.path.join(folder, WARMUP)) as writer:
        for log, number in records:
            if not number or change(log.predict_log.request, number) != "drop":
                writer.write(log.SerializeToString())


def located(where, folder):
    """`record #2` becomes the place in the file of the second record of `serving_default`."""
    places = {number: place for place, (_, number) in enumerate(warmup_of(folder), 1) if number}
    return re.sub(r"#(\d)", lambda found: str(places[int(found[1])]), where)


def wrong_input_name(folder):
    def change(request, number):
        if number == 2:
            request.inputs["image"].CopyFrom(request.inputs["image_bytes"])
            del request.inputs["image_bytes"]

    change_warmup(folder, change)


def unknown_signature(folder):
    def change(request, number):
        request.model_spec.signature_name = "embed" if number == 3 else "serving_default"

    change_warmup(folder, change)


def set_photos(wanted, value):
    """A change of the photos of one record."""

    def change(request, number):
        if number == wanted:
            request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto(value))

    return functools.partial(change_warmup, change=change)


def batch_size_missing(folder):
    change_warmup(folder, lambda request, number: "drop" if number == 2 else None)


def no_records(folder):
    with tf.io.TFRecordWriter(os.path.join(folder, WARMUP)):
        pass


def no_protos(folder):
    with tf.io.TFRecordWriter(os.path.join(folder, WARMUP)) as writer:
        writer.write(b"\xff\xff\xff")


def flip(name, offset):
    """Changes one byte of a file."""

    def change(folder):
        path = pathlib.Path(folder, name)
        content = bytearray(path.read_bytes())
        content[offset] ^= 0x40
        path.write_bytes(content)

    return change


def remove(name):
    return lambda folder: os.remove(os.path.join(folder, name))


def edit(name, old, new):
    """Changes the text of a file."""

    def change(folder):
        path = pathlib.Path(folder, name)
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    return change


def change_manifest(**facts):
    def change(folder):
        path = pathlib.Path(folder, MANIFEST)
        path.write_text(json.dumps({**json.loads(path.read_text()), **facts}))

    return change


def other_vectors(folder):
    path = os.path.join(folder, "assets.extra", "reference.npz")
    with np.load(path) as stored:
        content = dict(stored)
    content["vectors"][4, 3] += 1e-4
    np.savez(path, **content)


# how it is made bad; which check says what of it; a place that it names
BAD = {
    "wrong input name": (wrong_input_name, "warm-up", r"gives \['image'\] .* takes \['image_bytes'\]", "record #2 of"),
    "unknown signature": (unknown_signature, "warm-up", r"signature 'embed'; there are \[.*'serving_d", "record #3 of"),
    "a scalar": (set_photos(1, b"photo"), "warm-up", r"is string \(\), not string \(None,\)", "record #1 of"),
    "another type": (set_photos(1, [1.5]), "warm-up", r"is float32 \(1,\), not string", "record #1 of"),
    "no image": (
        set_photos(2, [b"no image", b""]),
        "warm-up",
        "photo 0 is none: Unknown image",
        "'image_bytes' in rec",
    ),
    "no requests": (no_records, "warm-up", "has 0 requests; a server wants 1 to 1000", WARMUP),
    "no protos": (no_protos, "warm-up", "is no PredictionLog", "record 1 of"),
    "warm-up missing": (remove(WARMUP), "warm-up", "cannot be read: .*No such file", WARMUP),
    "warm-up damaged": (flip(WARMUP, 3000), "warm-up", "cannot be read: .*corrupted", WARMUP),
    "batch size missing": (batch_size_missing, "batching", r"no request of \[2\] photos for 'serving_default'", WARMUP),
    "largest batch": (
        edit("batching_params.pbtxt", "value: 4 }", "value: 8 }"),
        "batching",
        r"the sizes that are warmed up, \[1, 2, 4\] must be ascending and end with max_batch_size \[8\]",
        "batching_params.pbtxt",
    ),
    "no largest batch": (
        edit("batching_params.pbtxt", "max_batch_size { value: 4 }", ""),
        "batching",
        r"\[1, 2, 4\] must be ascending and end with max_batch_size \[\]",
        "batching_params.pbtxt",
    ),
    "padded otherwise": (
        edit("batching_params.pbtxt", "max_enq", "allowed_batch_sizes: 1\nallowed_batch_sizes: 3\nmax_enq"),
        "batching",
        r"allowed_batch_sizes \[1, 3\] must be ascending and end with max_batch_size \[4\]",
        "batching_params.pbtxt",
    ),
    "padded to what is not met": (
        edit("batching_params.pbtxt", "max_enq", "allowed_batch_sizes: 3\nallowed_batch_sizes: 4\nmax_enq"),
        "batching",
        r"no request of \[3\] photos for 'serving_default'",
        WARMUP,
    ),
    "batching missing": (remove("batching_params.pbtxt"), "batching", "cannot be read", "batching_params.pbtxt"),
    "changed variables": (flip(VARIABLES, 2), "files", "its checksum is another", VARIABLES),
    "variables missing": (remove(VARIABLES), "loading", "cannot be loaded", "copy"),
    "no fingerprint": (change_manifest(fingerprint=""), "files", "no checksums and fingerprint", MANIFEST),
    "files of no kind": (change_manifest(files=[1, 2]), "files", "cannot be checked: AttributeError", "copy"),
    "missing signature": (
        change_manifest(signatures={"find": {"inputs": {}, "outputs": {}}}),
        "signatures",
        r"'find' is missing; there are \[.*'serving_default'",
        "signatures of",
    ),
    "another signature": (
        change_manifest(embedding_dim=9),
        "signatures",
        r"'embedding' of 'serving_default' must be .*\[None, 9\].* Received: .*\[None, 8\]",
        "signatures of",
    ),
    "other vectors": (other_vectors, "parity", "is 0.0001 away from the training model, more than 1e-05", "photo 4 of"),
    "no vectors": (remove("assets.extra/reference.npz"), "parity", "cannot be read", "reference.npz"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_one_is_found_out(faults_of, version, loaded, tmp_path, name):
    make_bad, check, what, where = BAD[name]
    folder = tmp_path / "copy"
    shutil.copytree(version, folder)
    make_bad(folder)
    faults = faults_of(folder, None if check == "loading" else loaded)
    assert check in faults
    assert any(re.search(what, fault.what) and located(where, version) in fault.where for fault in faults[check]), (
        faults
    )
    assert all(fault.mend for each in faults.values() for fault in each or ())


def test_only_what_is_wrong_is_found_wrong(faults_of, version, loaded, tmp_path):
    """Of a bundle with a bad name in its second request: that, and the file's checksum."""
    shutil.copytree(version, tmp_path / "copy")
    wrong_input_name(tmp_path / "copy")
    faults = faults_of(tmp_path / "copy", loaded)
    assert {check: len(found) for check, found in faults.items()} == {"files": 1, "warm-up": 1}


@pytest.fixture(scope="module")
def padded(version, tmp_path_factory):
    """The good bundle with batches that are padded."""

    def write_model(folder):
        return shutil.copytree(version, os.path.join(folder, "1"))

    output_dir = tmp_path_factory.mktemp("padded")
    folder = write_bundle(write_model, str(output_dir), max_batch_size=4, pad_batches=True)
    shutil.copy(os.path.join(version, REFERENCE), os.path.join(folder, REFERENCE))
    return folder


def test_padded_batches_are_no_fault_but_a_warning(faults_of, padded, loaded):
    (warning,) = faults_of(padded, loaded)["batching"]
    assert warning.is_warning
    assert warning.where.endswith("batching_params.pbtxt")
    assert "a gRPC request without photos ends the server for all callers" in warning.what
    assert "may be decoded 1 times more" in warning.what
    assert "--pad_batches" in warning.mend


@pytest.mark.parametrize("allowed, copies", [([1, 2, 4, 8, 16, 32], 15), ([32], 31), ([1, 2], 0), ([1, 3], 1)])
def test_how_often_padding_copies_a_photo(bundle_checks, allowed, copies):
    assert bundle_checks.padded(allowed) == copies


@pytest.mark.parametrize("name", [MANIFEST, "saved_model.pb"])
@pytest.mark.parametrize("make_bad", [os.remove, lambda path: os.truncate(path, 9)], ids=["missing", "cut"])
def test_what_is_no_bundle_is_unreadable(bundle_files, version, tmp_path, name, make_bad):
    shutil.copytree(version, tmp_path / "copy")
    make_bad(tmp_path / "copy" / name)
    with pytest.raises(bundle_files.Unreadable) as caught:
        bundle_files.Bundle(str(tmp_path / "copy"))
    assert "copy" in caught.value.args[1].where


def saved_module(function, version, output_dir):
    """A bundle whose `serving_default` is `function`, with the manifest of another."""
    module = tf.Module()
    module.serve = tf.function(function, input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])

    def write_model(folder):
        tf.saved_model.save(module, folder, signatures={"serving_default": module.serve})
        os.makedirs(os.path.join(folder, "assets.extra"), exist_ok=True)
        shutil.copy(os.path.join(version, MANIFEST), os.path.join(folder, MANIFEST))
        return folder

    return write_bundle(write_model, str(output_dir), max_batch_size=2)


def test_python_in_the_graph_is_found(faults_of, version, tmp_path):
    """In a function of a function: the graph itself only calls."""

    def serve(image_bytes):
        rows = tf.py_function(lambda photos: np.zeros([len(photos), 8], np.float32), [image_bytes], tf.float32)
        return {"embedding": tf.ensure_shape(rows, [None, 8]), "ok": tf.fill(tf.shape(image_bytes), True)}

    folder = saved_module(serve, version, tmp_path)
    (fault,) = faults_of(folder)["operations"]
    assert fault.what == "op 'EagerPyFunc' is not in a stock server"
    assert "node 'EagerPyFunc' of __inference_serve" in fault.where


def test_a_function_for_xla_alone_is_found(bundle_checks, bundle_files, version):
    """A mark that says no is none."""
    bundle = bundle_files.Bundle(version)
    first, second, *_ = bundle.graph.graph_def.library.function
    first.attr["_XlaMustCompile"].b = False
    second.attr["_XlaMustCompile"].b = True
    (fault,) = bundle_checks.check_ops(bundle, None)
    assert fault.what.startswith("must be compiled by XLA")
    assert f"function {second.signature.name!r} in {version}" in fault.where


def test_an_operation_of_a_library_is_found(bundle_checks, bundle_files, version):
    """ScaNN's, as a graph with the index in it has them; this process does not know it either."""
    bundle = bundle_files.Bundle(version)
    bundle.graph.graph_def.node.add(name="search", op="Scann>NoSuchOp")
    for with_libraries in (False, True):
        (fault,) = bundle_checks.check_ops(bundle, None, with_libraries)
        assert "'Scann>NoSuchOp'" in fault.what and "node 'search' of the graph" in fault.where


def test_an_operation_of_a_library_that_the_server_has_is_none_to_find(version, run_python):
    run_python(f"""
import importlib.util, pathlib, sys
sys.path.insert(0, "eet_tf/verifier")
import bundle_checks, bundle_files
import tensorflow as tf

scann = pathlib.Path(importlib.util.find_spec("scann").origin).parent
tf.load_op_library(str(scann / "scann_ops" / "cc" / "_scann_ops.so"))
bundle = bundle_files.Bundle({version!r})
bundle.graph.graph_def.node.add(name="search", op="Scann>TensorsToScann")
assert len(list(bundle_checks.check_ops(bundle, None))) == 1
assert not list(bundle_checks.check_ops(bundle, None, with_libraries=True))
""")


def test_outputs_without_a_row_for_each_photo_are_found(faults_of, version, tmp_path):
    def serve(image_bytes):
        embedding = tf.zeros([tf.size(image_bytes), 8])
        answer = {"embedding": embedding, "ok": tf.fill([tf.size(image_bytes)], True)}
        return {**answer, "count": tf.size(image_bytes), "sku_bytes": image_bytes}

    faults = faults_of(saved_module(serve, version, tmp_path))
    found = " ".join(fault.what for fault in faults["signatures"])
    assert "output 'count' of 'serving_default' has shape [], not [None, ...]" in found
    assert "REST would give output 'sku_bytes' of 'serving_default' as base64" in found
    assert any("gives 'count' of shape []" in fault.what for fault in faults["warm-up"])


def test_a_photo_that_the_model_takes_for_none_is_found(faults_of, version, tmp_path):
    def serve(image_bytes):
        return {"embedding": tf.zeros([tf.size(image_bytes), 8]), "ok": tf.fill([tf.size(image_bytes)], False)}

    faults = faults_of(saved_module(serve, version, tmp_path))
    assert [fault.what for fault in faults["warm-up"]] == ["gives `ok` false for a photo"] * 2


# A running server


@pytest.fixture
def server(bundles):
    """A stand-in that serves the bundle."""
    with ModelServer({"embedder": os.path.join(bundles, "embedder")}) as running:
        yield running


def test_a_server_of_the_bundle_has_no_fault(faults_of, bundle_server, server, version):
    subject = bundle_server.ServerSubject(server.grpc_address, "embedder", 1)
    assert faults_of(version, subject) == {}
    assert subject.signatures.keys() == read_signatures(version).keys()
    with_vectors = [name for name, each in subject.signatures.items() if "embedding" in each.outputs]
    assert len(server.requests) == 3 * len(subject.signatures) + 6 * len(with_vectors)  # warm-up and parity
    assert {request.model_spec.version.value for request in server.requests} == {1}


def test_a_server_of_another_model_is_found_out(faults_of, bundle_server, version, tmp_path):
    """Its `serving_default` is the same to look at, and answers with zeros."""

    def serve(image_bytes):
        return {"embedding": tf.zeros([tf.size(image_bytes), 8]), "ok": tf.fill([tf.size(image_bytes)], True)}

    saved_module(serve, version, tmp_path)
    with ModelServer({"other": str(tmp_path / "embedder")}) as running:
        faults = faults_of(version, bundle_server.ServerSubject(running.grpc_address, "other", 1))
    assert len(faults["parity"]) == 6


# The script


def start(*arguments):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.Popen(
        [sys.executable, "export/verify.py", *map(str, arguments)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_script(bundles, version, server, padded, tmp_path):
    """A good bundle by a server, one without a server, a bad bundle, one of padded batches, none, and two, at once."""
    shutil.copytree(bundles, tmp_path / "bad")
    set_photos(2, [b"no image", b"none"])(tmp_path / "bad" / "embedder" / "1")
    for name in ("none", "two/hats/1", "two/shoes/1", "two/notes"):
        (tmp_path / name).mkdir(parents=True)
    started = [
        start(bundles, f"--server={server.grpc_address}"),
        start(version, "--server=localhost:1"),
        start(tmp_path / "bad" / "embedder"),
        start(tmp_path / "none"),
        start(tmp_path / "two"),
        start(padded),
    ]
    outputs = [process.communicate(timeout=200) for process in started]
    (good, _), (down, _), (bad, _), (_, none), (_, two), (warned, _) = outputs
    assert [process.returncode for process in started] == [0, 1, 1, 1, 1, 0]
    assert re.search(
        r"6\. batching: ok, \[1, 2, 4\], but:\n +what:  batches are padded .*\n +where: .*\n +mend:  Exp", warned
    )
    assert warned.endswith("All 8 checks passed, with 1 warning.\n")
    assert f"at {server.grpc_address}" in good and "All 8 checks passed." in good
    assert re.search(
        r"what:  UNAVAILABLE: (.*\n)+.*where: embedder, version 1, at localhost:1\n.*mend:  Start the server", down
    )
    assert f"{tmp_path}/bad/embedder/1" in bad and "2 of 8 checks failed." in bad
    record = located("record #2 of", version)
    assert re.search(rf"5\. warm-up: FAILED\n +what:  photo 0 is none: .*\n +where: .*{record} .*\n +mend:  ", bad)
    assert "8. independence: ok" in bad
    assert re.search(r"^error: .*none' must be a bundle, a model's folder", none, re.M)
    assert re.search(r"^error: .*two' must be .* the models \['hats', 'shoes'\]: name one\.", two, re.M)
