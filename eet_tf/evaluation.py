"""Retrieval measured on an embedder: of a dataset, and after every epoch of a training."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf

from eet_tf import metrics, postprocessing


def embed(embedder: keras.Model, dataset: tf.data.Dataset, verbose: int = 0) -> np.ndarray:
    """The embeddings of a dataset of image batches, in its order: `[N, D]` float32.

    Args:
        embedder: a model from images to embeddings, or to a dict that holds them under `"embedding"`.
        dataset: batches of images, e.g. `gallery_dataset(catalog, image_size)`.
        verbose: as in `keras.Model.predict`; 1 shows a progress bar.
    """
    # every worker embeds all photos; and looking whether to shard them takes a second at each pass
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    dataset = dataset.with_options(options)
    sizes: dict[int, tuple[int, int]] = {}
    replicas = embedder.distribute_strategy.num_replicas_in_sync
    if replicas > 1 or embedder.jit_compile:
        dataset, sizes = _in_equal_batches(dataset, replicas)
    outputs = embedder.predict(dataset, verbose=verbose)
    embeddings = np.asarray(outputs["embedding"] if isinstance(outputs, Mapping) else outputs, np.float32)
    asked_for = [np.arange(padded) < size for _, (size, padded) in sorted(sizes.items())]
    return embeddings[np.concatenate(asked_for)] if asked_for else embeddings


def _in_equal_batches(dataset: tf.data.Dataset, replicas: int) -> tuple[tf.data.Dataset, dict[int, tuple[int, int]]]:
    """Batches filled up with their last image, so that each is as large as the largest before and replicas share it.

    XLA would compile the network anew for a smaller last batch. And convolutions on CPUs fail in a replica that is left
    without images.

    Returns:
        The dataset, and `{number of the batch: (its own size, its size here)}`, known once the dataset has been read.
    """
    sizes: dict[int, tuple[int, int]] = {}
    largest = 0

    def note(number, size):
        nonlocal largest
        largest = max(largest, int(size) + -int(size) % replicas)
        sizes[int(number)] = int(size), largest
        return np.int32(largest - size)

    def fill_up(number, images):
        missing = tf.ensure_shape(tf.numpy_function(note, [number, tf.shape(images)[0]], tf.int32), [])
        filled = tf.concat([images, tf.repeat(images[-1:], missing, axis=0)], axis=0)
        return tf.ensure_shape(filled, [None, *images.shape[1:]])

    return dataset.enumerate().map(fill_up).prefetch(2), sizes


def rank_catalog(
    embeddings, labels, roles=None, query_expansion: int = 0, alpha: float = 3.0, rerank: bool = False
) -> metrics.RetrievalResult:
    """Ranks a catalogue by its own protocol: its queries against its gallery, or every photo against all the others.

    Args:
        embeddings: `[N, D]`, one for each photo.
        labels: `[N]` the class of each photo.
        roles: `[N]` of `"query"`, `"gallery"` and `""`, e.g. `catalog.roles`, or None. If it has queries and a gallery,
            the ones are ranked against the other. Otherwise every photo is ranked against all the others.
        query_expansion: how many neighbours are added to each query by `postprocessing.expand_queries`; 0: none.
        alpha: how much the nearest of them weigh, as there.
        rerank: whether the nearest 100 are put into another order by `postprocessing.rerank`; as many as a query has
            right answers if that is more.

    Returns:
        A `RetrievalResult`, whose `summary(ks)` is what `evaluate_retrieval` returns.

    Raises:
        ValueError: if shapes do not fit, if beside queries and a gallery some photos have no role, if queries are to
            be both expanded and re-ranked, or as in `evaluate_retrieval`.

    Example:

    >>> embeddings, labels = [[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]], ["mug", "mug", "cup"]
    >>> rank_catalog(embeddings, labels, ["query", "gallery", "gallery"]).summary(ks=[1])["num_queries"]
    1
    """
    embeddings, labels = np.asarray(embeddings), np.asarray(labels)
    if roles is not None and not np.shape(roles) == labels.shape == embeddings.shape[:1]:
        raise ValueError(
            "`roles` and `labels` must have one value for each embedding. "
            f"Received: shapes {np.shape(roles)} and {labels.shape} for {len(embeddings)} embeddings."
        )
    if query_expansion and rerank:
        raise ValueError(
            "`query_expansion` must be 0 if `rerank`: the one changes queries that the other searches with."
        )
    query = is_query(len(labels), roles)
    if query.all():
        return _rank(embeddings, labels, embeddings, labels, True, query_expansion, alpha, rerank)
    is_neither = ~query & (np.asarray(roles) != "gallery")
    if is_neither.any():
        raise ValueError(
            "`roles` must be 'query' or 'gallery' for all photos or for none. "
            f"Received: {np.sum(is_neither)} of {len(labels)} photos with neither. "
            "Measure one split at a time, e.g. catalog.split('test')."
        )
    parts = embeddings[query], labels[query], embeddings[~query], labels[~query]
    return _rank(*parts, False, query_expansion, alpha, rerank)


def _rank(
    queries, labels, gallery, gallery_labels, leave_out_self: bool, query_expansion: int, alpha: float, rerank: bool
) -> metrics.RetrievalResult:
    others = None if leave_out_self else gallery
    if query_expansion:
        queries = postprocessing.expand_queries(queries, others, query_expansion, alpha)
    result = metrics.rank_queries(queries, labels, gallery, gallery_labels, leave_out_self)
    if not rerank:
        return result
    largest_class = np.unique(gallery_labels, return_counts=True)[1].max()
    rows, distances = postprocessing.rerank(queries, others, max(100, int(largest_class)))
    return metrics.reorder(result, rows, distances, gallery_labels, leave_out_self)


def is_query(num_photos: int, roles=None) -> np.ndarray:
    """`[N]` bool: the photos that `rank_catalog` asks for, in the order of its result.

    Args:
        num_photos: N.
        roles: `[N]`, or None; as in `rank_catalog`.

    Example:

    >>> is_query(3, ["query", "gallery", "query"]).tolist(), is_query(3).tolist()
    ([True, False, True], [True, True, True])
    """
    roles = np.full(num_photos, "") if roles is None else np.asarray(roles)
    has_both = np.isin(["query", "gallery"], roles).all()
    return roles == "query" if has_both else np.full(num_photos, True)


class RetrievalEvaluation(keras.callbacks.Callback):
    """Embeds a catalogue after every epoch and adds R@K and mAP@R to the epoch's logs.

    It measures the running averages of the weights where a `MetricLearner`'s optimizer keeps them. Put it before
    callbacks that read those logs. Use photos of products that are not trained on, and never those that
    the final figures come from.

    Args:
        dataset: batches of images, e.g. `gallery_dataset(held_out, image_size)`.
        labels: `[N]` the class of each image.
        ks: the K of each R@K.
        prefix: put before each name, as Keras does for validation.
        verbose: as in `keras.Model.predict`; 1 shows a progress bar, for catalogues that take a while.
        roles: `[N]` the role of each image, or None; as in `rank_catalog`.

    Example:

    >>> evaluation = RetrievalEvaluation(gallery_dataset(held_out, 64), held_out.labels)  # doctest: +SKIP
    >>> learner.fit(dataset, callbacks=[evaluation])  # doctest: +SKIP
    """

    def __init__(
        self,
        dataset: tf.data.Dataset,
        labels,
        ks: Sequence[int] = (1, 10),
        prefix: str = "val_",
        verbose: int = 0,
        roles=None,
    ):
        super().__init__()
        self.dataset = dataset
        self.labels = np.asarray(labels)
        self.ks = tuple(ks)
        self.prefix = prefix
        self.verbose = verbose
        self.roles = roles

    def on_epoch_end(self, epoch, logs=None):
        """Measures, and adds to `logs`."""
        with getattr(self.model, "averaged", contextlib.nullcontext)():
            embeddings = embed(self.model, self.dataset, self.verbose)
        summary = rank_catalog(embeddings, self.labels, self.roles).summary(self.ks)
        shares = {name: value for name, value in summary.items() if not name.startswith("num_")}
        logs.update({self.prefix + name: value for name, value in shares.items()})
