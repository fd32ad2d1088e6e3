"""What type checkers and editors see of the names that are imported lazily; a test compares the two."""

from eet_tf.embedder.build import build_embedder
from eet_tf.evaluation.attribute_metrics import attribute_accuracy
from eet_tf.evaluation.callback import RetrievalEvaluation
from eet_tf.evaluation.metrics import evaluate_retrieval
from eet_tf.losses.arcface import ArcFaceLoss, arcface_loss
from eet_tf.losses.attributes import AttributeLoss, attribute_loss
from eet_tf.losses.average_precision import RoadmapLoss, SmoothAPLoss, roadmap_loss, smooth_ap_loss
from eet_tf.losses.base import MetricLoss
from eet_tf.losses.batch import Batch, make_batch
from eet_tf.losses.binomial import BinomialDevianceLoss, binomial_deviance
from eet_tf.losses.combined import CombinedLoss
from eet_tf.losses.contrastive import SupervisedContrastiveLoss, supervised_contrastive_loss
from eet_tf.losses.distillation import DistillationLoss
from eet_tf.losses.eet import EETLoss, eet_loss
from eet_tf.losses.multi_similarity import MultiSimilarityLoss, multi_similarity_loss
from eet_tf.losses.normalized_softmax import NormalizedSoftmaxLoss, normalized_softmax_loss
from eet_tf.losses.prefixes import PrefixLoss
from eet_tf.losses.proxy_anchor import ProxyAnchorLoss, proxy_anchor_loss
from eet_tf.losses.recall import RecallAtKLoss, recall_at_k_loss
from eet_tf.losses.sgml import SoftBinomialDevianceLoss, soft_binomial_deviance
from eet_tf.losses.triplet import TripletLoss, triplet_loss
from eet_tf.replicas import make_strategy
from eet_tf.serving.saved_model import export_embedder
from eet_tf.training.advice import TrainingAdvice
from eet_tf.training.learner import MetricLearner
from eet_tf.training.loading import load_embedder

__version__: str
__all__ = [
    "ArcFaceLoss",
    "AttributeLoss",
    "Batch",
    "BinomialDevianceLoss",
    "CombinedLoss",
    "DistillationLoss",
    "EETLoss",
    "MetricLearner",
    "MetricLoss",
    "MultiSimilarityLoss",
    "NormalizedSoftmaxLoss",
    "PrefixLoss",
    "ProxyAnchorLoss",
    "RecallAtKLoss",
    "RetrievalEvaluation",
    "RoadmapLoss",
    "SmoothAPLoss",
    "SoftBinomialDevianceLoss",
    "SupervisedContrastiveLoss",
    "TrainingAdvice",
    "TripletLoss",
    "arcface_loss",
    "attribute_accuracy",
    "attribute_loss",
    "binomial_deviance",
    "build_embedder",
    "eet_loss",
    "evaluate_retrieval",
    "export_embedder",
    "load_embedder",
    "make_batch",
    "make_strategy",
    "multi_similarity_loss",
    "normalized_softmax_loss",
    "proxy_anchor_loss",
    "recall_at_k_loss",
    "roadmap_loss",
    "smooth_ap_loss",
    "soft_binomial_deviance",
    "supervised_contrastive_loss",
    "triplet_loss",
]
