"""Which versions a running TensorFlow Serving has loaded, and which one a label leads to, asked over gRPC."""

from __future__ import annotations

import grpc
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

_STATES = get_model_status_pb2.ModelVersionStatus.State
_TIMEOUT = 10.0  # seconds of one question; a server that loads a model may be slow


class ServerState:
    """Asks one server; a context manager.

    Args:
        address: `host:port` of its gRPC.
    """

    def __init__(self, address: str):
        self.address = address
        self._channel = grpc.insecure_channel(address)
        self._models = model_service_pb2_grpc.ModelServiceStub(self._channel)
        self._prediction = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)

    def __enter__(self) -> ServerState:
        return self

    def __exit__(self, *error) -> None:
        self._channel.close()

    def version(self, name: str, version: int) -> tuple[str, str]:
        """How it stands with a version: (`"AVAILABLE"`, `""`), or another state and what is known of the reason."""
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name, request.model_spec.version.value = name, version
        try:
            (found,) = self._models.GetModelStatus(request, timeout=_TIMEOUT).model_version_status
        except grpc.RpcError as error:
            return _refused(error)
        return _STATES.Name(found.state), found.status.error_message

    def label(self, name: str, label: str, version: int) -> str:
        """Why a label does not lead to a version; `""` if it does.

        A model that says which embedder it is (`describe`) is asked; of another it is only known that the label is.
        """
        request = predict_pb2.PredictRequest()
        request.model_spec.name, request.model_spec.version_label = name, label
        request.model_spec.signature_name = "describe"
        request.inputs["query"].CopyFrom(tf.make_tensor_proto([b""]))
        try:
            found = self._prediction.Predict(request, timeout=_TIMEOUT).model_spec.version.value
        except grpc.RpcError as error:
            return "" if "signature" in (error.details() or "").lower() else _refused(error)[1]
        return "" if found == version else f"it leads to version {found}"


def _refused(error: grpc.RpcError) -> tuple[str, str]:
    return error.code().name, f"{error.code().name}: {error.details()}"
