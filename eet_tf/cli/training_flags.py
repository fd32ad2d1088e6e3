"""The flags of training, their ranges, and which of them are arguments of which loss."""

from __future__ import annotations

from absl import flags

from eet_tf.cli.catalogs import define_catalog, define_check, define_unreadable
from eet_tf.cli.door import Definitions
from eet_tf.training import recipes

FLAGS = flags.FlagValues()
define = Definitions(FLAGS)
RECALL_KS = {  # those of each data set's protocol
    "sop": (1, 10, 100, 1000),
    "inshop": (1, 10, 20, 30, 40, 50),
    "consumer_to_shop": (1, 20, 50),
    "cub": (1, 2, 4, 8),
    "cars196": (1, 2, 4, 8),
}
_EET = ["margin", "equidistant_weight", "equidistributed_weight", "symmetric_margin"]
_TRIPLET = ["margin", "positives", "negatives", "distance", "soft_margin"]
_DEVIANCE = ["alpha", "beta", "negative_cost"]
_CLASSES = ["label_smoothing", "sampled_classes"]
LOSSES = {  # the class, and the flags that are its arguments
    "eet": ("EETLoss", _EET),
    "triplet": ("TripletLoss", _TRIPLET),
    "binomial_deviance": ("BinomialDevianceLoss", _DEVIANCE),
    "soft_binomial_deviance": ("SoftBinomialDevianceLoss", [*_DEVIANCE, "weighting", "granularity", "preserved_share"]),
    "multi_similarity": ("MultiSimilarityLoss", ["positive_scale", "negative_scale", "threshold", "epsilon"]),
    "supervised_contrastive": ("SupervisedContrastiveLoss", ["temperature"]),
    "smooth_ap": ("SmoothAPLoss", ["temperature"]),
    "roadmap": ("RoadmapLoss", ["temperature", "calibration_weight"]),
    "recall_at_k": ("RecallAtKLoss", ["temperature"]),
    "normalized_softmax": ("NormalizedSoftmaxLoss", ["temperature", *_CLASSES]),
    "arcface": ("ArcFaceLoss", ["margin", "scale", "subcenters", *_CLASSES]),
    "proxy_anchor": ("ProxyAnchorLoss", ["margin", "scale", "sampled_classes"]),
}
CLASS_LOSSES = ("normalized_softmax", "arcface", "proxy_anchor")  # which have vectors of the trained products
_MARGINS = {"arcface": 0.5, "proxy_anchor": 0.1}  # by default, and 0.3 of all others
ADDONS_LOSSES = {  # those of tensorflow-addons, and the flags that are their arguments
    "tfa_triplet_semihard": ["margin", "distance"],
    "tfa_triplet_hard": ["margin", "distance", "soft_margin"],
    "tfa_lifted": ["margin"],
    "tfa_npairs": [],
    "tfa_contrastive": ["margin"],
}
ADDONS_OPTIMIZERS = ["tfa_adabelief", "tfa_adamw", "tfa_lamb", "tfa_lazyadam", "tfa_novograd", "tfa_radam"]
ADDONS_OPTIMIZERS += ["tfa_sgdw", "tfa_yogi"]
RANGES = {  # of numbers, both ends of which may be given
    "seed": (0, 2**32 - 1),
    "hold_out": (0, 0.999),
    "crop": (0.001, 1),
    "color": (0, 1),
    "cutout": (0, 0.999),
    "noise": (0, 1),
    "photo_crop": (0.001, 1),
    "rand_augment": (0, 10),
    "random_erasing": (0, 1),
    "image_size": (32, 4096),
    "embedding_dim": (1, 65536),
    "classes_per_batch": (2, 10**6),
    "examples_per_class": (2, 10**6),
    "microbatch": (1, 10**6),
    "memory_size": (0, 10**7),
    "steps_per_epoch": (1, 10**7),
    "warmup_steps": (0, 10**9),
    "head_only_steps": (0, 10**9),
    "subcenters": (1, 1000),
    "sampled_classes": (2, 10**9),
    "weight_decay": (0, 1),
    "virtual_devices": (0, 1024),
}
_STRATEGIES = ["default", "one_device", "mirrored", "multi_worker"]
MAY_CHANGE = frozenset(
    {"epochs", "strategy", "jit", "virtual_devices", "model_dir", "data", "data_dir", "check_photos", "photo_cache"}
)

define_catalog(define, split=None)
define_unreadable(define)
define.bool("drop_singles", False, "Leave out products with one photo. By default they are an error.")
define_check(define, "training")
define.bool("cache", False, "Keep the decoded training photos in memory: photos x size x size x 3 bytes.")
define.float(
    "hold_out",
    0.1,
    "Share of the training products kept aside to choose the best epoch; 0 for none. A validation split in the list "
    "takes precedence.",
)
define.string(
    "model_dir",
    None,
    "Folder that training writes: model.keras, history.csv, metrics.json, ... By default runs/NAME, after --data.",
)

define.enum(
    "recipe",
    recipes.AUTO,
    list(recipes.NAMES),
    "Network and training that suit the photos, for all flags that are not given: auto chooses by the number of "
    "products and photos, their size, --weights and the machine; none leaves the flags at their defaults.",
)
define.string(
    "loss",
    "eet",
    f"Loss of the embedding: {', '.join(LOSSES)}; or several of them with + between, whose sum it is, as in "
    f"eet+normalized_softmax; or, with TensorFlow 2.15, one of tensorflow-addons': {', '.join(ADDONS_LOSSES)}. "
    "triplet is batch-hard; none is that of --teacher alone. A flag that several losses know goes to each.",
)
define.list("loss_weights", [], "Weights of the losses that --loss adds up, with commas between. By default 1 each.")
define.list(
    "prefixes",
    [],
    "Matryoshka (arXiv 2205.13147): lengths of prefixes of the embedding on which the loss is taken too, separated by "
    "commas, e.g. 32,64,128. By default none.",
)
define.string(
    "teacher",
    None,
    "Distillation: folder that `eet embed` wrote, or a model, whose vectors the embedder also learns. By default none.",
)
define.float("distillation_weight", 1.0, "Distillation: weight of the distance to the teacher.", lower_bound=0.0)
define.bool("teacher_references", False, "Distillation: the loss also compares with the teacher's vectors.")
define.float(
    "margin",
    None,
    "EET, triplet, tfa: margin, in units of the distance, by default 0.3. ArcFace: in radians, 0.5. Proxy-Anchor: in "
    "units of the cosine, 0.1.",
    lower_bound=0.0,
)
define.float("equidistant_weight", 1.0, "EET: weight of the equidistant term.", lower_bound=0.0)
define.float("equidistributed_weight", 1.0, "EET: weight of the class terms.", lower_bound=0.0)
define.bool("symmetric_margin", False, "EET: also keep the positive away from the negative by the margin.")

define.enum("positives", "hard", ["hard", "partner", "all"], "Triplet: positives of an anchor.")
define.enum("negatives", "hard", ["hard", "semi_hard", "all"], "Triplet: negatives of an anchor.")
define.enum("distance", "euclidean", ["euclidean", "squared", "cosine"], "Triplet: distance of unit vectors.")
define.bool("soft_margin", False, "Triplet: use log(1 + exp(.)), the soft margin, instead of a margin.")
define.float("alpha", 2.0, "Deviance: steepness of the softplus.", lower_bound=0.0)
define.float("beta", 0.5, "Deviance: cosine that separates positive from negative pairs.")
define.float("negative_cost", 25.0, "Deviance: weight of negatives in the exponent.", lower_bound=0.0)
define.enum(
    "weighting",
    "informativeness",
    ["informativeness", "preserving"],
    "Soft deviance: weights of pairs by their attributes.",
)
define.enum("granularity", "labels", ["labels", "predictions"], "Soft deviance: source of the attributes.")
define.float(
    "preserved_share",
    0.5,
    "Soft deviance, preserving: share of the weight that negatives with equal attributes lose.",
    0.0,
    1.0,
)
define.float("positive_scale", 2.0, "Multi-similarity: steepness of positive pairs.", lower_bound=0.0)
define.float("negative_scale", 50.0, "Multi-similarity: steepness of negative pairs.", lower_bound=0.0)
define.float("threshold", 0.5, "Multi-similarity: cosine that separates positive from negative pairs.", -1.0, 1.0)
define.float("epsilon", 0.1, "Multi-similarity: slack, in units of the cosine, when pairs are chosen.", lower_bound=0.0)
define.float(
    "temperature",
    None,
    "Contrastive, Smooth-AP, ROADMAP, recall, normalised softmax: scale of the cosine. By default 0.1 for the first, "
    "0.05 for the last, 0.01 for the others.",
    lower_bound=0.0,
)
define.float("scale", None, "ArcFace, Proxy-Anchor: factor of the cosines. By default 64 and 32.", lower_bound=0.0)
define.integer("subcenters", 1, "ArcFace: class vectors of each product.")
define.float("label_smoothing", 0.0, "Softmax, ArcFace: share of a label that all products get alike.", 0.0, 1.0)
define.integer(
    "sampled_classes",
    None,
    "Softmax, ArcFace, Proxy-Anchor: products that a batch is compared with. By default all of 100,000 products.",
)
define.float("calibration_weight", 0.5, "ROADMAP: share of the calibration in the loss.", 0.0, 1.0)
define.list("attributes", [], "Attribute columns that a second head learns, separated by commas; all for every column.")
define.float("attribute_weight", 1.0, "Weight of the attribute loss.", lower_bound=0.0)

define.string(
    "backbone",
    "small_cnn",
    "Backbone: resnet50, convnext_tiny, mobilenet_v2, ... or small_cnn for CPUs; the path of a Keras model of your "
    "own, my_model.keras; or hub: and a preset of keras-hub or a folder of one (pip install 'eet-tf[hub]').",
)
define.string(
    "weights",
    None,
    "Weights that the backbone starts from: imagenet, the path of a file, or none, which also overrides a recipe.",
)
define.integer("image_size", 64, "Side of the square input in pixels.")
define.enum(
    "fit",
    "squash",
    ["squash", "letterbox"],
    "How photos become squares: squash stretches them, letterbox keeps their aspect, on white.",
)
define.integer("embedding_dim", 128, "Length of the embedding.")
define.enum(
    "pooling",
    "gem",
    ["gem", "avg", "max", "avg_max", "grid", "cls", "none"],
    "Pooling of the feature map or tokens; unless it is given, avg for ConvNeXt, and what suits a model of your own or "
    "of keras-hub.",
)
define.enum(
    "pixel_scaling",
    None,
    ["none", "unit", "tf", "caffe", "imagenet", "clip"],
    "What the backbone gets in place of pixels from 0 to 255; must be given for a model of your own.",
)
define.enum(
    "neck",
    "none",
    ["none", "batch_norm", "layer_norm"],
    "Normalisation between what pair losses see and what is searched (arXiv 1903.07071, 1811.12649).",
)
define.integer(
    "last_stride", 2, "With 1 the backbone's last halving of the feature map is left out (arXiv 1903.07071).", 1, 2
)
define.enum(
    "projection",
    "random",
    ["random", "whitening"],
    "What the projection begins as: random weights, or a whitening of the features of the training photos "
    "(arXiv 1610.07940).",
)
define.bool("freeze_batch_norm", False, "Freeze the batch normalisation of the backbone.")
define.string("freeze_until", None, "Layer of the backbone that keeps its weights, as do all layers before it.")

define.integer(
    "classes_per_batch", None, "Products in a batch. By default 16, or as many as the catalogue has if there are fewer."
)
define.integer("examples_per_class", 4, "Photos of each product in a batch.")
define.integer(
    "microbatch",
    None,
    "Photos per device that pass the network at a time. Saves memory; the update is that of the whole batch.",
)
define.integer(
    "memory_size",
    0,
    "Number of photos of past batches that the loss also compares with (arXiv 1912.06798).",
    lower_bound=0,
)
define.integer("memory_start", 1000, "Steps of training before --memory_size is used.", lower_bound=0)
define.float(
    "category_probability", 0.0, "Share of the batches drawn from one category (arXiv 1810.04652: 0.8).", 0.0, 1.0
)
define.string("category_column", None, "Attribute column used as the category.")
define.float("crop", 0.6, "Smallest share of the area that a random crop keeps; 1 for no crops.")
define.bool("mirror", True, "Mirror every other photo, left to right.")
define.float("color", 0.05, "Strength of random brightness, contrast and saturation; 0 for none.")
define.float("cutout", 0.0, "Largest side of a blanked rectangle as a share of the image's; 0 for none.")
define.float(
    "photo_crop",
    None,
    "Smallest share of the area that a crop of the photo itself keeps, whose aspect it keeps too; in place of --crop.",
)
define.float("rand_augment", 0.0, "Strength of RandAugment, from 0 for none to 10 (arXiv 1909.13719).")
define.float("random_erasing", 0.0, "Probability that a rectangle is filled with noise (arXiv 1708.04896).")
define.float("noise", 0.0, "Strength of noise on every other photo, as a share of 255; 0 for none.")

define.integer("epochs", 16, "Epochs to train.", lower_bound=1)
define.integer(
    "steps_per_epoch", None, "Batches in an epoch. By default enough to show every photo once, and at least 100."
)
define.enum(
    "optimizer",
    "adam",
    ["adam", "adamw", "sgd", *ADDONS_OPTIMIZERS],
    "Optimizer; sgd uses Nesterov's momentum. tfa_ optimizers are tensorflow-addons', with TensorFlow 2.15.",
)
define.float("momentum", 0.9, "Momentum of sgd, which is Nesterov's.", 0.0, 1.0)
define.float("learning_rate", 1e-3, "Highest learning rate.")
define.float("trunk_learning_rate", None, "Highest learning rate of the backbone. By default --learning_rate.")
define.float(
    "class_learning_rate",
    None,
    "Highest learning rate of class vectors. By default --learning_rate, and 100 times that for Proxy-Anchor.",
)
define.integer("head_only_steps", 0, "Steps in which the backbone keeps its weights.")
define.enum(
    "schedule", "cosine", ["cosine", "step"], "Learning-rate schedule: cosine decay to 1 %, or one step to 10 %."
)
define.float("drop_at", 0.2, "Schedule step: share of the training after which the rate falls.", 0.0, 1.0)
define.integer("warmup_steps", 0, "Steps of linear warm-up of the learning rate.")
define.float("weight_decay", 0.0, "Decoupled weight decay; adam has none.")
define.float("ema", 0.0, "Momentum of a running average of the weights, which is measured and saved; 0 for none.", 0, 1)
define.float("clip_norm", None, "Largest norm of the gradient of all weights together. By default no limit.")
define.enum(
    "mixed_precision",
    "none",
    ["none", "bfloat16", "float16"],
    "Type in which layers compute; weights and losses stay float32.",
)
define.enum(
    "jit",
    "auto",
    ["auto", "on", "off"],
    "Compile network and loss with XLA; auto does so on GPUs.",
)
define.integer("seed", 0, "Random seed for weights, batches and the validation split.")
define.list("ks", None, "K of each R@K, separated by commas. By default the data set's own, or 1,10,100.")

define.enum("strategy", "default", _STRATEGIES, "Strategy of tf.distribute that shares the training among devices.")
define.integer("virtual_devices", 0, "Number of devices to split the CPU into, to try a strategy without GPUs.")

FIRST = (
    *("data", "dataset", "columns", "model_dir", "skip_unreadable", "drop_singles", "recipe"),
    *("backbone", "weights", "image_size", "embedding_dim", "loss", "attributes"),
    *("epochs", "classes_per_batch", "examples_per_class", "learning_rate", "microbatch"),
    *("strategy", "mixed_precision", "seed"),
)


def losses() -> list[str]:
    """The losses that are trained with."""
    return FLAGS.loss.split("+")


def margin() -> float | None:
    """The margin, or the default of the losses; None where they have different ones."""
    if FLAGS.margin is not None:
        return FLAGS.margin
    own = {_MARGINS.get(name, 0.3) for name in losses() if name not in LOSSES or "margin" in LOSSES[name][1]} or {0.3}
    return own.pop() if len(own) == 1 else None


def settings(chosen: dict[str, str]) -> dict[str, str]:
    """Every flag that is set, as text: what `flags.txt` holds, with what was chosen for flags that were not given."""
    own = [FLAGS[name] for name in FLAGS if FLAGS[name].name == name and name != "data_dir"]
    texts = {flag.name: as_text(flag.value) for flag in own if flag.value is not None}
    return {**texts, **chosen}


def defaults() -> dict[str, str]:
    """The flags' defaults, as text: what a run of an older version, which did not know a flag yet, was trained with."""
    known = {name: as_text(FLAGS[name].default) for name in FLAGS if FLAGS[name].default is not None}
    return {**known, "recipe": recipes.NONE}


def as_text(value) -> str:
    """The value of a flag as it is given."""
    return ",".join(value) if isinstance(value, list) else str(value)


def is_shared() -> bool:
    """Whether several machines train, or one that does as if it were one of several."""
    return FLAGS.strategy == "multi_worker"


def ks(layout: str) -> tuple[int, ...]:
    """The K of each R@K: those of the flag, or of the data set's protocol."""
    return tuple(int(k) for k in FLAGS.ks) if FLAGS.ks else RECALL_KS.get(layout, (1, 10, 100))
