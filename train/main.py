"""Trains an embedder: flags in, a folder with the best model, its history and its figures out.

    python train/main.py --strategy=mirrored
    python train/main.py --dataset=csv --data_dir=photos/catalog.csv --model_dir=runs/mine --backbone=resnet50

Killed at any moment, the same command goes on from the last epoch.

On several machines, the same command on each of them with its own TF_CONFIG, --strategy=multi_worker and a --model_dir
that all share. If one is killed, the others begin the last epoch again as soon as it is back.
"""

import contextlib
import os
import signal
import sys
import time
import warnings

from absl import app, flags, logging

from eet_tf import commands

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # its exceptions say all that matters

FLAGS = flags.FLAGS
_DATASETS = ["synthetic", "csv", "folder", "sop", "inshop", "consumer_to_shop", "cub", "cars196"]
_RECALL_KS = {  # those of each data set's protocol
    "sop": (1, 10, 100, 1000),
    "inshop": (1, 10, 20, 30, 40, 50),
    "consumer_to_shop": (1, 20, 50),
    "cub": (1, 2, 4, 8),
    "cars196": (1, 2, 4, 8),
}
_EET = ["margin", "equidistant_weight", "equidistributed_weight", "symmetric_margin"]
_TRIPLET = ["margin", "positives", "negatives", "distance", "soft_margin"]
_DEVIANCE = ["alpha", "beta", "negative_cost"]
_LOSSES = {  # the class, and the flags that are its arguments
    "eet": ("EETLoss", _EET),
    "triplet": ("TripletLoss", _TRIPLET),
    "binomial_deviance": ("BinomialDevianceLoss", _DEVIANCE),
    "soft_binomial_deviance": ("SoftBinomialDevianceLoss", [*_DEVIANCE, "weighting", "granularity", "preserved_share"]),
}
_ADDONS_LOSSES = {  # those of tensorflow-addons, and the flags that are their arguments
    "tfa_triplet_semihard": ["margin", "distance"],
    "tfa_triplet_hard": ["margin", "distance", "soft_margin"],
    "tfa_lifted": ["margin"],
    "tfa_npairs": [],
    "tfa_contrastive": ["margin"],
}
_ADDONS_OPTIMIZERS = ["tfa_adabelief", "tfa_adamw", "tfa_lamb", "tfa_lazyadam", "tfa_novograd", "tfa_radam"]
_ADDONS_OPTIMIZERS += ["tfa_sgdw", "tfa_yogi"]
_RANGES = {  # of numbers, both ends of which may be given
    "seed": (0, 2**32 - 1),
    "hold_out": (0, 0.999),
    "crop": (0.001, 1),
    "color": (0, 1),
    "cutout": (0, 0.999),
    "noise": (0, 1),
    "image_size": (32, 4096),
    "embedding_dim": (1, 65536),
    "classes_per_batch": (2, 10**6),
    "examples_per_class": (2, 10**6),
    "microbatch": (1, 10**6),
    "memory_size": (0, 10**7),
    "steps_per_epoch": (1, 10**7),
    "warmup_steps": (0, 10**9),
    "weight_decay": (0, 1),
    "virtual_devices": (0, 1024),
}
_STRATEGIES = ["default", "one_device", "mirrored", "multi_worker"]
_MAY_CHANGE = frozenset({"epochs", "strategy", "jit", "virtual_devices", "model_dir", "data_dir", "check_photos"})

flags.DEFINE_enum("dataset", "synthetic", _DATASETS, "Layout of the photos; synthetic draws its own.")
flags.DEFINE_string("data_dir", None, "Where the photos are; synthetic: where they are drawn to.")
flags.DEFINE_bool("drop_singles", False, "Leave out products with one photo instead of refusing them.")
flags.DEFINE_bool("check_photos", True, "Decode every photo once before training.")
flags.DEFINE_bool("cache", False, "Decode the photos to learn from once and keep them, N x size x size x 3 bytes.")
flags.DEFINE_float(
    "hold_out",
    0.1,
    "Share of the training products kept aside to choose the best epoch; 0: none. A validation split of the list comes "
    "first.",
)
flags.DEFINE_string("model_dir", "runs/synthetic", "What training writes: model.keras, history.csv, metrics.json, ...")

flags.DEFINE_enum(
    "loss",
    "eet",
    [*_LOSSES, *_ADDONS_LOSSES],
    "The loss of the embedding; triplet is batch-hard by default. tfa_: of tensorflow-addons, with TensorFlow 2.15.",
)
flags.DEFINE_float("margin", 0.3, "EET, triplet, tfa: margin, in the unit of the distance.", lower_bound=0.0)
flags.DEFINE_float("equidistant_weight", 1.0, "EET: weight of the equidistant term.", lower_bound=0.0)
flags.DEFINE_float("equidistributed_weight", 1.0, "EET: weight of the class terms.", lower_bound=0.0)
flags.DEFINE_bool("symmetric_margin", False, "EET: add the margin seen from the positive.")

flags.DEFINE_enum("positives", "hard", ["hard", "partner", "all"], "Triplet: which positives an anchor meets.")
flags.DEFINE_enum("negatives", "hard", ["hard", "semi_hard", "all"], "Triplet: which negatives an anchor meets.")
flags.DEFINE_enum("distance", "euclidean", ["euclidean", "squared", "cosine"], "Triplet: distance of unit vectors.")
flags.DEFINE_bool("soft_margin", False, "Triplet: log(1 + exp(.)) in place of the margin.")
flags.DEFINE_float("alpha", 2.0, "Deviance: steepness.", lower_bound=0.0)
flags.DEFINE_float("beta", 0.5, "Deviance: cosine that parts positive pairs from negative ones.")
flags.DEFINE_float("negative_cost", 25.0, "Deviance: weight of negatives in the exponent.", lower_bound=0.0)
flags.DEFINE_enum(
    "weighting", "informativeness", ["informativeness", "preserving"], "Soft deviance: how attributes weigh pairs."
)
flags.DEFINE_enum("granularity", "labels", ["labels", "predictions"], "Soft deviance: where attributes come from.")
flags.DEFINE_float("preserved_share", 0.5, "Soft deviance, preserving: how far alike negatives are spared.", 0.0, 1.0)
flags.DEFINE_list("attributes", [], "Attribute columns that a second head learns, with commas between; all: every one.")
flags.DEFINE_float("attribute_weight", 1.0, "Weight of the attribute loss.", lower_bound=0.0)

flags.DEFINE_string("backbone", "small_cnn", "resnet50, efficientnet_b0, mobilenet_v2, ... or small_cnn for CPUs.")
flags.DEFINE_string(
    "weights", None, "imagenet, the path of a backbone's weights, or none, which also switches off those of a recipe."
)
flags.DEFINE_integer("image_size", 64, "Side of the square input in pixels.")
flags.DEFINE_integer("embedding_dim", 128, "Length of the embedding.")
flags.DEFINE_enum("pooling", "gem", ["gem", "avg", "grid"], "How the feature map becomes a vector.")
flags.DEFINE_bool("freeze_batch_norm", False, "Keep the backbone's batch normalisation as loaded.")

flags.DEFINE_integer("classes_per_batch", 16, "Products in a batch.")
flags.DEFINE_integer("examples_per_class", 4, "Photos of each product in a batch.")
flags.DEFINE_integer(
    "microbatch", None, "Photos per device that pass the network at a time, to train large batches in little memory."
)
flags.DEFINE_integer(
    "memory_size", 0, "Photos of past batches that those of a batch also meet (arXiv 1912.06798).", lower_bound=0
)
flags.DEFINE_integer("memory_start", 1000, "Steps before they do.", lower_bound=0)
flags.DEFINE_float(
    "category_probability", 0.0, "Share of the batches that come from one category (arXiv 1810.04652: 0.8).", 0.0, 1.0
)
flags.DEFINE_string("category_column", None, "Attribute column to take for the category.")
flags.DEFINE_float("crop", 0.6, "Smallest share of the area that a random crop keeps; 1: no crops.")
flags.DEFINE_float("color", 0.05, "Strength of random brightness, contrast and saturation; 0: none.")
flags.DEFINE_float("cutout", 0.0, "Largest side of a blanked rectangle as a share of the image's; 0: none.")
flags.DEFINE_float("noise", 0.0, "Strength of noise on every other photo, as a share of 255; 0: none.")

flags.DEFINE_integer("epochs", 16, "Epochs to train.", lower_bound=1)
flags.DEFINE_integer(
    "steps_per_epoch", None, "Batches in an epoch; by default as many as show every photo once, and at least 100."
)
flags.DEFINE_enum(
    "optimizer",
    "adam",
    ["adam", "adamw", "sgd", *_ADDONS_OPTIMIZERS],
    "sgd is with Nesterov momentum 0.9. tfa_: of tensorflow-addons, with TensorFlow 2.15.",
)
flags.DEFINE_float("learning_rate", 1e-3, "Highest learning rate.")
flags.DEFINE_enum("schedule", "cosine", ["cosine", "step"], "How it falls: along a cosine to 1 %, or once to 10 %.")
flags.DEFINE_float("drop_at", 0.2, "Schedule step: share of the training after which the rate falls.", 0.0, 1.0)
flags.DEFINE_integer("warmup_steps", 0, "Steps over which the learning rate rises from 0.")
flags.DEFINE_float("weight_decay", 0.0, "Decoupled weight decay; adam has none.")
flags.DEFINE_float(
    "ema", 0.0, "Momentum of a running average of the weights, which is measured and saved; 0: none.", 0, 1
)
flags.DEFINE_float("clip_norm", None, "Longest the gradient of all weights together may be; none by default.")
flags.DEFINE_enum(
    "mixed_precision",
    "none",
    ["none", "bfloat16", "float16"],
    "Layers calculate in this, weights and losses in float32.",
)
flags.DEFINE_enum(
    "jit",
    "auto",
    ["auto", "on", "off"],
    "Whether XLA compiles network and loss, under every strategy; auto: with GPUs, not with CPUs alone.",
)
flags.DEFINE_integer("seed", 0, "Of the weights, the batches and what is held out.")
flags.DEFINE_list("ks", None, "The K of each R@K; by default the data set's own, or 1,10,100.")

flags.DEFINE_enum("strategy", "default", _STRATEGIES, "How training is shared among devices (tf.distribute).")
flags.DEFINE_integer("virtual_devices", 0, "Split the CPU into this many devices, to try a strategy without GPUs.")


def _catalogs():
    """What to learn from, what chooses the best epoch, what the final figures come from; the last two may be None."""
    from eet_tf import data

    catalog = data.load_dataset(FLAGS.dataset, FLAGS.data_dir)
    if FLAGS.category_column:
        catalog = catalog.categorized_by(FLAGS.category_column)
    train, validation, test = data.parts_of(catalog)
    if FLAGS.drop_singles:
        train = train.without_singles()
    train.check_trainable()
    if FLAGS.hold_out and validation is None:
        train, validation = train.hold_out(FLAGS.hold_out, FLAGS.seed)
    return train, validation, test


def _say(text: str) -> None:
    print(text, flush=True)


def _complaints() -> commands.Complaints:
    """What is wrong with the flags, as far as they alone tell."""
    from eet_tf.embedder import BACKBONES

    complaints = commands.Complaints()
    complaints.folder("model_dir", FLAGS.model_dir)
    if FLAGS.ks is not None:
        complaints.whole_numbers("ks", FLAGS.ks)
    for name, (least, most) in _RANGES.items():
        complaints.number(name, getattr(FLAGS, name), least, most)
    if FLAGS.backbone not in BACKBONES:
        complaints.add(f"--backbone must be one of {', '.join(BACKBONES)}. Received: --backbone={FLAGS.backbone}.")
    if FLAGS.weights not in (None, "none", "imagenet") and not os.path.isfile(FLAGS.weights):
        complaints.add(
            "--weights must be none, imagenet or the path of a backbone's weights. "
            f"Received: --weights={FLAGS.weights}."
        )
    complaints.above("learning_rate", FLAGS.learning_rate, 0)
    complaints.above("clip_norm", FLAGS.clip_norm, 0)
    if FLAGS.schedule == "step" and FLAGS.warmup_steps:
        complaints.add("--warmup_steps needs --schedule=cosine. Received: --schedule=step.")
    complaints.check(_check_addons)
    return complaints


def _checked() -> tuple:
    """The catalogues, the sampler and the attributes; refuses in one go what flags and data cannot do together."""
    from eet_tf.data.answers import check_answers
    from eet_tf.data.folders import note_of_dataset

    complaints = _complaints()
    is_cut = 0 <= FLAGS.seed < 2**32 and 0 <= FLAGS.hold_out < 1  # else what is held out is not known
    is_there = complaints.are_none or FLAGS.dataset != "synthetic"  # photos are not drawn for nothing
    catalogs = complaints.check(_catalogs) if is_cut and is_there else None
    sampler = attributes = None
    if catalogs is not None:
        sampler = complaints.check(_sampler, catalogs[0])
        attributes = complaints.given("attributes", ",".join(FLAGS.attributes), lambda _: _attributes(catalogs[0]))
        for catalog, name in zip(catalogs[1:], ("what chooses the best epoch", "the split 'test'")):
            if catalog is not None:
                complaints.check(check_answers, catalog, name)
    complaints.end()
    note = note_of_dataset(FLAGS.dataset, FLAGS.data_dir)
    if note:
        _say(note)
    return *catalogs, sampler, attributes


def _every_seconds(report, seconds: float = 5.0):
    """`report`, called through only when that long has passed since the last time."""
    last = time.monotonic()

    def throttled(*args):
        nonlocal last
        if time.monotonic() - last > seconds:
            last = time.monotonic()
            report(*args)

    return throttled


def _sampler(train):
    from eet_tf import data

    if FLAGS.category_probability and train.categories is None:
        raise ValueError(
            f"--category_probability needs categories, and {train.source} has none. "
            f"Name a column with --category_column; there are {sorted(train.attributes) or 'none'}."
        )
    return data.PKSampler(
        train.labels,
        FLAGS.classes_per_batch,
        FLAGS.examples_per_class,
        FLAGS.seed,
        train.categories,
        FLAGS.category_probability,
    )


def _attributes(train):
    """What the second head learns, or None."""
    from eet_tf import data

    if FLAGS.attributes:
        return data.encode_attributes(train, "all" if FLAGS.attributes == ["all"] else FLAGS.attributes)
    if FLAGS.loss == "soft_binomial_deviance":
        raise ValueError(
            "--loss=soft_binomial_deviance needs --attributes=COLUMN,COLUMN or --attributes=all; "
            f"{train.source} has the columns {sorted(train.attributes) or 'none'}."
        )
    return None


def _loss():
    import eet_tf

    if FLAGS.loss in _ADDONS_LOSSES:
        from eet_tf.addons import AddonsLoss

        return AddonsLoss(FLAGS.loss, **{name: getattr(FLAGS, name) for name in _ADDONS_LOSSES[FLAGS.loss]})
    loss, arguments = _LOSSES[FLAGS.loss]
    return getattr(eet_tf, loss)(**{name: getattr(FLAGS, name) for name in arguments})


def _learning_rate(num_steps: int):
    import keras

    schedules = keras.optimizers.schedules
    if FLAGS.schedule == "step":
        return schedules.PiecewiseConstantDecay(
            [int(FLAGS.drop_at * num_steps)], [FLAGS.learning_rate, FLAGS.learning_rate / 10]
        )
    warmup = {"warmup_target": FLAGS.learning_rate, "warmup_steps": FLAGS.warmup_steps} if FLAGS.warmup_steps else {}
    first = 0.0 if warmup else FLAGS.learning_rate
    return schedules.CosineDecay(first, max(num_steps - FLAGS.warmup_steps, 1), alpha=0.01, **warmup)


def _optimizer(num_steps: int):
    import keras

    rate, common = _learning_rate(num_steps), {"global_clipnorm": FLAGS.clip_norm}
    if FLAGS.optimizer in _ADDONS_OPTIMIZERS:
        from eet_tf.addons import make_optimizer

        return make_optimizer(FLAGS.optimizer, rate, FLAGS.weight_decay, **common)
    if FLAGS.ema:
        common |= {"use_ema": True, "ema_momentum": FLAGS.ema}
    if FLAGS.optimizer == "sgd":
        decay = FLAGS.weight_decay or None
        return keras.optimizers.SGD(rate, momentum=0.9, nesterov=True, weight_decay=decay, **common)
    if FLAGS.optimizer == "adamw":
        return keras.optimizers.AdamW(rate, weight_decay=FLAGS.weight_decay, **common)
    return keras.optimizers.Adam(rate, **common)


def _learner(num_steps: int, attributes):
    import eet_tf

    embedder = eet_tf.build_embedder(
        FLAGS.backbone,
        FLAGS.embedding_dim,
        FLAGS.image_size,
        None if FLAGS.weights == "none" else FLAGS.weights,
        FLAGS.pooling,
        FLAGS.freeze_batch_norm,
        attributes.names if attributes else (),
    )
    learner = eet_tf.MetricLearner(embedder, FLAGS.memory_size, FLAGS.memory_start)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        learner.compile(
            optimizer=_optimizer(num_steps),
            loss=_loss(),
            attribute_loss=eet_tf.AttributeLoss() if attributes else None,
            attribute_weight=FLAGS.attribute_weight,
            microbatch=FLAGS.microbatch,
            jit_compile={"auto": "auto", "on": True, "off": False}[FLAGS.jit],
        )
    for warning in caught:
        _say(str(warning.message))
    return learner


def _steps_per_epoch(sampler) -> int:
    return FLAGS.steps_per_epoch or max(sampler.steps_per_epoch, 100)


def _settings() -> dict[str, str]:
    """Every flag of this script that is set, as text: what `flags.txt` holds."""
    own = FLAGS.flags_by_module_dict()[sys.argv[0]]
    return {flag.name: _as_text(flag.value) for flag in own if flag.value is not None}


def _as_text(value) -> str:
    return ",".join(value) if isinstance(value, list) else str(value)


def _is_shared() -> bool:
    """Whether several machines train, or one that does as if it were one of several."""
    return FLAGS.strategy == "multi_worker"


def _check_addons() -> None:
    """Refuses what tensorflow-addons cannot do, and all of it where it is not."""
    if FLAGS.loss not in _ADDONS_LOSSES and FLAGS.optimizer not in _ADDONS_OPTIMIZERS:
        return
    from eet_tf import addons

    addons.check_available("loss", FLAGS.loss)
    addons.check_available("optimizer", FLAGS.optimizer)
    if FLAGS.loss == "tfa_npairs" and FLAGS.examples_per_class % 2:
        raise ValueError(
            "--loss=tfa_npairs needs an even --examples_per_class, as it takes the photos of a product in pairs. "
            f"Received: --examples_per_class={FLAGS.examples_per_class}."
        )
    if FLAGS.optimizer in _ADDONS_OPTIMIZERS and FLAGS.ema:
        raise ValueError(
            f"--ema needs an optimizer of Keras: adam, adamw or sgd. Received: --optimizer={FLAGS.optimizer}."
        )


def _check_workers() -> None:
    from eet_tf import replicas

    count = len(replicas.read_cluster().workers)
    if count > 1 and not _is_shared():
        raise ValueError(
            f"TF_CONFIG names {count} workers, which only --strategy=multi_worker lets train "
            f"together. Received: --strategy={FLAGS.strategy}. Change it, or unset TF_CONFIG."
        )


def _check_same_task(strategy, train) -> None:
    """Refuses workers that would not train the same thing, before they make weights that do not fit together."""
    from eet_tf import workers
    from eet_tf.run import RunError

    own = {"model_dir", "data_dir", "check_photos"}
    settings = "\n".join(f"{name}={text}" for name, text in _settings().items() if name not in own)
    photos = "\n".join([*train.paths.tolist(), *train.skus.tolist()])
    same_settings, same_photos = workers.agree(strategy, settings, photos)
    if not same_settings:
        raise RunError("The workers were given different flags. Give all of them the same ones.")
    if not same_photos:
        raise RunError(f"The workers have different photos or products. This one read {train.source}.")


def _check_same_folder(strategy, run, done: int) -> None:
    """Refuses workers that do not see the folder that the chief keeps; all are there once it returns."""
    from eet_tf import workers
    from eet_tf.run import RunError

    workers.agree(strategy, "the chief has made it")
    if not all(workers.agree(strategy, run.holder(), str(done))):
        raise RunError(
            f"--model_dir must be one folder that all workers share. Received: --model_dir={FLAGS.model_dir}, in which "
            f"this one finds {done} epochs, and another worker sees another folder."
        )


def _rank(embedder, catalog):
    from eet_tf import data
    from eet_tf.evaluation import embed, rank_catalog

    embeddings = embed(embedder, data.gallery_dataset(catalog, FLAGS.image_size), verbose=1)
    return rank_catalog(embeddings, catalog.labels, catalog.roles)


def _ks() -> tuple[int, ...]:
    return tuple(int(k) for k in FLAGS.ks) if FLAGS.ks else _RECALL_KS.get(FLAGS.dataset, (1, 10, 100))


def _callbacks(run, progress, validation) -> list:
    import keras

    import eet_tf
    from eet_tf import data
    from eet_tf.run import StopOnNaN

    callbacks = [StopOnNaN()]
    if not run.writes:
        return [*callbacks, progress]
    if validation:
        gallery = data.gallery_dataset(validation, FLAGS.image_size)
        takes_a_while = len(validation) > 2000
        callbacks.append(eet_tf.RetrievalEvaluation(gallery, validation.labels, verbose=int(takes_a_while)))
    return [*callbacks, keras.callbacks.TensorBoard(run.path("logs"), write_graph=False), progress]


def _decoded(train):
    from eet_tf import data

    _say(f"Keeping {len(train):,} decoded photos, {len(train) * 3 * FLAGS.image_size**2 / 2**20:,.0f} MB.")
    return data.decode_photos(train, FLAGS.image_size, _every_seconds(lambda done: _say(f"Decoded {done:,} photos.")))


def _train(run, learner, sampler, attributes, train, validation, test) -> None:
    """Trains, or goes on training, and writes the figures."""
    from eet_tf import data, workers
    from eet_tf.run import Progress

    progress = Progress(run, learner, monitor="val_map@r" if validation else None)
    done = progress.restore()
    if _is_shared():
        _check_same_folder(learner.distribute_strategy, run, done)
    if done:
        _say(f"Going on after epoch {done} of {FLAGS.epochs}.")
    measured_on = test or validation
    num_copies = _count_copies(train, measured_on) if run.writes and measured_on else 0
    embedder = workers.copy_of_worker(learner).embedder if _is_shared() else learner.embedder
    if run.writes and measured_on and run.read_json("before.json") is None:
        _say(f"Measuring the untrained embedder on {len(measured_on):,} photos.")
        run.write_json("before.json", _rank(embedder, measured_on).summary(_ks()))

    steps = _steps_per_epoch(sampler)
    _say(f"Training on {len(train):,} photos of {train.num_classes:,} products, {steps} steps an epoch.")
    augment = data.augmentation(FLAGS.image_size, FLAGS.crop, FLAGS.color, FLAGS.cutout, FLAGS.seed, FLAGS.noise)
    values = attributes.values if attributes else None
    decoded = _decoded(train) if FLAGS.cache else None

    def batches(part):
        return data.training_dataset(train, sampler, FLAGS.image_size, augment, done, steps, values, decoded, part)

    started = time.monotonic()
    how = {"epochs": FLAGS.epochs, "initial_epoch": done, "steps_per_epoch": steps}
    how["callbacks"] = _callbacks(run, progress, validation)
    if _is_shared():
        workers.fit(learner, batches, **how, verbose=int(run.writes))
    else:
        learner.fit(batches((0, 1)), **how, shuffle=False)
    if run.writes:
        _write_figures(run, progress.best_epoch(), time.monotonic() - started, validation, test, num_copies)


def _count_copies(train, measured_on) -> int:
    """How many of the photos that figures come from are copies of photos that are learned from; says so."""
    from eet_tf.data.splits import copies

    found = copies(train, measured_on)
    if found:
        learned, measured = found[0]
        _say(
            f"{len(found):,} of the {len(measured_on):,} photos to measure on are copies of photos to learn from, e.g. "
            f"{measured_on.paths[measured]} of {train.paths[learned]}. Figures will be too good. "
            "python -m eet_tf.audit names all of them."
        )
    return len(found)


def _write_figures(run, best_epoch: int, seconds: float, validation, test, num_copies: int) -> None:
    """Measures the best embedder and writes all that is said of the run."""
    import eet_tf
    from eet_tf.comparison import ClassResults
    from eet_tf.evaluation import is_query
    from eet_tf.report import plot_curves

    measured_on = test or validation
    figures = {"best_epoch": best_epoch, "epochs": FLAGS.epochs, "seconds": seconds}
    if measured_on:
        ranking = _rank(eet_tf.load_embedder(run.folder), measured_on)
        ClassResults.of(ranking, _ks(), measured_on.label_skus).write(run.path("classes.csv"))
        after = ranking.summary(_ks())
        figures.update(measured_on="test" if test else "validation", before=run.read_json("before.json"), after=after)
        figures["copies_of_training_photos"] = num_copies
        if measured_on.categories is not None:
            asked_for = is_query(len(measured_on), measured_on.roles)
            figures["by_category"] = ranking.by_group(measured_on.categories[asked_for], _ks())
    run.write_json("metrics.json", figures)
    plot_curves(run.read_history(), run.path("curves.png"))
    if measured_on:
        k = _ks()[0]
        shares = [100 * figures[when][f"recall@{k}"] for when in ("before", "after")]
        products = f"{'' if num_copies else 'unseen '}{figures['measured_on']} products"
        _say(f"R@{k} on {products}: {shares[0]:.1f} % before, {shares[1]:.1f} % after.")
    _say(f"The embedder is {run.path('model.keras')}.")


def _prepared() -> tuple:
    """The strategy, and all that is trained with; refuses what cannot work before long work starts."""
    import keras

    import eet_tf
    from eet_tf import data, replicas, workers
    from eet_tf.run import RunFolder

    train, validation, test, sampler, attributes = _checked()
    keras.utils.set_random_seed(FLAGS.seed)
    if FLAGS.mixed_precision != "none":
        keras.mixed_precision.set_global_policy(f"mixed_{FLAGS.mixed_precision}")
    if FLAGS.virtual_devices:
        replicas.split_cpu(FLAGS.virtual_devices)
    _check_workers()
    if _is_shared():
        workers.wait_for_others(_every_seconds(lambda missing: _say(f"Waiting for {', '.join(missing)}."), 10))
    strategy = eet_tf.make_strategy(FLAGS.strategy)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # which the strategy of several workers takes for itself
    replicas.check_batch_size(sampler.batch_size, strategy, FLAGS.microbatch)
    if _is_shared():
        _check_same_task(strategy, train)
    with strategy.scope():
        learner = _learner(_steps_per_epoch(sampler) * FLAGS.epochs, attributes)
    run = RunFolder(FLAGS.model_dir, _settings(), _MAY_CHANGE, replicas.read_cluster().is_chief)
    if FLAGS.check_photos and run.writes:
        catalogs = [catalog for catalog in (train, validation, test) if catalog is not None]
        data.check_photos(catalogs, _every_seconds(lambda done: _say(f"Checked {done:,} photos.")))
    return strategy, run, learner, sampler, attributes, train, validation, test


@contextlib.contextmanager
def _naming_photos(catalogs):
    """A photo that was not checked, or has changed since, ends a training; this says which it is, and why."""
    import tensorflow as tf

    from eet_tf import data
    from eet_tf.run import RunError

    try:
        try:
            yield
        except (tf.errors.InvalidArgumentError, tf.errors.NotFoundError, FileNotFoundError):
            data.check_photos([catalog for catalog in catalogs if catalog is not None])
            raise
    except data.CatalogError as error:
        raise RunError(str(error)) from error


def main(argv):
    """Says in one line what is wrong; if another worker is gone, starts again."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown argument {argv[1]!r}; flags begin with --")
    import tensorflow as tf

    from eet_tf import workers
    from eet_tf.run import RunError

    logging.set_verbosity(logging.ERROR)
    tf.get_logger().setLevel("ERROR")
    try:
        try:
            strategy, *prepared = _prepared()
        except ValueError as error:
            raise RunError(str(error)) from error
        with contextlib.nullcontext() if _is_shared() else strategy.scope(), _naming_photos(prepared[4:]):
            _train(*prepared)
        if _is_shared():
            workers.part_ways(strategy)  # until all is written the chief may need the others again
    except (RunError, MemoryError) as error:
        sys.exit(f"error: {error}")
    except tf.errors.OpError as error:
        if not (_is_shared() and workers.is_loss_of_worker(error)):
            raise
        _say("Another worker is gone. This one starts again from the last epoch and waits for it.")
        os.execv(sys.executable, sys.orig_argv)


if __name__ == "__main__":
    commands.run(main)
