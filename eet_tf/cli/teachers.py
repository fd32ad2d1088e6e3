"""The teacher of a distillation: whose vectors they are, where they come from, and which photos have one."""

from __future__ import annotations

import os
import zipfile
from typing import Any

from eet_tf.cli.training_flags import FLAGS, is_shared
from eet_tf.terminal import Progress

_FOLDER = "teacher"  # in the run's folder: the vectors, where they were embedded for the training


def check_teacher(catalogs: list) -> None:
    """Refuses what can be told of `--teacher` before TensorFlow starts, for photos of some catalogues.

    Raises:
        ValueError: if nothing is there, or it is a folder of vectors that has not one for each photo, or of another
            length than `--embedding_dim`.
    """
    from eet_tf.embedding import files

    if _is_folder_of_vectors():
        folder = files.open_folder(FLAGS.teacher)
        _check_dim(folder.embedding_dim)
        for catalog in catalogs:
            folder.read(catalog.paths)
    elif not _is_model(FLAGS.teacher):
        raise ValueError(
            "--teacher must be a folder that `eet embed` wrote, or a model: a SavedModel, a training's folder or a "
            f".keras file. Received: --teacher={FLAGS.teacher}."
        )
    elif is_shared():
        raise ValueError(
            "--teacher must be a folder that `eet embed` wrote where several workers train: each reads it. "
            f"Received: --teacher={FLAGS.teacher} with --strategy=multi_worker."
        )


def prepared(run, catalogs: list):
    """The folder of the teacher's vectors, a model's embedded first; `teacher.json` in the run's folder says whose.

    What was embedded once is not embedded again: the vectors lie in the run's folder, in files of 5,000 photos.

    Args:
        run: the `RunFolder`.
        catalogs: the photos that need a vector.

    Raises:
        ValueError: if the teacher cannot be opened, or its vectors have another length than `--embedding_dim`.
    """
    from eet_tf.embedding import files
    from eet_tf.training.run import TEACHER

    if _is_folder_of_vectors():
        folder = files.open_folder(FLAGS.teacher)
    else:
        folder = _embedded(run, catalogs)
    if run.writes:
        facts = {"teacher": FLAGS.teacher, "fingerprint": folder.fingerprint, "embedding_dim": folder.embedding_dim}
        run.write_json(TEACHER, facts)
    return folder


def _is_folder_of_vectors() -> bool:
    from eet_tf.embedding import files

    return os.path.isfile(os.path.join(FLAGS.teacher, files.MANIFEST))


def _is_model(path: str) -> bool:
    """Whether it looks like one; it is opened later, as TensorFlow must not start before its devices are chosen."""
    from eet_tf.serving import SavedModelError, newest_version

    try:
        newest_version(path)
    except SavedModelError:
        return zipfile.is_zipfile(os.path.join(path, "model.keras") if os.path.isdir(path) else path)
    return True


def _check_dim(embedding_dim: int) -> None:
    if embedding_dim != FLAGS.embedding_dim:
        raise ValueError(
            f"--embedding_dim must be the {embedding_dim} of --teacher. Received: --embedding_dim="
            f"{FLAGS.embedding_dim}."
        )


def _embedded(run, catalogs: list):
    """A folder in the run's folder with the vectors of all photos."""
    import numpy as np

    from eet_tf.embedding import files

    model: Any = _Model(FLAGS.teacher)
    _check_dim(model.embedding_dim)
    os.makedirs(run.path(_FOLDER), exist_ok=True)
    paths = np.concatenate([catalog.paths for catalog in catalogs])
    num_shards = files.choose_num_shards(None, None, len(paths))
    where = os.path.relpath(FLAGS.teacher, run.path(_FOLDER))
    folder = files.EmbeddingFolder(run.path(_FOLDER), model.fingerprint, model.embedding_dim, num_shards, where)
    folder.save()
    starts = np.cumsum([0, *map(len, catalogs)])
    undone = [
        (shard, rows)
        for shard, rows in enumerate(folder.deal(paths.tolist()))
        if not folder.is_done(shard, paths[rows])
    ]
    progress, done = Progress("photos embedded by the teacher", sum(len(rows) for _, rows in undone)), 0
    for shard, rows in undone:
        parts = [
            catalog.take(rows[(rows >= start) & (rows < start + len(catalog))] - start)
            for catalog, start in zip(catalogs, starts)
        ]
        vectors = np.concatenate([model.embed(part) for part in parts if len(part)])
        folder.write(shard, paths[rows], vectors, np.ones(len(rows), bool))
        done += len(rows)
        progress.update(done)
    if undone:
        progress.end(done)
    return folder


class _Model:
    """A teacher that is a model: a SavedModel, a run's folder or a `.keras` file.

    Args:
        path: of the model.
    """

    def __init__(self, path: str):
        from eet_tf import load_embedder
        from eet_tf.serving import ServedEmbedder, embedder_fingerprint, newest_version
        from eet_tf.serving.servable import SavedModelError, servable

        self._served: Any = None
        self._embedder: Any = None
        try:
            newest_version(path)
        except SavedModelError:
            self._embedder = servable(load_embedder(path))
            self.fingerprint = embedder_fingerprint(self._embedder)
            shapes = self._embedder.output_shape
            self.embedding_dim = (shapes["embedding"] if isinstance(shapes, dict) else shapes)[-1]
        else:
            self._served = ServedEmbedder(path)
            self.fingerprint, self.embedding_dim = self._served.fingerprint, self._served.embedding_dim

    def embed(self, catalog):
        """The vectors of photos, `[N, D]` float32."""
        from eet_tf import data
        from eet_tf.embedder import photo_fit
        from eet_tf.evaluation.callback import embed

        if self._served is not None:
            return self._served.embed_catalog(catalog)
        size, fit = self._embedder.input_shape[1], photo_fit(self._embedder)
        return embed(self._embedder, data.gallery_dataset(catalog, size, fit=fit))
