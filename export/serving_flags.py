"""The flags of scripts that embed queries, on a server or by a SavedModel in this process, and what they choose."""

import contextlib
import os

from absl import flags

from eet_tf import commands

FLAGS = flags.FLAGS
flags.DEFINE_string("saved_model", None, "The SavedModel that embeds the query; by default the index's own.")
flags.DEFINE_string("server", None, "Embed on a server instead: host:8500 (gRPC) or http://host:8501 (REST).")
flags.DEFINE_string("server_model", "embedder", "The embedder's name on --server.")
flags.DEFINE_integer("server_version", None, "Its version on --server; by default the newest that is served.")
flags.DEFINE_float("server_deadline", 10.0, "Seconds after which --server is given up, if it is away or busy.")
flags.DEFINE_float(
    "server_max_megapixels", 40.0, "Larger photos are not sent to --server; as the embedder was exported with."
)
flags.mark_flags_as_mutual_exclusive(["saved_model", "server"])


def check(complaints: commands.Complaints) -> None:
    """Complains about flags that cannot work, before anything is loaded or asked."""
    complaints.number("server_version", FLAGS.server_version, 1)
    complaints.above("server_deadline", FLAGS.server_deadline, 0)
    complaints.above("server_max_megapixels", FLAGS.server_max_megapixels, 0)
    if FLAGS.server and complaints.are_none:
        complaints.given("server", FLAGS.server, lambda server: _client(server).close())


def embedder(index_saved_model: str) -> contextlib.AbstractContextManager:
    """What embeds, for a `with`: an `EmbeddingClient`, or a `ServedEmbedder` in this process.

    Args:
        index_saved_model: the SavedModel of the index, for where none is named.

    Raises:
        CommandError: if the SavedModel cannot be used.
    """
    if FLAGS.server:
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # nothing is embedded here, and pictures for pages need no GPU
        return _client(FLAGS.server)
    from eet_tf.serving import ServedEmbedder

    complaints = commands.Complaints()
    chosen = complaints.given("saved_model", FLAGS.saved_model or index_saved_model, ServedEmbedder)
    complaints.end()
    return contextlib.nullcontext(chosen)


def _client(server: str):
    from eet_tf.client import EmbeddingClient, ServingError

    try:
        return EmbeddingClient(
            server,
            FLAGS.server_model,
            FLAGS.server_version,
            deadline=FLAGS.server_deadline,
            max_pixels=round(FLAGS.server_max_megapixels * 1e6),
        )
    except ServingError as error:
        raise ValueError(str(error)) from error
