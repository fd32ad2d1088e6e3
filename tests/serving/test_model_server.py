"""The stand-in for TensorFlow Serving does what a real one was seen to do. Other tests rely on it."""

import base64
import concurrent.futures
import contextlib
import http.client
import json
import shutil
import threading
import time

import grpc
import numpy as np
import pytest
import tensorflow as tf

pytest.importorskip("tensorflow_serving", reason="tensorflow-serving-api is not installed, the extra [serving]")
from tensorflow_serving.apis import (  # noqa: E402
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from tests.serving.model_server import ModelServer  # noqa: E402
from tests.serving.model_versions import Exited  # noqa: E402
from tests.serving.served_models import PlainModel, batching_params, expected_embedding  # noqa: E402

SIZES = {"max_batch_size": 8, "batch_timeout_micros": 300_000}
PADDED, UNPADDED = {**SIZES, "allowed_batch_sizes": [4, 8]}, {**SIZES, "allowed_batch_sizes": []}


@contextlib.contextmanager
def asking(server):
    """A function that asks a server by gRPC, and returns the answer or the status."""
    with grpc.insecure_channel(server.grpc_address) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)

        def ask(values, outputs=(), shape=None, timeout=10, **spec):
            request = predict_pb2.PredictRequest(output_filter=outputs)
            request.model_spec.name = spec.get("name", "embedder")
            if "version" in spec:
                request.model_spec.version.value = spec["version"]
            if "label" in spec:
                request.model_spec.version_label = spec["label"]
            shape = [len(values)] if shape is None else shape
            request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto(values, tf.string, shape))
            try:
                answer = stub.Predict(request, timeout=timeout)
            except grpc.RpcError as error:
                return error.code().name, error.details()
            return {name: tf.make_ndarray(tensor) for name, tensor in answer.outputs.items()}

        yield ask


def together(*calls):
    """What calls return that are begun in this order, each once the one before is on its way."""
    with concurrent.futures.ThreadPoolExecutor(len(calls)) as pool:
        futures = []
        for call in calls:
            futures.append(pool.submit(call))
            time.sleep(0.05)
        return [future.result() for future in futures]


def until(condition):
    """Waits for what will come."""
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come")


# Batching


def test_requests_that_wait_are_one_run_and_each_gets_its_own_rows():
    with ModelServer({"embedder": {1: PlainModel(batching=UNPADDED)}}, batching=True) as server:
        with asking(server) as ask:
            first, second = together(lambda: ask([b"a", b"b"]), lambda: ask([b"c"]))
        assert [(run.rows, run.padding) for run in server.runs] == [(3, 0)]
    np.testing.assert_allclose(first["embedding"], [expected_embedding(b"a"), expected_embedding(b"b")])
    np.testing.assert_allclose(second["embedding"], [expected_embedding(b"c")])


def test_padding_is_copies_of_the_first_row_of_the_last_request():
    seen = []

    class Watched(PlainModel):
        def run(self, signature, inputs):
            seen.extend(inputs["image_bytes"].tolist())
            return super().run(signature, inputs)

    with ModelServer({"embedder": {1: Watched(batching=PADDED)}}, batching=True) as server, asking(server) as ask:
        together(lambda: ask([b"a", b"b", b"c"]), lambda: ask([b"d", b"e"]))
        assert [(run.rows, run.padding) for run in server.runs] == [(5, 3)]
    assert seen == [b"a", b"b", b"c", b"d", b"e", b"d", b"d", b"d"]


def test_filtered_and_unfiltered_requests_have_queues_of_their_own():
    with ModelServer({"embedder": {1: PlainModel(batching=UNPADDED)}}, batching=True) as server, asking(server) as ask:
        together(lambda: ask([b"a"]), lambda: ask([b"b"], ["embedding"]), lambda: ask([b"c"]))
        assert sorted((run.outputs, run.rows) for run in server.runs) == [((), 2), (("embedding",), 1)]


def test_a_request_without_photos_hangs_alone_and_kills_a_padded_server():
    with ModelServer({"embedder": {1: PlainModel(batching=PADDED)}}, batching=True) as server, asking(server) as ask:
        assert ask([], shape=[0], timeout=0.4)[0] == "DEADLINE_EXCEEDED"
        answers = together(lambda: ask([b"a"]), lambda: ask([], shape=[0]))
        assert [answer[0] for answer in answers] == ["UNAVAILABLE"] * 2
        assert ask([b"a"])[0] == "UNAVAILABLE"
        assert server.last_words == "Check failed: limit <= dim0_size (1 vs. 0)"


def test_without_allowed_sizes_a_request_without_photos_is_harmless():
    with ModelServer({"embedder": {1: PlainModel(batching=UNPADDED)}}, batching=True) as server, asking(server) as ask:
        alone = ask([], shape=[0])
        first, second = together(lambda: ask([b"a"]), lambda: ask([], shape=[0]))
    assert [len(answer["embedding"]) for answer in (alone, first, second)] == [0, 1, 0]


def test_other_shapes_in_a_batch_fail_each_others_callers():
    with ModelServer({"embedder": {1: PlainModel(batching=UNPADDED)}}, batching=True) as server, asking(server) as ask:
        answers = together(lambda: ask([b"a"]), lambda: ask([b"b"], shape=[1, 1]))
    for status, details in answers:
        assert status == "FAILED_PRECONDITION" and "from different tasks have different shapes" in details


# Threads, first runs


def test_calls_beyond_its_threads_are_refused_over_grpc_and_wait_over_rest():
    with ModelServer({"embedder": {1: PlainModel()}}, grpc_max_threads=2) as server, asking(server) as ask:
        server.delay = 0.5
        answers = together(*[lambda: ask([b"a"])] * 3)
        assert ("RESOURCE_EXHAUSTED", "Server Threadpool Exhausted") in answers and server.turned_away == 1
        assert [status for status, _ in together(*[lambda: posted(server, [b"a"])] * 3)] == [200, 200, 200]


def test_the_first_run_is_slow_unless_it_was_warmed_up():
    with ModelServer({"embedder": {1: PlainModel()}}, first_run_seconds=0.3) as server, asking(server) as ask:
        seconds = []
        for outputs in ((), (), ("ok",), ("ok",)):
            start = time.monotonic()
            ask([b"a"], outputs)
            seconds.append(time.monotonic() - start)
    assert min(seconds[0], seconds[2]) > 0.3 > max(seconds[1], seconds[3])


# Versions


def test_what_is_not_there_is_not_found():
    with ModelServer({"embedder": {1: PlainModel(), 3: PlainModel()}}) as server, asking(server) as ask:
        assert "ok" in ask([b"a"], version=3)
        assert ask([b"a"], version=9) == ("NOT_FOUND", "Servable not found for request: Specific(embedder, 9)")
        assert ask([b"a"], name="shoes") == ("NOT_FOUND", "Servable not found for request: Latest(shoes)")
        assert posted(server, [b"a"], "/versions/9")[0] == 404


@pytest.mark.parametrize(
    "options, is_blocked",
    [
        ({}, True),
        ({"num_load_threads": 2}, False),
        ({"max_num_load_retries": 0}, False),
    ],
)
def test_a_version_that_cannot_be_loaded_blocks_newer_ones_by_default(options, is_blocked):
    versions = {1: PlainModel()}
    with ModelServer({"embedder": versions}, load_retry_seconds=0.5, **options) as server, asking(server) as ask:
        versions[2] = ValueError("broken")
        until(lambda: ("embedder", 2) in server.versions.states)
        versions[3] = PlainModel()
        start = time.monotonic()
        until(lambda: "ok" in ask([b"a"], version=3))
        assert (time.monotonic() - start > 1) == is_blocked


def test_a_restart_ends_when_the_newest_version_cannot_be_loaded():
    versions = {1: PlainModel()}
    with ModelServer({"embedder": versions}, max_num_load_retries=0) as server:
        server.kill()
        versions[2] = ValueError("broken")
        with pytest.raises(Exited, match=r"1 servable\(s\) did not become available: \{name: embedder version: 2\}"):
            server.start()


def test_a_warm_up_request_that_fails_fails_the_load():
    model = PlainModel()
    model.warmup = [predict_pb2.PredictRequest()]
    with pytest.raises(Exited), ModelServer({"embedder": {1: model}}, max_num_load_retries=0):
        pass


CONFIG = """
model_config_list {{
  config {{ name: "embedder" base_path: "{base}" model_version_policy {{ specific {{ {versions} }} }} {labels} }}
  {more}
}}
"""


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory):
    """The folder of a SavedModel that finds every photo fine."""

    class Tiny(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
        def serve(self, image_bytes):
            return {"ok": tf.fill([tf.size(image_bytes)], True)}

    folder, module = str(tmp_path_factory.mktemp("tiny")), Tiny()
    tf.saved_model.save(module, folder, signatures={"serving_default": module.serve})
    return folder


@pytest.fixture
def configured(tiny_model, tmp_path):
    """The path of a `models.config`, and a function that writes it."""
    base = tmp_path / "embedder"
    for version in ("1", "2"):
        shutil.copytree(tiny_model, base / version)
    path = tmp_path / "models.config"

    def write(*versions, more="", **labels):
        numbers = " ".join(f"versions: {version}" for version in versions)
        pairs = " ".join(f'version_labels {{ key: "{key}" value: {value} }}' for key, value in labels.items())
        new = path.with_suffix(".new")
        new.write_text(CONFIG.format(base=base, versions=numbers, labels=pairs, more=more))
        new.replace(path)

    write(1)
    return path, write


def test_a_label_together_with_its_version_makes_the_server_refuse_the_file(configured):
    path, write = configured
    with ModelServer(str(path)) as server, asking(server) as ask:
        write(1, 2, stable=2)
        until(lambda: server.versions.refused_config)
        assert "version 2 of model embedder, which is not currently available" in server.versions.refused_config
        assert ask([b"a"], version=2)[0] == "NOT_FOUND"
        write(1, 2)
        until(lambda: "ok" in ask([b"a"], version=2))
        write(1, 2, stable=2)
        until(lambda: "ok" in ask([b"a"], label="stable"))
        server.kill()
        with pytest.raises(Exited, match="not currently available"):
            server.start()


def test_a_model_without_its_folder_stops_new_versions_of_all(configured):
    path, write = configured
    with ModelServer(str(path)) as server, asking(server) as ask:
        write(1, 2, more=f"config {{ name: 'hats' base_path: '{path.parent / 'hats'}' }}")
        time.sleep(0.3)
        assert ask([b"a"], version=2)[0] == "NOT_FOUND" and "ok" in ask([b"a"], version=1)
        (path.parent / "hats").mkdir()
        until(lambda: "ok" in ask([b"a"], version=2))


# Kills, REST


@contextlib.contextmanager
def connected(server):
    """A connection to a server's REST port."""
    with contextlib.closing(http.client.HTTPConnection(server.rest_address, timeout=10)) as connection:
        yield connection


def post(connection, photos, version=""):
    """The status and the answer of a request over REST."""
    body = json.dumps({"instances": [{"b64": base64.b64encode(photo).decode()} for photo in photos]})
    connection.request("POST", f"/v1/models/embedder{version}:predict", body)
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def posted(server, photos, version=""):
    """As `post`, by a connection of its own."""
    with connected(server) as connection:
        return post(connection, photos, version)


def test_killed_its_connections_die_and_it_comes_back_on_its_ports():
    with (
        ModelServer({"embedder": {1: PlainModel()}}) as server,
        asking(server) as ask,
        connected(server) as connection,
    ):
        assert post(connection, [b"a"])[0] == 200 and len(server.connections) == 1
        server.freeze()
        threading.Timer(0.3, server.kill).start()
        assert ask([b"a"])[0] == "UNAVAILABLE"
        with pytest.raises((OSError, http.client.HTTPException)):
            post(connection, [b"a"])
        until(lambda: not server.is_running)
        server.thaw()
        server.start()
        assert posted(server, [b"a"])[0] == 200
        until(lambda: "ok" in ask([b"a"]))


def test_it_says_which_versions_it_has():
    with ModelServer({"embedder": {3: PlainModel()}}) as server:
        with grpc.insecure_channel(server.grpc_address) as channel:
            request = get_model_status_pb2.GetModelStatusRequest()
            request.model_spec.name = "embedder"
            answer = model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(request, timeout=10)
        assert [(row.version, row.state) for row in answer.model_version_status] == [(3, 30)]
        with connected(server) as connection:
            connection.request("GET", "/v1/models/embedder")
            (row,) = json.load(connection.getresponse())["model_version_status"]
    assert row == {"version": "3", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}


def test_batching_params_are_read():
    text = (
        "max_batch_size { value: 8 }\nbatch_timeout_micros { value: 9 }\nallowed_batch_sizes: 1\nallowed_batch_sizes: 8"
    )
    assert batching_params(text) == {"max_batch_size": 8, "batch_timeout_micros": 9, "allowed_batch_sizes": [1, 8]}
