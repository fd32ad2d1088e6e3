"""The bundle: what is in it, that it is there whole or not at all, and that the lines beside it work as pasted."""

import fcntl
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf

pytest.importorskip("tensorflow_serving", reason="needs pip install 'eet-tf[serving]'")

import yaml
from google.protobuf import text_format
from tensorflow_serving.apis import prediction_log_pb2
from tensorflow_serving.config import model_server_config_pb2

import eet_tf
from eet_tf.client import EmbeddingClient
from eet_tf.serving import SavedModelError, ServedEmbedder, embedder_fingerprint, export_embedder
from eet_tf.serving.bundle import training_vectors, versions, write_bundle
from eet_tf.serving.saved_model import MANIFEST
from eet_tf.serving.warmup import WARMUP, read_signatures, sample_photos, warmup_requests, warmup_sizes, write_warmup
from tests.serving.model_server import ModelServer

ROOT = pathlib.Path(__file__).parents[2]
BESIDE = {"README.md", "docker-compose.yml", "models.config", "monitoring.config", "photo.jpg", "prometheus.yml"}


def manifest_of(version):
    return json.loads(pathlib.Path(version, MANIFEST).read_text())


# What is in it


def test_each_signature_is_warmed_up_in_each_batch_size(version):
    requests = []
    for record in tf.data.TFRecordDataset(os.path.join(version, WARMUP)):
        log = prediction_log_pb2.PredictionLog.FromString(record.numpy())
        requests.append(log.predict_log.request)
    sizes = [next(iter(each.inputs.values())).tensor_shape.dim[0].size for each in requests]
    met = [(each.model_spec.signature_name, size) for each, size in zip(requests, sizes)]
    assert met == [(name, size) for name in sorted(read_signatures(version)) for size in (1, 2, 4)]
    assert {each.model_spec.name for each in requests} == {"embedder"}
    encoded = [tf.make_ndarray(each.inputs["image_bytes"]) for each in requests if "image_bytes" in each.inputs]
    photos = np.concatenate(encoded)
    assert {tf.io.decode_jpeg(photo).shape.rank for photo in photos} == {3}
    assert len(set(photos)) == 4


def test_pixels_are_warmed_up_as_pixels(tmp_path):
    """Of a signature that this package may or may not have: names and kinds are read from the model."""
    module = tf.Module()
    module.shade = tf.function(
        lambda images: {"shade": tf.reduce_mean(tf.cast(images, tf.float32), axis=[1, 2, 3])},
        input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, name="images")],
    )
    tf.saved_model.save(module, str(tmp_path), signatures={"shades": module.shade})
    requests = list(warmup_requests(read_signatures(str(tmp_path)), [1, 7], sample_photos(), image_size=24))
    shapes = [tf.make_ndarray(request.inputs["images"]).shape for request in requests]
    assert shapes == [(1, 24, 24, 3), (7, 24, 24, 3)]
    assert {request.inputs["images"].dtype for request in requests} == {tf.uint8.as_datatype_enum}
    assert np.ptp(tf.make_ndarray(requests[0].inputs["images"])) > 100


def test_an_input_that_nothing_is_known_of_is_refused(tmp_path):
    module = tf.Module()
    module.double = tf.function(lambda x: {"y": x * 2}, input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    tf.saved_model.save(module, str(tmp_path), signatures={"double": module.double})
    with pytest.raises(SavedModelError, match="Input 'x' of signature 'double' must be string .* Received: float32"):
        list(warmup_requests(read_signatures(str(tmp_path)), [1], sample_photos(), image_size=24))


def test_more_requests_than_a_server_takes_are_refused(version):
    before = pathlib.Path(version, WARMUP).read_bytes()
    with pytest.raises(SavedModelError, match=r"at most 1000 warm-up requests. Received: 1001 sizes for \d signatures"):
        write_warmup(version, range(1, 1002), sample_photos(), 32)
    assert pathlib.Path(version, WARMUP).read_bytes() == before


@pytest.mark.parametrize(
    "largest, sizes", {1: [1], 2: [1, 2], 3: [1, 2, 3], 32: [1, 2, 4, 8, 16, 32], 33: [1, 2, 4, 8, 16, 32, 33]}.items()
)
def test_powers_of_two_and_the_largest_batch_are_warmed_up(largest, sizes):
    assert warmup_sizes(largest) == sizes


def batching_of(version):
    """(largest batch, sizes that batches are padded to)."""
    text = pathlib.Path(version, "batching_params.pbtxt").read_text()
    (largest,) = re.findall(r"max_batch_size { value: (\d+) }", text)
    return int(largest), [int(size) for size in re.findall(r"allowed_batch_sizes: (\d+)", text)]


def test_batches_are_not_padded(bundles, version):
    """Padding lets one empty request end the server for all."""
    assert batching_of(version) == (4, [])
    assert manifest_of(version)["pad_batches"] is False
    assert "one request without photos" not in pathlib.Path(bundles, "README.md").read_text()


def test_batches_are_padded_where_that_is_asked_for(write_copy, tmp_path):
    version = write_bundle(write_copy, str(tmp_path), max_batch_size=6, pad_batches=True)
    assert batching_of(version) == (6, [1, 2, 4, 6])
    assert manifest_of(version)["pad_batches"] is True
    assert "This bundle pads batches: one request without photos ends" in (tmp_path / "README.md").read_text()


def test_what_the_client_asks_is_warmed_up(version, server):
    """A server prepares, and batches, each choice of outputs of a signature on its own."""
    warm = set()
    for record in tf.data.TFRecordDataset(os.path.join(version, WARMUP)):
        request = prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log.request
        warm.add((request.model_spec.signature_name, tuple(request.output_filter)))
    del server.requests[:]
    with EmbeddingClient(server.grpc_address) as client:
        _, ok = client.embed(sample_photos())
        assert ok.all() and client.embedding_dim == 8
    asked = {(request.model_spec.signature_name, tuple(request.output_filter)) for request in server.requests}
    assert {name for name, _ in asked} == {"serving_default", "describe"}
    assert asked <= warm


def test_the_manifest_says_who_made_it_and_how_it_is_asked(version, small_embedder):
    manifest = manifest_of(version)
    assert manifest["fingerprint"] == embedder_fingerprint(small_embedder)
    assert (manifest["name"], manifest["batch_sizes"]) == ("embedder", [1, 2, 4])
    assert (manifest["tensorflow"], manifest["keras"]) == (tf.__version__, keras.__version__)
    assert manifest["metadata"] == {"run": "mine"}
    assert sorted(manifest["signatures"]) == sorted(read_signatures(version))
    assert manifest["signatures"]["serving_default"] == {
        "inputs": {"image_bytes": {"dtype": "string", "shape": [None]}},
        "outputs": {"embedding": {"dtype": "float32", "shape": [None, 8]}, "ok": {"dtype": "bool", "shape": [None]}},
    }


def test_the_manifest_has_the_checksum_of_every_other_file(version):
    found = {
        str(path.relative_to(version)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in pathlib.Path(version).rglob("*")
        if path.is_file()
    }
    del found[MANIFEST]
    assert manifest_of(version)["files"] == found
    assert {WARMUP, "saved_model.pb", "batching_params.pbtxt", "variables/variables.index"} <= set(found)


def test_the_reference_is_what_training_says(version, small_embedder):
    with np.load(os.path.join(version, "assets.extra", "reference.npz")) as stored:
        photos = [stored[f"photo_{row}"].tobytes() for row in range(6)]
        vectors = stored["vectors"]
    assert photos == sample_photos()
    np.testing.assert_allclose(vectors, ServedEmbedder(version).embed(photos)[0], atol=1e-5)
    assert np.linalg.norm(vectors[:, None] - vectors[None], axis=2)[~np.eye(6, dtype=bool)].min() > 1e-3


def test_training_vectors_go_through_a_whitening(small_embedder):
    from eet_tf.evaluation.postprocessing import Whitening

    rng = np.random.default_rng(1)
    whitening = Whitening(rng.normal(size=8) / 9, rng.normal(size=[8, 5]))
    plain, whitened = (training_vectors(small_embedder, sample_photos(), each) for each in (None, whitening))
    np.testing.assert_allclose(whitened, whitening.apply(plain), atol=1e-6)


# Beside it


def test_a_server_finds_the_model(bundles):
    text = pathlib.Path(bundles, "models.config").read_text()
    config = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
    models = [(each.name, each.base_path, each.model_platform) for each in config.model_config_list.config]
    assert models == [("embedder", "/models/embedder", "tensorflow")]


def services_of(output_dir):
    return yaml.safe_load(pathlib.Path(output_dir, "docker-compose.yml").read_text())["services"]


def test_compose_names_files_that_are_there(bundles):
    services = services_of(bundles)
    serving = services["serving"]
    assert serving["image"] == f"tensorflow/serving:{tf.__version__}"
    assert serving["volumes"] == [".:/models:ro"]
    named = [flag.partition("=")[2] for flag in serving["command"] if "=/models/" in flag]
    assert [os.path.relpath(path, "/models") for path in named] == ["models.config", "monitoring.config"]
    assert {"--enable_batching", "--enable_per_model_batching_parameters"} < set(serving["command"])
    assert services["prometheus"]["volumes"][0].startswith("./prometheus.yml:")
    assert set(os.listdir(bundles)) >= BESIDE


def test_the_server_takes_many_callers_and_survives_a_broken_version(bundles):
    """By default 4 x cores callers are served, and a version that cannot be loaded is tried for 5 minutes."""
    flags = dict(flag.partition("=")[::2] for flag in services_of(bundles)["serving"]["command"])
    assert flags["--grpc_max_threads"] == "256"
    assert flags["--num_load_threads"] == "2"
    assert flags["--max_num_load_retries"] == "0"
    assert flags["--allow_version_labels_for_unavailable_models"] == "true"  # or it does not start with a label


def test_nothing_fills_the_disk_and_nothing_is_open_to_all(bundles):
    services = services_of(bundles)
    for service in services.values():
        assert service["logging"]["options"] == {"max-size": "10m", "max-file": "5"}
    assert "--storage.tsdb.retention.size=1GB" in services["prometheus"]["command"]
    assert services["prometheus"]["ports"] == ["127.0.0.1:9090:9090"]
    # what `--storage...` needs beside it: the image's own command is replaced
    assert f"--config.file={services['prometheus']['volumes'][0].split(':')[1]}" in services["prometheus"]["command"]


def test_prometheus_is_a_version_with_long_term_support(bundles):
    text = pathlib.Path(bundles, "docker-compose.yml").read_text()
    assert "image: prom/prometheus:v3.13.2  # long-term support until July 2027" in text


HEALTH = {
    "as written": 'config {\n    name: "one"\n    base_path: "/models/one"\n  }\n  config {\n    name: "two"\n  }',
    "by hand": "config { name:'two' } config{name: 'one'} # config { name: \"three\" }",
    "one is missing": 'config {\n    name: "one"\n  }\n  config {\n    name: "three"\n  }',
    "the last is missing": 'config { name: "two" } config { name: "three" }',
    "none": "",
}


@pytest.mark.parametrize("case", HEALTH)
def test_the_health_check_asks_every_model(bundles, version, tmp_path, case):
    """It runs in the image, whose bash has /dev/tcp; here against a stand-in of the models one and two."""
    config = tmp_path / "models.config"
    config.write_text(f"model_config_list {{\n  {HEALTH[case]}\n}}\n")
    program, option, script = services_of(bundles)["serving"]["healthcheck"]["test"][1:]
    assert (program, option) == ("bash", "-c")
    base = os.path.dirname(version)
    with ModelServer({"one": base, "two": base}) as server:
        port = server.rest_address.rpartition(":")[2]
        script = script.replace("$$", "$").replace("localhost/8501", f"localhost/{port}")
        script = script.replace("/models/models.config", str(config))
        result = subprocess.run([program, option, script], timeout=60, check=False)
    assert (result.returncode == 0) == (case in ("as written", "by hand"))


def mark_needed(folder, operations):
    """Says in a version's manifest which operations it needs, as an export with `scann_in_graph` does."""
    path = pathlib.Path(folder, MANIFEST)
    path.write_text(json.dumps({**json.loads(path.read_text()), "needs_ops": operations}))
    return str(folder)


def test_where_a_stock_server_would_not_start_there_is_no_compose_file(write_copy, tmp_path):
    """It comes with a model that any server has the operations of, goes with one that needs others, and comes back."""
    needy = lambda folder: mark_needed(write_copy(folder), ["Scann>ScannSearchBatched"])  # noqa: E731
    write_bundle(write_copy, str(tmp_path), name="shoes")
    assert (tmp_path / "docker-compose.yml").exists()
    write_bundle(needy, str(tmp_path), name="hats")
    assert not (tmp_path / "docker-compose.yml").exists()
    write_bundle(write_copy, str(tmp_path), name="shoes")  # beside one in the same folder, for the same server
    assert not (tmp_path / "docker-compose.yml").exists()
    readme = (tmp_path / "README.md").read_text()
    assert "There is no `docker-compose.yml` here: `hats` needs operations" in readme
    assert "`Scann>ScannSearchBatched`" in readme
    assert "LD_PRELOAD=/path/to/scann/scann_ops/cc/_scann_ops.so tensorflow_model_server" in readme
    assert "eet verify --op_library=" in readme and "PATH_OF_THIS_FOLDER/hats" in readme
    assert "docker compose up" not in readme.partition("## ")[0]
    write_bundle(write_copy, str(tmp_path), name="hats")
    assert (tmp_path / "docker-compose.yml").exists()
    assert "docker compose up" in (tmp_path / "README.md").read_text().partition("## ")[0]


def test_a_compose_file_that_names_a_server_of_ones_own_stays(write_copy, tmp_path):
    needy = lambda folder: mark_needed(write_copy(folder), ["Scann>ScannSearchBatched"])  # noqa: E731
    write_bundle(write_copy, str(tmp_path))
    mine = (tmp_path / "docker-compose.yml").read_text().replace("tensorflow/serving:", "mine/serving-with-scann:")
    (tmp_path / "docker-compose.yml").write_text(mine)
    write_bundle(needy, str(tmp_path))
    assert (tmp_path / "docker-compose.yml").read_text() == mine


def test_prometheus_asks_where_the_server_answers(bundles):
    scrape = yaml.safe_load(pathlib.Path(bundles, "prometheus.yml").read_text())["scrape_configs"][0]
    monitoring = pathlib.Path(bundles, "monitoring.config").read_text()
    assert re.search(r'path: "(.*)"', monitoring)[1] == scrape["metrics_path"]
    assert scrape["static_configs"] == [{"targets": ["serving:8501"]}]


@pytest.fixture(scope="module")
def server(bundles):
    """A stand-in that serves the bundle."""
    with ModelServer({"embedder": os.path.join(bundles, "embedder")}) as running:
        yield running


def pasted(bundles, language, server):
    """The blocks of the README beside the models, at the addresses of the stand-in."""
    readme = pathlib.Path(bundles, "README.md").read_text()
    for block in re.findall(rf"```{language}\n(.*?)```", readme, re.S):
        yield block.replace("localhost:8500", server.grpc_address).replace("localhost:8501", server.rest_address)


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
def test_curl_lines_work_as_pasted(bundles, server):
    status_block, *request_blocks = pasted(bundles, "bash", server)
    for line in status_block.splitlines():
        assert subprocess.run(line, shell=True, cwd=bundles, capture_output=True, check=False).returncode == 0, line
    (block,) = [block for block in request_blocks if "serving_default" in block]
    for other in request_blocks:
        done = subprocess.run(other, shell=True, cwd=bundles, capture_output=True, check=False)
        assert done.returncode == 0 and done.stdout, other
    result = subprocess.run(block, shell=True, cwd=bundles, capture_output=True, text=True, check=True)
    (row,) = json.loads(result.stdout)["predictions"]
    assert row["ok"] is True
    np.testing.assert_allclose(np.linalg.norm(row["embedding"]), 1, atol=1e-5)


def test_grpc_lines_work_as_pasted(bundles, version, server, monkeypatch, capsys):
    monkeypatch.chdir(bundles)
    blocks = list(pasted(bundles, "python", server))
    assert len(blocks) == len(read_signatures(version))
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})
    assert "'embedding': array([[" in capsys.readouterr().out


class Colours(tf.Module):
    """A model with all three kinds of signature, whose embedding is a photo's mean colour."""

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, name="images")])
    def embed_images(self, images):
        return {"embedding": tf.math.l2_normalize(tf.reduce_mean(tf.cast(images, tf.float32), axis=[1, 2]), axis=1)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def embed_bytes(self, image_bytes):
        spec = tf.TensorSpec([None, None, 3], tf.uint8)
        images = tf.map_fn(lambda each: tf.io.decode_jpeg(each, channels=3), image_bytes, fn_output_signature=spec)
        return {**self.embed_images(images), "ok": tf.fill([tf.size(image_bytes)], True)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def search(self, image_bytes):
        answer = self.embed_bytes(image_bytes)
        score, column = tf.math.top_k(answer["embedding"], 2)
        return {"sku": tf.gather(["red", "green", "blue"], column), "score": score, "ok": answer["ok"]}


@pytest.fixture(scope="module")
def colours(tmp_path_factory):
    """A folder of models with a bundle of that."""
    module = Colours()

    def write_model(folder):
        names = {"serving_default": "embed_bytes", "embed_images": "embed_images", "search": "search"}
        tf.saved_model.save(module, folder, signatures={name: getattr(module, each) for name, each in names.items()})
        manifest = pathlib.Path(folder, MANIFEST)
        manifest.parent.mkdir(exist_ok=True)
        manifest.write_text(json.dumps({"image_size": 32, "embedding_dim": 3, "fingerprint": "f", "tensorflow": "2"}))
        return folder

    output_dir = str(tmp_path_factory.mktemp("colours"))
    reference = lambda photos: module.embed_bytes(tf.constant(photos))["embedding"].numpy()  # noqa: E731
    write_bundle(write_model, output_dir, reference=reference, max_batch_size=2)
    return output_dir


def test_all_signatures_are_warmed_up_and_proven(colours, bundle_checks, bundle_files):
    bundle = bundle_files.Bundle(os.path.join(colours, "embedder", "1"))
    assert len(bundle.warmup) == 3 * 2
    outcomes = dict(bundle_checks.run_checks(bundle, bundle_files.SavedModelSubject(bundle)))
    outcomes.pop("independence")
    assert outcomes == {name: [] for name in outcomes}


def test_lines_for_all_signatures_work_as_pasted(colours, monkeypatch, capsys):
    monkeypatch.chdir(colours)
    with ModelServer({"embedder": os.path.join(colours, "embedder")}) as server:
        blocks = list(pasted(colours, "python", server))
        for block in blocks:
            exec(compile(block, "README.md", "exec"), {})
        answers = [
            json.loads(subprocess.run(block, shell=True, capture_output=True, check=True).stdout)["predictions"][0]
            for block in pasted(colours, "bash", server)
            if ":predict" in block
        ]
    assert [request.model_spec.signature_name for request in server.requests] == [
        *("embed_images", "search", "serving_default"),
        *("search", "serving_default"),
    ]
    assert len(capsys.readouterr().out.splitlines()) >= len(blocks) == 3
    assert [sorted(answer) for answer in answers] == [["ok", "score", "sku"], ["embedding", "ok"]]
    assert set(answers[0]["sku"]) < {"red", "green", "blue"}


@pytest.mark.parametrize(
    "change", [lambda text: text + "# mine\n", lambda text: text.partition("\n")[2], lambda _: "é"]
)
def test_files_that_a_person_changed_are_left_alone(write_copy, tmp_path, change):
    write_bundle(write_copy, str(tmp_path))
    before = {name: (tmp_path / name).read_text() for name in BESIDE if name != "photo.jpg"}
    changed = change(before["models.config"])
    (tmp_path / "models.config").write_text(changed)
    write_bundle(write_copy, str(tmp_path), name="other")
    assert (tmp_path / "models.config").read_text() == changed
    assert "models/other:predict" in (tmp_path / "README.md").read_text()


def test_all_models_of_a_folder_are_served(write_copy, tmp_path):
    for name in ("one", "two", "one"):
        write_bundle(write_copy, str(tmp_path), name=name)
    (tmp_path / "notes").mkdir()
    assert re.findall(r'name: "(\w+)"', (tmp_path / "models.config").read_text()) == ["one", "two"]


# Versions


@pytest.mark.parametrize(
    "keep, left", {0: [1, 3, 4, 5, 10, 11], 2: [10, 11], 3: [5, 10, 11], 9: [1, 3, 4, 5, 10, 11]}.items()
)
def test_old_versions_go_once_the_new_one_is_there(write_copy, tmp_path, keep, left):
    """Beside others, of which 10 is newer than 5 as a number, not as text."""
    for number in (1, 3, 4, 5, 10):
        (tmp_path / "embedder" / str(number)).mkdir(parents=True)
    assert write_bundle(write_copy, str(tmp_path), keep_versions=keep) == str(tmp_path / "embedder" / "11")
    assert versions(str(tmp_path / "embedder")) == left
    assert sorted(set(os.listdir(tmp_path / "embedder")) - set(map(str, left))) == [".lock"]


def test_versions_that_the_configuration_names_stay(write_copy, tmp_path):
    for number in (1, 2, 3, 4):
        (tmp_path / "embedder" / str(number)).mkdir(parents=True)
    (tmp_path / "models.config").write_text("""model_config_list {
  config {
    name: "embedder"
    model_version_policy { specific { versions: 1 versions: 4 } }
    version_labels { key: "stable" value: 2 }
  }
  config { name: "other" model_version_policy { specific { versions: 3 } } }
}
""")
    write_bundle(write_copy, str(tmp_path), keep_versions=2)
    assert versions(str(tmp_path / "embedder")) == [1, 2, 4, 5]


def test_a_configuration_that_cannot_be_read_is_refused_before_anything_is_done(write_copy, tmp_path):
    (tmp_path / "embedder" / "1").mkdir(parents=True)
    (tmp_path / "models.config").write_text("model_config_list: none")
    with pytest.raises(SavedModelError, match=r"models\.config' is no configuration of a model server"):
        write_bundle(write_copy, str(tmp_path), keep_versions=2)
    assert versions(str(tmp_path / "embedder")) == [1]


def test_nothing_goes_if_the_new_one_fails(tmp_path):
    for number in (1, 2, 3):
        (tmp_path / "embedder" / str(number)).mkdir(parents=True)

    def fail(folder):
        os.makedirs(os.path.join(folder, "1"))
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_bundle(fail, str(tmp_path), keep_versions=2)
    assert sorted(os.listdir(tmp_path / "embedder")) == [".lock", "1", "2", "3"]


def test_it_is_verified_before_it_can_be_seen(write_copy, tmp_path):
    seen = []

    def verify(folder):
        assert os.path.isfile(os.path.join(folder, WARMUP))
        seen.extend(versions(str(tmp_path / "embedder")))
        raise SavedModelError("not fit")

    with pytest.raises(SavedModelError, match="not fit"):
        write_bundle(write_copy, str(tmp_path), verify=verify)
    assert seen == []
    assert os.listdir(tmp_path) == ["embedder"]
    assert os.listdir(tmp_path / "embedder") == [".lock"]


def test_a_second_writer_waits_for_the_first(write_copy, tmp_path):
    """The test is the first: it holds the lock."""
    (tmp_path / "embedder").mkdir()
    started = threading.Event()

    def write_model(folder):
        started.set()
        return write_copy(folder)

    second = threading.Thread(target=write_bundle, args=[write_model, str(tmp_path)])
    with open(tmp_path / "embedder" / ".lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        second.start()
        assert not started.wait(0.3)
    second.join()
    assert versions(str(tmp_path / "embedder")) == [1]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"name": "a/b"}, "`name` must be letters, digits"),
        ({"name": "12"}, "with a letter among them. Received: name='12'"),
        ({"max_batch_size": 0}, "`max_batch_size` must be from 1 to 1024.* Received: max_batch_size=0"),
        ({"max_batch_size": 1025}, "Received: max_batch_size=1025"),
        ({"keep_versions": 1}, "`keep_versions` must be 0 .all. or at least 2"),
        ({"keep_versions": -1}, "`keep_versions` must be 0 .all. or at least 2"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_done(write_copy, tmp_path, arguments, message):
    with pytest.raises(SavedModelError, match=message):
        write_bundle(write_copy, str(tmp_path), **arguments)
    assert os.listdir(tmp_path) == []


def test_an_output_dir_that_is_a_file_is_refused(write_copy, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(SavedModelError, match="`output_dir` must be a folder of models"):
        write_bundle(write_copy, str(tmp_path / "file"))


# Killed at any moment


KILLED = """
import os, pathlib, shutil, sys
import eet_tf.serving.bundle as bundle

place, version = map(pathlib.Path, {arguments!r})
photos = bundle.sample_photos(64, 64)
bundle.sample_photos = lambda: photos
state = {{"left": None}}

def hook(event, arguments):
    if state["left"] is None or not (event in ("open", "shutil.rmtree") or event.startswith("os.")):
        return
    is_read = event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR) or event in ("os.listdir", "os.scandir")
    if str(place) in str(arguments[0]) + str(arguments[1:2]) and not is_read:
        state["left"] -= 1
        if state["left"] == 0:
            os._exit(9)

sys.addaudithook(hook)

def write_model(folder):
    written = shutil.copytree(version, os.path.join(folder, "1"))
    state["left"] = state["moment"]  # what is written before is in a hidden folder, however much of it
    return written

def run(output_dir, moment):
    child = os.fork()
    if child == 0:
        state["moment"] = moment
        bundle.write_bundle(write_model, str(output_dir), max_batch_size=2, keep_versions=2)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

moment, ended = 0, False
while not ended:
    moment += 1
    output_dir = place / str(moment)
    for number in (1, 2):
        (output_dir / "embedder" / str(number)).mkdir(parents=True)
        (output_dir / "embedder" / str(number) / "mine").write_text("old")
    ended = run(output_dir, moment) == 0
print(moment)
"""


def is_whole(folder):
    """All that its manifest lists is there, as it was written."""
    files = manifest_of(folder)["files"]
    return all(hashlib.sha256((folder / name).read_bytes()).hexdigest() == files[name] for name in files)


def test_killed_at_any_moment_it_leaves_nothing_half(version, tmp_path, run_python, write_copy):
    """At each making, renaming and removing of a file or folder in turn; the next call mends what is left."""
    (printed,) = run_python(KILLED.format(arguments=(str(tmp_path), version)))
    moments = int(printed)
    assert moments > 20
    outcomes = set()
    for moment in range(1, moments + 1):
        base = tmp_path / str(moment) / "embedder"
        left = versions(str(base))
        outcomes.add(tuple(left))
        assert 3 not in left or is_whole(base / "3")
        assert all((base / str(number) / "mine").read_text() == "old" for number in left if number < 3)
        for name in BESIDE & set(os.listdir(base.parent)):
            assert (base.parent / name).stat().st_size > 100
    assert outcomes == {(1, 2), (1, 2, 3), (2, 3)}
    for moment in range(1, moments + 1, 6):
        write_bundle(write_copy, str(tmp_path / str(moment)), max_batch_size=1, keep_versions=2)
        base = tmp_path / str(moment) / "embedder"
        assert len(versions(str(base))) == 2
        assert [name for name in os.listdir(base) if not name.isdecimal()] == [".lock"]


# How it is asked for


def test_the_room_opens_without_the_protos(run_python):
    run_python("""
import sys
sys.modules["tensorflow_serving"] = None
import eet_tf.serving
try:
    import eet_tf.serving.bundle
except ImportError as error:
    assert "pip install 'eet-tf[serving]'" in str(error), error
else:
    raise SystemExit("it did without")
""")


@pytest.fixture(scope="module")
def exported(small_embedder, tmp_path_factory):
    """A folder with a run, and how `export/main.py --bundle` ended on it, on a broken model, and on nonsense."""
    folder = tmp_path_factory.mktemp("exported")
    small_embedder.save(folder / "model.keras")
    (folder / "flags.txt").write_text("--loss=eet\n--seed=3\n")
    (folder / "metrics.json").write_text('{"recall@1": 0.5}')
    together = keras.layers.Softmax(axis=0)(small_embedder.output)  # over the photos of a batch
    broken = keras.Model(small_embedder.input, together)
    (folder / "broken").mkdir()
    broken.save(folder / "broken" / "model.keras")
    commands = {
        "good": [f"--model={folder}", "--name=shoes", "--max_batch_size=3"],
        "broken": [f"--model={folder / 'broken'}", "--name=broken"],
        "nonsense": [f"--model={folder}", "--max_batch_size=two"],
    }
    started = {
        name: subprocess.Popen(
            [sys.executable, "export/main.py", "--bundle", f"--output_dir={folder / 'served'}", *flags],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "-1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name, flags in commands.items()
    }
    printed = {name: process.communicate(timeout=200) for name, process in started.items()}
    return folder, {name: (process.returncode, *printed[name]) for name, process in started.items()}


def test_the_script_verifies_and_says_where_it_is(exported):
    folder, outcomes = exported
    code, printed, errors = outcomes["good"]
    assert code == 0, errors
    assert "All 8 checks passed." in printed
    assert f"The SavedModel is {folder}/served/shoes/1." in printed
    assert set(os.listdir(folder / "served")) == {*BESIDE, "shoes", "broken"}


def test_a_bundle_that_fails_never_ships(exported):
    """The model gives a photo another vector in a batch than alone."""
    folder, outcomes = exported
    code, printed, errors = outcomes["broken"]
    assert code == 1 and "The SavedModel is" not in printed
    assert [line for line in errors.splitlines() if line.startswith("error: ")] == [
        "error: The bundle is not fit to be served and was thrown away:"
    ]
    assert re.search(r"parity: FAILED\n +what:  is 0\.\d+ away from the training model", errors)
    assert os.listdir(folder / "served" / "broken") == [".lock"]
    assert "broken" not in (folder / "served" / "models.config").read_text()


def test_a_batch_size_that_is_no_number_is_refused(exported):
    code, _, errors = exported[1]["nonsense"]
    assert code == 2
    assert "error: --max_batch_size must be an integer. Received: --max_batch_size=two." in errors


def test_its_manifest_has_the_training(exported):
    folder, _ = exported
    assert manifest_of(folder / "served" / "shoes" / "1")["metadata"] == {
        "eet_tf": eet_tf.__version__,
        "training": {"flags": {"loss": "eet", "seed": "3"}, "metrics": {"recall@1": 0.5}},
    }


def test_a_bundle_serves_what_a_plain_export_serves(exported, small_embedder, tmp_path):
    export_embedder(small_embedder, str(tmp_path))
    plain, bundled = ServedEmbedder(str(tmp_path)), ServedEmbedder(str(exported[0] / "served" / "shoes"))
    assert plain.fingerprint == bundled.fingerprint
    np.testing.assert_array_equal(plain.embed(sample_photos())[0], bundled.embed(sample_photos())[0])
