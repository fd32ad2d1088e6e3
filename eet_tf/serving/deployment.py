"""What lies beside the models: how a server is started, watched and asked, as files that work as they are."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence

from eet_tf import files

MARK = "Written by export/main.py --bundle, which leaves this file alone once anything in it is changed: "

_MODEL = """  config {{
    name: "{name}"
    base_path: "/models/{name}"
    model_platform: "tensorflow"
  }}
"""
# the image starts the server with ports 8500 (gRPC) and 8501 (REST); /dev/tcp is bash's, since the image has no curl
_COMPOSE = """services:
  serving:
    image: tensorflow/serving:{tensorflow}
    ports:
      - "8500:8500"
      - "8501:8501"
    volumes:
      - .:/models:ro
    command:
      - --model_config_file=/models/models.config
      - --model_config_file_poll_wait_seconds=10
      - --monitoring_config_file=/models/monitoring.config
      - --enable_batching
      - --enable_per_model_batching_parameters
    healthcheck:
      test:
        - CMD
        - bash
        - -c
        - >-
          exec 3<>/dev/tcp/localhost/8501 &&
          printf 'GET /v1/models/{name} HTTP/1.0\\r\\n\\r\\n' >&3 && grep -q AVAILABLE <&3
      interval: 10s
    restart: unless-stopped
  prometheus:
    image: prom/prometheus:v3.5.0
    ports:
      - "9090:9090"
    volumes:
      - ./prometheus.yml:/etc/prometheus/prometheus.yml:ro
    restart: unless-stopped
"""
_MONITORING = """prometheus_config {
  enable: true
  path: "/monitoring/prometheus/metrics"
}
"""
_PROMETHEUS = """global:
  scrape_interval: 15s
scrape_configs:
  - job_name: tensorflow_serving
    metrics_path: /monitoring/prometheus/metrics
    static_configs:
      - targets: ["serving:8501"]
"""
_README = """# The model `{name}`, ready to be served

Start the server and Prometheus in this folder, then ask from it:

```
docker compose up --detach
```

A new version in `{name}/` is taken up within seconds; the old one answers until the new one has run all its warm-up
requests. The server logs why it refuses one. To go back, or to hold a version, name it in `models.config`:
`model_version_policy {{ specific {{ versions: 1 }} }}`. From then on that file is yours.

Is it there, what does it take, how is it doing (Prometheus: <http://localhost:9090>):

```bash
curl --silent --fail http://localhost:8501/v1/models/{name}
curl --silent --fail http://localhost:8501/v1/models/{name}/metadata
curl --silent --fail http://localhost:8501/monitoring/prometheus/metrics
```

A request has at most {max_batch_size} photos; the server puts those of several users together, up to as many.
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

All photos of all users must have the same height and width, or those that meet in one batch are refused.
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


def write_deployment(output_dir: str, manifest: Mapping, names: Sequence[str], photo: bytes) -> None:
    """Writes `models.config`, `docker-compose.yml`, the Prometheus files, `README.md` and `photo.jpg` for it.

    A file that a person has changed is left alone: its first line has the checksum of the others.

    Args:
        output_dir: the folder of the models.
        manifest: of the newest bundle, with its `name`, `tensorflow`, `batch_sizes` and `signatures`.
        names: of all models in the folder.
        photo: encoded; the one that the lines in `README.md` send.
    """
    config = "".join(_MODEL.format(name=name) for name in names)
    compose = _COMPOSE.format(tensorflow=manifest["tensorflow"], name=manifest["name"])
    _write_text(output_dir, "models.config", f"model_config_list {{\n{config}}}\n")
    _write_text(output_dir, "docker-compose.yml", compose)
    _write_text(output_dir, "monitoring.config", _MONITORING)
    _write_text(output_dir, "prometheus.yml", _PROMETHEUS)
    _write_text(output_dir, "README.md", readme(manifest))
    with files.replaced(os.path.join(output_dir, "photo.jpg")) as aside, open(aside, "wb") as file:
        file.write(photo)


def readme(manifest: Mapping) -> str:
    """How to ask for each signature of a bundle, by curl and by gRPC.

    Example:

    >>> signature = {"inputs": {"image_bytes": {"dtype": "string", "shape": [None]}}, "outputs": {"ok": ...}}
    >>> text = readme({"name": "embedder", "batch_sizes": [1, 8], "signatures": {"serving_default": signature}})
    >>> "http://localhost:8501/v1/models/embedder:predict" in text
    True
    """
    name = manifest["name"]
    parts = [_README.format(name=name, max_batch_size=manifest["batch_sizes"][-1])]
    for signature, tensors in sorted(manifest["signatures"].items()):
        (input_name, info), *_ = tensors["inputs"].items()
        is_bytes = info["dtype"] == "string"
        value = "[photo]" if is_bytes else "tf.io.decode_jpeg(photo)[tf.newaxis].numpy()"
        words = {"signature": signature, "inputs": input_name, "outputs": ", ".join(tensors["outputs"])}
        parts.append((_CURL if is_bytes else _PIXELS).format(name=name, **words))
        parts.append(_GRPC.format(name=name, signature=signature, input=input_name, value=value))
    return "".join(parts)


def _write_text(output_dir: str, name: str, text: str) -> None:
    path = os.path.join(output_dir, name)
    if os.path.exists(path) and not _is_ours(path):
        return
    with files.replaced(path) as aside, open(aside, "w", encoding="utf-8") as file:
        file.write(f"{_first_line(name, text)}\n{text}")


def _first_line(name: str, text: str) -> str:
    line = f"{MARK}{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    return f"<!-- {line} -->" if name.endswith(".md") else f"# {line}"


def _is_ours(path: str) -> bool:
    """Whether a file is as `_write_text` left it."""
    with open(path, encoding="utf-8", errors="replace") as file:
        first, _, text = file.read().partition("\n")
    return first == _first_line(path, text)
