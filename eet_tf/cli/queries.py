"""The flags of commands that embed queries, on a server or by a SavedModel in this process, and what they choose."""

from __future__ import annotations

import contextlib
import os

from absl import flags

from eet_tf.cli.complaints import Complaints
from eet_tf.cli.door import Definitions


def define_embedder(define: Definitions, values: flags.FlagValues) -> None:
    """Defines `--saved_model`, `--server` and what goes with them."""
    define.string("saved_model", None, "Path of the SavedModel that embeds the query. By default that of the index.")
    define.string("server", None, "Embed on a server instead: host:8500 (gRPC) or http://host:8501 (REST).")
    define.string("server_model", "embedder", "Name of the embedder on --server.")
    define.integer("server_version", None, "Version of the embedder on --server. By default the newest that is served.")
    define.float("server_deadline", 10.0, "Seconds to wait for --server while it is unreachable or busy.")
    define.float(
        "server_max_megapixels", 40.0, "Million pixels of a photo sent to --server at most; as in `eet export`."
    )
    flags.mark_flags_as_mutual_exclusive(["saved_model", "server"], flag_values=values)


def check(complaints: Complaints, values: flags.FlagValues) -> None:
    """Complains about flags that cannot work, before anything is loaded or asked."""
    complaints.number("server_version", values.server_version, 1)
    complaints.above("server_deadline", values.server_deadline, 0)
    complaints.above("server_max_megapixels", values.server_max_megapixels, 0)
    if values.server and complaints.are_none:
        complaints.given("server", values.server, lambda _: _client(values).close())


def embedder(values: flags.FlagValues, index_saved_model: str) -> contextlib.AbstractContextManager:
    """What embeds, for a `with`: an `EmbeddingClient`, or a `ServedEmbedder` in this process.

    Args:
        values: the flags.
        index_saved_model: the SavedModel of the index, for where none is named.

    Raises:
        CommandError: if the SavedModel cannot be used.
    """
    if values.server:
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # nothing is embedded here, and pictures for pages need no GPU
        return _client(values)
    from eet_tf.serving import ServedEmbedder

    complaints = Complaints()
    chosen = complaints.given("saved_model", values.saved_model or index_saved_model, ServedEmbedder)
    complaints.end()
    return contextlib.nullcontext(chosen)


def _client(values: flags.FlagValues):
    from eet_tf.client import EmbeddingClient, ServingError

    try:
        return EmbeddingClient(
            values.server,
            values.server_model,
            values.server_version,
            deadline=values.server_deadline,
            max_pixels=round(values.server_max_megapixels * 1e6),
        )
    except ServingError as error:
        raise ValueError(str(error)) from error
