"""What `methods.py` trains: what the methods of a table share, the methods, and what is tried of each."""

# What all methods of a table share; how it was chosen is in docs/methods.md.
RECIPES = {
    "fashion": {
        "dataset": "sop",
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
        "category_column": None,
        "category_probability": 0.8,
        "attributes": ["gender", "subCategory", "articleType", "baseColour", "season", "usage"],
    },
    "grocery": {
        "dataset": "csv",
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
_PURE = ("batch_hard", "mc_ec1", "mc_ec2", "eet", "eet_light", "semi_hard", "circle", "multi_similarity")
_SAMPLED = ("batch_hard", "batch_hard_categories", "online_sampling", "online_sampling_categories")
RECIPES["grocery_whole"] = {**RECIPES["grocery"], "backbone": "mobilenet_v2", "methods": _PURE}
RECIPES["fashion_categories"] = {
    **RECIPES["fashion"],
    "classes_per_batch": 32,
    "category_column": "masterCategory",
    "methods": _SAMPLED,
}
RECIPES["grocery_96"] = {
    **RECIPES["grocery"],
    "backbone": "mobilenet_v2",
    "image_size": 96,
    "steps": 400,
    "fixed_until": "expanded_conv_project_BN",
    "methods": ("batch_hard", "eet"),
}
RECIPES["fashion_memory"] = {
    **RECIPES["fashion"],
    "classes_per_batch": 16,
    "steps": 800,
    "memory_size": 4096,
    "memory_start": 400,
    "methods": ("batch_hard", "batch_hard_memory", "bdl", "bdl_memory"),
}
RECIPES["grocery_precision"] = {
    **RECIPES["grocery_whole"],
    "methods": ("eet", "eet_bfloat16"),  # on a CPU float16 takes many times as long
    "baseline": "eet",
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
    "eet_light": ("EET, both weights 0.2", "EETLoss", {"equidistant_weight": 0.2, "equidistributed_weight": 0.2}, ()),
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
    "normalized_softmax": ("normalised softmax", "NormalizedLogits", {"scale": 0.01}, ()),
    "supervised_contrastive": ("supervised contrastive", "SupervisedContrastiveLoss", {}, ("tuned",)),
    "smooth_ap": ("Smooth-AP", "SmoothAPLoss", {}, ("tuned",)),
    "roadmap": ("ROADMAP", "RoadmapLoss", {}, ("tuned",)),
    "recall_at_k": ("recall surrogate", "RecallAtKLoss", {}, ("tuned",)),
    "softmax": ("normalised softmax", "NormalizedSoftmaxLoss", {}, ("classes", "tuned")),
    "arcface": ("ArcFace", "ArcFaceLoss", {}, ("classes", "tuned")),
    "proxy_anchor": ("Proxy-Anchor", "ProxyAnchorLoss", {}, ("classes", "tuned")),
    "eet_softmax": ("EET + normalised softmax", "EETLoss", {}, ("classes", "tuned")),
}
# What is tried of each method, with each learning rate, on held-out products: three values of the argument that matters
# most. A weight of softmax is that of the second loss of a sum.
LEARNING_RATES = (1e-4, 3e-4, 1e-3)
CLASS_VECTORS_RATE = 100.0  # of all losses with class vectors, as Proxy-Anchor's authors have it
TRIALS = {
    "batch_hard": [{"margin": value} for value in (0.1, 0.3, 0.6)],
    "eet": [{"equidistant_weight": value, "equidistributed_weight": value} for value in (0.1, 0.3, 1.0)],
    "eet_softmax": [{"softmax_weight": value} for value in (0.1, 0.3, 1.0)],
    "semi_hard": [{"margin": value} for value in (0.1, 0.2, 0.4)],
    "online_sampling": [{"margin": value} for value in (0.05, 0.1, 0.2)],
    "bdl": [{"negative_cost": value} for value in (5.0, 25.0, 50.0)],
    "sbdl_informativeness": [{"negative_cost": value} for value in (5.0, 25.0, 50.0)],
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
_OWN_TABLE = {"memory", "mixed_bfloat16", "mixed_float16", "tuned"}
EVERY = tuple(name for name, (*_, needs) in METHODS.items() if not _OWN_TABLE.intersection(needs))
