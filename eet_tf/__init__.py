"""Visual product search for TensorFlow: learn the embedding, export it, find the neighbours."""

from eet_tf._lazy import lazy_names
from eet_tf._registration import register_lazily

__version__ = "0.1.0"

_NAMES = {
    "AttributeLoss": "eet_tf.losses.attributes",
    "Batch": "eet_tf.losses.base",
    "BinomialDevianceLoss": "eet_tf.losses.binomial",
    "EETLoss": "eet_tf.losses.eet",
    "MetricLearner": "eet_tf.training.learner",
    "MetricLoss": "eet_tf.losses.base",
    "RetrievalEvaluation": "eet_tf.evaluation.callback",
    "SoftBinomialDevianceLoss": "eet_tf.losses.sgml",
    "TripletLoss": "eet_tf.losses.triplet",
    "attribute_accuracy": "eet_tf.evaluation.attribute_metrics",
    "attribute_loss": "eet_tf.losses.attributes",
    "binomial_deviance": "eet_tf.losses.binomial",
    "build_embedder": "eet_tf.embedder.build",
    "eet_loss": "eet_tf.losses.eet",
    "evaluate_retrieval": "eet_tf.evaluation.metrics",
    "export_embedder": "eet_tf.serving.saved_model",
    "load_embedder": "eet_tf.training.loading",
    "make_batch": "eet_tf.losses.base",
    "make_strategy": "eet_tf.replicas",
    "soft_binomial_deviance": "eet_tf.losses.sgml",
    "triplet_loss": "eet_tf.losses.triplet",
}
__all__ = sorted(_NAMES)
__getattr__, __dir__ = lazy_names(__name__, _NAMES)

register_lazily()
