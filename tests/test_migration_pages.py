"""Every piece of Python on the pages for those who come from elsewhere runs, and gives what it replaces."""

import ast
import pathlib
import re
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import eet_tf
import eet_tf.data
from eet_tf import compat

DOCS = pathlib.Path(__file__).parents[1] / "docs"
BEFORE, STILL, AFTER, KERAS_3 = "# before", "# still with TensorFlow 2.15", "# after", "# after, with Keras 3"
WRITE, READ = "# in one set", "# in the other"


def pieces(page):
    """The Python of a page in groups: one that starts with `# before`, and those that follow it."""
    found = []
    for code in re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.S):
        kind = code.splitlines()[0]
        assert kind in (BEFORE, STILL, AFTER, KERAS_3, WRITE, READ), code
        if kind in (BEFORE, WRITE):
            found.append({})
        assert kind not in found[-1], code
        found[-1][kind] = code
    return found


ADDONS = pieces("from_tensorflow_addons.md")
SIMILARITY = pieces("from_tensorflow_similarity.md")


def runs_here(kind):
    return {BEFORE: compat.KERAS_2, STILL: compat.KERAS_2, KERAS_3: not compat.KERAS_2}.get(kind, True)


def names():
    """What the pages name without making it: three photos of each of four products, and models of them."""
    keras.utils.set_random_seed(1)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, [12, 32, 32, 3]).astype(np.float32)
    embedder = eet_tf.build_embedder("small_cnn", 8, image_size=32)
    sampler = eet_tf.data.PKSampler(np.repeat(np.arange(4), 3), 3, 2)
    made = {
        "images": images,
        "labels": np.array([3, 3, 7, 7, 1, 3, 1, 1, 7, 4, 4, 4]),
        "embeddings": tf.math.l2_normalize(tf.constant(rng.normal(size=[12, 8]), tf.float32), axis=1),
        "embedder": embedder,
        "model": embedder,
        "sampler": sampler,
        "eet_tf": eet_tf,
        "keras": keras,
        "np": np,
        "tf": tf,
    }
    if compat.KERAS_2:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import tensorflow_addons
        made["tfa"] = tensorflow_addons
    return made


@pytest.mark.parametrize("group", ADDONS, ids=lambda group: next(iter(group.values())).splitlines()[-1].strip()[:60])
def test_what_replaces_addons_gives_the_same(group, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    results = {}
    for kind, code in group.items():
        if runs_here(kind):
            scope = names()
            exec(code, scope)
            results[kind] = scope.get("value")
        else:
            ast.parse(code)
    assert set(group) & {AFTER, KERAS_3, READ}
    if BEFORE in results and results[BEFORE] is not None:
        assert np.max(np.abs(results[BEFORE])) > 0.01
        np.testing.assert_allclose(results[AFTER], results[BEFORE], rtol=1e-5, atol=1e-5)


def test_what_replaces_similarity_runs(tmp_path, monkeypatch):
    """One piece goes on from another, as on the page."""
    monkeypatch.chdir(tmp_path)
    scope = names()
    labels = scope["labels"]
    exec(next(group[AFTER] for group in SIMILARITY if "PKSampler" in group.get(AFTER, "")), scope)
    drawn = [batch.numpy() for batch, _ in scope["dataset"].take(4)]
    assert not all(np.array_equal(drawn[0], other) for other in drawn[1:]), "all batches of the dataset are the same"
    for group in SIMILARITY:
        ast.parse(group.pop(BEFORE))
        assert len(group) == 1
        kind, code = group.popitem()
        if runs_here(kind):
            exec(code, scope)
    assert set(scope["figures"]) >= {"recall@1", "map@r", "r_precision"}
    assert scope["neighbors"].skus[:, 0].tolist() == [str(label) for label in labels[:2]]
    assert scope["found"].tolist() == [str(label) for label in labels[:2]]


@pytest.mark.skipif(not compat.KERAS_2, reason="tensorflow-addons needs Keras 2: make test-addons")
def test_every_name_of_addons_on_the_page_is_there_and_every_metric_loss_is_on_the_page():
    tfa = names()["tfa"]
    page = (DOCS / "from_tensorflow_addons.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    rooms = [tfa.losses, tfa.losses.metric_learning, tfa.optimizers, tfa.layers, tfa.callbacks, tfa]
    named = {word.rpartition(".")[2] for row in rows for word in re.findall(r"`([A-Za-z_.0-9]+)[(`]", row)}
    assert len(named) > 40
    here = {"soft", "keras", "TripletLoss"} | {word for word in named if word.startswith("tfa_")}
    assert not {name for name in named - here if not any(name in dir(room) for room in rooms)}
    losses = {name for name in dir(tfa.losses) if name.endswith("Loss")}
    assert losses <= set(re.findall(r"\w+", page))
