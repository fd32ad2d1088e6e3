"""What a bundle's settings spare its callers, on a stand-in with the manners of a real server."""

import concurrent.futures
import os
import pathlib
import re
import shutil
import subprocess
import sys
import threading
import time

import grpc
import numpy as np
import pytest
import tensorflow as tf

pytest.importorskip("tensorflow_serving", reason="needs pip install 'eet-tf[serving]'")

import yaml
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from eet_tf.client import EmbeddingClient
from eet_tf.serving.bundle import write_bundle
from eet_tf.serving.warmup import sample_photos
from tests.serving.model_server import ModelServer
from tests.serving.model_versions import AVAILABLE, Exited
from tests.serving.served_models import PlainModel

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def padded(version, tmp_path_factory):
    """The base path of the small bundle with batches that are padded."""
    output_dir = tmp_path_factory.mktemp("padded")

    def write_model(folder):
        return shutil.copytree(version, os.path.join(folder, "1"))

    return os.path.dirname(write_bundle(write_model, str(output_dir), max_batch_size=4, pad_batches=True))


def embed(stub, photos, timeout=60):
    """The answer's rows; [] if the server has none for us."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = "embedder", "serving_default"
    request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto(photos, tf.string, [len(photos)]))
    return tf.make_ndarray(stub.Predict(request, timeout=timeout).outputs["embedding"])


def asked_at_once(server, requests):
    """What becomes of requests that are sent together: their rows, or the status with which they end."""

    def ask(photos):
        try:
            return embed(stub, photos)
        except grpc.RpcError as error:
            return error.code().name

    with grpc.insecure_channel(server.grpc_address) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        with concurrent.futures.ThreadPoolExecutor(len(requests)) as pool:
            return list(pool.map(ask, requests))


def test_a_request_without_photos_ends_no_server(version):
    """It is answered with no rows, and the photos of others as ever."""
    photos = sample_photos()
    with ModelServer({"embedder": os.path.dirname(version)}, batching=True) as server:
        answers = asked_at_once(server, [photos[:3], [], photos[3:], [], photos[:1], []])
        assert server.last_words is None
        assert [len(answer) for answer in answers] == [3, 0, 3, 0, 1, 0]
        np.testing.assert_allclose(answers[4][0], answers[0][0], atol=1e-6)
        assert {run.padding for run in server.runs} == {0}


def test_it_ends_one_that_pads_its_batches(padded):
    """Why padding has to be asked for, and is warned of."""
    photos = sample_photos()
    with ModelServer({"embedder": padded}, batching=True) as server:
        for _ in range(50):  # until one stands last in a batch
            asked_at_once(server, [photos[:3], []])
            if server.last_words is not None:
                break
        assert "Check failed" in server.last_words


@pytest.mark.parametrize("target", ["gRPC", "REST"])
def test_the_first_request_is_as_quick_as_any(version, target):
    """A run that no warm-up had takes longer than these callers wait."""
    settings = {"batching": True, "first_run_seconds": 20.0}
    with ModelServer({"embedder": os.path.dirname(version)}, **settings) as server:
        address = server.grpc_address if target == "gRPC" else f"http://{server.rest_address}"
        with EmbeddingClient(address, batch_size=3, timeout=15, deadline=15) as client:
            begin = time.monotonic()
            assert client.embed(sample_photos())[1].all()
            assert client.embedding_dim == 8
            assert time.monotonic() - begin < 15


def test_grpc_and_rest_share_their_batches(version):
    """They ask for the same outputs, so their photos wait in one queue."""
    with ModelServer({"embedder": os.path.dirname(version)}, batching=True) as server:
        with (
            EmbeddingClient(server.grpc_address) as over_grpc,
            EmbeddingClient(f"http://{server.rest_address}") as over_rest,
        ):
            for client in (over_grpc, over_rest):
                client.embed(sample_photos()[:1])
        assert {run.outputs for run in server.runs} == {()}


def flags_of(output_dir):
    """The settings of the server in docker-compose.yml that the stand-in has, too."""
    services = yaml.safe_load(pathlib.Path(output_dir, "docker-compose.yml").read_text())["services"]
    flags = dict(flag.removeprefix("--").partition("=")[::2] for flag in services["serving"]["command"])
    return {name: int(flags[name]) for name in ("grpc_max_threads", "num_load_threads", "max_num_load_retries")}


def test_a_hundred_callers_are_served_at_once(bundles):
    """By default a server of 2 cores refuses the ninth."""
    with ModelServer({"embedder": {1: PlainModel()}}, **flags_of(bundles)) as server:
        server.gate = threading.Barrier(100)
        answers = asked_at_once(server, [[b"photo"]] * 100)
        assert server.turned_away == 0
    assert {len(answer) for answer in answers} == {1}


def test_a_broken_version_holds_up_no_other(bundles):
    """By default it is tried for 5 minutes, and nothing else is loaded meanwhile."""
    models = {1: PlainModel()}
    with ModelServer({"embedder": models}, **flags_of(bundles)) as server:
        models[2] = ValueError("no graph")
        while ("embedder", 2) not in server.versions.states:
            time.sleep(0.02)
        models[3] = PlainModel()
        end = time.monotonic() + 30
        while server.versions.states.get(("embedder", 3), ("",))[0] != AVAILABLE:
            assert time.monotonic() < end, "it never came"
            time.sleep(0.02)


@pytest.fixture
def served(bundles, tmp_path):
    """A copy of the bundles, which the stand-in finds where they are."""
    shutil.copytree(bundles, tmp_path / "served")
    config = tmp_path / "served" / "models.config"
    config.write_text(config.read_text().replace("/models/", f"{tmp_path}/served/"))
    return tmp_path / "served"


def pasted(served, number, address=""):
    """Runs one of the README's commands, with the folder and the server's address in it."""
    readme = (served / "README.md").read_text()
    command = re.findall(r"^eet publish .*$", readme, re.M)[number]
    command = command.replace("PATH_OF_THIS_FOLDER", str(served)).replace("localhost:8500", address)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    program = command.replace("eet ", f"{sys.executable} -m eet_tf ", 1)
    done = subprocess.run(program, shell=True, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_command_to_publish_works_as_pasted(bundles, served):
    """Version 1 is the newest, named from now on, and answers."""
    with ModelServer(str(served / "models.config"), **flags_of(bundles)) as server:
        said = pasted(served, 0, server.grpc_address)
    assert f"{server.grpc_address} has loaded version 1 of 'embedder'." in said
    assert "specific {\n        versions: 1\n" in (served / "models.config").read_text()


def test_the_command_to_go_back_works_as_pasted(bundles, served):
    """A server that did not start on version 2 starts."""
    (served / "embedder" / "2").mkdir()
    (served / "embedder" / "2" / "saved_model.pb").write_text("no graph")
    server = ModelServer(str(served / "models.config"), **flags_of(bundles))
    try:
        with pytest.raises(Exited):
            server.start()
        pasted(served, 1)
        server.start()
        assert server.versions.states == {("embedder", 1): (AVAILABLE, "")}
    finally:
        server.__exit__()
