"""How a catalogue is embedded on many machines: an Apache Beam pipeline from shards of photos to embedding files.

Every worker needs this package, and sees the photos, the SavedModel and the folder of embeddings under the same paths.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import apache_beam as beam
import numpy as np
from apache_beam.metrics import Metrics
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
from apache_beam.runners.runner import PipelineState
from apache_beam.utils import shared

from eet_tf.data import remote
from eet_tf.data.reading import read_batches
from eet_tf.embedding.files import EmbeddingFolder
from eet_tf.serving import ServedEmbedder

# DirectRunner first looks for another program on the internet, and may run that; this one it falls back to
_LOCAL_RUNNER = "FnApiRunner"


class EmbeddingPipelineError(ValueError):
    """A pipeline that cannot be started or did not end well; the message says why and how to go on."""


class ShardSummary(NamedTuple):
    """What became of a shard: how many photos it has, and the files that are no images."""

    shard: int
    num_photos: int
    unreadable: list[str]


class EmbedShard(beam.DoFn):
    """Embeds the photos of a shard and writes its file; of one worker process's threads all use one SavedModel.

    A shard that is embedded twice, as runners may do, is written twice: whole each time, and the same.

    Args:
        folder: where the files go; an absolute path.
        saved_model: the version's folder of the SavedModel; absolute.
        root: the folder that the photos' paths start from, absolute, or a URL.
        batch_size: photos embedded at once.
        photo_cache: folder in which photos at URLs are kept; absolute, `""` for none.
    """

    def __init__(self, folder: EmbeddingFolder, saved_model: str, root: str, batch_size: int, photo_cache: str = ""):
        self._folder = folder
        self._saved_model = saved_model
        self._root = root
        self._batch_size = batch_size
        self._photo_cache = photo_cache
        self._shared = shared.Shared()
        self._embedded = Metrics.counter(EmbedShard, "photos_embedded")
        self._unreadable = Metrics.counter(EmbedShard, "photos_unreadable")

    def setup(self) -> None:
        """Loads the SavedModel, unless another thread of this process has it.

        Raises:
            EmbeddingPipelineError: if this worker does not see the photos or the folder of embeddings.
        """
        for folder in (self._root, self._folder.folder):
            if not remote.is_url(folder) and not os.path.isdir(folder):
                raise EmbeddingPipelineError(f"a worker does not see the folder {folder!r}")
        self._embedder = self._shared.acquire(lambda: ServedEmbedder(self._saved_model))

    def process(self, element: tuple[int, list[str]]) -> Iterator[ShardSummary]:
        """Takes a shard's number and its photos' paths; yields its summary."""
        shard, photos = element
        files = [remote.joined(self._root, photo) for photo in photos]
        embeddings = np.zeros([len(files), self._folder.embedding_dim], np.float32)
        ok = np.zeros(len(files), np.bool_)
        start = 0
        for contents in read_batches(files, self._batch_size, self._photo_cache):
            batch = slice(start, start + len(contents))
            embeddings[batch], ok[batch] = self._embedder.embed(contents)
            start = batch.stop
        self._folder.write(shard, photos, embeddings, ok)
        self._embedded.inc(int(ok.sum()))
        self._unreadable.inc(int((~ok).sum()))
        yield ShardSummary(shard, len(files), [files[row] for row in np.flatnonzero(~ok)])


def pipeline_options(arguments: Sequence[str]) -> PipelineOptions:
    """Beam's options from its usual flags; without `--runner`, the direct runner in this process.

    Raises:
        EmbeddingPipelineError: for a flag that Beam does not know, or a value it does not take.

    Example:

    >>> pipeline_options(["--direct_num_workers=2"]).get_all_options(drop_default=True)
    {'runner': 'FnApiRunner', 'direct_num_workers': 2}
    """

    def refuse_unknown(parser: argparse.ArgumentParser) -> None:
        parser.exit_on_error = False
        try:
            unknown = parser.parse_known_args(arguments)[1]
        except argparse.ArgumentError as error:
            raise EmbeddingPipelineError(f"a flag of Beam: {error}.") from error
        if unknown:
            raise EmbeddingPipelineError(
                f"unknown flag {unknown[0]!r}: neither this script nor Beam has it. See --help."
            )

    options = PipelineOptions(list(arguments))
    options.get_all_options(add_extra_args_fn=refuse_unknown)
    runner = options.view_as(StandardOptions)
    runner.runner = runner.runner or _LOCAL_RUNNER
    return options


def embed_shards(options: PipelineOptions, embed: EmbedShard, shards: Sequence[tuple[int, list[str]]]) -> None:
    """Runs the pipeline to its end.

    Args:
        options: which runner, and its settings.
        embed: what is done with each shard.
        shards: the number and the photos' paths of each shard to embed.

    Raises:
        EmbeddingPipelineError: if it did not end well. What was embedded until then stays.
    """
    try:
        pipeline = beam.Pipeline(options=options)
        _ = pipeline | beam.Create(list(shards)) | beam.Reshuffle() | beam.ParDo(embed)
        result = pipeline.run()
        result.wait_until_finish()
    except Exception as error:  # each runner has its own
        raise _stopped(str(error).strip() or repr(error)) from error
    if result.state != PipelineState.DONE:
        raise _stopped(f"its state is {result.state}")


def _stopped(reason: str) -> EmbeddingPipelineError:
    """Runners put a worker's whole traceback into their message; its last line says what happened."""
    last = reason.splitlines()[-1].rstrip(".")
    return EmbeddingPipelineError(f"the pipeline stopped: {last}. What is embedded stays; run the same command again.")
