"""`eet verify`: starts the verifier of bundles in a process that knows neither this package nor Keras."""

from __future__ import annotations

import os
import sys

from absl import flags

from eet_tf.cli.door import Command

# A path, not an import: a bundle is proven where this package cannot be imported.
SCRIPT = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "verifier", "verify.py")

_HELP = """\
Proves that a bundle can be served: its files, signatures, operations, warm-up requests and batch sizes are as a server
needs them, and its vectors are those of the training model. With --server a running server is asked instead.

Examples:
  eet verify served
  eet verify served --server=localhost:8500

It needs `pip install 'eet-tf[serving]'`, and ends with 0 if nothing is wrong."""

FLAGS = flags.FlagValues()
flags.DEFINE_string(
    "server", None, "Address of a running server to verify instead of the files, host:port (gRPC).", flag_values=FLAGS
)
flags.DEFINE_string(
    "name", None, "Name of the model on the server; by default that in the manifest.", flag_values=FLAGS
)
flags.DEFINE_float(
    "tolerance",
    1e-5,
    "Largest difference allowed between a vector of the bundle and that of the training model.",
    0,
    flag_values=FLAGS,
)
flags.DEFINE_multi_string(
    "op_library", [], "Library of operations that the server loads, such as _scann_ops.so.", flag_values=FLAGS
)


def _main(folders: list[str]) -> None:
    """Becomes the verifier."""
    given = [f"--{name}={value}" for name in FLAGS for value in _texts(FLAGS[name])]
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, SCRIPT, *given, *folders])


def _texts(flag: flags.Flag) -> list:
    if flag.value is None:
        return []
    return flag.value if isinstance(flag.value, list) else [flag.value]


COMMAND = Command(_main, FLAGS, _HELP, takes="FOLDER")
