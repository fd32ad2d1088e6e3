"""How good a ranking is: R@K, mAP@R and R-precision from the places of right answers. NumPy only."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from eet_tf.evaluation import ranking
from eet_tf.labels import check_labels, numbered


@dataclasses.dataclass(frozen=True, eq=False)
class RetrievalResult:
    """How well each query was answered; `rank_queries` makes it.

    Attributes:
        labels: `[Q]` the class of each query.
        first_places: `[Q]` int64, the place of its first right answer, from 1; 0 if the gallery has none.
        product_places: `[Q]` int64, the place of its class, from 1, where each class stands at its best photo, as a
            search shows each product once; 0 if the gallery has none of it.
        average_precisions: `[Q]` its average precision @R, as in `evaluate_retrieval`; NaN if the gallery has none.
        r_precisions: `[Q]` the share of right answers among its first R; NaN if the gallery has none.
    """

    labels: np.ndarray
    first_places: np.ndarray
    product_places: np.ndarray
    average_precisions: np.ndarray
    r_precisions: np.ndarray

    @property
    def is_answered(self) -> np.ndarray:
        """`[Q]` bool: the gallery has a right answer."""
        return self.first_places > 0

    def summary(self, ks: Sequence[int]) -> dict[str, float]:
        """The means over the answered queries, and how many there are: what `evaluate_retrieval` returns.

        Raises:
            ValueError: if `ks` are not different positive integers.
        """
        means = {name: float(np.mean(values)) for name, values in self._figures(ks).items()}
        num_queries = int(np.sum(self.is_answered))
        return {**means, "num_queries": num_queries, "num_without_answer": len(self.labels) - num_queries}

    def of_products(self, ks: Sequence[int]) -> dict[str, float]:
        """What a shop sees that shows each product once: whether the right one is among the first K products.

        Each class counts once, however many of its photos are searched for. Ties count against us.

        Args:
            ks: the K, different positive integers.

        Returns:
            `"product_recall@K"` for each K: the mean over classes of the share of its queries whose class is among the
            first K; and `"num_products"`, how many classes have an answered query.

        Raises:
            ValueError: if `ks` are not different positive integers.

        Example:

        >>> gallery, skus = [[1.0, 0.0], [1.0, 0.1], [1.0, 0.3], [0.0, 1.0]], ["cup", "cup", "mug", "jug"]
        >>> result = rank_queries([[1.0, 0.05], [0.0, 1.0]], ["mug", "jug"], gallery, skus)
        >>> result.first_places.tolist(), result.product_places.tolist()
        ([3, 1], [2, 1])
        >>> result.of_products(ks=[1, 2])
        {'product_recall@1': 0.5, 'product_recall@2': 1.0, 'num_products': 2}
        """
        _, classes = np.unique(self.labels[self.is_answered], return_inverse=True)
        places, sizes = self.product_places[self.is_answered], np.bincount(classes)
        shares = {k: np.bincount(classes, weights=places <= k) / sizes for k in check_ks(ks)}
        means = {f"product_recall@{k}": float(np.mean(share)) for k, share in shares.items()}
        return {**means, "num_products": len(sizes)}

    def by_class(self, ks: Sequence[int]) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        """The sums over the answered queries of each class that has one, so that classes can be added up.

        Args:
            ks: the K of each R@K.

        Returns:
            `(labels, num_queries, sums)`: `[C]` classes in sorted order, `[C]` their numbers of answered queries, and
            for each name of `evaluate_retrieval` the `[C]` sums, those of `"recall@K"` being int64 numbers of queries
            with a right answer among the first K.

        Raises:
            ValueError: if `ks` are not different positive integers.

        Example:

        >>> result = rank_queries([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]], ["mug", "mug", "cup"])
        >>> labels, num_queries, sums = result.by_class(ks=[1])
        >>> labels.tolist(), num_queries.tolist(), sums["recall@1"].tolist()
        (['mug'], [2], [2])
        """
        labels, classes = np.unique(self.labels[self.is_answered], return_inverse=True)
        sums = {
            name: np.bincount(classes, weights=values).astype(values.dtype)
            for name, values in self._figures(ks).items()
        }
        return labels, np.bincount(classes), sums

    def by_group(self, groups, ks: Sequence[int]) -> dict[str, dict[str, float]]:
        """The `summary` of the queries of each group, e.g. of each category, ranked as ever: against the whole gallery.

        Args:
            groups: `[Q]` the group of each query.
            ks: the K of each R@K.

        Returns:
            `{group: summary}` in sorted order, the groups as text; those with no answered query are left out.

        Raises:
            ValueError: if there is not one group for each query, a group is missing, or `ks` are not different
                positive integers.

        Example:

        >>> result = rank_queries([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]], ["mug", "mug", "cup"])
        >>> result.by_group(["kitchen", "kitchen", "bar"], ks=[1])["kitchen"]["recall@1"]
        1.0
        """
        groups = check_labels("groups", groups, len(self.labels), may_be_empty=True)
        return {
            str(group): dataclasses.replace(
                self, **{field.name: getattr(self, field.name)[groups == group] for field in dataclasses.fields(self)}
            ).summary(ks)
            for group in np.unique(groups[self.is_answered])
        }

    def _figures(self, ks: Sequence[int]) -> dict[str, np.ndarray]:
        """What each answered query adds to each mean."""
        first_places = self.first_places[self.is_answered]
        hits = {f"recall@{k}": (first_places <= k).astype(np.int64) for k in check_ks(ks)}
        precisions = {"map@r": self.average_precisions, "r_precision": self.r_precisions}
        return {**hits, **{name: values[self.is_answered] for name, values in precisions.items()}}


def evaluate_retrieval(
    embeddings, labels, ks: Sequence[int] = (1, 10, 100, 1000), gallery_embeddings=None, gallery_labels=None
) -> dict[str, float]:
    """Ranks the gallery for every query by cosine, and computes R@K, R-precision and mAP@R.

    Without a gallery every embedding is searched among all the others, itself left out by position, so that an exact
    duplicate counts as what it is. Ties count against us: a wrong answer with the score of a right one stands before
    it, where scores are float64 products of the float32 embeddings and those within 1e-9 are the same. A query with no
    right answer in the gallery is left out of all means and counted. A GPU does the work, with the same result, where
    TensorFlow has been imported and sees one.

    Args:
        embeddings: `[Q, D]` query vectors of any non-zero length.
        labels: `[Q]` or `[Q, 1]` their class numbers or names. Integers of every type are compared exactly.
        ks: the K of each R@K, different positive integers.
        gallery_embeddings: `[N, D]`, or None.
        gallery_labels: `[N]`, given exactly if `gallery_embeddings` is.

    Returns:
        `"recall@K"` for each K: the share of queries with a right answer among the first K; `"map@r"`: mean over
        queries with R right answers of `1/R * sum over the first R places of precision there, where right`;
        `"r_precision"`: share of right answers among the first R. All in [0, 1]. Also `"num_queries"` and
        `"num_without_answer"`.

    Raises:
        ValueError: if shapes do not fit, an embedding is zero or not finite, a label is missing, or no query has a
            right answer; or if `ks` are not different positive integers.

    Example:

    >>> result = evaluate_retrieval([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]], ["a", "a", "b"], ks=[1])
    >>> result["recall@1"], result["num_without_answer"]
    (1.0, 1)

    Reference: Musgrave, Belongie, Lim, arXiv 2003.08505, for mAP@R.
    """
    ks = check_ks(ks)
    return rank_queries(embeddings, labels, gallery_embeddings, gallery_labels).summary(ks)


def check_ks(ks) -> tuple[int, ...]:
    """Returns the K of each R@K, or says which is no place in a ranking.

    Raises:
        ValueError: if they are not different positive integers.

    Example:

    >>> check_ks([1, 10.0])
    Traceback (most recent call last):
    ValueError: `ks` must be different positive integers, e.g. (1, 10). Received: ks=[1, 10.0].
    """
    is_list = not isinstance(ks, (str, bytes, int, float, np.generic)) and ks is not None
    listed = [k.item() if isinstance(k, np.generic) else k for k in ks] if is_list else []
    are_counts = all(isinstance(k, int) and not isinstance(k, bool) and k > 0 for k in listed)
    if not is_list or not are_counts or len(set(listed)) < len(listed):
        shown = repr(listed if is_list else ks)[:100]
        if any(isinstance(k, (list, tuple, np.ndarray)) for k in listed):
            shown = "a table. If that is the gallery, name it: gallery_embeddings=..., gallery_labels=..."
        raise ValueError(f"`ks` must be different positive integers, e.g. (1, 10). Received: ks={shown.rstrip('.')}.")
    return tuple(listed)


def rank_queries(
    embeddings, labels, gallery_embeddings=None, gallery_labels=None, leave_out_self: bool = False
) -> RetrievalResult:
    """`evaluate_retrieval` query by query: one ranking, from which the means and the sums of each class are had.

    Args:
        embeddings: as there, and so are the other arguments and what is refused.
        labels: `[Q]`.
        gallery_embeddings: `[N, D]`, or None.
        gallery_labels: `[N]`, or None.
        leave_out_self: the gallery begins with the photos of the queries, in their order, and a query is not searched
            for in itself. Without a gallery this is so. With one it serves queries that were changed, as by
            `expand_queries`, and a gallery that has photos besides, as a whole catalogue has.

    Example:

    >>> result = rank_queries([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]], ["mug", "mug", "cup"])
    >>> result.first_places.tolist(), result.r_precisions.tolist()
    ([1, 1, 0], [1.0, 1.0, nan])
    """
    if (gallery_embeddings is None) != (gallery_labels is None):
        raise ValueError("`gallery_embeddings` and `gallery_labels` must be given together.")
    queries, labels = _checked(embeddings, labels, "embeddings", "labels")
    if gallery_embeddings is None:
        gallery, gallery_labels, leave_out_self = queries, labels, True
    else:
        gallery, gallery_labels = _checked(gallery_embeddings, gallery_labels, "gallery_embeddings", "gallery_labels")
        if gallery.embeddings.shape[1] != queries.embeddings.shape[1]:
            raise ValueError(
                "`embeddings` and `gallery_embeddings` must have the same dimension. "
                f"Received: {queries.embeddings.shape[1]} and {gallery.embeddings.shape[1]}."
            )
    numbers = numbered("labels", labels, "gallery_labels", gallery_labels)
    _check_same_photos(*numbers, leave_out_self)
    answers = ranking.Answers.of(*numbers, leave_out_self)
    first_places, product_places, precisions = ranking.rank(queries, gallery, answers)
    if not first_places.any():
        raise ValueError("`labels` must repeat: no query has a right answer in the gallery.")
    return RetrievalResult(labels, first_places, product_places, *precisions)


def reorder(result: RetrievalResult, rows, distances, gallery_labels, leave_out_self: bool = False) -> RetrievalResult:
    """A ranking after the nearest of each query were put into another order, as by `rerank`.

    Args:
        result: the ranking before.
        rows: `[Q, C]` the C nearest of each query, rows of the gallery.
        distances: `[Q, C]` by which they now stand, smaller first; those within 1e-9 tie, against us.
        gallery_labels: `[N]`.
        leave_out_self: as in `rank_queries`; `rows` then must not hold the query itself.

    Returns:
        Another `RetrievalResult`. A first place beyond the C is as it was.

    Raises:
        ValueError: if shapes do not fit, a label is missing, a distance is NaN, or a query has more than C right
            answers, so that its precisions are not to be had.

    Example:

    >>> result = rank_queries([[1.0, 0.0]], ["mug"], [[1.0, 0.1], [1.0, 0.2]], ["cup", "mug"])
    >>> changed = reorder(result, rows=[[0, 1]], distances=[[0.7, 0.2]], gallery_labels=["cup", "mug"])
    >>> result.first_places.tolist(), changed.first_places.tolist()
    ([2], [1])
    """
    rows, distances = np.asarray(rows), np.asarray(distances)
    if rows.ndim != 2 or rows.shape != distances.shape or len(rows) != len(result.labels):
        raise ValueError(
            f"`rows` and `distances` must be [{len(result.labels)}, C]. "
            f"Received: shapes {rows.shape} and {distances.shape}."
        )
    if np.isnan(distances).any():
        query = np.flatnonzero(np.isnan(distances).any(axis=1))[0]
        raise ValueError(f"`distances` must be numbers. Received: NaN for query {query}.")
    others = check_labels("gallery_labels", gallery_labels)
    labels, others = numbered("result.labels", check_labels("result.labels", result.labels), "gallery_labels", others)
    _check_same_photos(labels, others, leave_out_self)
    counts = ranking.Answers.of(labels, others, leave_out_self).counts
    if counts.max() > rows.shape[1]:
        raise ValueError(
            "`rows` must be as many for each query as it has right answers. "
            f"Received: {rows.shape[1]}, and a query with {counts.max()}. Re-rank with a larger num_candidates."
        )
    first_places, product_places, precisions = ranking.reordered(
        others[rows], labels, distances, counts, result.first_places, result.product_places
    )
    return RetrievalResult(result.labels, first_places, product_places, *precisions)


def _check_same_photos(labels: np.ndarray, gallery_labels: np.ndarray, leave_out_self: bool) -> None:
    if leave_out_self and not np.array_equal(labels, gallery_labels[: len(labels)]):
        raise ValueError(
            "`gallery_labels` must begin with those of the queries if `leave_out_self`. "
            f"Received: {len(labels)} queries and {len(gallery_labels)} in the gallery, or other labels."
        )


def _checked(embeddings, labels, embeddings_name: str, labels_name: str) -> tuple[ranking.Vectors, np.ndarray]:
    embeddings, labels = np.asarray(embeddings, np.float32), check_labels(labels_name, labels)
    if embeddings.ndim != 2 or labels.shape != embeddings.shape[:1]:
        raise ValueError(
            f"`{embeddings_name}` must be [N, D] and `{labels_name}` [N]. "
            f"Received: shapes {embeddings.shape} and {labels.shape}."
        )
    vectors = ranking.Vectors.of(embeddings)
    wrong = np.flatnonzero(~(np.isfinite(vectors.lengths) & (vectors.lengths > 0)))
    if wrong.size:
        raise ValueError(f"`{embeddings_name}` must be finite and not zero. Received: row {wrong[0]} is not.")
    return vectors, labels
