"""The drawn inputs of what is kept here, and what is asked of it: when it was written, and when it is tested."""

import numpy as np
import tensorflow as tf


def images(size=32, count=8):
    """The drawn input of every embedder: `[count, size, size, 3]` in [0, 255]."""
    return np.random.default_rng(5).integers(0, 256, size=[count, size, size, 3]).astype(np.float32)


def labels(count=8):
    """Two photos of each product."""
    return np.arange(count) // 2


def attributes(count=8):
    """`[count, 2]` of -1 unknown, 0 no, 1 yes."""
    return np.random.default_rng(6).integers(-1, 2, size=[count, 2])


def vectors(count=40, dim=8, seed=7):
    """`[count, dim]` unit vectors."""
    drawn = np.random.default_rng(seed).normal(size=[count, dim]).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def as_lists(outputs):
    """Outputs of a model as lists of JSON."""
    if isinstance(outputs, dict):
        return {name: np.asarray(values).tolist() for name, values in sorted(outputs.items())}
    return np.asarray(outputs).tolist()


def answers(index):
    """What an index finds: plainly, one photo a product, and filtered."""
    queries = vectors(4, seed=10)
    asked = {
        "plain": {},
        "by_sku": {"group_by_sku": True},
        "cheap": {"where": {"price": {"max": 20.0}}},
        "blue": {"where": {"colour": ["blau, grün", "green"]}},
    }
    found = {name: index.search(queries, k=5, **how) for name, how in asked.items()}
    return {
        name: {"photos": np.asarray(each.photos).tolist(), "scores": np.asarray(each.scores).tolist()}
        for name, each in found.items()
    }


def found_by_server(model, photos):
    """What the signature `search` of a loaded SavedModel answers."""
    found = model.signatures["search"](image_bytes=tf.constant(photos))
    skus = [[sku.decode() for sku in row] for row in found["sku"].numpy()]
    return {"sku": skus, "score": found["score"].numpy().tolist()}


def steps(learner, count):
    """What a learner logs in each of its next steps on one batch: `{name: [loss of a step]}`."""
    has_heads = isinstance(learner.embedder.output, dict)
    targets = {"label": labels(), "attributes": attributes()} if has_heads else labels()
    batch = tf.nest.map_structure(tf.constant, (images(16), targets))
    found = []
    for _ in range(count):
        learner.reset_metrics()
        found.append({name: float(value) for name, value in learner.train_step(batch).items()})
    return {name: [each[name] for each in found] for name in found[0]}


def write_photos(folder):
    """The photos that the run learned from."""
    from eet_tf.data import make_synthetic_catalog

    make_synthetic_catalog(str(folder), num_products=20, photos_per_product=3, image_size=32)


def backbone_of(embedder):
    """The model within an embedder."""
    return next(layer for layer in embedder.layers if hasattr(layer, "layers"))


def rounded(content):
    """Numbers with the digits that float32 has."""
    if isinstance(content, dict):
        return {name: rounded(each) for name, each in content.items()}
    if isinstance(content, list):
        return [rounded(each) for each in content]
    return float(f"{content:.7g}") if isinstance(content, float) else content
