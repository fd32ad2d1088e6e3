"""The evaluation room: R@K and mAP@R, comparisons with intervals, and postprocessing of embeddings."""

from eet_tf._lazy import lazy_names

_NAMES = {
    "ClassResults": "eet_tf.evaluation.comparison",
    "RetrievalEvaluation": "eet_tf.evaluation.callback",
    "compare": "eet_tf.evaluation.comparison",
    "embed": "eet_tf.evaluation.callback",
    "evaluate_retrieval": "eet_tf.evaluation.metrics",
    "is_query": "eet_tf.evaluation.callback",
    "rank_catalog": "eet_tf.evaluation.callback",
}
__all__ = sorted(_NAMES)
__getattr__, __dir__ = lazy_names(__name__, _NAMES)
