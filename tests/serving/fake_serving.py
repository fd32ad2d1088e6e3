"""A stand-in for TensorFlow Serving that can be slow, busy, away or fussy: one mind, reached by gRPC or REST.

The embedding of a photo follows from its bytes, so a test knows it without the server. Bytes that begin with `bad` are
no image. The protos and stubs are the real ones.
"""

import base64
import concurrent.futures
import contextlib
import hashlib
import http.server
import json
import socket
import threading
import time

import numpy as np

DIM, K = 6, 3
SIGNATURES = ("serving_default", "describe", "search")
FINGERPRINT = "0123456789abcdef"
# gRPC status -> HTTP status, as TensorFlow Serving maps them
HTTP_STATUS = {
    "INVALID_ARGUMENT": 400,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}


def expected_embedding(photo):
    """`[DIM]` float32, of length 1 or zeros."""
    if photo.startswith(b"bad"):
        return np.zeros(DIM, np.float32)
    seed = int.from_bytes(hashlib.sha256(photo).digest()[:8], "big")
    vector = np.random.default_rng(seed).normal(size=DIM)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


class Failure(Exception):
    """A status other than OK."""

    def __init__(self, status, details):
        super().__init__(details)
        self.status, self.details = status, details


class Mind:
    """What the server does with requests.

    Args:
        failures: statuses by which the next requests fail, first first.
        delay: seconds before each answer.
        signatures: that the model has.
        largest_batch: photos in a request; None for any number.
        gate: a barrier at which every request of photos waits for others.
    """

    def __init__(
        self, failures=(), delay=0.0, signatures=("serving_default", "describe", "search"), largest_batch=None
    ):
        self.failures, self.delay, self.signatures = list(failures), delay, signatures
        self.largest_batch = largest_batch
        self.gate = None
        self.fingerprint = FINGERPRINT
        self.requests = []  # (signature, number of photos, their bytes)
        self._lock = threading.Lock()

    def answer(self, model, version, signature, argument, values):
        """{output: array}, or raises Failure."""
        with self._lock:
            self.requests.append((signature, len(values), sum(map(len, values))))
            failure = self.failures.pop(0) if self.failures else None
        if self.gate is not None:
            self.gate.wait(10)
        time.sleep(self.delay)
        if failure:
            raise Failure(failure, "told to fail")
        if model != "embedder" or version not in (None, 7):
            raise Failure("NOT_FOUND", f"Servable not found for request: Latest({model})")
        if signature not in self.signatures:
            raise Failure("INVALID_ARGUMENT", f'Serving signature name: "{signature}" not found in signature def')
        if self.largest_batch is not None and len(values) > self.largest_batch:
            raise Failure("INVALID_ARGUMENT", f"Task size {len(values)} is larger than maximum input batch size 2")
        return self._outputs(signature, argument, values)

    def _outputs(self, signature, argument, values):
        if signature == "describe":
            assert argument in ("query", None)
            rows = len(values)
            return {"fingerprint": np.array([self.fingerprint] * rows), "embedding_dim": np.full(rows, DIM, np.int32)}
        assert argument in ("image_bytes", None)
        ok = np.array([not value.startswith(b"bad") for value in values])
        if signature == "search":
            skus = np.array([[f"sku-ß-{value[:8].decode()}-{rank}" for rank in range(K)] for value in values])
            return {"sku": skus, "score": np.tile(np.linspace(1, 0.5, K, dtype=np.float32), [len(values), 1]), "ok": ok}
        return {"embedding": np.stack([expected_embedding(value) for value in values]), "ok": ok}


@contextlib.contextmanager
def grpc_server(mind, max_message_bytes=-1):
    """Yields `host:port`."""
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    class Service(prediction_service_pb2_grpc.PredictionServiceServicer):
        def Predict(self, request, context):  # noqa: N802
            spec = request.model_spec
            version = spec.version.value if spec.HasField("version") else None
            ((argument, proto),) = request.inputs.items()
            assert proto.dtype == tf.string.as_datatype_enum
            assert len(proto.tensor_shape.dim) == 1
            values = tf.make_ndarray(proto).tolist()
            try:
                outputs = mind.answer(spec.name, version, spec.signature_name, argument, values)
            except Failure as failure:
                context.abort(getattr(grpc.StatusCode, failure.status), failure.details)
            answer = predict_pb2.PredictResponse()
            for name in request.output_filter or outputs:
                answer.outputs[name].CopyFrom(tf.make_tensor_proto(outputs[name]))
            return answer

    options = [("grpc.max_receive_message_length", max_message_bytes), ("grpc.so_reuseport", 0)]
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(8), options=options)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Service(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


@contextlib.contextmanager
def rest_server(mind, max_message_bytes=-1):
    """Yields `http://host:port`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self):
            super().setup()
            mind.connections.append(self.connection)

        def do_POST(self):  # noqa: N802
            body = self.rfile.read(int(self.headers["Content-Length"]))
            try:
                if 0 <= max_message_bytes < len(body):
                    return self.respond(413, {"error": "too large"})
                return self.respond(200, self.predictions(json.loads(body)))
            except Failure as failure:
                return self.respond(HTTP_STATUS[failure.status], {"error": failure.details})

        def predictions(self, request):
            path, _, verb = self.path.removeprefix("/v1/models/").partition(":")
            model, _, version = path.partition("/versions/")
            assert verb == "predict"
            values = [base64.b64decode(one["b64"], validate=True) for one in request["instances"]]
            answer = mind.answer(model, int(version) if version else None, request["signature_name"], None, values)
            names = list(answer)
            return {"predictions": [dict(zip(names, row)) for row in zip(*(answer[name].tolist() for name in names))]}

        def respond(self, status, answer):
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            with contextlib.suppress(OSError):  # a client that did not wait
                self.wfile.write(content)

        def log_message(self, *arguments):
            pass

    mind.connections = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *arguments: None  # clients that went away are part of the tests
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        for connection in mind.connections:  # threads would go on answering on those that are open
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        server.server_close()


SERVERS = {"grpc": grpc_server, "rest": rest_server}
