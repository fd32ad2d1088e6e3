"""One training of a comparison: catalogues, embedder, batches and loss from its settings, and its figures as files.

`methods.py` and `recipes.py` say what is trained. A run is known by a name; what it found stands in `NAME.csv`,
product by product among the products that it was measured on, in `NAME-whole.csv`, in the whole catalogue, and in
`NAME.json`, with its settings, its seconds and the means. That is written last: a run that has it is not trained again.
"""

import concurrent.futures
import dataclasses
import functools
import hashlib
import json
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Sequence

from contenders import CLASS_VECTORS_RATE, DEFAULTS

KS = (1, 10, 100)
QUARTER = "quarter "  # measure_on: of the training products, with a number of 0 to 3; the others are learned


@dataclasses.dataclass(frozen=True)
class Runs:
    """Where trainings keep what they found, and what all of them are given.

    Args:
        folder: for their files.
        data_dir: where the photos are.
        weights: path of the backbone's weights, or None.
        keeps_embeddings: whether each run's embeddings are kept, as `NAME.npz`.
    """

    folder: str
    data_dir: str | None
    weights: str | None
    keeps_embeddings: bool = False

    def file(self, name: str) -> str:
        """Where one run's figures are, without the ending."""
        return os.path.join(self.folder, name)

    def settings(self, name: str) -> dict:
        """What a finished run was trained with."""
        return self._record(name)["settings"]

    def seconds(self, name: str) -> float:
        """How long a training took."""
        return self._record(name)["seconds"]

    def mean(self, name: str, figure: str) -> float:
        """What a run found in the whole catalogue, e.g. its `"map@r"`."""
        return self._record(name)["whole"][figure]

    def found(self, name: str, ending: str = "-whole.csv"):
        """What a run found, product by product: in the whole catalogue, or with `.csv` among unseen products."""
        from eet_tf.evaluation.comparison import ClassResults

        return ClassResults.read(self.file(name) + ending)

    def found_by_all(self, names: Sequence[str], ending: str = "-whole.csv"):
        """What runs found that measured different products, as one."""
        import numpy as np

        from eet_tf.evaluation.comparison import ClassResults

        parts = [self.found(name, ending) for name in names]
        sums = {metric: np.concatenate([part.sums[metric] for part in parts]) for metric in parts[0].sums}
        skus, queries = (np.concatenate([getattr(part, name) for part in parts]) for name in ("skus", "num_queries"))
        return ClassResults(skus, queries, sums)

    def is_finished(self, name: str, settings: dict) -> bool:
        """Whether a run is there; refuses one that other settings made."""
        file = self.file(name)
        if not os.path.isfile(file + ".json") or (self.keeps_embeddings and not os.path.isfile(file + ".npz")):
            return False
        known, wanted = {**DEFAULTS, **self.settings(name)}, json.loads(json.dumps({**DEFAULTS, **settings}))
        different = [name for name in wanted if known.get(name) != wanted[name]]
        made_of = self._record(name).get("made_of", {})  # which versions before did not write
        sources = sources_of(settings, self.data_dir, self.weights) if made_of else {}
        different += [name for name in made_of if name in sources and made_of[name] != sources[name]]
        if different:
            sys.exit(f"error: {file}.json was made with another {', '.join(different)}. Give another --output_dir.")
        return True

    def train(self, wanted: dict[str, dict], jobs: int, until: float = float("inf")) -> None:
        """Trains the runs that are missing, some at once, each process one after another; ends if one fails.

        Args:
            wanted: the settings of each run, by its name.
            jobs: how many processes share the machine.
            until: time by `time.time()` after which none is begun.
        """
        missing = {name: settings for name, settings in wanted.items() if not self.is_finished(name, settings)}
        self.check_weights(any(settings["is_pretrained"] for settings in missing.values()))
        os.makedirs(self.folder, exist_ok=True)
        failed, not_begun = [], []
        for number, (name, outcome) in enumerate(self._outcomes(missing, jobs, until), start=1):
            if outcome is None:
                not_begun.append(name)
                continue
            if outcome:
                failed.append(name)
                print(outcome, file=sys.stderr, flush=True)
            print(f"{number} of {len(missing)}: {name}{', failed' if outcome else ''}.", flush=True)
        if failed:
            sys.exit(f"error: {', '.join(failed)} failed; what was said stands above. Those that finished are kept.")
        if not_begun:
            sys.exit(f"error: the time was over before {', '.join(not_begun)}. The same command goes on.")

    def check_weights(self, are_needed: bool) -> None:
        """Ends if there must be weights, and are none."""
        if are_needed and not (self.weights and os.path.isfile(self.weights)):
            sys.exit(f"error: this recipe needs --weights, a file. Received: --weights={self.weights}.")

    def _outcomes(self, missing: dict[str, dict], jobs: int, until: float) -> Iterable[tuple[str, str | None]]:
        """Each run's name, and what went wrong: an empty text for nothing, None where it was not begun."""
        if not missing:
            return
        with self.pool(min(jobs, len(missing))) as pool:
            futures = {self.submit(pool, name, settings, until): name for name, settings in missing.items()}
            for future in concurrent.futures.as_completed(futures):
                yield futures[future], future.result()

    def pool(self, jobs: int) -> concurrent.futures.Executor:
        """Processes to train in, each of which trains many."""
        spawned = multiprocessing.get_context("spawn")  # a process that TensorFlow runs in must not be forked
        return concurrent.futures.ProcessPoolExecutor(jobs, spawned, _begin_process, (jobs,))

    def submit(self, pool, name: str, settings: dict, until: float = float("inf")) -> concurrent.futures.Future:
        """Trains a run in one of these processes; gives what went wrong, see `_outcomes`."""
        return pool.submit(_train_unless_late, self, name, settings, until)

    def _record(self, name: str) -> dict:
        with open(self.file(name) + ".json", encoding="utf-8") as file:
            return json.load(file)


def sources_of(settings: dict, data_dir: str | None, weights: str | None) -> dict[str, str]:
    """Digests of the photos' list and of the weights that a run is made of, where they are given."""
    sources = {} if data_dir is None else {"photos": _digest_of_list(settings["dataset"], data_dir)}
    if settings["is_pretrained"] and weights and os.path.isfile(weights):
        sources["weights"] = _digest_of_file(weights)
    return sources


@functools.cache
def _digest_of_list(dataset: str, data_dir: str) -> str:
    from eet_tf import data

    catalog = data.load_dataset(dataset, data_dir)
    rows = sorted(zip(catalog.paths.tolist(), catalog.skus.tolist(), catalog.splits.tolist()))
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:12]


@functools.cache
def _digest_of_file(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()[:12]


def _begin_process(jobs: int) -> None:
    """Lets TensorFlow take its share of the processor, and compute in float32 on every device."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    threads = max(1, os.cpu_count() // jobs)
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    tf.config.experimental.enable_tensor_float_32_execution(False)
    tf.get_logger().setLevel("ERROR")


def _train_unless_late(runs: Runs, name: str, settings: dict, until: float) -> str | None:
    if time.time() > until:
        return None
    try:
        train_one(runs, name, settings)
    except Exception:  # the others go on
        return f"{name}: {traceback.format_exc()}"
    return ""


def train_one(runs: Runs, name: str, settings: dict) -> None:
    """Trains one embedder, and writes what it finds."""
    import keras
    import numpy as np

    from eet_tf.evaluation.callback import is_query, rank_catalog
    from eet_tf.evaluation.comparison import ClassResults
    from eet_tf.files import replaced

    settings = {**DEFAULTS, **settings}
    keras.backend.clear_session()
    keras.utils.set_random_seed(settings["seed"])
    keras.mixed_precision.set_global_policy(_policy(settings))
    train, measured = _catalogs(*(settings[key] for key in _CATALOG), runs.data_dir)
    photos, asked = (
        _pixels(*(settings[key] for key in _CATALOG), runs.data_dir, place, settings["image_size"], settings["fit"])
        for place in (0, 1)
    )
    sources = sources_of(settings, runs.data_dir, runs.weights)
    embedder, history, seconds = trained(settings, train, photos, runs.weights, runs.folder, sources)

    def embeddings_of(pixels):
        outputs = _outputs(embedder, pixels)
        return outputs["embedding"] if isinstance(outputs, dict) else outputs

    learned, embeddings = embeddings_of(photos), embeddings_of(asked)
    own = rank_catalog(embeddings, measured.labels, measured.roles)
    whole = rank_catalog(embeddings, measured.skus, measured.roles, other_embeddings=learned, other_labels=train.skus)
    whole = dataclasses.replace(whole, labels=measured.labels[is_query(len(measured), measured.roles)])
    found = {
        "": ClassResults.of(own, KS, measured.label_skus),
        "-whole": ClassResults.of(whole, KS, measured.label_skus),
    }
    file = runs.file(name)
    for ending, results in found.items():
        results.write(f"{file}{ending}.csv")
    if runs.keeps_embeddings:
        kept = {"learned": learned, "embeddings": embeddings, "skus": np.asarray(measured.skus)}
        with replaced(file + ".npz") as aside, open(aside, "wb") as opened:
            np.savez(opened, **kept)
    record = {"settings": settings, "made_of": sources}
    record |= {"seconds": seconds, "loss": history["loss"][-1]}
    figures = ("recall@1", "map@r")
    record |= {
        name: {figure: results.mean(figure) for figure in figures}
        for name, results in zip(("own", "whole"), found.values())
    }
    with replaced(file + ".json") as aside, open(aside, "w", encoding="utf-8") as opened:
        json.dump(record, opened, indent=1)
        opened.write("\n")


_CATALOG = ("dataset", "category_column", "measure_on")


def _policy(settings: dict) -> str:
    return next((need for need in settings["needs"] if need.startswith("mixed_")), "float32")


@functools.cache
def _catalogs(dataset: str, category_column: str | None, measure_on: str, data_dir: str | None) -> tuple:
    """What to learn from, and what to measure on."""
    from eet_tf import data

    catalog = data.load_dataset(dataset, data_dir)
    if category_column:
        catalog = catalog.categorized_by(category_column)
    train = catalog.split("train").check_trainable()
    if measure_on.startswith(QUARTER):
        return _without_quarter(train, int(measure_on.removeprefix(QUARTER)))
    return train.hold_out(0.25, seed=0) if measure_on == "held_out" else (train, catalog.split("test"))


def _without_quarter(train, number: int) -> tuple:
    """The training products but for every fourth of a drawn order, and that fourth."""
    import numpy as np

    is_measured = np.isin(train.labels, np.random.default_rng(0).permutation(train.num_classes)[number::4])
    return train.take(~is_measured), train.take(is_measured)


@functools.lru_cache(maxsize=8)
def _pixels(
    dataset: str, category_column: str | None, measure_on: str, data_dir: str | None, place: int, size: int, fit: str
):
    """All photos of one of the two catalogues, decoded once: `[N, S, S, 3]` uint8."""
    from eet_tf import data

    return data.decode_photos(_catalogs(dataset, category_column, measure_on, data_dir)[place], size, fit=fit)


def trained(
    settings: dict, train, pixels, weights: str | None, kept_in: str | None = None, sources: dict | None = None
) -> tuple:
    """An embedder that was trained as the settings say, its history, and the seconds that took.

    Args:
        settings: all of `DEFAULTS` and of a recipe, the loss, its arguments, what it needs, and the seed.
        train: the catalogue to learn from.
        pixels: its photos, decoded.
        weights: path of the backbone's weights.
        kept_in: folder where whitenings are kept, since many trainings begin as the same one.
        sources: what they depend on besides, see `sources_of`.
    """
    from eet_tf import data

    has_attributes = "attributes" in settings["needs"]
    attributes = data.encode_attributes(train, settings["attributes"]) if has_attributes else None
    embedder = make_embedder(settings, weights, attributes.names if attributes else ())
    if settings["projection"] == "whitening":
        name = f"whitening-{_key_of(settings, sources or {})}.npz"
        _begin_as_whitening(embedder, pixels, kept_in and os.path.join(kept_in, name))
    model = make_model(embedder, settings, train.num_classes)
    batches = _batches(train, pixels, settings, attributes)
    started = time.monotonic()
    history = model.fit(batches, steps_per_epoch=settings["steps"], verbose=0, shuffle=False).history
    return embedder, history, time.monotonic() - started


def make_embedder(settings: dict, weights: str | None, attribute_names=()):
    """The embedder, untrained."""
    import eet_tf

    return eet_tf.build_embedder(
        settings["backbone"],
        settings["embedding_dim"],
        settings["image_size"],
        weights if settings["is_pretrained"] else None,
        settings["pooling"],
        freeze_batch_norm=settings["is_pretrained"],
        attribute_names=attribute_names,
        freeze_until=settings["fixed_until"],
        neck=settings["neck"],
        fit=settings["fit"],
        last_stride=settings["last_stride"],
    )


def _begin_as_whitening(embedder, pixels, file: str | None) -> None:
    import numpy as np

    from eet_tf.embedder import features
    from eet_tf.evaluation.postprocessing import Whitening, fit_whitening
    from eet_tf.files import replaced

    if file is not None and os.path.isfile(file):
        with np.load(file) as kept:
            mean, projection = kept["mean"], kept["projection"]
    else:
        whitening = fit_whitening(_outputs(features.pooled_features(embedder), pixels))
        # its length does not count, and half precision is enough to begin with
        chosen = whitening.projection[:, :1024]
        mean, projection = whitening.mean, (chosen / np.abs(chosen).max()).astype(np.float16)
        if file is not None:
            with replaced(file) as aside, open(aside, "wb") as opened:
                np.savez(opened, mean=mean, projection=projection)
    units = embedder.get_layer("projection").units
    features.begin_as_whitening(embedder, Whitening(mean, projection[:, :units]))


def _outputs(model, pixels):
    """What a model makes of photos; not compiled by XLA, which would take longer than the photos."""
    model.jit_compile = False
    return model.predict(pixels.astype("float32"), 256, verbose=0)


def _key_of(settings: dict, sources: dict) -> str:
    """A name for a whitening, which depends on these settings alone; that of random weights also on the seed."""
    names = ("backbone", "pooling", "image_size", "fit", "last_stride", "is_pretrained")
    seed = None if settings["is_pretrained"] else settings["seed"]
    text = json.dumps([*(settings[name] for name in (*_CATALOG, *names)), sources, seed])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _batches(train, pixels, settings: dict, attributes):
    """The same batches for every method with the same needs and seed."""
    from eet_tf import data

    sampler = data.PKSampler(
        train.labels,
        settings["classes_per_batch"],
        settings["examples_per_class"],
        settings["seed"],
        train.categories,
        settings["category_probability"] if "categories" in settings["needs"] else 0.0,
    )
    crops_photos = settings["photo_crop"] is not None
    augment = data.augmentation(
        settings["image_size"],
        1.0 if crops_photos else settings["crop"],
        settings["color"],
        settings["cutout"],
        settings["seed"],
        random_erasing=settings["random_erasing"],
        rand_augment=settings["rand_augment"],
        mirror=settings["mirror"],
    )
    return data.training_dataset(
        train,
        sampler,
        settings["image_size"],
        augment,
        0,
        settings["steps"],
        None if attributes is None else attributes.values,
        None if crops_photos else pixels,
        fit=settings["fit"],
        photo_crop=data.photo_crop(settings["photo_crop"], settings["seed"]) if crops_photos else None,
    )


def make_model(embedder, settings: dict, num_classes: int):
    """The embedder with the method around it, compiled."""
    import eet_tf

    memory = (settings["memory_size"], settings["memory_start"]) if "memory" in settings["needs"] else ()
    model = eet_tf.MetricLearner(embedder, *memory)
    loss = _loss(settings, num_classes)
    rates = {"trunk_rate": settings["trunk_rate"], "head_only_steps": settings["head_only_steps"]}
    if "classes" in settings["needs"]:
        rates["class_vectors_rate"] = CLASS_VECTORS_RATE
    attribute_loss = eet_tf.AttributeLoss() if "attributes" in settings["needs"] else None
    model.compile(_optimizer(settings), loss, attribute_loss, jit_compile=False, **rates)
    return model


def _loss(settings: dict, num_classes: int):
    import keras

    import eet_tf

    name, arguments = settings["loss"], dict(settings["arguments"])
    if name == "Circle":
        return keras.losses.Circle(**arguments)
    make: Callable = getattr(eet_tf, name)
    if "classes" not in settings["needs"]:
        return make(**arguments)
    smoothing = {"label_smoothing": settings["label_smoothing"]} if settings["label_smoothing"] else {}
    weight = arguments.pop("softmax_weight", None)
    if weight is None:
        return make(num_classes=num_classes, **arguments, **smoothing)
    second = eet_tf.NormalizedSoftmaxLoss(num_classes, **smoothing)
    return eet_tf.CombinedLoss([make(**arguments), second], [1.0, weight])


def _optimizer(settings: dict):
    import keras

    warmup = settings["steps"] // 10
    rate = keras.optimizers.schedules.CosineDecay(
        0.0,
        settings["steps"] - warmup,
        alpha=0.01,
        warmup_target=settings["learning_rate"],
        warmup_steps=warmup,
    )
    average = {"use_ema": True, "ema_momentum": settings["ema"]} if settings["ema"] else {}
    if settings["weight_decay"]:
        return keras.optimizers.AdamW(rate, weight_decay=settings["weight_decay"], **average)
    return keras.optimizers.Adam(rate, **average)
