"""A bundle's files, and its model as a subject that answers requests as a server does; knows no code that made them."""

import dataclasses
import functools
import hashlib
import json
import os
import tempfile

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2
from tensorflow_serving.apis import predict_pb2

MANIFEST = os.path.join("assets.extra", "eet_tf.json")
WARMUP = os.path.join("assets.extra", "tf_serving_warmup_requests")
REFERENCE = os.path.join("assets.extra", "reference.npz")
BATCHING = "batching_params.pbtxt"
AGAIN = "Write the bundle again with `eet export --bundle`."


@dataclasses.dataclass(frozen=True)
class Fault:
    """What is wrong, where, and how it is mended; a warning is of something that works, and may hurt."""

    what: str
    where: str
    mend: str = AGAIN
    is_warning: bool = False


class Unreadable(Exception):
    """Nothing can be checked; its arguments are what failed, in a word, and the `Fault`."""


class Bundle:
    """The files of one version: `folder`, `manifest`, `signatures` by name, and the `graph` they belong to.

    Raises:
        Unreadable: if there is no manifest or no graph.
    """

    def __init__(self, folder: str):
        self.folder = folder
        try:
            with open(self.path(MANIFEST), encoding="utf-8") as file:
                self.manifest = dict(json.load(file))
            saved_model = saved_model_pb2.SavedModel()
            with open(self.path("saved_model.pb"), "rb") as file:
                saved_model.ParseFromString(file.read())
            self.graph = next(each for each in saved_model.meta_graphs if "serve" in each.meta_info_def.tags)
        except OSError as error:
            raise Unreadable("files", Fault(f"{error.strerror}", str(error.filename))) from error
        except (TypeError, ValueError, DecodeError, StopIteration) as error:
            raise Unreadable("files", Fault(f"cannot be read: {error!r}", folder)) from error
        # others, as `__saved_model_init_op`, are TensorFlow's own
        self.signatures = {name: each for name, each in self.graph.signature_def.items() if each.method_name}

    def path(self, name: str) -> str:
        """The path of a file in the folder."""
        return os.path.join(self.folder, name)

    def checksum(self, name: str) -> str:
        """The SHA-256 of a file, in hexadecimal; raises `OSError` if it is missing."""
        digest = hashlib.sha256()
        with open(self.path(name), "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()

    @functools.cached_property
    def warmup(self) -> list[bytes]:
        """The records of the warm-up file; raises `OSError` or `tf.errors.OpError` if it is missing or damaged."""
        with open(self.path(WARMUP), "rb"):
            return [record.numpy() for record in tf.data.TFRecordDataset(self.path(WARMUP))]


class SavedModelSubject:
    """Answers requests from a SavedModel's files by a session, as the server does, in this process."""

    def __init__(self, bundle: Bundle):
        self.signatures = bundle.signatures
        self._folder = bundle.folder

    def load(self) -> None:
        """Loads the graph and its variables; raises whatever TensorFlow raises if it cannot."""
        self._session = tf.compat.v1.Session(graph=tf.Graph())
        with self._session.graph.as_default(), tempfile.TemporaryDirectory() as place:
            link = os.path.join(place, "folder")  # TensorFlow takes the name of what it reads for a pattern
            os.symlink(os.path.abspath(self._folder), link)
            # not `tf.saved_model.load`, which builds Python objects that a server does not have
            tf.compat.v1.saved_model.load(self._session, ["serve"], link)

    def predict(self, request: predict_pb2.PredictRequest) -> dict[str, np.ndarray]:
        """Runs the signature that the request names."""
        signature = self.signatures[request.model_spec.signature_name or "serving_default"]
        feed = {signature.inputs[name].name: tf.make_ndarray(tensor) for name, tensor in request.inputs.items()}
        return self._session.run({name: info.name for name, info in signature.outputs.items()}, feed)


def describe(signature: meta_graph_pb2.SignatureDef) -> dict[str, dict]:
    """A signature as the manifest has it."""
    return {
        side: {name: _describe_tensor(info) for name, info in sorted(getattr(signature, side).items())}
        for side in ("inputs", "outputs")
    }


def _describe_tensor(info: meta_graph_pb2.TensorInfo) -> dict:
    shape = tf.TensorShape(info.tensor_shape)
    dtype = tf.dtypes.as_dtype(info.dtype).name
    return {"dtype": dtype, "shape": None if shape.rank is None else shape.as_list()}
