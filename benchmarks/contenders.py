"""What `methods.py` trains: what the methods of a table share, the methods, and what is tried of each."""

# What all methods of a table share; how it was chosen is in docs/methods.md.
RECIPES = {
    "fashion": {
        "dataset": "sop",
        "tuned": True,
        "seeds": 3,
        "backbone": "mobilenet_v2_block8",
        "is_pretrained": True,
        "fixed_until": "block_3_project_BN",
        "pooling": "grid",
        "embedding_dim": 512,
        "image_size": 64,
        "classes_per_batch": 128,
        "examples_per_class": 2,
        "steps": 200,
        "learning_rate": 3e-4,
        "crop": 0.85,
        "projection": "whitening",
        "category_column": None,
        "category_probability": 0.8,
        "attributes": ["gender", "subCategory", "articleType", "baseColour", "season", "usage"],
    },
    "grocery": {
        "dataset": "csv",
        "tuned": True,
        "seeds": 5,
        "backbone": "mobilenet_v2_stride16",
        "is_pretrained": True,
        "fixed_until": "block_3_project_BN",
        "pooling": "gem",
        "embedding_dim": 128,
        "image_size": 64,
        "classes_per_batch": 16,
        "examples_per_class": 4,
        "steps": 200,
        "learning_rate": 3e-4,
        "crop": 0.6,
        "category_column": "department",
        "category_probability": 0.8,
        "attributes": ["category", "department"],
    },
    "synthetic": {
        "dataset": "synthetic",
        "tuned": False,
        "seeds": 2,
        "backbone": "small_cnn",
        "is_pretrained": False,
        "fixed_until": None,
        "pooling": "gem",
        "embedding_dim": 128,
        "image_size": 32,
        "classes_per_batch": 8,
        "examples_per_class": 2,
        "steps": 40,
        "learning_rate": 3e-4,
        "crop": 0.6,
        "category_column": None,
        "category_probability": 0.8,
        "attributes": ["colour"],
    },
}
# What a finding of those tables was followed up with: the same but for what is named, and with fewer methods.
_SAMPLED = ("batch_hard", "batch_hard_categories", "online_sampling", "online_sampling_categories")
RECIPES["fashion_categories"] = {
    **RECIPES["fashion"],
    "tuned": False,
    "classes_per_batch": 32,
    "category_column": "masterCategory",
    "methods": _SAMPLED,
}
RECIPES["fashion_memory"] = {
    **RECIPES["fashion"],
    "tuned": False,
    "classes_per_batch": 16,
    "steps": 800,
    "memory_size": 4096,
    "memory_start": 400,
    "methods": ("batch_hard", "batch_hard_memory", "bdl", "bdl_memory"),
}
RECIPES["grocery_precision"] = {
    **RECIPES["grocery"],
    "tuned": False,
    "methods": ("eet", "eet_bfloat16"),  # on a CPU float16 takes many times as long
    "baseline": "eet",
}
# Settings that a recipe may change too: parts of the recipe kit, off.
DEFAULTS = {
    "projection": "random",
    "neck": None,
    "fit": "squash",
    "last_stride": 2,
    "photo_crop": None,
    "mirror": True,
    "color": 0.0,
    "cutout": 0.0,
    "random_erasing": 0.0,
    "rand_augment": 0.0,
    "label_smoothing": 0.0,
    "ema": 0.0,
    "weight_decay": 0.0,
    "trunk_rate": 1.0,
    "head_only_steps": 0,
}
BASELINE_NAMES = {"batch_hard": ("batch-hard triplet", "batch-hard")}  # in the tables
# name: (what it is in the table, class, arguments, what else it needs)
_DODDS = {"margin": 0.1, "positives": "partner", "distance": "cosine"}
METHODS = {
    "batch_hard": ("MC: batch-hard triplet", "TripletLoss", {}, ()),
    "batch_hard_memory": ("MC, memory", "TripletLoss", {}, ("memory",)),
    "bdl_memory": ("BDL, memory", "BinomialDevianceLoss", {}, ("memory",)),
    "eet_bfloat16": ("EET, bfloat16", "EETLoss", {}, ("mixed_bfloat16",)),
    "eet_float16": ("EET, float16", "EETLoss", {}, ("mixed_float16",)),
    "batch_hard_categories": ("MC, category batches 0.8", "TripletLoss", {}, ("categories",)),
    "mc_ec1": ("MC + EC1", "EETLoss", {"equidistributed_weight": 0.0}, ()),
    "mc_ec2": ("MC + EC2", "EETLoss", {"equidistant_weight": 0.0}, ()),
    "eet": ("EET", "EETLoss", {}, ()),
    "batch_all": ("batch-all triplet", "TripletLoss", {"positives": "all", "negatives": "all"}, ()),
    "semi_hard": (
        "semi-hard triplet (FaceNet)",
        "TripletLoss",
        {"margin": 0.2, "positives": "all", "negatives": "semi_hard", "distance": "squared"},
        (),
    ),
    "online_sampling": ("online sampling (Dodds)", "TripletLoss", _DODDS, ()),
    "online_sampling_categories": ("online sampling, category batches 0.8", "TripletLoss", _DODDS, ("categories",)),
    "bdl": ("BDL: binomial deviance", "BinomialDevianceLoss", {}, ()),
    "bdl_attributes": ("BDL + attributes", "BinomialDevianceLoss", {}, ("attributes",)),
    "sbdl_informativeness": (
        "SBDL, informativeness",
        "SoftBinomialDevianceLoss",
        {"granularity": "predictions"},
        ("attributes",),
    ),
    "sbdl_preserving": (
        "SBDL, preserving",
        "SoftBinomialDevianceLoss",
        {"weighting": "preserving", "granularity": "predictions"},
        ("attributes",),
    ),
    "circle": ("Circle (Keras)", "Circle", {"gamma": 80.0, "margin": 0.4}, ()),
    "multi_similarity": ("multi-similarity", "MultiSimilarityLoss", {}, ()),
    "supervised_contrastive": ("supervised contrastive", "SupervisedContrastiveLoss", {}, ()),
    "smooth_ap": ("Smooth-AP", "SmoothAPLoss", {}, ()),
    "roadmap": ("ROADMAP", "RoadmapLoss", {}, ()),
    "recall_at_k": ("recall surrogate", "RecallAtKLoss", {}, ()),
    "softmax": ("normalised softmax", "NormalizedSoftmaxLoss", {}, ("classes",)),
    "arcface": ("ArcFace", "ArcFaceLoss", {}, ("classes",)),
    "proxy_anchor": ("Proxy-Anchor", "ProxyAnchorLoss", {}, ("classes",)),
    "eet_softmax": ("EET + normalised softmax", "EETLoss", {"softmax_weight": 1.0}, ("classes",)),
    "batch_hard_softmax": ("MC + normalised softmax", "TripletLoss", {"softmax_weight": 1.0}, ("classes",)),
}
_ALL = (
    *("batch_hard", "mc_ec1", "mc_ec2", "eet", "eet_softmax", "semi_hard", "online_sampling"),
    *("bdl", "bdl_attributes", "sbdl_informativeness", "sbdl_preserving"),
    *("circle", "multi_similarity", "supervised_contrastive"),
    *("softmax", "arcface", "proxy_anchor", "smooth_ap", "roadmap", "recall_at_k"),
)
RECIPES["grocery"]["methods"] = _ALL
RECIPES["fashion"]["methods"] = ("batch_hard", "eet", "eet_softmax", "circle", "softmax")
# What is tried of each method, with each learning rate, on held-out products: three values of the argument that matters
# most. A weight of softmax is that of the second loss of a sum.
LEARNING_RATES = (1e-4, 3e-4, 1e-3)
CLASS_VECTORS_RATE = 100.0  # of all losses with class vectors, as Proxy-Anchor's authors have it
TRIALS = {
    "batch_hard": [{"margin": value} for value in (0.1, 0.3, 0.6)],
    "eet": [{"equidistant_weight": value, "equidistributed_weight": value} for value in (0.1, 0.3, 1.0)],
    "eet_softmax": [{"softmax_weight": value} for value in (0.1, 0.3, 1.0)],
    "batch_hard_softmax": [{"softmax_weight": value} for value in (0.1, 0.3, 1.0)],
    "mc_ec1": [{"equidistant_weight": value} for value in (0.1, 0.3, 1.0)],
    "mc_ec2": [{"equidistributed_weight": value} for value in (0.1, 0.3, 1.0)],
    "semi_hard": [{"margin": value} for value in (0.1, 0.2, 0.4)],
    "online_sampling": [{"margin": value} for value in (0.05, 0.1, 0.2)],
    "bdl": [{"negative_cost": value} for value in (1.0, 5.0, 25.0)],
    "bdl_attributes": [{"negative_cost": value} for value in (1.0, 5.0, 25.0)],
    "sbdl_informativeness": [{"negative_cost": value} for value in (1.0, 5.0, 25.0)],
    "sbdl_preserving": [{"negative_cost": value} for value in (1.0, 5.0, 25.0)],
    "circle": [{"gamma": value} for value in (40.0, 80.0, 160.0)],
    "multi_similarity": [{"threshold": value} for value in (0.3, 0.5, 0.7)],
    "supervised_contrastive": [{"temperature": value} for value in (0.05, 0.1, 0.2)],
    "smooth_ap": [{"temperature": value} for value in (0.01, 0.03, 0.1)],
    "roadmap": [{"temperature": value} for value in (0.01, 0.03, 0.1)],
    "recall_at_k": [{"temperature": value} for value in (0.01, 0.03, 0.1)],
    "softmax": [{"temperature": value} for value in (0.03, 0.05, 0.1)],
    "arcface": [{"margin": value, "scale": 20.0} for value in (0.1, 0.3, 0.5)],
    "proxy_anchor": [{"scale": value} for value in (16.0, 32.0, 64.0)],
}
_OWN_TABLE = {"memory", "mixed_bfloat16", "mixed_float16", "categories"}
EVERY = tuple(name for name, (*_, needs) in METHODS.items() if not _OWN_TABLE.intersection(needs))
# The method that the table of the recipe kit trains, with what its trials chose, and that a search begins with.
KITS = {
    "synthetic": {"method": "eet", "arguments": {}},
    "fashion": {"method": "eet", "arguments": {}},
    "grocery": {"method": "batch_hard", "arguments": {"margin": 0.6}},
}
_SOFTMAX = {
    "fashion": {"method": "eet_softmax", "arguments": {"softmax_weight": 1.0}},
    "grocery": {"method": "batch_hard_softmax", "arguments": {"margin": 0.6, "softmax_weight": 0.3}},
}
# What it changes of a recipe, one part at a time, by its title there.
_OF_BOTH = {
    "no layer fixed": {"fixed_until": None},
    "rate of the backbone 0.1": {"trunk_rate": 0.1},
    "head alone for 50 steps": {"head_only_steps": 50},
    "BN neck": {"neck": "batch_norm"},
    "LN neck": {"neck": "layer_norm"},
    "pooling: average": {"pooling": "avg"},
    "pooling: maximum": {"pooling": "max"},
    "pooling: average + maximum": {"pooling": "avg_max"},
    "last stride 1": {"last_stride": 1},
    "letterbox": {"fit": "letterbox"},
    "no mirror images": {"mirror": False},
    "colour 0.2": {"color": 0.2},
    "random erasing 0.5": {"random_erasing": 0.5},
    "RandAugment 5": {"rand_augment": 5.0},
    "average of weights 0.99": {"ema": 0.99},
    "weight decay 1e-4": {"weight_decay": 1e-4},
    "twice the steps": {"steps": 400},
}


def _with_softmax(catalog: str) -> dict[str, dict]:
    softmax = _SOFTMAX[catalog]
    return {
        "+ normalised softmax": softmax,
        "+ normalised softmax, label smoothing 0.1": {**softmax, "label_smoothing": 0.1},
        "+ normalised softmax, BN neck": {**softmax, "neck": "batch_norm"},
    }


PARTS = {
    "synthetic": {"pooling: average": {"pooling": "avg"}},
    "fashion": {
        **_OF_BOTH,
        **_with_softmax("fashion"),
        "projection begins at random": {"projection": "random"},
        "pooling: GeM": {"pooling": "gem"},
        "crops of the photo": {"photo_crop": 0.85},
        "no crops": {"crop": 1.0},
        "96 pixels": {"image_size": 96},
        "1024 dimensions": {"embedding_dim": 1024},
    },
    "grocery": {
        **_OF_BOTH,
        **_with_softmax("grocery"),
        "projection begins as a whitening": {"projection": "whitening"},
        "crops of the photo": {"photo_crop": 0.6},
        "crops of 0.3 or more": {"crop": 0.3},
        "96 pixels": {"image_size": 96},
        "512 dimensions": {"embedding_dim": 512},
        "half the steps": {"steps": 100},
        # what helped alone, together
        "whitening, no mirror images": {"projection": "whitening", "mirror": False},
        "whitening, letterbox": {"projection": "whitening", "fit": "letterbox"},
        "whitening, 96 pixels": {"projection": "whitening", "image_size": 96},
    },
}
# What a training of a search may cost, as a share of a training of the table.
LARGEST_COSTS = {"synthetic": 640.0, "fashion": 6.5, "grocery": 20.0}
# What a search for a recipe draws from.
_LOSSES = ["eet", "eet", "batch_hard", "eet_softmax", "softmax", "supervised_contrastive", "multi_similarity", "circle"]
_OF_SPACES = {
    "method": _LOSSES,
    "learning_rate": [1e-4, 3e-4, 1e-3],
    "trunk_rate": [1.0, 0.3, 0.1],
    "neck": [None, None, "batch_norm"],
    "mirror": [True, False],
    "color": [0.0, 0.05, 0.2],
    "cutout": [0.0, 0.3],
    "random_erasing": [0.0, 0.0, 0.3],
    "ema": [0.0, 0.99],
    "weight_decay": [0.0, 1e-4, 1e-2],
}
SPACES = {
    "fashion": {
        **_OF_SPACES,
        "backbone": ["mobilenet_v2_block8", "mobilenet_v2_joined"],
        "embedding_dim": [512, 1024],
        "image_size": [64, 80, 96],
        "fixed_until": [None, "block_3_project_BN"],
        "projection": ["whitening"],
        "steps": [400, 800, 1200],
        "crop": [0.7, 0.85, 0.95],
    },
    "grocery": {
        **_OF_SPACES,
        "backbone": ["mobilenet_v2", "mobilenet_v2_stride16", "mobilenet_v2_stride16"],
        "image_size": [64, 80, 96, 112],
        "fixed_until": [None, "block_3_project_BN", "block_6_project_BN", "block_10_project_BN"],
        "pooling": ["gem", "avg", "avg_max", "max"],
        "embedding_dim": [128, 256, 512],
        "projection": ["random", "whitening"],
        "steps": [200, 400, 800],
        "classes_per_batch": [16, 32],
        "crop": [0.3, 0.6, 0.8],
        "rand_augment": [0.0, 0.0, 5.0],
    },
    "synthetic": {
        **_OF_SPACES,
        "trunk_rate": [1.0],
        "learning_rate": [3e-4, 1e-3, 2e-3, 4e-3],
        "image_size": [64],
        "pooling": ["gem", "avg", "avg_max", "max", "grid"],
        "embedding_dim": [128, 256, 512],
        "steps": [800, 1600, 2400],
        "classes_per_batch": [16, 32],
        "examples_per_class": [2, 4],
        "crop": [0.4, 0.6, 0.8],
    },
}
