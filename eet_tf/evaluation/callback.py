"""Retrieval measured on an embedder: of a dataset, and after every epoch of a training."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf

from eet_tf.evaluation import metrics, postprocessing
from eet_tf.labels import check_labels, numbered

_BATCH = 64  # images of an array that are embedded at once
_ROLES = ("query", "gallery", "")


def embed(embedder: keras.Model, images, verbose: int = 0, output: str | int | None = None) -> np.ndarray:
    """The embeddings of images, in their order: `[N, D]` float32.

    Args:
        embedder: a model from images to embeddings, or to several outputs.
        images: batches of images as a dataset, e.g. `gallery_dataset(catalog, image_size)`, or as a list of arrays; or
            all of them in one array `[N, ...]`. Of a dataset of `(images, labels)` the images are taken.
        verbose: as in `keras.Model.predict`; 1 shows a progress bar.
        output: which of several outputs holds the embeddings, by its name or its number; by default the one named
            `"embedding"`, or the only one.

    Raises:
        ValueError: if there is no such output.
    """
    # every worker embeds all photos; and looking whether to shard them takes a second at each pass
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    dataset = batches_of(images).with_options(options)
    sizes: dict[int, tuple[int, int]] = {}
    replicas = embedder.distribute_strategy.num_replicas_in_sync
    if replicas > 1 or embedder.jit_compile:
        dataset, sizes = _in_equal_batches(dataset, replicas)
    outputs = embedder.predict(dataset, verbose=verbose)
    embeddings = np.asarray(_chosen_output(embedder, outputs, output), np.float32)
    asked_for = [np.arange(padded) < size for _, (size, padded) in sorted(sizes.items())]
    return embeddings[np.concatenate(asked_for)] if asked_for else embeddings


def batches_of(images) -> tf.data.Dataset:
    """A dataset of batches of images, from whatever `embed` takes.

    Example:

    >>> [batch.shape[0] for batch in batches_of(np.zeros([150, 4], np.float32))]
    [64, 64, 22]
    """
    if isinstance(images, tf.data.Dataset):
        return images.map(lambda *parts: parts[0]) if isinstance(images.element_spec, tuple) else images
    if isinstance(images, (list, tuple)):
        batches = [np.asarray(batch) for batch in images]
    else:
        array = np.asarray(images)
        batches = [array[start : start + _BATCH] for start in range(0, len(array) if array.ndim else 0, _BATCH)]
    kinds = {(batch.shape[1:], batch.dtype) for batch in batches}
    if len(kinds) != 1 or not batches[0].ndim > 1 or batches[0].dtype.kind not in "iufb":
        raise ValueError(
            "`images` must be an array [N, ...] of numbers, a list of such batches that are alike but for N, or a "
            f"tf.data.Dataset of batches. Received: {_described(images, batches)}."
        )
    signature = tf.TensorSpec([None, *batches[0].shape[1:]], batches[0].dtype)
    dataset = tf.data.Dataset.from_generator(lambda: iter(batches), output_signature=signature)
    return dataset.apply(tf.data.experimental.assert_cardinality(len(batches)))


def _described(images, batches: list[np.ndarray]) -> str:
    if isinstance(images, np.ndarray) or not batches:
        return f"images of shape {np.shape(images)}"
    return f"batches of {', '.join(f'{batch.dtype} {batch.shape}' for batch in batches[:5])}"


def _chosen_output(model: keras.Model, outputs, output: str | int | None):
    """One of a model's outputs, by name or number."""
    if isinstance(outputs, Mapping):
        named = dict(outputs)
    elif isinstance(outputs, (list, tuple)):
        names = getattr(model, "output_names", None) or []  # a model of one's own class has none
        named = dict(zip(names if len(names) == len(outputs) else range(len(outputs)), outputs))
    else:
        named = {"": outputs}
    if output is None and "embedding" in named:
        return named["embedding"]
    if output is None and len(named) == 1:
        return next(iter(named.values()))
    if isinstance(output, str) and output and output in named:
        return named[output]
    is_number = not isinstance(output, bool) and not isinstance(outputs, Mapping)
    if is_number and isinstance(output, int) and 0 <= output < len(named):
        return list(named.values())[output]
    known = ", ".join(repr(name) for name in named if name != "") or "none that have names, and 0 as its number"
    raise ValueError(f"`output` must be one of the model's outputs: {known}. Received: output={output!r}.")


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
    embeddings,
    labels,
    roles=None,
    query_expansion: int = 0,
    alpha: float = 3.0,
    rerank: bool = False,
    other_embeddings=None,
    other_labels=None,
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
        other_embeddings: `[M, D]` of photos that are searched too and never asked for, or None. With those of the
            products that were trained on, unseen products are searched in the whole catalogue, as a shop does it.
        other_labels: `[M]` the class of each, given exactly if `other_embeddings` is.

    Returns:
        A `RetrievalResult`, whose `summary(ks)` is what `evaluate_retrieval` returns.

    Raises:
        ValueError: if shapes do not fit, if a role is none of the three, if beside queries and a gallery some photos
            have none, if queries are to be both expanded and re-ranked, or either among other photos, or as in
            `evaluate_retrieval`.

    Example:

    >>> embeddings, labels = [[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]], ["mug", "mug", "cup"]
    >>> rank_catalog(embeddings, labels, ["query", "gallery", "gallery"]).summary(ks=[1])["num_queries"]
    1
    """
    embeddings, labels = np.asarray(embeddings), check_labels("labels", labels)
    if roles is not None and not np.shape(roles) == labels.shape == embeddings.shape[:1]:
        raise ValueError(
            "`roles` and `labels` must have one value for each embedding. "
            f"Received: shapes {np.shape(roles)} and {labels.shape} for {len(embeddings)} embeddings."
        )
    if query_expansion and rerank:
        raise ValueError(
            "`query_expansion` must be 0 if `rerank`: the one changes queries that the other searches with."
        )
    if (other_embeddings is None) != (other_labels is None):
        raise ValueError("`other_embeddings` and `other_labels` must be given together.")
    if other_embeddings is not None and (query_expansion or rerank):
        raise ValueError("`query_expansion` must be 0 and `rerank` False where `other_embeddings` are searched too.")
    query = is_query(len(labels), roles)
    if query.all() and other_embeddings is None:
        return _rank(embeddings, labels, embeddings, labels, True, query_expansion, alpha, rerank)
    is_neither = ~query & (np.asarray(roles) != "gallery")
    if is_neither.any():
        raise ValueError(
            "`roles` must be 'query' or 'gallery' for all photos or for none. "
            f"Received: {np.sum(is_neither)} of {len(labels)} photos with neither. "
            "Measure one split at a time, e.g. catalog.split('test')."
        )
    if other_embeddings is not None:
        return _rank_among(embeddings, labels, query, other_embeddings, other_labels)
    parts = embeddings[query], labels[query], embeddings[~query], labels[~query]
    return _rank(*parts, False, query_expansion, alpha, rerank)


def _rank_among(embeddings, labels, query, other_embeddings, other_labels) -> metrics.RetrievalResult:
    """As `rank_catalog`, with a gallery that has other photos besides."""
    others, other_labels = np.asarray(other_embeddings), check_labels("other_labels", other_labels)
    if others.ndim != 2 or others.shape[1:] != embeddings.shape[1:] or others.shape[:1] != other_labels.shape:
        raise ValueError(
            f"`other_embeddings` must be [M, {embeddings.shape[-1]}] and `other_labels` [M]. "
            f"Received: shapes {others.shape} and {other_labels.shape}."
        )
    numbers, other_numbers = numbered("labels", labels, "other_labels", other_labels)
    are_all = bool(query.all())
    searched = query if are_all else ~query
    gallery = np.concatenate([embeddings[searched], others])
    gallery_labels = np.concatenate([numbers[searched], other_numbers])
    result = metrics.rank_queries(embeddings[query], numbers[query], gallery, gallery_labels, are_all)
    return dataclasses.replace(result, labels=labels[query])


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

    Raises:
        ValueError: if there is not one for each photo, or one is none of the three.

    Example:

    >>> is_query(3, ["query", "gallery", "query"]).tolist(), is_query(3).tolist()
    ([True, False, True], [True, True, True])
    """
    if roles is None:
        return np.full(num_photos, True)
    roles = check_labels("roles", roles, num_photos, may_be_empty=True).astype(np.str_)
    unknown = np.flatnonzero(~np.isin(roles, _ROLES))
    if unknown.size:
        raise ValueError(
            "`roles` must be 'query', 'gallery' or '' (both). "
            f"Received: roles[{unknown[0]}]={str(roles[unknown[0]])!r}."
        )
    has_both = np.isin(["query", "gallery"], roles).all()
    return roles == "query" if has_both else np.full(num_photos, True)


class RetrievalEvaluation(keras.callbacks.Callback):
    """Embeds a catalogue after every epoch and adds R@K and mAP@R to the epoch's logs.

    It measures the running averages of the weights where a `MetricLearner`'s optimizer keeps them. Put it before
    callbacks that read those logs. Use photos of products that are not trained on, and never those that
    the final figures come from.

    Args:
        dataset: batches of images, e.g. `gallery_dataset(held_out, image_size)`, or arrays; as in `evaluation.embed`.
        labels: `[N]` or `[N, 1]` the class of each image, integers or strings.
        ks: the K of each R@K, different positive integers.
        prefix: put before each name, as Keras does for validation.
        verbose: as in `keras.Model.predict`; 1 shows a progress bar, for catalogues that take a while.
        roles: `[N]` the role of each image, or None; as in `rank_catalog`.
        output: which of several outputs of the model holds the embeddings, by its name or its number; by default the
            one named `"embedding"`, or the only one.
        other_dataset: images that are searched too and never asked for, or None. With the photos that are trained on,
            the epoch that is best in a whole catalogue is found; few products among themselves are found too easily.
        other_labels: `[M]` the class of each, given exactly if `other_dataset` is.

    Raises:
        ValueError: if a label is missing, no two are the same, they are not as many as the images, as far as a dataset
            tells, or `ks` or `roles` are wrong; and, before the first epoch, if the model has no such output.

    Example:

    >>> evaluation = RetrievalEvaluation(gallery_dataset(held_out, 64), held_out.labels)  # doctest: +SKIP
    >>> learner.fit(dataset, callbacks=[evaluation])  # doctest: +SKIP
    """

    def __init__(
        self,
        dataset: tf.data.Dataset | np.ndarray | Sequence[np.ndarray],
        labels,
        ks: Sequence[int] = (1, 10),
        prefix: str = "val_",
        verbose: int = 0,
        roles=None,
        output: str | int | None = None,
        other_dataset: tf.data.Dataset | np.ndarray | Sequence[np.ndarray] | None = None,
        other_labels=None,
    ):
        super().__init__()
        self.dataset = batches_of(dataset)
        self.labels = check_labels("labels", labels, _num_images(dataset))
        _check_number_of_batches("", self.dataset, self.labels)
        if (other_dataset is None) != (other_labels is None):
            raise ValueError("`other_dataset` and `other_labels` must be given together.")
        self.other_dataset = self.other_labels = None
        if other_dataset is not None:
            self.other_dataset = batches_of(other_dataset)
            self.other_labels = check_labels("other_labels", other_labels, _num_images(other_dataset))
            _check_number_of_batches("other_", self.other_dataset, self.other_labels)
        if len(np.unique(self.labels)) == len(self.labels):
            raise ValueError("`labels` must repeat: no image would have a right answer among the others.")
        self.ks = metrics.check_ks(ks)
        self.prefix = prefix
        self.verbose = verbose
        self.roles = roles
        self.output = output
        is_query(len(self.labels), roles)

    def on_train_begin(self, logs=None):
        """Looks, before anything is learnt, whether the model has the output.

        Raises:
            ValueError: if it has not.
        """
        for images in self.dataset.take(1):
            one = tf.nest.map_structure(lambda part: part[:1], images)
            _chosen_output(self.model, self.model(one, training=False), self.output)

    def on_epoch_end(self, epoch, logs=None):
        """Measures, and adds to `logs`."""
        others = None
        with getattr(self.model, "averaged", contextlib.nullcontext)():
            embeddings = embed(self.model, self.dataset, self.verbose, self.output)
            if self.other_dataset is not None:
                others = embed(self.model, self.other_dataset, self.verbose, self.output)
        ranking = rank_catalog(
            embeddings, self.labels, self.roles, other_embeddings=others, other_labels=self.other_labels
        )
        summary = ranking.summary(self.ks)
        shares = {name: value for name, value in summary.items() if not name.startswith("num_")}
        logs.update({self.prefix + name: value for name, value in shares.items()})


def _num_images(images) -> int | None:
    """How many there are, unless a dataset holds them."""
    if isinstance(images, tf.data.Dataset):
        return None
    return sum(len(batch) for batch in images) if isinstance(images, (list, tuple)) else len(np.asarray(images))


def _check_number_of_batches(prefix: str, dataset: tf.data.Dataset, labels: np.ndarray) -> None:
    """Compares labels with images, as far as a dataset knows how many it holds; `prefix` is that of the arguments."""
    batches, images = (int(each.cardinality()) for each in (dataset, dataset.unbatch()))
    if tf.data.INFINITE_CARDINALITY in (batches, images):
        raise ValueError(f"`{prefix}dataset` must end. Received: one that goes on for ever; take .take(N) of it.")
    if images >= 0 and images != len(labels) or batches > len(labels):
        count = f"{images} images" if images >= 0 else f"{batches} batches"
        raise ValueError(
            f"`{prefix}labels` must be one for each image of the dataset. Received: {len(labels)} labels for {count}."
        )
