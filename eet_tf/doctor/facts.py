"""What is to be seen of this machine. Packages are imported in processes of their own, which an import may end."""

from __future__ import annotations

import concurrent.futures
import functools
import importlib.metadata
import json
import os
import platform
import re
import signal
import subprocess
import sys

import eet_tf
from eet_tf.doctor.diagnosis import PACKAGES, Facts, Package

_TIMEOUT = 120.0  # seconds; TensorFlow takes 3, on a cold disk 30
_MODULES = {  # what is imported to see whether a package works, where it is not named as the package is
    "absl-py": "absl.flags",
    "apache-beam": "apache_beam",
    "keras-cv": "keras_cv",
    "milvus-lite": "milvus_lite",
    "pillow": "PIL.Image",
    "pillow-heif": "pillow_heif",
    "protobuf": "google.protobuf.message",
    "scipy": "scipy.io",
    "tensorflow-addons": "tensorflow_addons",
    "tensorflow-serving-api": "tensorflow_serving.apis.predict_pb2",
}
_OTHER_NAMES = {"tensorflow": ("tensorflow-cpu", "tf-nightly"), "keras": ("keras-nightly",)}
_LIST_GPUS = """
import json
from tensorflow import config
gpus = config.list_physical_devices("GPU")
details = [config.experimental.get_device_details(gpu) for gpu in gpus]
print("GPUS " + json.dumps([detail.get("device_name", gpu.name) for gpu, detail in zip(gpus, details)]))
"""


def gather(timeout: float = _TIMEOUT) -> Facts:
    """Looks at this machine and this interpreter.

    Args:
        timeout: seconds an import may take before it counts as failed.
    """
    versions = {name: version for name in PACKAGES if (version := installed_version(name)) is not None}
    with concurrent.futures.ThreadPoolExecutor(max(1, min(4, _num_cpus()))) as pool:
        tries = dict(zip(versions, pool.map(functools.partial(_try_import, timeout=timeout), versions)))
    packages = {name: Package(versions[name], error) for name, (error, _) in tries.items()}
    return Facts(
        python=tuple(sys.version_info[:3]),
        packages=packages,
        source_version=eet_tf.__version__,
        installed_version=installed_version("eet-tf"),
        machine=platform.machine(),
        cpu_features=cpu_features(),
        num_cpus=_num_cpus(),
        memory=_memory(),
        gpus=_gpus(tries["tensorflow"][1]) if "tensorflow" in tries else (),
        environment={name: os.environ[name] for name in ("TF_USE_LEGACY_KERAS", "KERAS_BACKEND") if name in os.environ},
    )


def installed_version(package: str) -> str | None:
    """The version of an installed package; None if it is not installed.

    Example:

    >>> installed_version("no-such-package") is None
    True
    """
    for name in (package, *_OTHER_NAMES.get(package, ())):
        try:
            return importlib.metadata.version(name) or "0"
        except importlib.metadata.PackageNotFoundError:
            continue
        except Exception:  # metadata that are broken in some way: it is there, and its import will tell more
            return "0"
    return None


def try_code(code: str, timeout: float) -> tuple[str, str]:
    """Runs Python in a process of its own.

    Args:
        code: the program.
        timeout: seconds it may take.

    Returns:
        What went wrong, the last line of its error or how it ended, `""` if nothing did; and what it printed.

    Example:

    >>> try_code("print(1)", timeout=60)
    ('', '1\\n')
    >>> try_code("import no_such_module", timeout=60)[0]
    "ModuleNotFoundError: No module named 'no_such_module'"
    """
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    try:
        ended = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {timeout:g} s", ""
    except OSError as error:
        return str(error), ""
    printed = ended.stdout.decode("utf-8", "replace")
    return _what_went_wrong(ended.returncode, ended.stderr.decode("utf-8", "replace")), printed


def _what_went_wrong(status: int, errors: str) -> str:
    if status == 0:
        return ""
    if status < 0:
        return f"its process was ended by {_signal(-status)}"
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    return lines[-1] if lines else f"its process ended with status {status}"


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _try_import(package: str, timeout: float) -> tuple[str, str]:
    code = f"import {_MODULES.get(package, package)}\n"
    return try_code(code + _LIST_GPUS if package == "tensorflow" else code, timeout)


def _gpus(printed: str) -> tuple[str, ...]:
    found = re.search(r"^GPUS (\[.*\])$", printed, re.M)
    return tuple(map(str, json.loads(found[1]))) if found else ()


def cpu_features(cpuinfo: str = "/proc/cpuinfo") -> frozenset[str] | None:
    """The instruction sets of the processor, in small letters; None if they cannot be told.

    Args:
        cpuinfo: Linux's file about it; elsewhere the system is asked.
    """
    try:
        with open(cpuinfo, encoding="utf-8", errors="replace") as lines:
            found = re.search(r"^(?:flags|Features)\s*:(.*)$", lines.read(), re.M)
    except OSError:
        return _features_of_mac()
    return frozenset(found[1].lower().split()) if found else None


def _features_of_mac() -> frozenset[str] | None:
    try:
        command = ["sysctl", "-n", "machdep.cpu.features", "machdep.cpu.leaf7_features"]
        told = subprocess.run(command, capture_output=True, timeout=10, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    words = told.decode("utf-8", "replace").lower().replace("avx1.0", "avx").split()
    return frozenset(words) or None


def _num_cpus() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        return os.cpu_count() or 1


def _memory() -> int | None:
    """Bytes of the machine, or of the container if that is allowed fewer."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None
    try:
        with open("/sys/fs/cgroup/memory.max", encoding="ascii") as file:
            return min(memory, int(file.read()))
    except (OSError, ValueError):  # no container, or no limit
        return memory
