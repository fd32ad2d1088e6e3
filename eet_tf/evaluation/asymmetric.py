"""Retrieval where one model embeds the queries and another the gallery, as after distillation."""

from __future__ import annotations

import numpy as np

from eet_tf.evaluation import metrics
from eet_tf.evaluation.callback import is_query
from eet_tf.labels import check_labels


def rank_asymmetric(query_embeddings, gallery_embeddings, labels, roles=None) -> metrics.RetrievalResult:
    """Ranks a catalogue as `rank_catalog` does, with vectors of one model for queries, of another for the gallery.

    Args:
        query_embeddings: `[N, D]`, one for each photo, by the model that embeds queries.
        gallery_embeddings: `[N, D]`, one for each photo, by the other model.
        labels: `[N]` the class of each photo.
        roles: as in `rank_catalog`. Without queries and a gallery every photo is searched for among all the others.

    Raises:
        ValueError: as `evaluate_retrieval`.

    Example:

    >>> student, teacher = [[0.0, 1.0], [1.0, 0.0], [0.8, 0.6]], [[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]]
    >>> rank_asymmetric(student, teacher, ["mug", "mug", "cup"]).first_places.tolist()
    [2, 1, 0]
    """
    queries, gallery, labels = (
        np.asarray(query_embeddings),
        np.asarray(gallery_embeddings),
        check_labels("labels", labels),
    )
    query = is_query(len(labels), roles)
    if query.all():
        return metrics.rank_queries(queries, labels, gallery, labels, leave_out_self=True)
    return metrics.rank_queries(queries[query], labels[query], gallery[~query], labels[~query])
