"""`eet publish`: brings a version of a bundle into service, gives it a label, or takes another version out."""

from __future__ import annotations

import os

from absl import flags

from eet_tf.cli.complaints import Complaints
from eet_tf.cli.door import Command, Definitions

_HELP = """\
Adds a version to those that models.config names, waits until every server has loaded it, then moves the label. A
server refuses a label of a version that it has not loaded, so the order matters; this command keeps it. Killed at any
moment, the same command goes on; run twice, it changes nothing. The folders of versions stay.

Examples:
  eet publish --output_dir=served --version=2 --label=stable --server=localhost:8500
  eet publish --output_dir=served --version=1 --label=stable --retire=2 --server=localhost:8500
  eet publish --output_dir=served --version=2 --stopped

The second goes back to version 1 and stops serving version 2. Every server that reads the folder is named by a
--server of its own; where none runs, --stopped writes all at once. The model's entry is added if there is none; a file
that a person wrote is kept as models.config.before."""

FLAGS = flags.FlagValues()
define = Definitions(FLAGS)
define.string("output_dir", None, "Folder that `eet export --bundle` wrote.", required=True)
define.string("name", "embedder", "Name of the model on the server.")
define.integer("version", None, "Number of the version to serve, older or newer.", lower_bound=1, required=True)
define.string("label", None, "Label by which callers may ask for the version, such as stable. By default none.")
define.multi_integer("retire", [], "Number of a version to stop serving; may be given several times.", lower_bound=1)
define.multi_string("server", [], "Address of a server to wait for, host:port (gRPC); may be given several times.")
define.bool("stopped", False, "Write everything at once, since no server runs.")
define.integer("timeout", 600, "Seconds that a server may take to load the version.", lower_bound=1)


def _publish():
    """Publishes as the flags say."""
    from eet_tf.serving import publishing

    publishing.publish(
        FLAGS.output_dir,
        FLAGS.name,
        FLAGS.version,
        label=FLAGS.label,
        retire=FLAGS.retire,
        servers=FLAGS.server,
        are_stopped=FLAGS.stopped,
        timeout=FLAGS.timeout,
        on_step=lambda step: print(step, flush=True),
    )


def _check():
    """Refuses in one go what cannot work."""
    from eet_tf.serving.publishing import check_publication

    complaints = Complaints()
    complaints.existing("output_dir", FLAGS.output_dir)
    for address in FLAGS.server:
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal() or "/" in address:
            complaints.add(f"--server must be host:port of a server's gRPC. Received: --server={address}.")
    if FLAGS.server and FLAGS.stopped:
        complaints.add("--stopped says that no server runs. Received: --server beside it.")
    complaints.check(check_publication, FLAGS.output_dir, FLAGS.name, FLAGS.version, FLAGS.label, FLAGS.retire)
    complaints.end()


def _main(_) -> None:
    """Checks all flags, publishes, says each step."""
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # a server may have the GPU
    try:
        _check()
        _publish()
    except ImportError as error:
        raise ValueError(str(error)) from error
    if not FLAGS.server and not FLAGS.stopped:
        print("Without --server, nothing is known of whether a server has loaded it.")


COMMAND = Command(_main, FLAGS, _HELP)
