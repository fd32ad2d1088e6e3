"""`eet serve`: a page on which a person searches a catalogue by a photo."""

from __future__ import annotations

import contextlib
import logging
import socket

from absl import flags

from eet_tf.cli import indexes, queries
from eet_tf.cli.complaints import CommandError, Complaints
from eet_tf.cli.door import Command, Definitions
from eet_tf.wording import said_by

_HELP = """\
Serves a page on which a person searches an index by a photo. The photo is embedded by the SavedModel that the index
was built with, by another (--saved_model), or by TensorFlow Serving (--server). The page has no passwords, and only
this machine reaches it unless --host says otherwise. It needs `pip install 'eet-tf[demo]'`.

Examples:
  eet serve --index_dir=runs/mine/index
  eet serve --index_dir=runs/mine/index --server=localhost:8500 --port=8080"""

FLAGS = flags.FlagValues()
define = Definitions(FLAGS)
indexes.define_index(define)
queries.define_embedder(define, FLAGS)
define.string("photo_root", None, "Folder of the catalogue's photos; by default as indexed.")
define.string("host", "127.0.0.1", "Address to listen at; 0.0.0.0 lets other machines in.")
define.integer("port", 8000, "Port to listen at; 0 for any that is free.", lower_bound=0, upper_bound=65535)
define.string("title", "Visual product search", "Heading of the page.")
define.integer("max_upload_mb", 16, "Largest photo in MB.", lower_bound=1)


def _listening() -> socket.socket:
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((FLAGS.host, FLAGS.port))
    except OSError as error:
        listening.close()
        raise ValueError(
            f"`port` must be free at `host`. Received: --host={FLAGS.host} --port={FLAGS.port}: {said_by(error)}. "
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


def _main(_) -> None:
    """Loads the index and what embeds, tries them, and serves until it is ended."""
    try:
        from eet_tf.service import create_app
    except ModuleNotFoundError as error:
        raise CommandError(f"the page needs {error.name}: pip install 'eet-tf[demo]'") from error
    from eet_tf.client import ServingError

    complaints = Complaints()
    complaints.existing("photo_root", FLAGS.photo_root)
    queries.check(complaints, FLAGS)
    index = indexes.load_index(complaints, FLAGS.index_dir)
    complaints.end()
    beside = indexes.beside(index, FLAGS.index_dir)
    photo_root = FLAGS.photo_root or beside.get("photo_root", "")
    try:
        with _listening() as listening, queries.embedder(FLAGS, beside.get("saved_model", "")) as embedder:
            application = create_app(index, embedder, photo_root, FLAGS.title, FLAGS.max_upload_mb * 2**20)
            _serve(listening, application)
    except ServingError as error:
        raise ValueError(str(error)) from error


COMMAND = Command(_main, FLAGS, _HELP, ("index_dir", "saved_model", "server", "host", "port", "title"))
