"""The training room: the learner and its step, the memory of past batches, workers, and a run's folder."""

from eet_tf._lazy import lazy_names

_NAMES = {
    "MetricLearner": "eet_tf.training.learner",
    "load_embedder": "eet_tf.training.loading",
}
__all__ = sorted(_NAMES)
__getattr__, __dir__ = lazy_names(__name__, _NAMES)
