"""What a stand-in server serves: models whose answers follow from the bytes of a photo, or real SavedModels."""

import hashlib
import os
import re

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2
from tensorflow_serving.apis import prediction_log_pb2

DIM, K = 6, 3
FINGERPRINT = "0123456789abcdef"
BATCHING = "batching_params.pbtxt"
WARMUP = os.path.join("assets.extra", "tf_serving_warmup_requests")


class Refused(Exception):
    """A request that is not answered: the name of a gRPC status, and the server's words."""

    def __init__(self, status, details):
        super().__init__(details)
        self.status, self.details = status, details


def batching_params(text):
    """What `batching_params.pbtxt` says: `{"max_batch_size": 32, ..., "allowed_batch_sizes": [1, 2]}`."""
    found = {name: int(value) for name, value in re.findall(r"(\w+)\s*\{\s*value\s*:\s*(\d+)\s*\}", text)}
    return {
        **found,
        "allowed_batch_sizes": [int(each) for each in re.findall(r"allowed_batch_sizes\s*:\s*(\d+)", text)],
    }


def is_photo(content):
    """Whether a `PlainModel` takes bytes for a photo: those that begin with `bad` are none, nor are none."""
    return bool(content) and not content.startswith(b"bad")


def expected_embedding(photo):
    """`[DIM]` float32, of length 1; zeros for what is no photo."""
    if not is_photo(photo):
        return np.zeros(DIM, np.float32)
    seed = int.from_bytes(hashlib.sha256(photo).digest()[:8], "big")
    vector = np.random.default_rng(seed).normal(size=DIM)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


class PlainModel:
    """A model without a graph, with the signatures of a bundle. A test knows its answers without the server.

    Args:
        signatures: those that it has.
        fingerprint: what `describe` says.
        batching: as `batching_params` gives it; None for a model without that file.
    """

    def __init__(self, signatures=("serving_default", "describe", "search"), fingerprint=FINGERPRINT, batching=None):
        self.fingerprint, self.batching, self.warmup = fingerprint, batching, []
        self.signatures = {name: _signature(*_PLAIN.get(name, _PLAIN["search"])) for name in signatures}

    def run(self, signature, inputs):
        """{name: array} -> {name: array}, a row for each row."""
        ((argument, values),) = inputs.items()
        if values.ndim != 1:
            raise Refused("INVALID_ARGUMENT", f"{argument} must have shape [?], but has {list(values.shape)}")
        if signature == "describe":
            rows = len(values)
            return {
                "fingerprint": np.array([self.fingerprint] * rows, object),
                "embedding_dim": np.full(rows, DIM, "i4"),
            }
        ok = np.array([is_photo(value) for value in values], bool)
        if signature == "search":
            skus = [[f"sku-ß-{value[:8].decode()}-{rank}" for rank in range(K)] for value in values]
            score = np.tile(np.linspace(1, 0.5, K, dtype=np.float32), [len(values), 1])
            return {"sku": np.array(skus, object).reshape([-1, K]), "score": score, "ok": ok}
        vectors = np.array([expected_embedding(value) for value in values], np.float32).reshape([-1, DIM])
        return {"embedding": vectors, "ok": ok}


_PLAIN = {
    "serving_default": ("image_bytes", ("embedding", "ok")),
    "describe": ("query", ("fingerprint", "embedding_dim")),
    "search": ("image_bytes", ("sku", "score", "ok")),
}


def _signature(argument, outputs):
    signature = meta_graph_pb2.SignatureDef(method_name="tensorflow/serving/predict")
    signature.inputs[argument].CopyFrom(meta_graph_pb2.TensorInfo(dtype=tf.string.as_datatype_enum))
    signature.inputs[argument].tensor_shape.dim.add(size=-1)
    for name in outputs:
        signature.outputs[name].name = name
    return signature


class SavedModel:
    """A version of a model on a disk, with the batching parameters and the warm-up requests beside it."""

    def __init__(self, folder):
        saved_model = saved_model_pb2.SavedModel()
        with open(os.path.join(folder, "saved_model.pb"), "rb") as file:
            saved_model.ParseFromString(file.read())
        self.signatures = dict(saved_model.meta_graphs[0].signature_def)
        self.batching, self.warmup = None, []
        if os.path.exists(path := os.path.join(folder, BATCHING)):
            with open(path, encoding="utf-8") as file:
                self.batching = batching_params(file.read())
        if os.path.exists(path := os.path.join(folder, WARMUP)):
            logs = [prediction_log_pb2.PredictionLog.FromString(each.numpy()) for each in tf.data.TFRecordDataset(path)]
            self.warmup = [log.predict_log.request for log in logs]
        self._loaded = tf.saved_model.load(folder)

    def run(self, signature, inputs):
        """{name: array} -> {name: array}; as strict as the server with dtypes and shapes."""
        tensors = {}
        for name, value in inputs.items():
            info = self.signatures[signature].inputs[name]
            try:
                tensors[name] = tf.constant(value, tf.dtypes.as_dtype(info.dtype))
            except (TypeError, ValueError) as error:
                raise Refused("INVALID_ARGUMENT", f"{name}: {error}") from error
            if not tensors[name].shape.is_compatible_with(tf.TensorShape(info.tensor_shape)):
                raise Refused("INVALID_ARGUMENT", f"{name} has shape {tensors[name].shape}")
        try:
            answer = self._loaded.signatures[signature](**tensors)
        except tf.errors.OpError as error:
            raise Refused("INTERNAL", error.message) from error
        return {name: tensor.numpy() for name, tensor in answer.items()}
