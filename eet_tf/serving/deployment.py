"""What lies beside the models: how a server is started, watched and asked, as files that work as they are."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence

from eet_tf import files
from eet_tf.serving.readme import readme

MARK = "Written by export/main.py --bundle, which leaves this file alone once anything in it is changed: "

_MODEL = """  config {{
    name: "{name}"
    base_path: "/models/{name}"
    model_platform: "tensorflow"
  }}
"""
# how a server is started, and why so
SERVER_FLAGS = {
    "--model_config_file=/models/models.config": "",
    "--model_config_file_poll_wait_seconds=10": "",
    "--allow_version_labels_for_unavailable_models=true": "else a server does not start on a models.config with labels",
    "--monitoring_config_file=/models/monitoring.config": "",
    "--enable_batching": "",
    "--enable_per_model_batching_parameters": "",
    "--grpc_max_threads=256": "gRPC requests at a time; more are refused. The default is 4 for each core",
    "--num_load_threads=2": "a version that is slow to load, or cannot be loaded, does not hold up the next one",
    "--max_num_load_retries=0": "nor is it tried again for 5 minutes: warm-up fails the same way each time",
}
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
{flags}
    # every model in models.config has a version that answers
    healthcheck:
      test:
        - CMD
        - bash
        - -c
        - >-
          models=$$(sed 's/#.*//' /models/models.config |
          grep -Eo '\\<name: *.[A-Za-z0-9_-]+' | grep -Eo '[A-Za-z0-9_-]+$$') || exit 1;
          for model in $$models; do
          exec 3<>/dev/tcp/localhost/8501 &&
          printf "GET /v1/models/$$model HTTP/1.0\\r\\n\\r\\n" >&3 &&
          grep -q '"AVAILABLE"' <&3 || exit 1;
          done
      interval: 10s
      timeout: 5s
      start_period: 2m
    mem_limit: ${{SERVING_MEMORY:-0}}  # 0: no limit; README.md says how much it takes
    # also after the machine has restarted; one that cannot start is tried again, after up to a minute: see README.md
    restart: unless-stopped
    logging: &logging
      driver: json-file
      options: {{max-size: 10m, max-file: "5"}}
  prometheus:
    image: prom/prometheus:v3.13.2  # long-term support until July 2027
    ports:
      - "127.0.0.1:9090:9090"
    volumes:
      - ./prometheus.yml:/etc/prometheus/prometheus.yml:ro
    command:
      - --config.file=/etc/prometheus/prometheus.yml
      - --storage.tsdb.path=/prometheus
      - --storage.tsdb.retention.size=1GB
    restart: unless-stopped
    logging: *logging
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


def write_deployment(
    output_dir: str, manifest: Mapping, needed_operations: Mapping[str, Sequence[str]], photo: bytes
) -> None:
    """Writes `models.config`, `docker-compose.yml`, the Prometheus files, `README.md` and `photo.jpg` for it.

    A file that a person has changed is left alone: its first line has the checksum of the others. Where a model needs
    operations that a stock server does not have, there is no `docker-compose.yml`.

    Args:
        output_dir: the folder of the models.
        manifest: of the newest bundle, as `write_bundle` completes it.
        needed_operations: for every model in the folder those that a stock server does not have.
        photo: encoded; the one that the lines in `README.md` send.
    """
    config = "".join(_MODEL.format(name=name) for name in sorted(needed_operations))
    _write_text(output_dir, "models.config", f"model_config_list {{\n{config}}}\n")
    if any(needed_operations.values()):
        _remove_text(output_dir, "docker-compose.yml")
    else:
        _write_text(output_dir, "docker-compose.yml", compose(manifest["tensorflow"]))
    _write_text(output_dir, "monitoring.config", _MONITORING)
    _write_text(output_dir, "prometheus.yml", _PROMETHEUS)
    _write_text(output_dir, "README.md", readme(manifest, needed_operations, list(SERVER_FLAGS)))
    with files.replaced(os.path.join(output_dir, "photo.jpg")) as aside, open(aside, "wb") as file:
        file.write(photo)


def compose(tensorflow: str) -> str:
    """The text of `docker-compose.yml` for a version of TensorFlow."""
    flags = [f"      - {flag}{f'  # {why}' if why else ''}" for flag, why in SERVER_FLAGS.items()]
    return _COMPOSE.format(tensorflow=tensorflow, flags="\n".join(flags))


def _write_text(output_dir: str, name: str, text: str) -> None:
    path = os.path.join(output_dir, name)
    if os.path.exists(path) and not _is_ours(path):
        return
    with files.replaced(path) as aside, open(aside, "w", encoding="utf-8") as file:
        file.write(f"{_first_line(name, text)}\n{text}")


def _remove_text(output_dir: str, name: str) -> None:
    """Removes a file of ours that would do harm now; one that a person has changed is theirs."""
    path = os.path.join(output_dir, name)
    if os.path.exists(path) and _is_ours(path):
        os.remove(path)


def _first_line(name: str, text: str) -> str:
    line = f"{MARK}{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    return f"<!-- {line} -->" if name.endswith(".md") else f"# {line}"


def _is_ours(path: str) -> bool:
    """Whether a file is as `_write_text` left it."""
    with open(path, encoding="utf-8", errors="replace") as file:
        first, _, text = file.read().partition("\n")
    return first == _first_line(path, text)
