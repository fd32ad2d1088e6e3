"""Visual product search for TensorFlow: learn the embedding, export it, find the neighbours."""

from eet_tf._lazy import lazy_names
from eet_tf._registration import register_lazily

__version__ = "0.1.0"

_NAMES = {
    "ArcFaceLoss": "eet_tf.losses.arcface",
    "AttributeLoss": "eet_tf.losses.attributes",
    "Batch": "eet_tf.losses.batch",
    "BinomialDevianceLoss": "eet_tf.losses.binomial",
    "CombinedLoss": "eet_tf.losses.combined",
    "DistillationLoss": "eet_tf.losses.distillation",
    "EETLoss": "eet_tf.losses.eet",
    "MetricLearner": "eet_tf.training.learner",
    "MetricLoss": "eet_tf.losses.base",
    "MultiSimilarityLoss": "eet_tf.losses.multi_similarity",
    "NormalizedSoftmaxLoss": "eet_tf.losses.normalized_softmax",
    "PrefixLoss": "eet_tf.losses.prefixes",
    "ProxyAnchorLoss": "eet_tf.losses.proxy_anchor",
    "RecallAtKLoss": "eet_tf.losses.recall",
    "RetrievalEvaluation": "eet_tf.evaluation.callback",
    "RoadmapLoss": "eet_tf.losses.average_precision",
    "SmoothAPLoss": "eet_tf.losses.average_precision",
    "SoftBinomialDevianceLoss": "eet_tf.losses.sgml",
    "SupervisedContrastiveLoss": "eet_tf.losses.contrastive",
    "TrainingAdvice": "eet_tf.training.advice",
    "TripletLoss": "eet_tf.losses.triplet",
    "arcface_loss": "eet_tf.losses.arcface",
    "attribute_accuracy": "eet_tf.evaluation.attribute_metrics",
    "attribute_loss": "eet_tf.losses.attributes",
    "binomial_deviance": "eet_tf.losses.binomial",
    "build_embedder": "eet_tf.embedder.build",
    "eet_loss": "eet_tf.losses.eet",
    "evaluate_retrieval": "eet_tf.evaluation.metrics",
    "export_embedder": "eet_tf.serving.saved_model",
    "load_embedder": "eet_tf.training.loading",
    "make_batch": "eet_tf.losses.batch",
    "make_strategy": "eet_tf.replicas",
    "multi_similarity_loss": "eet_tf.losses.multi_similarity",
    "normalized_softmax_loss": "eet_tf.losses.normalized_softmax",
    "proxy_anchor_loss": "eet_tf.losses.proxy_anchor",
    "recall_at_k_loss": "eet_tf.losses.recall",
    "roadmap_loss": "eet_tf.losses.average_precision",
    "smooth_ap_loss": "eet_tf.losses.average_precision",
    "soft_binomial_deviance": "eet_tf.losses.sgml",
    "supervised_contrastive_loss": "eet_tf.losses.contrastive",
    "triplet_loss": "eet_tf.losses.triplet",
}
__all__ = sorted(_NAMES)
__getattr__, __dir__ = lazy_names(__name__, _NAMES)

register_lazily()
