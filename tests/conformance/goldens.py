"""What the golden files hold: for each public class that computes, the numbers it gives for fixed seeds.

    python -m tests.conformance.goldens            writes tests/golden/*.json anew

The numbers are no truth of their own: plain loops in tests/reference.py are. They say that nothing has moved. Where one
moves on purpose, write the files anew and say in the commit why.
"""

import json
import pathlib

import keras
import numpy as np
import tensorflow as tf

import eet_tf
from eet_tf.data import PKSampler
from eet_tf.index import ExactIndex, ScannConfiguration, ScannIndex
from tests.losses.test_keras_contract import OTHER_ARGUMENTS, made

FOLDER = pathlib.Path(__file__).parents[1] / "golden"
COMMAND = "python -m tests.conformance.goldens"

# 12 photos of classes of 1 to 4, in no order; vectors of length 5 and uneven size; of 3 attributes some are unknown
LABELS = np.array([4, 0, 2, 4, 1, 2, 4, 0, 7, 2, 4, 0])
EMBEDDINGS = np.random.default_rng(11).normal(size=[12, 5]).astype(np.float32)
ATTRIBUTES = np.random.default_rng(12).integers(-1, 2, size=[12, 3])
TEACHER = np.random.default_rng(16).normal(size=[12, 5]).astype(np.float32)
LOGITS = np.random.default_rng(13).normal(size=[12, 3]).astype(np.float32)


def loss_inputs(name, dtype=tf.float32):
    """Targets and outputs that a loss takes: the outputs, and what its gradient is taken by, in `dtype`."""
    embeddings, logits = tf.cast(EMBEDDINGS, dtype), tf.cast(LOGITS, dtype)
    if name == "AttributeLoss":
        return ATTRIBUTES, logits, logits
    if name == "SoftBinomialDevianceLoss":
        targets = {"label": LABELS, "attributes": ATTRIBUTES}
        return targets, {"embedding": embeddings, "attributes": logits}, embeddings
    if name == "DistillationLoss":
        return {"label": LABELS, "teacher": TEACHER}, {"embedding": embeddings}, embeddings
    return LABELS, embeddings, embeddings


def per_photo(loss, targets, outputs):
    """The loss of each photo, with class vectors of a seed where it needs some."""
    shapes = loss.class_vectors_shapes(5) if isinstance(loss, eet_tf.MetricLoss) else {}
    if not shapes:
        return loss.call(targets, outputs)
    rng = np.random.default_rng(16)
    vectors = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    return tf.add_n(list(loss.terms(targets, outputs, class_vectors=vectors).values()))


def loss_settings(name):
    """The default, and a value other than it for each argument that changes the numbers of raw embeddings."""
    unused = ("reduction", "name", "dtype", "from_normalized")
    others = {key: value for key, value in OTHER_ARGUMENTS[name].items() if key not in unused}
    return {"default": {}, "other": others}


def loss_of(name, dtype=tf.float32, **arguments):
    """Each anchor's loss `[12]`, and how long its sum's gradient is at each photo `[12]`."""
    targets, outputs, watched = loss_inputs(name, dtype)
    loss = made(getattr(eet_tf, name), **arguments)
    with tf.GradientTape() as tape:
        tape.watch(watched)
        values = per_photo(loss, targets, outputs)
        total = tf.reduce_sum(values)
    slopes = tf.cast(tape.gradient(total, watched), tf.float32)
    return values, tf.norm(slopes, axis=1)


def of_loss(name):
    """Both settings of a loss."""
    return {
        f"{setting}/{part}": np.asarray(numbers).tolist()
        for setting, arguments in loss_settings(name).items()
        for part, numbers in zip(("loss", "gradient"), loss_of(name, **arguments))
    }


def make_embedder():
    """Two layers with weights of a seed, so that both versions of Keras begin alike."""
    model = keras.Sequential([keras.Input([5]), keras.layers.Dense(6, activation="tanh"), keras.layers.Dense(4)])
    rng = np.random.default_rng(14)
    model.set_weights([rng.normal(size=weight.shape, scale=0.5) for weight in model.get_weights()])
    return model


def trained(**compile_arguments):
    """A learner after two epochs of two steps, and what it logged."""
    learner = eet_tf.MetricLearner(make_embedder())
    learner.compile(keras.optimizers.SGD(0.05), loss=eet_tf.EETLoss(), **compile_arguments)
    images = np.concatenate([EMBEDDINGS, EMBEDDINGS[::-1] + 0.5])
    labels = np.concatenate([LABELS, LABELS])
    history = learner.fit(images, labels, batch_size=12, epochs=2, shuffle=False, verbose=0).history
    return learner, history


def of_learner():
    """What it logs, and the last layer."""
    learner, history = trained()
    history = dict(sorted(history.items()))  # Keras 2 and 3 log in different orders
    return {**history, "projection": learner.embedder.get_weights()[2].reshape(-1).tolist()}


def of_evaluation():
    """What it adds to an epoch's logs."""
    dataset = tf.data.Dataset.from_tensor_slices(EMBEDDINGS).batch(5)
    evaluation, logs = eet_tf.RetrievalEvaluation(dataset, LABELS % 3, ks=(1, 2)), {}
    evaluation.set_model(make_embedder())
    evaluation.on_epoch_end(0, logs)
    return {name: float(value) for name, value in logs.items()}


def of_sampler():
    """Four batches, with a category in half of them."""
    labels = np.repeat(np.arange(6), [5, 2, 3, 4, 1, 3])
    categories = np.where(labels < 3, "shoes", "hats")
    sampler = PKSampler(labels, 3, 2, seed=5, categories=categories, category_probability=0.5)
    batches = sampler.batches(epoch=1)
    return {f"batch {number}": [int(row) for row in next(batches)] for number in range(4)}


def of_index(kind, **arguments):
    """The four nearest of three queries among 40 photos of 12 products, by photo and by product."""
    rng = np.random.default_rng(15)
    vectors = rng.normal(size=[43, 6]).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    skus, photos = [f"sku-{row % 12}" for row in range(40)], [f"{row}.jpg" for row in range(40)]
    index, found = kind.build(vectors[:40], skus, photos, **arguments), {}
    for name, by_product in (("photos", False), ("products", True)):
        neighbors = index.search(vectors[40:], k=4, group_by_sku=by_product)
        found[name] = (neighbors.skus if by_product else neighbors.photos).tolist()
        found[f"scores of {name}"] = neighbors.scores.tolist()
    return found


def of_configuration():
    """What is chosen for catalogues of some sizes."""
    sizes = (1_000, 50_000, 300_000, 5_000_000)
    return {
        f"{size}": [
            getattr(ScannConfiguration.for_size(size), field)
            for field in ("num_candidates", "num_leaves", "num_leaves_to_search")
        ]
        for size in sizes
    }


# The class -> what makes its numbers. tests/golden/<class>.json holds them.
GOLDENS = {
    **{name: (lambda name=name: of_loss(name)) for name in OTHER_ARGUMENTS},
    "MetricLearner": of_learner,
    "RetrievalEvaluation": of_evaluation,
    "PKSampler": of_sampler,
    "ExactIndex": lambda: of_index(ExactIndex),
    "ScannIndex": lambda: of_index(ScannIndex, configuration=ScannConfiguration(40, 5, 5)),
    "ScannConfiguration": of_configuration,
}


def read(name):
    """What is stored of a class."""
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def write():
    """Stores the numbers of every class."""
    FOLDER.mkdir(exist_ok=True)
    for name, compute in GOLDENS.items():
        stored = {"made_by": COMMAND, "what": f"{name} in tests/conformance/goldens.py", "values": compute()}
        (FOLDER / f"{name}.json").write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write()
