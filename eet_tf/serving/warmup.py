"""What a server runs before it takes requests: one recorded request for each signature and each batch size."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import tensorflow as tf
from PIL import Image
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

from eet_tf.data.drawing import draw_product
from eet_tf.serving.saved_model import SavedModelError

try:
    from tensorflow_serving.apis import predict_pb2, prediction_log_pb2
except ImportError as error:
    raise ImportError("A bundle needs tensorflow-serving-api: pip install 'eet-tf[serving]'.") from error

WARMUP = os.path.join("assets.extra", "tf_serving_warmup_requests")
# the server refuses a file with more
MAX_RECORDS = 1000
_PRODUCTS = (
    ("mug", "teal", "dots", "star"),
    ("bottle", "red", "stripes", "heart"),
    ("shirt", "yellow", "plain", "moon"),
    ("shoe", "blue", "dots", "bolt"),
    ("bag", "green", "stripes", "leaf"),
    ("cap", "pink", "plain", "drop"),
)


def sample_photos(width: int = 640, height: int = 480) -> list[bytes]:
    """Six drawn products before a grainy wall as JPEG, of the size and weight of photos from a shop's page.

    Args:
        width: in pixels.
        height: in pixels.

    Returns:
        The encoded photos, always the same.

    Example:

    >>> [len(photo) > 20_000 for photo in sample_photos()]
    [True, True, True, True, True, True]
    """
    rng = np.random.default_rng(0)
    photos = []
    for product in _PRODUCTS:
        wall = rng.uniform(120, 230, 3) + rng.normal(0, 8, [height, width, 1])
        photo = Image.fromarray(np.clip(wall, 0, 255).astype(np.uint8))
        size = round(0.8 * min(width, height))
        drawn = draw_product(*product, size=size)
        photo.paste(drawn, ((width - size) // 2, (height - size) // 2), drawn)
        encoded = io.BytesIO()
        photo.save(encoded, "JPEG", quality=88)
        photos.append(encoded.getvalue())
    return photos


def warmup_sizes(max_batch_size: int) -> list[int]:
    """The batch sizes to warm up: powers of two, then the largest batch that the server puts together.

    Example:

    >>> warmup_sizes(12)
    [1, 2, 4, 8, 12]
    """
    return [2**power for power in range((max_batch_size - 1).bit_length())] + [max_batch_size]


def read_signatures(folder: str) -> dict[str, meta_graph_pb2.SignatureDef]:
    """The signatures that a server offers, by name, read from `saved_model.pb` without loading the model.

    Raises:
        SavedModelError: if the folder has no graph for serving.
    """
    saved_model = saved_model_pb2.SavedModel()
    with open(os.path.join(folder, "saved_model.pb"), "rb") as file:
        saved_model.ParseFromString(file.read())
    for graph in saved_model.meta_graphs:
        if "serve" in graph.meta_info_def.tags:
            # others, as `__saved_model_init_op`, are TensorFlow's own
            return {name: each for name, each in graph.signature_def.items() if each.method_name}
    raise SavedModelError(f"{folder!r} has no graph with the tag 'serve'. Write it again with `eet export`.")


def warmup_requests(
    signatures: Mapping[str, meta_graph_pb2.SignatureDef],
    batch_sizes: Sequence[int],
    photos: Sequence[bytes],
    image_size: int,
    name: str = "embedder",
) -> Iterator[predict_pb2.PredictRequest]:
    """The requests for every signature in every batch size; batches repeat the photos in turn.

    They name no outputs, as REST, curl and `EmbeddingClient` do: a server prepares each choice of outputs on its own.

    Args:
        signatures: by name, as `read_signatures` gives them. An input is a batch of encoded photos (string `[None]`)
            or of pixels (uint8 `[None, None, None, 3]`).
        batch_sizes: of the requests.
        photos: encoded, at least one.
        image_size: width and height in pixels of photos that are given as pixels.
        name: of the model on the server.

    Raises:
        SavedModelError: if an input is neither of the two, since then nothing is known to fill it with.
    """
    pixels = np.stack([_pixels(photo, image_size) for photo in photos])
    for signature_name, signature in sorted(signatures.items()):
        for batch_size in batch_sizes:
            rows = [row % len(photos) for row in range(batch_size)]
            request = predict_pb2.PredictRequest()
            request.model_spec.name = name
            request.model_spec.signature_name = signature_name
            for input_name, info in signature.inputs.items():
                kind = _kind(signature_name, input_name, info)
                batch = [photos[row] for row in rows] if kind == "bytes" else pixels[rows]
                request.inputs[input_name].CopyFrom(tf.make_tensor_proto(batch))
            yield request


def _kind(signature_name: str, input_name: str, info: meta_graph_pb2.TensorInfo) -> str:
    """Whether an input takes "bytes" or "pixels"."""
    dtype, shape = tf.dtypes.as_dtype(info.dtype), tf.TensorShape(info.tensor_shape)
    if dtype == tf.string and shape.rank == 1:
        return "bytes"
    if dtype == tf.uint8 and shape.rank == 4 and shape[3] == 3:
        return "pixels"
    raise SavedModelError(
        f"Input {input_name!r} of signature {signature_name!r} must be string [None] or uint8 [None, None, None, 3]. "
        f"Received: {dtype.name} {shape}. Export the model without that signature."
    )


def _pixels(photo: bytes, image_size: int) -> np.ndarray:
    with Image.open(io.BytesIO(photo)) as image:
        return np.asarray(image.convert("RGB").resize((image_size, image_size)))


def write_warmup(
    folder: str, batch_sizes: Sequence[int], photos: Sequence[bytes], image_size: int, name: str = "embedder"
) -> int:
    """Writes a SavedModel's warm-up file, which a server replays when it loads it, and refuses it if one fails.

    Args:
        folder: the SavedModel, not yet where a server looks.
        batch_sizes: of the requests, e.g. `warmup_sizes(32)`; see `warmup_requests` for these and the others.
        photos: encoded.
        image_size: of photos given as pixels.
        name: of the model on the server.

    Returns:
        How many requests it holds.

    Raises:
        SavedModelError: if there are more of them than a server takes, or an input is of an unknown kind.

    Example:

    >>> import tempfile
    >>> folder = export_embedder(build_embedder("small_cnn", 8, image_size=32), tempfile.mkdtemp())
    >>> per_size = write_warmup(folder, [1, 2, 4], sample_photos(), 32) // len(read_signatures(folder))
    >>> per_size
    3
    """
    signatures = read_signatures(folder)
    number = len(signatures) * len(batch_sizes)
    if number > MAX_RECORDS:
        raise SavedModelError(
            f"`batch_sizes` must make at most {MAX_RECORDS} warm-up requests. Received: {len(batch_sizes)} sizes for "
            f"{len(signatures)} signatures."
        )
    path = os.path.join(folder, WARMUP)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with tf.io.TFRecordWriter(path) as writer:
        for request in warmup_requests(signatures, batch_sizes, photos, image_size, name):
            log = prediction_log_pb2.PredictionLog()
            log.predict_log.request.CopyFrom(request)
            writer.write(log.SerializeToString())
    return number
