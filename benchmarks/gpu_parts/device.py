"""Which device TensorFlow calculates on, and how much of its memory is in use."""

from __future__ import annotations

import os
import shutil
import subprocess

import numpy as np


def on_gpu() -> bool:
    """Whether TensorFlow sees a GPU; asking takes none of its memory."""
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


def describe() -> dict:
    """Names the device and the versions that figures depend on."""
    import keras
    import tensorflow as tf

    import eet_tf

    found = {"device": f"CPU, {os.cpu_count()} cores"}
    if on_gpu():
        details = tf.config.experimental.get_device_details(tf.config.list_physical_devices("GPU")[0])
        build = tf.sysconfig.get_build_info()
        found = {
            "device": details.get("device_name", "a GPU without a name"),
            "compute capability": ".".join(map(str, details.get("compute_capability", ()))),
            "driver": driver_version(),
            "CUDA that TensorFlow was built for": str(build.get("cuda_version", "unknown")),
            "cuDNN that TensorFlow was built for": str(build.get("cudnn_version", "unknown")),
            "TensorFloat-32": "on" if tf.config.experimental.tensor_float_32_execution_enabled() else "off",
            "CPU cores": os.cpu_count(),
        }
    return found | {"TensorFlow": tf.__version__, "Keras": keras.__version__, "eet_tf": eet_tf.__version__}


def driver_version() -> str:
    """The version of NVIDIA's driver, or "unknown"."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return "unknown"
    command = [tool, "--query-gpu=driver_version", "--format=csv,noheader"]
    answer = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
    return (answer.stdout.split() or ["unknown"])[0] if answer.returncode == 0 else "unknown"


class PeakMemory:
    """The most memory in use within a `with` block over what was in use before it, in MB: a GPU's, or the process's."""

    def __enter__(self):
        if on_gpu():
            self._before = _in_use()["current"]
            reset_peak()
        else:
            from memory import PeakMemory as OfProcess

            self._of_process = OfProcess().__enter__()
        return self

    def __exit__(self, *_):
        if on_gpu():
            self.megabytes = (_in_use()["peak"] - self._before) / 2**20
        else:
            self._of_process.__exit__()
            self.megabytes = self._of_process.megabytes


def reset_peak() -> None:
    """Forgets what the GPU held at most so far."""
    import tensorflow as tf

    if on_gpu():
        tf.config.experimental.reset_memory_stats("GPU:0")


def peak_megabytes() -> float | None:
    """The most that TensorFlow held on the GPU since `reset_peak`; None without one."""
    return _in_use()["peak"] / 2**20 if on_gpu() else None


def _in_use() -> dict[str, int]:
    import tensorflow as tf

    return tf.config.experimental.get_memory_info("GPU:0")


def draw_batch(size: int, dim: int, examples_per_class: int):
    """Draws labels `[size]` and embeddings `[size, dim]` in overlapping classes, the same every time.

    A few directions carry most of the variance, as in a trained net's.
    """
    rng = np.random.default_rng(size)
    labels = np.arange(size, dtype=np.int64) // examples_per_class
    centres = rng.standard_normal([labels[-1] + 1, dim], np.float32)
    scales = ((np.arange(dim) + 10.0) ** -0.5).astype(np.float32)
    return labels, scales * (centres[labels] + 1.6 * rng.standard_normal([size, dim], np.float32))
