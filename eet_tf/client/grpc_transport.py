"""One request to TensorFlow Serving over gRPC. Needs tensorflow-serving-api, which the extra [serving] installs."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from eet_tf.client.refusals import not_found, refusal, wrong_port
from eet_tf.client.retries import TooLargeError, TransientError

_TRANSIENT = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.CANCELLED,  # by us: its channel was closed after another had timed out
)
# what gRPC says of a server that answers in HTTP/1; the words depend on its version
_HTTP1 = ("http1.x server", "Expected SETTINGS frame as the first frame")
_NO_THREAD = "Server Threadpool Exhausted"


class _Line:
    """A channel and what is asked through it."""

    def __init__(self, target: str, options: list[tuple[str, int]]):
        self.channel = grpc.insecure_channel(target, options=options)
        self.prediction = prediction_service_pb2_grpc.PredictionServiceStub(self.channel)
        self.models = model_service_pb2_grpc.ModelServiceStub(self.channel)


class GrpcTransport:
    """A channel to a server, kept open between requests. Any number of threads may use it.

    A request that timed out may have gone over a connection that a network has dropped, which gRPC finds out after a
    quarter of an hour: the requests after it take a new one.

    Args:
        target: `host:port`, or another name that gRPC knows.
        model: its name on the server.
        version: a number, or None for the newest.
        max_message_bytes: of a request and of an answer.
    """

    def __init__(self, target: str, model: str, version: int | None, max_message_bytes: int):
        self._target, self._model, self._version = target, model, version
        self._options = [
            ("grpc.max_send_message_length", max_message_bytes),
            ("grpc.max_receive_message_length", max_message_bytes),
            # after a refused connection gRPC itself waits for seconds; our own waits are to decide
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1000),
            ("grpc.use_local_subchannel_pool", 1),  # or a new channel would take the old connection
        ]
        self._line, self._lock = _Line(target, self._options), threading.Lock()
        self._line_before: _Line | None = None
        self._is_closed = False

    def predict(
        self, signature: str, argument: str, values: Sequence[bytes], outputs: Sequence[str], timeout: float
    ) -> dict[str, np.ndarray]:
        """Calls a signature of one string input `[N]`; returns its `outputs`, strings as str.

        Raises:
            TransientError, TooLargeError, ServingError: as their names say.
        """
        # without an output filter, as warm-up and REST ask: each filter is warmed up and batched on its own
        request = predict_pb2.PredictRequest()
        request.model_spec.name, request.model_spec.signature_name = self._model, signature
        if self._version is not None:
            request.model_spec.version.value = self._version
        request.inputs[argument].CopyFrom(tf.make_tensor_proto(list(values), tf.string, [len(values)]))
        line = self._line
        try:
            answer = line.prediction.Predict(request, timeout=timeout)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                self._renew(line)
            raise self._translated(error, signature, timeout) from error
        return {name: _array(answer.outputs[name]) for name in outputs if name in answer.outputs}

    def _translated(self, error: grpc.RpcError, signature: str, timeout: float) -> Exception:
        code, details = error.code(), error.details() or ""
        if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "message larger than max" in details:
            return TooLargeError(details)
        if any(words in details for words in _HTTP1):
            return wrong_port(self._target, is_rest=False)
        if code in _TRANSIENT:
            mend = " (more callers than its --grpc_max_threads)" if _NO_THREAD in details else ""
            return TransientError(f"{code.name}, {details}{mend}")
        if code is grpc.StatusCode.NOT_FOUND:
            return not_found(self._target, self._model, self._version, self._states(timeout), details)
        return refusal(self._target, self._model, signature, details)

    def _states(self, timeout: float) -> dict[int, tuple[str, str]]:
        """Returns the state and the error of each version that the server knows; empty if it knows none."""
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = self._model
        try:
            rows = self._line.models.GetModelStatus(request, timeout=timeout).model_version_status
        except grpc.RpcError:
            return {}
        name = get_model_status_pb2.ModelVersionStatus.State.Name
        return {row.version: (name(row.state), row.status.error_message) for row in rows}

    def _renew(self, line: _Line) -> None:
        """Requests from now on take a new channel, if they still took this one. What is on its way may go on."""
        with self._lock:
            if line is not self._line or self._is_closed:
                return
            if self._line_before is not None:
                self._line_before.channel.close()
            self._line_before, self._line = line, _Line(self._target, self._options)

    def close(self) -> None:
        """Closes the channels."""
        with self._lock:
            self._is_closed = True
            for line in filter(None, (self._line, self._line_before)):
                line.channel.close()


def _array(proto) -> np.ndarray:
    array = tf.make_ndarray(proto)
    if array.dtype != object:
        return array
    return np.array([text.decode() for text in array.reshape(-1)], np.str_).reshape(array.shape)
