"""A running model server as the subject of the checks of a bundle: the same questions, asked by gRPC."""

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

_AVAILABLE = get_model_status_pb2.ModelVersionStatus.AVAILABLE


class ServerSubject:
    """Answers requests by asking a server for one version of a model.

    Args:
        address: `host:port` of its gRPC.
        name: of the model on it.
        version: that is asked, whatever others there are.
        timeout: of each request in seconds.

    Raises:
        grpc.RpcError: if there is no such server, model or version.
    """

    def __init__(self, address: str, name: str, version: int, timeout: float = 30.0):
        # a server's answers may be longer than gRPC's 4 MB
        channel = grpc.insecure_channel(address, [("grpc.max_receive_message_length", -1)])
        self._prediction = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        self._model = model_service_pb2_grpc.ModelServiceStub(channel)
        self._name, self._version, self._timeout = name, version, timeout
        self.signatures = self._ask_signatures()

    def _address(self, request):
        request.model_spec.name = self._name
        request.model_spec.version.value = self._version
        return request

    def _ask_signatures(self) -> dict:
        request = self._address(get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"]))
        answer = self._prediction.GetModelMetadata(request, timeout=self._timeout)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        answer.metadata["signature_def"].Unpack(signatures)
        return {name: each for name, each in signatures.signature_def.items() if each.method_name}

    def load(self) -> None:
        """Asks whether the version is served.

        Raises:
            RuntimeError: if it is there, but not served.
        """
        request = self._address(get_model_status_pb2.GetModelStatusRequest())
        statuses = self._model.GetModelStatus(request, timeout=self._timeout).model_version_status
        states = {status.version: status.state for status in statuses}
        if states.get(self._version) != _AVAILABLE:
            raise RuntimeError(f"version {self._version} is not available; the server has {list(statuses)}")

    def predict(self, request: predict_pb2.PredictRequest) -> dict[str, np.ndarray]:
        """Sends the request to the version under test, whatever model it names."""
        asked = predict_pb2.PredictRequest()
        asked.CopyFrom(request)
        answer = self._prediction.Predict(self._address(asked), timeout=self._timeout)
        return {name: tf.make_ndarray(tensor) for name, tensor in answer.outputs.items()}
