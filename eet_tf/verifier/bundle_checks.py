"""What a bundle must be before it ships, and how each fault is mended; knows TensorFlow and the server's messages only.

Each check takes a `Bundle` and a subject that answers requests as a server does: `bundle_files.SavedModelSubject` in
this process, `bundle_server.ServerSubject` over the wire. It yields a `Fault` for each thing that is wrong.
"""

import re
import sys
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import tensorflow as tf
from bundle_files import BATCHING, MANIFEST, REFERENCE, WARMUP, Bundle, Fault, describe
from google.protobuf.message import DecodeError
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

MAX_RECORDS = 1000
# they call back into the process that made the graph
_PYTHON_OPS = {"PyFunc", "PyFuncStateless", "EagerPyFunc"}


def check_files(bundle: Bundle, subject) -> Iterator[Fault]:
    """Every file is as it was written, above all the variables, and the embedder has a name."""
    recorded = bundle.manifest.get("files")
    if not recorded or not bundle.manifest.get("fingerprint"):
        yield Fault("no checksums and fingerprint: it is no bundle", bundle.path(MANIFEST))
        return
    for name, checksum in recorded.items():
        try:
            found = bundle.checksum(name)
        except OSError as error:
            yield Fault(f"{error.strerror}", bundle.path(name), "Copy the whole folder again.")
            continue
        if found != checksum:
            yield Fault("is not as it was written: its checksum is another", bundle.path(name), "Copy it again.")


def check_signatures(bundle: Bundle, subject) -> Iterator[Fault]:
    """The signatures are those of the manifest, with a row for each photo, and the main one is as documented."""
    expected, where = bundle.manifest.get("signatures", {}), f"signatures of {bundle.folder}"
    for name in sorted(expected.keys() | subject.signatures.keys() | {"serving_default"}):
        if name not in subject.signatures:
            yield Fault(f"signature {name!r} is missing; there are {sorted(subject.signatures)}", where)
        elif name not in expected:
            yield Fault(f"signature {name!r} is not in the manifest", where)
        else:
            found = describe(subject.signatures[name])
            if found != expected[name]:
                yield Fault(f"signature {name!r} is {found}, and {expected[name]} in the manifest", where)
            yield from _row_faults(name, found, where)
    yield from _main_faults(bundle, subject, where)


def _row_faults(name: str, signature: dict, where: str) -> Iterator[Fault]:
    """The server splits a batch by rows, and its REST answers take an output `*_bytes` for base64."""
    for side, tensors in signature.items():
        for tensor_name, tensor in tensors.items():
            if not tensor["shape"] or tensor["shape"][0] is not None:
                what = f"{side[:-1]} {tensor_name!r} of {name!r} has shape {tensor['shape']}, not [None, ...]"
                yield Fault(what, where, "Give it a row for each photo in eet_tf/serving/graph.py.")
            if side == "outputs" and tensor_name.endswith("_bytes"):
                yield Fault(
                    f"REST would give output {tensor_name!r} of {name!r} as base64", where, "Name it otherwise."
                )


def _main_faults(bundle: Bundle, subject, where: str) -> Iterator[Fault]:
    """`serving_default`: encoded photos in, unit vectors and whether each was a photo out."""
    if "serving_default" not in subject.signatures:
        return
    found = describe(subject.signatures["serving_default"])
    wanted = {
        ("inputs", "image_bytes"): {"dtype": "string", "shape": [None]},
        ("outputs", "embedding"): {"dtype": "float32", "shape": [None, bundle.manifest.get("embedding_dim")]},
        ("outputs", "ok"): {"dtype": "bool", "shape": [None]},
    }
    for (side, name), tensor in wanted.items():
        if found[side].get(name) != tensor:
            what = f"{side[:-1]} {name!r} of 'serving_default' must be {tensor}. Received: {found[side].get(name)}"
            yield Fault(what, where)


def check_ops(bundle: Bundle, subject, with_libraries: bool = False) -> Iterator[Fault]:
    """A stock server has the operations of plain TensorFlow, no Python and no XLA; with libraries, all known ones."""
    known = set(dir(tf.raw_ops))
    functions = [(function.signature.name, function.node_def) for function in bundle.graph.graph_def.library.function]
    own = {name for name, _ in functions}
    unknown: dict = {}
    for place, nodes in [("the graph", bundle.graph.graph_def.node), *functions]:
        for node in nodes:
            if node.op in _PYTHON_OPS or node.op not in known and node.op not in own:
                unknown.setdefault(node.op, f"node {node.name!r} of {place}")
    for op, place in sorted(unknown.items()):
        if with_libraries and op not in _PYTHON_OPS and _is_registered(op):
            continue
        what = f"op {op!r} is not in a stock server"
        mend = "Export without it, or serve with its library and name that here with --op_library."
        yield Fault(what, f"{place} in {bundle.path('saved_model.pb')}", mend)
    for function in bundle.graph.graph_def.library.function:
        if "_XlaMustCompile" in function.attr and function.attr["_XlaMustCompile"].b:
            yield Fault(
                "must be compiled by XLA, which a stock server for GPUs does not have",
                f"function {function.signature.name!r} in {bundle.path('saved_model.pb')}",
                "Write the bundle again with `eet export --bundle`, which leaves that to the server.",
            )


def _is_registered(op: str) -> bool:
    """Whether this process knows an operation; importing a node of it says so, whatever else it says."""
    graph = tf.compat.v1.GraphDef()
    graph.node.add(name="node", op=op)
    try:
        with tf.Graph().as_default():
            tf.import_graph_def(graph)
    except (ValueError, tf.errors.OpError) as error:
        return "not registered" not in str(error)
    return True


def check_loading(bundle: Bundle, subject) -> Iterator[Fault]:
    """The model can be loaded, and a server says that it serves it."""
    try:
        subject.load()
    except Exception as error:  # TensorFlow's or a server's: whatever it is, there is nothing to ask
        yield Fault(f"cannot be loaded: {type(error).__name__}: {_plain(error)}", bundle.folder)


def check_warmup(bundle: Bundle, subject) -> Iterator[Fault]:
    """Each warm-up request is answered without complaint; one that is not makes a server refuse the model."""
    try:
        records = bundle.warmup
    except (OSError, tf.errors.OpError) as error:
        yield Fault(f"cannot be read: {error}", bundle.path(WARMUP))
        return
    if not 0 < len(records) <= MAX_RECORDS:
        yield Fault(f"has {len(records)} requests; a server wants 1 to {MAX_RECORDS}", bundle.path(WARMUP))
    for number, record in enumerate(records, 1):
        where = f"record {number} of {bundle.path(WARMUP)}"
        log = prediction_log_pb2.PredictionLog()
        try:
            log.ParseFromString(record)
        except DecodeError as error:
            yield Fault(f"is no PredictionLog: {error}", where)
            continue
        if not log.HasField("predict_log"):
            yield Fault("is no predict request", where)
            continue
        faults = list(_request_faults(log.predict_log.request, subject, where))
        yield from faults or _answer_faults(log.predict_log.request, subject, where)


def _request_faults(request: predict_pb2.PredictRequest, subject, where: str) -> Iterator[Fault]:
    """As strict as a server at loading: names and types are exact, shapes fit, photos are photos."""
    name = request.model_spec.signature_name or "serving_default"
    if name not in subject.signatures:
        yield Fault(f"asks for signature {name!r}; there are {sorted(subject.signatures)}", where)
        return
    inputs = subject.signatures[name].inputs
    if set(request.inputs) != set(inputs):
        yield Fault(f"gives {sorted(request.inputs)} to {name!r}, which takes {sorted(inputs)}", where)
        return
    for input_name, tensor in request.inputs.items():
        given, shape = tf.dtypes.as_dtype(tensor.dtype), tf.TensorShape(tensor.tensor_shape)
        wanted, fits = tf.dtypes.as_dtype(inputs[input_name].dtype), tf.TensorShape(inputs[input_name].tensor_shape)
        if given != wanted or not shape.is_compatible_with(fits):
            what = f"{input_name!r} of {name!r} is {given.name} {shape}, not {wanted.name} {fits}"
            yield Fault(what, where)
        elif given == tf.string:
            yield from _photo_faults(tf.make_ndarray(tensor).ravel(), f"{input_name!r} in {where}")


def _photo_faults(photos, where: str) -> Iterator[Fault]:
    for row, photo in enumerate(photos):
        try:
            tf.io.decode_image(photo, expand_animations=False)
        except tf.errors.OpError as error:
            yield Fault(f"photo {row} is none: {_plain(error)}", where)


def _answer_faults(request: predict_pb2.PredictRequest, subject, where: str) -> Iterator[Fault]:
    try:
        answer = subject.predict(request)
    except Exception as error:  # a server's, a session's: whatever it is, a request failed
        yield Fault(f"fails: {type(error).__name__}: {_plain(error)}", where)
        return
    rows = _rows(request)
    for name, values in answer.items():
        if np.shape(values)[:1] != (rows,):
            yield Fault(f"gives {name!r} of shape {list(np.shape(values))} for {rows} photos", where)
    if not np.all(answer.get("ok", True)):
        yield Fault("gives `ok` false for a photo", where)


def _rows(request: predict_pb2.PredictRequest) -> int:
    """How many photos a request has; 0 if it has no batch of them."""
    dimensions = next(iter(request.inputs.values())).tensor_shape.dim
    return dimensions[0].size if dimensions else 0


def _plain(error: Exception) -> str:
    """An error's message in one line, without TensorFlow's names of nodes."""
    message = getattr(error, "message", None) or str(error)
    return " ".join(re.sub(r"\{\{.*?\}\}|\[Op:.*?\]", "", message).split())[:300]


def check_batching(bundle: Bundle, subject) -> Iterator[Fault]:
    """The server accepts the batch sizes, and has met each of them before it is asked in earnest."""
    path = bundle.path(BATCHING)
    try:
        with open(path, encoding="utf-8") as file:
            text = re.sub(r"#.*", "", file.read())
        records = [prediction_log_pb2.PredictionLog.FromString(record) for record in bundle.warmup]
    except (OSError, DecodeError, tf.errors.OpError) as error:
        yield Fault(f"cannot be read, or the warm-up file: {error}", path)
        return
    allowed = [int(size) for size in re.findall(r"allowed_batch_sizes\s*:\s*(\d+)", text)]
    largest = [int(size) for size in re.findall(r"max_batch_size\s*\{\s*value\s*:\s*(\d+)\s*\}", text)]
    warmed = allowed or list(bundle.manifest.get("batch_sizes") or [1, *largest])
    if warmed != sorted(set(warmed)) or largest != warmed[-1:]:
        whose = "allowed_batch_sizes" if allowed else "the sizes that are warmed up,"
        what = f"{whose} {warmed} must be ascending and end with max_batch_size {largest}"
        yield Fault(what, path, "Correct it, or write the bundle again.")
    requests = [record.predict_log.request for record in records if record.predict_log.request.inputs]
    met = {(request.model_spec.signature_name or "serving_default", _rows(request)) for request in requests}
    for name in sorted(subject.signatures):
        missing = [size for size in warmed if (name, size) not in met]
        if missing:
            yield Fault(f"no request of {missing} photos for {name!r}", bundle.path(WARMUP))
    if allowed:
        what = (
            "batches are padded (allowed_batch_sizes): a gRPC request without photos ends the server for all callers, "
            f"and a photo may be decoded {padded(allowed)} times more"
        )
        mend = "Export without --pad_batches, or let only services reach the server that never ask without photos."
        yield Fault(what, path, mend, is_warning=True)


def padded(allowed: list[int]) -> int:
    """The most copies of a photo that a batch is padded with: it has one more than an allowed size."""
    return max((larger - smaller - 1 for smaller, larger in zip([0, *allowed], allowed)), default=0)


def check_parity(bundle: Bundle, subject, tolerance: float = 1e-5) -> Iterator[Fault]:
    """The vectors of the sample photos are those that the training model gave when the bundle was written."""
    path = bundle.path(REFERENCE)
    try:
        with np.load(path) as stored:
            vectors = stored["vectors"]
            photos = [stored[f"photo_{row}"].tobytes() for row in range(len(vectors))]
    except (OSError, ValueError, KeyError) as error:
        yield Fault(f"cannot be read: {error}", path)
        return
    pixels = [tf.io.decode_image(photo, channels=3, expand_animations=False).numpy()[np.newaxis] for photo in photos]
    for name, signature in sorted(subject.signatures.items()):
        if "embedding" not in signature.outputs or len(signature.inputs) != 1:
            continue
        (input_name, info), *_ = signature.inputs.items()
        batches = [[photo] for photo in photos] if info.dtype == tf.string.as_datatype_enum else pixels
        for row, batch in enumerate(batches):
            request = _request(bundle, name, {input_name: batch})
            yield from _vector_faults(request, subject, vectors[row], tolerance, f"{name!r}, photo {row} of {path}")


def _request(bundle: Bundle, signature_name: str, inputs: dict) -> predict_pb2.PredictRequest:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = bundle.manifest.get("name", "")
    request.model_spec.signature_name = signature_name
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return request


def _vector_faults(request, subject, vector: np.ndarray, tolerance: float, where: str) -> Iterator[Fault]:
    try:
        found = subject.predict(request)["embedding"][0]
    except Exception as error:  # as above
        yield Fault(f"fails: {type(error).__name__}: {_plain(error)}", where)
        return
    if found.shape != vector.shape:
        yield Fault(f"gives a vector of {found.shape}, the training model one of {vector.shape}", where)
        return
    apart = float(np.abs(found - vector).max())
    if not apart <= tolerance:  # NaN is no number, and not close to one
        what = f"is {apart:.2g} away from the training model, more than {tolerance:g}"
        yield Fault(what, where, "Export again; if it stays, the graph decodes or computes otherwise than training.")


def check_independence(bundle: Bundle, subject) -> Iterator[Fault]:
    """All of the above was done without the code that made the model."""
    loaded = [name for name in ("eet_tf", "keras", "tf_keras") if sys.modules.get(name) is not None]
    if loaded:
        yield Fault(f"this process has imported {loaded}", "sys.modules", "Run `eet verify` by itself.")


CHECKS: dict[str, Callable] = {
    "files": check_files,
    "signatures": check_signatures,
    "operations": check_ops,
    "loading": check_loading,
    "warm-up": check_warmup,
    "batching": check_batching,
    "parity": check_parity,
    "independence": check_independence,
}
# without a loaded model there is nothing to ask
_AFTER_LOADING = {"warm-up", "parity"}


def run_checks(
    bundle: Bundle, subject, checks: Mapping[str, Callable] = CHECKS
) -> Iterator[tuple[str, list[Fault] | None]]:
    """Yields each check's name and its faults, or None for one that was not done since the model cannot be loaded."""
    is_loaded = True
    for name, check in checks.items():
        if name in _AFTER_LOADING and not is_loaded:
            yield name, None
            continue
        try:
            faults = list(check(bundle, subject))
        except Exception as error:  # a file of another kind than any check expects; the other checks go on
            faults = [Fault(f"cannot be checked: {type(error).__name__}: {_plain(error)}", bundle.folder)]
        is_loaded &= name != "loading" or not faults
        yield name, faults
