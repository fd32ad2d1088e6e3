"""A stand-in for TensorFlow's model server: a SavedModel behind the real messages of gRPC and the shapes of REST."""

import base64
import concurrent.futures
import http.server
import json
import os
import re
import threading

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf import json_format
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

AVAILABLE = get_model_status_pb2.ModelVersionStatus.AVAILABLE


class Refused(Exception):
    """A request that a server refuses: a gRPC status code and a message."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


class Model:
    """One version: its signatures as messages and as functions."""

    def __init__(self, folder):
        self.version = int(os.path.basename(folder))
        saved_model = saved_model_pb2.SavedModel()
        with open(os.path.join(folder, "saved_model.pb"), "rb") as file:
            saved_model.ParseFromString(file.read())
        self.signatures = dict(saved_model.meta_graphs[0].signature_def)
        self._loaded = tf.saved_model.load(folder)

    def predict(self, signature_name, inputs):
        """{name: array} -> {name: array}; as strict as the server."""
        signature_name = signature_name or "serving_default"
        if signature_name not in self._loaded.signatures:
            raise Refused(grpc.StatusCode.FAILED_PRECONDITION, f'Serving signature key "{signature_name}" not found.')
        signature = self.signatures[signature_name]
        if set(inputs) != set(signature.inputs):
            wanted, given = sorted(signature.inputs), sorted(inputs)
            raise Refused(grpc.StatusCode.INVALID_ARGUMENT, f"input must be {wanted}, but was {given}")
        tensors = {}
        for name, value in inputs.items():
            info = signature.inputs[name]
            tensors[name] = tf.constant(value, tf.dtypes.as_dtype(info.dtype))
            if not tensors[name].shape.is_compatible_with(tf.TensorShape(info.tensor_shape)):
                raise Refused(grpc.StatusCode.INVALID_ARGUMENT, f"{name} has shape {tensors[name].shape}")
        answer = self._loaded.signatures[signature_name](**tensors)
        return {name: tensor.numpy() for name, tensor in answer.items()}


class StandInServer:
    """Serves the newest version of each model; a context manager.

    Args:
        models: {name: base path}.

    Attributes:
        grpc_address: `localhost:port`.
        rest_address: `localhost:port`.
        requests: the `PredictRequest`s it has had over gRPC.
    """

    def __init__(self, models):
        self.models = {}
        for name, base in models.items():
            versions = [int(each) for each in os.listdir(base) if each.isdecimal()]
            self.models[name] = Model(os.path.join(base, str(max(versions))))
        self.requests = []

    def __enter__(self):
        self._grpc = grpc.server(concurrent.futures.ThreadPoolExecutor(2), options=[("grpc.so_reuseport", 0)])
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(_Prediction(self), self._grpc)
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(_ModelStatus(self), self._grpc)
        self.grpc_address = f"localhost:{self._grpc.add_insecure_port('localhost:0')}"
        self._grpc.start()
        self._rest = http.server.ThreadingHTTPServer(("localhost", 0), _Rest)
        self._rest.stand_in = self
        self.rest_address = f"localhost:{self._rest.server_port}"
        self._thread = threading.Thread(target=self._rest.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._rest.shutdown()
        self._rest.server_close()
        self._thread.join()
        self._grpc.stop(None).wait()

    def model(self, spec):
        """The model that a `ModelSpec` names."""
        model = self.models.get(spec.name)
        if model is None or (spec.HasField("version") and spec.version.value != model.version):
            raise Refused(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: {spec.name}")
        return model


def _answering(method):
    """A refusal becomes the status that gRPC has for it."""

    def answered(self, request, context):
        try:
            return method(self, request)
        except Refused as error:
            return context.abort(error.code, str(error))
        except tf.errors.OpError as error:
            return context.abort(grpc.StatusCode.INTERNAL, error.message)

    return answered


class _Prediction(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, server):
        self._server = server

    def _predict(self, request):
        self._server.requests.append(request)
        model = self._server.model(request.model_spec)
        inputs = {name: tf.make_ndarray(tensor) for name, tensor in request.inputs.items()}
        answer = predict_pb2.PredictResponse()
        answer.model_spec.CopyFrom(request.model_spec)
        answer.model_spec.version.value = model.version
        for name, value in model.predict(request.model_spec.signature_name, inputs).items():
            answer.outputs[name].CopyFrom(tf.make_tensor_proto(value))
        return answer

    def _metadata(self, request):
        signatures = get_model_metadata_pb2.SignatureDefMap()
        for name, signature in self._server.model(request.model_spec).signatures.items():
            signatures.signature_def[name].CopyFrom(signature)
        answer = get_model_metadata_pb2.GetModelMetadataResponse(model_spec=request.model_spec)
        answer.metadata["signature_def"].Pack(signatures)
        return answer

    Predict = _answering(_predict)
    GetModelMetadata = _answering(_metadata)


class _ModelStatus(model_service_pb2_grpc.ModelServiceServicer):
    def __init__(self, server):
        self._server = server

    def _status(self, request):
        model = self._server.model(request.model_spec)
        answer = get_model_status_pb2.GetModelStatusResponse()
        answer.model_version_status.add(version=model.version, state=AVAILABLE)
        return answer

    GetModelStatus = _answering(_status)


class _Rest(http.server.BaseHTTPRequestHandler):
    """`GET /v1/models/NAME`, `.../metadata`, the metrics, and `POST /v1/models/NAME:predict` in the row format."""

    def do_GET(self):
        if self.path == "/monitoring/prometheus/metrics":
            return self._send(200, "# TYPE :tensorflow:serving:request_count counter\n")
        asked = re.fullmatch(r"/v1/models/(\w+)(/metadata)?", self.path)
        model = self.server.stand_in.models.get(asked[1]) if asked else None
        if model is None:
            return self._send(404, {"error": "not found"})
        if asked[2]:
            signatures = {name: json_format.MessageToDict(each) for name, each in model.signatures.items()}
            return self._send(200, {"metadata": {"signature_def": {"signature_def": signatures}}})
        return self._send(200, {"model_version_status": [{"version": str(model.version), "state": "AVAILABLE"}]})

    def do_POST(self):
        asked = re.fullmatch(r"/v1/models/(\w+):predict", self.path)
        model = self.server.stand_in.models.get(asked[1]) if asked else None
        if model is None:
            return self._send(404, {"error": "not found"})
        try:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            signature_name = body.get("signature_name", "serving_default")
            rows = [_decoded(row) for row in body["instances"]]
            if not isinstance(rows[0], dict):
                (name,) = model.signatures[signature_name].inputs
                rows = [{name: row} for row in rows]
            inputs = {name: [row[name] for row in rows] for name in rows[0]}
            answer = model.predict(signature_name, inputs)
        except (Refused, ValueError, LookupError, tf.errors.OpError) as error:
            return self._send(400, {"error": str(error)})
        columns = {name: _encoded(values) for name, values in answer.items()}
        predictions = [dict(zip(columns, row)) for row in zip(*columns.values())]
        if len(columns) == 1:  # a single output goes without its name
            predictions = [each for row in predictions for each in row.values()]
        return self._send(200, {"predictions": predictions})

    def _send(self, code, content):
        text = content if isinstance(content, str) else json.dumps(content)
        self.send_response(code)
        self.end_headers()
        self.wfile.write(text.encode())

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
