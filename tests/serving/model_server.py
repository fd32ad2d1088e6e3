"""A stand-in for TensorFlow Serving 2.20, over gRPC and REST, with the manners that were seen on a real one.

    with ModelServer({"embedder": "runs/mine/served/embedder"}) as server:
        EmbeddingClient(server.grpc_address), EmbeddingClient(f"http://{server.rest_address}")

Real protos and stubs, in this process. As a process of its own:

    python -m tests.serving.model_server --model=embedder=runs/mine/served/embedder --batching
"""

import argparse
import base64
import concurrent.futures
import contextlib
import http.server
import json
import os
import re
import signal
import socket
import threading
import time

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf import json_format
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from tests.serving.model_versions import Exited, Versions, call_of
from tests.serving.request_batches import Died, LoadedModel
from tests.serving.served_models import Refused

# gRPC status -> HTTP status, as the server maps them
_HTTP_STATUS = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
_STATES = get_model_status_pb2.ModelVersionStatus.State


class ModelServer:
    """Serves models; a context manager. It can be killed and started again on its ports.

    Args:
        models: {name: base path, or {version: model}}, the newest version of each; or the path of a `models.config`.
        batching: whether requests are put together by each model's `batching_params.pbtxt`.
        grpc_max_threads: calls over gRPC in progress at once; what comes beside is refused. REST waits instead. By
            default, as on the server, 4 for each core.
        first_run_seconds: that the first run for a signature and outputs takes longer, if no warm-up had it.
        num_load_threads: as the server's flag; so are the next and the last but one.
        max_num_load_retries: after the first try to load a version.
        load_retry_seconds: between two tries; on the server 60.
        poll_seconds: between two looks for new versions.
        allow_version_labels_for_unavailable_models: whether a label may come with its version.
        max_message_bytes: of a request, as proxies limit it; -1 for any.

    Attributes:
        grpc_address: `127.0.0.1:port`.
        rest_address: `127.0.0.1:port`.
        requests: every `PredictRequest` that it has had, over REST too.
        runs: every `Run` of a model.
        connections: the open connections of REST.
        failures: names of statuses with which the next requests are refused.
        delay: seconds before each answer.
        gate: a barrier at which every request waits, or None.
        last_words: why its process has ended, if it has by itself.
        turned_away: how many calls it had no thread for.
    """

    def __init__(
        self,
        models,
        batching=False,
        grpc_max_threads=None,
        first_run_seconds=0.0,
        num_load_threads=0,
        max_num_load_retries=5,
        load_retry_seconds=60.0,
        poll_seconds=0.02,
        allow_version_labels_for_unavailable_models=False,
        max_message_bytes=-1,
    ):
        self._threads = grpc_max_threads or 4 * os.cpu_count()
        self._max_message_bytes = max_message_bytes
        make = lambda model: LoadedModel(model, batching, first_run_seconds, self.runs, self._die)  # noqa: E731
        labels = allow_version_labels_for_unavailable_models
        loading = (poll_seconds, num_load_threads, max_num_load_retries, load_retry_seconds, labels)
        self._new_versions = lambda: Versions(models, make, *loading)
        self.requests, self.runs, self.connections = [], [], set()
        self.failures, self.delay, self.gate, self.last_words = [], 0.0, None, None
        self._lock, self._thawed, self._dying = threading.Lock(), threading.Event(), threading.Event()
        self._thawed.set()
        self._held = [_held_port(), _held_port()]
        self.grpc_address, self.rest_address = (f"127.0.0.1:{each.getsockname()[1]}" for each in self._held)
        self.is_running, self.turned_away = False, 0

    def start(self):
        """Loads the models and opens the ports, the same every time."""
        self.versions = self._new_versions()
        self.versions.start()
        self._dead, self._calls = threading.Event(), threading.Semaphore(self._threads)
        options = [("grpc.max_receive_message_length", self._max_message_bytes), ("grpc.so_reuseport", 0)]
        self._grpc = grpc.server(concurrent.futures.ThreadPoolExecutor(256), options=options)
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(_Prediction(self), self._grpc)
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(_ModelStatus(self), self._grpc)
        self._grpc.add_insecure_port(self.grpc_address)
        self._grpc.start()
        host, port = self.rest_address.split(":")
        self._rest = _RestServer((host, int(port)), _Rest)
        self._rest.stand_in, self._rest.running = self, threading.Semaphore(self._threads)
        self._rest_thread = threading.Thread(target=self._rest.serve_forever, args=(0.02,), daemon=True)
        self._rest_thread.start()
        self.is_running = True

    def kill(self):
        """Ends it as SIGKILL does: what is on its way gets no answer, and connections die."""
        with self._lock:
            if not self.is_running:
                return
            self.is_running = False
        self._dead.set()
        self._grpc.stop(0).wait()
        self._rest.shutdown()
        self._rest.server_close()
        self.drop_connections()
        self.versions.stop()
        self._rest_thread.join()

    def drop_connections(self):
        """Ends the connections of REST, those that are kept alive too, as a proxy does after a while."""
        for connection in list(self.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def freeze(self):
        """From now on nothing is answered, as after SIGSTOP."""
        self._thawed.clear()

    def thaw(self):
        """It goes on."""
        self._thawed.set()

    def __enter__(self):
        try:
            self.start()
        except Exited:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error):
        self.thaw()
        self.versions.stop()
        self.kill()
        for each in self._held:
            each.close()

    def _die(self, last_words):
        self.last_words = last_words
        self._dead.set()
        threading.Thread(target=self.kill).start()

    # --- what gRPC and REST have in common

    def predict(self, request, seconds=None):
        """A `PredictResponse`; refuses what the server refuses.

        Args:
            request: a `PredictRequest`.
            seconds: how long the caller waits; None for as long as it takes.
        """
        with self._lock:
            self.requests.append(request)
            failure = self.failures.pop(0) if self.failures else None
        self._wait()
        if failure:
            raise Refused(failure, "told to fail")
        version, loaded = self.versions.find(request.model_spec)
        future = loaded.predict(*call_of(loaded, request))
        try:
            found = future.result(seconds)
        except concurrent.futures.TimeoutError as error:
            raise Refused("DEADLINE_EXCEEDED", "Deadline Exceeded") from error
        answer = predict_pb2.PredictResponse()
        answer.model_spec.CopyFrom(request.model_spec)
        answer.model_spec.version.value = version
        for name in request.output_filter or found:
            answer.outputs[name].CopyFrom(tf.make_tensor_proto(found[name]))
        return answer

    def _wait(self):
        if self.gate is not None:
            self.gate.wait(30)
        self._dead.wait(self.delay)
        while not self._thawed.wait(0.02) and not self._dead.is_set():
            pass
        if self._dead.is_set():
            raise Died

    def metadata(self, spec):
        """{name: SignatureDef} of a model."""
        return self.versions.find(spec)[1].signatures

    def status(self, name, version=None):
        """A `GetModelStatusResponse`."""
        answer = get_model_status_pb2.GetModelStatusResponse()
        for number, (state, problem) in sorted(self.versions.states_of(name, version).items(), reverse=True):
            status = answer.model_version_status.add(version=number, state=state)
            status.status.error_code, status.status.error_message = (2 if problem else 0), problem
        return answer

    @contextlib.contextmanager
    def one_of_its_threads(self):
        """One of the threads for gRPC, for a `with`; refuses if there is none."""
        calls = self._calls
        if not calls.acquire(blocking=False):
            self.turned_away += 1
            raise Refused("RESOURCE_EXHAUSTED", "Server Threadpool Exhausted")
        try:
            yield
        finally:
            calls.release()


def _held_port():
    """A socket that keeps a port for us while nothing listens at it: others are given other ports."""
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    return held


# gRPC


def _answering(method):
    """A refusal becomes the status that gRPC has for it; every call takes a thread."""

    def answered(self, request, context):
        try:
            with self.server.one_of_its_threads():
                return method(self, request, context)
        except Refused as error:
            return context.abort(getattr(grpc.StatusCode, error.status), error.details)
        except Died:
            time.sleep(0.2)  # the connection is lost before this is said
            return context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")

    return answered


class _Prediction(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, server):
        self.server = server

    def _predict(self, request, context):
        return self.server.predict(request, context.time_remaining())

    def _metadata(self, request, context):
        signatures = get_model_metadata_pb2.SignatureDefMap()
        for name, signature in self.server.metadata(request.model_spec).items():
            signatures.signature_def[name].CopyFrom(signature)
        answer = get_model_metadata_pb2.GetModelMetadataResponse(model_spec=request.model_spec)
        answer.metadata["signature_def"].Pack(signatures)
        return answer

    Predict = _answering(_predict)
    GetModelMetadata = _answering(_metadata)


class _ModelStatus(model_service_pb2_grpc.ModelServiceServicer):
    def __init__(self, server):
        self.server = server

    def _status(self, request, context):
        spec = request.model_spec
        return self.server.status(spec.name, spec.version.value if spec.HasField("version") else None)

    GetModelStatus = _answering(_status)


# REST


class _RestServer(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request, client_address):
        """Clients that go away are part of the tests."""


class _Rest(http.server.BaseHTTPRequestHandler):
    """`GET /v1/models/NAME`, `.../metadata`, the metrics, and `POST /v1/models/NAME:predict` in the row format."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    _path = re.compile(r"/v1/models/([^/:]+)(?:/versions/(\d+)|/labels/([^/:]+))?(/metadata|:predict)?")

    def setup(self):
        super().setup()
        self.server.stand_in.connections.add(self.connection)

    def finish(self):
        self.server.stand_in.connections.discard(self.connection)
        super().finish()

    def do_GET(self):  # noqa: N802
        if self.path == "/monitoring/prometheus/metrics":
            return self._send(200, "# TYPE :tensorflow:serving:request_count counter\n")
        return self._answered(self._read)

    def do_POST(self):  # noqa: N802
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if 0 <= self.server.stand_in._max_message_bytes < len(body):
            return self._send(413, {"error": "too large"})
        with self.server.running:
            return self._answered(lambda spec, verb: self._predict(spec, verb, body))

    def _answered(self, answer):
        asked = self._path.fullmatch(self.path)
        if asked is None:
            return self._send(404, {"error": f"Malformed request: {self.command} {self.path}"})
        spec = predict_pb2.PredictRequest().model_spec
        spec.name, spec.version_label = asked[1], asked[3] or ""
        if asked[2]:
            spec.version.value = int(asked[2])
        try:
            return self._send(200, answer(spec, asked[4]))
        except Refused as error:
            return self._send(_HTTP_STATUS[error.status], {"error": error.details})
        except (ValueError, LookupError, TypeError) as error:
            return self._send(400, {"error": f"JSON Parse error: {error}"})
        except Died:
            self.close_connection = True
            return None

    def _read(self, spec, verb):
        if verb == "/metadata":
            signatures = self.server.stand_in.metadata(spec).items()
            signatures = {name: json_format.MessageToDict(each) for name, each in signatures}
            return {"metadata": {"signature_def": {"signature_def": signatures}}}
        rows = self.server.stand_in.status(spec.name, spec.version.value or None).model_version_status
        return {
            "model_version_status": [
                {
                    "version": str(row.version),
                    "state": _STATES.Name(row.state),
                    "status": {
                        "error_code": "UNKNOWN" if row.status.error_code else "OK",
                        "error_message": row.status.error_message,
                    },
                }
                for row in rows
            ]
        }

    def _predict(self, spec, verb, body):
        body = json.loads(body)
        spec.signature_name = body.get("signature_name", "serving_default")
        try:
            signature = self.server.stand_in.metadata(spec).get(spec.signature_name)
        except Refused:
            self.server.stand_in.requests.append(predict_pb2.PredictRequest(model_spec=spec))
            raise
        if signature is None:
            name = spec.signature_name
            raise Refused("INVALID_ARGUMENT", f'Serving signature name: "{name}" not found in signature def')
        rows = [_decoded(row) for row in body["instances"]]
        if not rows:
            raise Refused("INVALID_ARGUMENT", 'Invalid argument: JSON Value: {"instances": []} has no instances')
        if not isinstance(rows[0], dict):
            (name,) = signature.inputs
            rows = [{name: row} for row in rows]
        request = predict_pb2.PredictRequest(model_spec=spec)
        for name in rows[0]:
            dtype = signature.inputs[name].dtype or None
            request.inputs[name].CopyFrom(tf.make_tensor_proto([row[name] for row in rows], dtype))
        outputs = self.server.stand_in.predict(request).outputs
        columns = {name: _encoded(tf.make_ndarray(tensor)) for name, tensor in outputs.items()}
        predictions = [dict(zip(columns, row)) for row in zip(*columns.values())]
        if len(columns) == 1:  # a single output goes without its name
            predictions = [each for row in predictions for each in row.values()]
        return {"predictions": predictions}

    def _send(self, code, content):
        text = (content if isinstance(content, str) else json.dumps(content)).encode()
        with contextlib.suppress(OSError):  # a client that did not wait
            self.send_response(code)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

    def log_message(self, *arguments):
        """Says nothing."""


def _decoded(value):
    """`{"b64": ...}` becomes bytes, wherever it stands."""
    if isinstance(value, dict):
        if set(value) == {"b64"}:
            return base64.b64decode(value["b64"], validate=True)
        return {name: _decoded(each) for name, each in value.items()}
    return [_decoded(each) for each in value] if isinstance(value, list) else value


def _encoded(values):
    """An array as JSON has it; bytes are taken for text."""
    if values.dtype == object:
        return np.vectorize(lambda text: text.decode(), otypes=[object])(values).tolist()
    return values.tolist()


def main():
    """Serves until it is ended."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", action="append", required=True, help="NAME=BASE_PATH, for each model")
    parser.add_argument("--batching", action="store_true", help="put requests together")
    parser.add_argument("--grpc_max_threads", type=int, help="calls in progress at once")
    options = parser.parse_args()
    models = dict(each.split("=", 1) for each in options.model)
    with ModelServer(models, options.batching, options.grpc_max_threads) as server:
        print(f"gRPC {server.grpc_address}, REST http://{server.rest_address}, pid {os.getpid()}", flush=True)
        signal.sigwait({signal.SIGINT, signal.SIGTERM})


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    main()
