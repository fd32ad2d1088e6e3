"""Brings a version of a bundle into service, gives it a label, or takes another version out, without an outage.

    python export/publish.py --output_dir=served --name=embedder --version=2 --label=stable --server=localhost:8500

adds version 2 to those that `models.config` names, waits until the server has loaded it, then moves the label. A server
refuses a label of a version that it has not loaded, and everything else in the file with it, so the order matters; one
command keeps it. Every server that reads the folder is named by a --server of its own.

    python export/publish.py --output_dir=served --version=1 --label=stable --retire=2 --server=localhost:8500

goes back to version 1, and then no longer serves version 2. The folders of versions stay. Killed at any moment, the
same command goes on; run twice, it changes nothing. Where no server runs, --stopped writes all at once.

The model's entry is added if there is none. Other entries stay as they are, comments do not: a file that a person
wrote is kept as `models.config.before`.
"""

import os
import sys

from absl import app, flags

from eet_tf import commands

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # a server may have it

FLAGS = flags.FLAGS
flags.DEFINE_string("output_dir", None, "The folder of models that export/main.py --bundle wrote.", required=True)
flags.DEFINE_string("name", "embedder", "The model's name on the server.")
flags.DEFINE_integer("version", None, "The version to serve, older or newer.", lower_bound=1, required=True)
flags.DEFINE_string("label", None, "A name by which callers may ask for the version, e.g. stable; none by default.")
flags.DEFINE_multi_integer(
    "retire", [], "A version that is no longer served; may be given several times.", lower_bound=1
)
flags.DEFINE_multi_string("server", [], "host:port of a server's gRPC, to wait for; one for each server.")
flags.DEFINE_bool("stopped", False, "No server runs: write everything at once.")
flags.DEFINE_integer("timeout", 600, "Seconds that a server may take to load the version.", lower_bound=1)


def main(argv):
    """Checks all flags, publishes, says each step."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown argument {argv[1]!r}; flags begin with --")
    try:
        check()
        publish()
    except (ValueError, ImportError) as error:
        sys.exit(f"error: {error}")
    if not FLAGS.server and not FLAGS.stopped:
        print("Without --server, nothing is known of whether a server has loaded it.")


def publish():
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


def check():
    """Refuses in one go what cannot work."""
    from eet_tf.serving.publishing import check_publication

    complaints = commands.Complaints()
    complaints.existing("output_dir", FLAGS.output_dir)
    for address in FLAGS.server:
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal() or "/" in address:
            complaints.add(f"--server must be host:port of a server's gRPC. Received: --server={address}.")
    if FLAGS.server and FLAGS.stopped:
        complaints.add("--stopped says that no server runs. Received: --server beside it.")
    complaints.check(check_publication, FLAGS.output_dir, FLAGS.name, FLAGS.version, FLAGS.label, FLAGS.retire)
    complaints.end()


if __name__ == "__main__":
    commands.run(main)
