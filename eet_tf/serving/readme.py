"""The README beside a bundle: how its server is started and asked, and what to do when something is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from eet_tf.data.limits import MAX_PIXELS

_BEGIN = """# The model `{name}`, ready to be served

{start}
Is it there, what does it take, how is it doing:

```bash
curl --silent --fail http://localhost:8501/v1/models/{name}
curl --silent --fail http://localhost:8501/v1/models/{name}/metadata
curl --silent --fail http://localhost:8501/monitoring/prometheus/metrics
```

A request has 1 to {max_batch_size} photos; the server puts those of several callers together, up to as many. A photo
has at most {megapixels} million pixels. What has more, or is no photo, gets `ok` false, and harms no other photo.
The server asks for no password and encrypts nothing: let only your own services reach its ports.
"""
_DOCKER = """In this folder, start the server (gRPC on port 8500, REST on 8501) and Prometheus (<http://localhost:9090>,
from this machine alone), then ask from it:

```
docker compose up --detach
```
"""
_OWN_SERVER = """There is no `docker-compose.yml` here: {models} {need} operations that the image `tensorflow/serving`
does not have ({operations}). It would refuse the model, and not start. Start a server that has them: one that is
linked to the shared libraries of TensorFlow {tensorflow}, with ScaNN's operations loaded into it and this folder at
`/models`:

```
LD_PRELOAD=/path/to/scann/scann_ops/cc/_scann_ops.so tensorflow_model_server --port=8500 --rest_api_port=8501 {flags}
```

The library is in the Python package `scann`, in a version for that TensorFlow. Whether the two go together is seen
before any server starts, in the folder of eet-tf:

```
eet verify --op_library=/path/to/scann/scann_ops/cc/_scann_ops.so PATH_OF_THIS_FOLDER/{name}
```

Where it says `docker compose` below, look at the log of that server and start it again in your own way.
"""
_CURL = """
## `{signature}`: {inputs} -> {outputs}

```bash
(printf '{{"signature_name": "{signature}", "instances": [{{"b64": "'; base64 -w 0 photo.jpg; printf '"}}]}}') |
  curl --silent --fail --data-binary @- http://localhost:8501/v1/models/{name}:predict
```
"""
_PIXELS = """
## `{signature}`: {inputs} -> {outputs}

All photos of all callers must have the same height and width: where others meet in a batch, all of it fails.
"""
_GRPC = """
```python
import pathlib

import grpc
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

photo = pathlib.Path("photo.jpg").read_bytes()
request = predict_pb2.PredictRequest()
request.model_spec.name = "{name}"
request.model_spec.signature_name = "{signature}"
request.inputs["{input}"].CopyFrom(tf.make_tensor_proto({value}))
with grpc.insecure_channel("localhost:8500") as channel:
    answer = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(request, timeout=10)
print({{name: tf.make_ndarray(tensor) for name, tensor in answer.outputs.items()}})
```
"""
_END = """
## A new version, and back to an old one

The newest version in `{name}/` is taken up within seconds; the old one answers until the new one has run all its
warm-up requests. To choose the version instead, name it in `models.config`. In the folder of eet-tf,

```
eet publish --output_dir=PATH_OF_THIS_FOLDER --name={name} --version=1 --server=localhost:8500
```

adds a version to those that are named, and waits until the server answers with it. From then on the server loads the
versions that are named, and no others; publish each new one in the same way. Callers that name no version get the
newest: to go back from version 2, add `--retire=2`. `--label=stable` lets callers ask for the version by that name.

## When something is wrong

What the server says of its models, what it wrote, and what it uses:

```bash
curl --silent http://localhost:8501/v1/models/{name}
```

```
docker compose ps --all
docker compose logs --tail=100 serving
docker stats --no-stream
```

**The server does not start, or `ps` says `Restarting`.** A version that it is to serve cannot be loaded, or a model in
`models.config` has no folder; the log says which. Delete the entry of such a model. Go back from a bad version, 2 for
example, and restart the server:

```
eet publish --output_dir=PATH_OF_THIS_FOLDER --name={name} --version=1 --retire=2 --stopped
docker compose restart serving
```

**It stops now and then, with status 137.** It was killed for memory: see the end.

**`ps` says `unhealthy`.** A model in `models.config` has no version that answers. Ask for each model as above.

**A new version is not taken up.** Ask as above. If its state is `END`, it could not be loaded, and the error says why;
it is not tried again: export anew, or restart the server. If it is not there, `models.config` names other versions:
publish it. Or a model in `models.config` has no folder: then no model gets new versions.

**`RESOURCE_EXHAUSTED`, "Server Threadpool Exhausted".** More gRPC requests at a time than `--grpc_max_threads`, 256.
Callers must wait and ask again, as `EmbeddingClient` does. If it stays, start another server.

**`UNAVAILABLE`, and the queue is full.** More than 100 batches wait: the same.

**It is slow.** If `docker stats` says that all cores are busy (100 % for each), start another server, or one with more
cores. If only first answers are slow, callers name the outputs that they want (`output_filter`), which warm-up does
not: they had better take all.

**Requests of several callers fail together.** Some of them send arrays of another shape: `[1, 1]` for `[1]`, or pixels
of another size. Each request is to have one row for each photo, `[N]`; encoded photos may differ in size, pixels not.
{padding}
**The disk is full.** Old versions take the room: `du -sh */*`. Delete those that are older than the one before the
newest and are not in `models.config`, or export with `--keep_versions=3`, which does so. Logs take at most 50 MB for
each container, Prometheus 1 GB.

**Memory.** The server takes twice the model while one version replaces another, and for each core that decodes a photo
up to {megabytes} MB, for one of {megapixels} million pixels. The line `SERVING_MEMORY=8g` in a file `.env` here, and
`docker compose up --detach`, limit it, so that nothing else on the machine is killed in its place; it is back in
seconds. It takes less with a lower `--max_megapixels` of `eet export`, and with one version at a time.
"""
_PADDING = """
**The server dies, and all callers lose their connections.** This bundle pads batches: one request without photos ends
the server. `docker compose logs` ends in a failed check. Let only services reach it that never send one, as
`EmbeddingClient`: no setting of a proxy counts the photos of a request. Or export without `--pad_batches`.
"""
# of decoding a million pixels: the worst that was measured, a transparent PNG or a JPEG that is turned upright
_MEGABYTES_PER_MEGAPIXEL = 27


def readme(manifest: Mapping, needed_operations: Mapping[str, Sequence[str]], flags: Sequence[str]) -> str:
    """How to start a server, ask for each signature of a bundle by curl and by gRPC, and find what is wrong.

    Args:
        manifest: of the bundle, as `write_bundle` completes it.
        needed_operations: for every model in the folder those that a stock server does not have.
        flags: that a server is started with.

    Example:

    >>> signature = {"inputs": {"image_bytes": {"dtype": "string", "shape": [None]}}, "outputs": {"ok": ...}}
    >>> manifest = {"name": "embedder", "batch_sizes": [1, 8], "signatures": {"serving_default": signature}}
    >>> "http://localhost:8501/v1/models/embedder:predict" in readme(manifest, {}, [])
    True
    """
    name, megapixels = manifest["name"], manifest.get("max_pixels", MAX_PIXELS) / 10**6
    facts = {"name": name, "max_batch_size": manifest["batch_sizes"][-1], "megapixels": f"{megapixels:.3g}"}
    parts = [_BEGIN.format(start=_start(manifest, needed_operations, flags), **facts)]
    for signature, tensors in sorted(manifest["signatures"].items()):
        (input_name, info), *_ = tensors["inputs"].items()
        is_bytes = info["dtype"] == "string"
        value = "[photo]" if is_bytes else "tf.io.decode_jpeg(photo)[tf.newaxis].numpy()"
        words = {"signature": signature, "inputs": input_name, "outputs": ", ".join(tensors["outputs"])}
        parts.append((_CURL if is_bytes else _PIXELS).format(name=name, **words))
        parts.append(_GRPC.format(name=name, signature=signature, input=input_name, value=value))
    padding = _PADDING if manifest.get("pad_batches") else ""
    parts.append(_END.format(padding=padding, megabytes=f"{_MEGABYTES_PER_MEGAPIXEL * megapixels:,.0f}", **facts))
    return "".join(parts)


def _start(manifest: Mapping, needed_operations: Mapping[str, Sequence[str]], flags: Sequence[str]) -> str:
    needing = [name for name, operations in sorted(needed_operations.items()) if operations]
    if not needing:
        return _DOCKER
    operations = sorted({operation for name in needing for operation in needed_operations[name]})
    return _OWN_SERVER.format(
        name=needing[0],
        models=" and ".join(f"`{name}`" for name in needing),
        need="needs" if len(needing) == 1 else "need",
        operations=", ".join(f"`{operation}`" for operation in operations),
        tensorflow=manifest["tensorflow"],
        flags=" ".join(flags),
    )
