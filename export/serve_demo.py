"""Serves a page on which a person searches a catalogue by a photo.

    python export/serve_demo.py --index_dir=runs/mine/index

and open the address that it prints. The photo is embedded by the SavedModel that the index was built with, by another
(--saved_model), or by a TensorFlow Serving (--server=localhost:8500). It is for one's own machine or network: it has no
passwords, and only this machine reaches it unless --host says otherwise.
"""

import contextlib
import logging
import os
import socket
import sys

import serving_flags  # beside this script
from absl import app, flags

from eet_tf import commands

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # its exceptions say all that matters

FLAGS = flags.FLAGS
flags.DEFINE_string("index_dir", None, "An index that build_index.py wrote.", required=True)
flags.DEFINE_string("photo_root", None, "Where the catalogue's photos are; by default as indexed.")
flags.DEFINE_string("host", "127.0.0.1", "The address to listen at; 0.0.0.0 lets others in.")
flags.DEFINE_integer("port", 8000, "The port to listen at; 0 for any that is free.", lower_bound=0, upper_bound=65535)
flags.DEFINE_string("title", "Visual product search", "What stands at the top of the page.")
flags.DEFINE_integer("max_upload_mb", 16, "How large a photo may be.", lower_bound=1)


def _listening() -> socket.socket:
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((FLAGS.host, FLAGS.port))
    except OSError as error:
        listening.close()
        raise ValueError(
            f"`port` must be free at `host`. Received: --host={FLAGS.host} --port={FLAGS.port}: {error.strerror}. "
            "Name another port, or end what listens there."
        ) from error
    return listening


def _serve(listening: socket.socket, application) -> None:
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # not a line for each photo that is shown
    listening.listen()
    server = make_server(FLAGS.host, FLAGS.port, application, threaded=True, fd=listening.fileno())
    name = "localhost" if FLAGS.host in ("127.0.0.1", "0.0.0.0") else FLAGS.host
    with contextlib.suppress(KeyboardInterrupt):
        print(f"The page is http://{name}:{server.port}/")
        if FLAGS.host == "0.0.0.0":
            print(f"From other machines it is http://{socket.gethostname()}:{server.port}/")
        print("Ctrl-C ends it.", flush=True)
        server.serve_forever()


def main(argv):
    """Loads the index and what embeds, tries them, and serves until it is ended."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown argument {argv[1]!r}; flags begin with --")
    try:
        from eet_tf.demo import create_app
    except ModuleNotFoundError as error:
        sys.exit(f"error: the page needs {error.name}: pip install 'eet-tf[demo]'")
    from eet_tf.client import ServingError
    from eet_tf.index import load_index

    try:
        complaints = commands.Complaints()
        complaints.existing("photo_root", FLAGS.photo_root)
        serving_flags.check(complaints)
        index = complaints.given("index_dir", FLAGS.index_dir, load_index, True)
        complaints.end()
        beside = {name: os.path.join(FLAGS.index_dir, path) for name, path in index.metadata.items()}
        photo_root = FLAGS.photo_root or beside.get("photo_root", "")
        with _listening() as listening, serving_flags.embedder(beside.get("saved_model", "")) as embedder:
            application = create_app(index, embedder, photo_root, FLAGS.title, FLAGS.max_upload_mb * 2**20)
            _serve(listening, application)
    except (ValueError, ServingError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    commands.run(main)
