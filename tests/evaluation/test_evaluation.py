"""Retrieval measured on a model: embeddings in the dataset's order, and the figures in every epoch's logs."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from eet_tf import EETLoss, MetricLearner, RetrievalEvaluation, compat, evaluate_retrieval, evaluation
from eet_tf.evaluation import metrics, postprocessing
from tests import reference

ROLES = np.array(["query", "gallery", "query", "gallery", "query", "gallery", "gallery", "gallery", "query", "gallery"])
LABELS = np.array([5, 5, 0, 2, 2, 2, 0, 9, 0, 5])
IMAGES = np.random.default_rng(0).normal(size=[10, 6]).astype(np.float32)


def make_dataset(batch_size=4):
    return tf.data.Dataset.from_tensor_slices(IMAGES).batch(batch_size)


def make_learner():
    keras.utils.set_random_seed(3)
    learner = MetricLearner(keras.Sequential([keras.Input([6]), keras.layers.Dense(3)]))
    learner.compile(optimizer=keras.optimizers.SGD(0.2), loss=EETLoss())
    return learner


def fit(learner, *callbacks, epochs=2):
    return learner.fit(
        IMAGES, LABELS, batch_size=10, epochs=epochs, callbacks=list(callbacks), shuffle=False, verbose=0
    ).history


class KeepEmbeddings(keras.callbacks.Callback):
    """Embeddings after every epoch, by calling the model directly."""

    def on_train_begin(self, logs=None):
        self.embeddings = []

    def on_epoch_end(self, epoch, logs=None):
        self.embeddings.append(self.model(IMAGES, training=False).numpy())


@pytest.mark.parametrize("batch_size", [1, 4, 10])
def test_embeddings_come_in_the_datasets_order(batch_size):
    learner = make_learner()
    embeddings = evaluation.embed(learner.embedder, make_dataset(batch_size))
    assert (embeddings.shape, embeddings.dtype) == ((10, 3), np.float32)
    np.testing.assert_allclose(embeddings, learner.embedder(IMAGES), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("is_compiled, shapes", [(True, [(4, 6)]), (False, [(4, 6), (None, 6)])])
def test_a_smaller_last_batch_is_not_compiled_anew(is_compiled, shapes):
    """10 images in batches of 4; of the last, filled up with its last image, 2 embeddings are kept."""
    traced = []

    class Watch(keras.layers.Layer):
        def call(self, inputs):
            traced.append(tuple(inputs.shape))
            return inputs

    embedder = keras.Sequential([keras.Input([6]), Watch(), keras.layers.Dense(3)])
    embedder.compile(jit_compile=is_compiled)
    traced.clear()
    embeddings = evaluation.embed(embedder, make_dataset(4))
    # Keras 2 traces once for batches of any size; XLA then compiles what it is called with
    assert set(traced) == ({(None, 6)} if compat.KERAS_2 else set(shapes))
    np.testing.assert_allclose(embeddings, embedder(IMAGES), rtol=1e-5, atol=1e-6)


def test_embeddings_of_a_half_precision_model_are_float32(set_policy):
    set_policy("mixed_bfloat16")
    embedder = keras.Sequential([keras.Input([6]), keras.layers.Dense(3)])
    assert evaluation.embed(embedder, make_dataset()).dtype == np.float32


def test_of_a_model_with_two_heads_the_embedding_is_taken():
    photos = keras.Input([6])
    heads = {"attributes": keras.layers.Dense(5)(photos), "embedding": keras.layers.Dense(3)(photos)}
    embedder = keras.Model(photos, heads)
    embeddings = evaluation.embed(embedder, make_dataset())
    assert (embeddings.shape, embeddings.dtype) == ((10, 3), np.float32)
    np.testing.assert_allclose(embeddings, embedder(IMAGES)["embedding"], rtol=1e-5, atol=1e-6)


def test_queries_of_a_catalogue_are_ranked_against_its_gallery():
    result = evaluation.rank_catalog(IMAGES, LABELS, ROLES).summary(ks=[1, 2])
    queries, gallery = [0, 2, 4, 8], [1, 3, 5, 6, 7, 9]
    assert result == evaluate_retrieval(IMAGES[queries], LABELS[queries], [1, 2], IMAGES[gallery], LABELS[gallery])
    assert result != evaluate_retrieval(IMAGES, LABELS, [1, 2])
    assert result["num_queries"] == 4


@pytest.mark.parametrize("roles", [None, [""] * 10, ["query"] * 10, ["gallery", ""] * 5], ids=str)
def test_a_catalogue_without_both_roles_is_ranked_against_itself(roles):
    expected = evaluate_retrieval(IMAGES, LABELS, ks=[1, 2])
    assert evaluation.rank_catalog(IMAGES, LABELS, roles).summary(ks=[1, 2]) == expected


def test_queries_of_a_catalogue_are_named_in_the_order_of_its_result():
    asked_for = evaluation.is_query(10, ROLES)
    assert asked_for.tolist() == [role == "query" for role in ROLES]
    assert evaluation.rank_catalog(IMAGES, LABELS, ROLES).labels.tolist() == LABELS[asked_for].tolist()
    for roles in (None, [""] * 10, ["query"] * 10, ["gallery", ""] * 5):
        assert evaluation.is_query(10, roles).tolist() == [True] * 10


@pytest.mark.parametrize("roles", [None, ROLES], ids=["itself", "gallery"])
def test_queries_are_expanded_before_they_are_ranked(roles):
    asked_for = evaluation.is_query(10, roles)
    gallery = None if roles is None else IMAGES[~asked_for]
    expanded = postprocessing.expand_queries(IMAGES[asked_for], gallery, num_neighbors=2, alpha=1.5)
    others = (IMAGES, LABELS, True) if roles is None else (IMAGES[~asked_for], LABELS[~asked_for])
    expected = metrics.rank_queries(expanded, LABELS[asked_for], *others)
    result = evaluation.rank_catalog(IMAGES, LABELS, roles, query_expansion=2, alpha=1.5)
    assert result.summary([1, 2]) == expected.summary([1, 2])


@pytest.mark.parametrize("roles", [None, ROLES], ids=["itself", "gallery"])
def test_the_nearest_are_put_into_another_order(roles):
    asked_for = evaluation.is_query(10, roles)
    gallery = None if roles is None else IMAGES[~asked_for]
    labels = LABELS if roles is None else LABELS[~asked_for]
    before = evaluation.rank_catalog(IMAGES, LABELS, roles)
    rows, distances = postprocessing.rerank(IMAGES[asked_for], gallery)
    expected = metrics.reorder(before, rows, distances, labels, leave_out_self=roles is None)
    result = evaluation.rank_catalog(IMAGES, LABELS, roles, rerank=True)
    assert result.summary([1, 2]) == expected.summary([1, 2])


def test_either_expanded_or_reranked():
    with pytest.raises(ValueError, match="`query_expansion` must be 0 if `rerank`"):
        evaluation.rank_catalog(IMAGES, LABELS, query_expansion=3, rerank=True)


@pytest.mark.parametrize("num_products", [3, 40], ids=["many of each", "few of each"])
@pytest.mark.parametrize("has_roles", [False, True], ids=["itself", "gallery"])
def test_photos_besides_are_searched_and_never_asked_for(has_roles, num_products):
    """By loops over each query's own gallery; some of the others are of the same products, some are copies."""
    rng = np.random.default_rng(num_products)
    names = np.array([f"sku {number}" for number in range(num_products)], dtype=object)
    labels, other_labels = names[rng.integers(0, num_products - 1, 150)], names[rng.integers(0, num_products, 210)]
    embeddings, others = (rng.normal(size=[len(each), 5]).astype(np.float32) for each in (labels, other_labels))
    others[:4] = embeddings[:4]
    roles = np.where(np.arange(150) % 3, "query", "gallery") if has_roles else None
    asked_for = evaluation.is_query(150, roles)
    result = evaluation.rank_catalog(embeddings, labels, roles, other_embeddings=others, other_labels=other_labels)
    assert result.labels.tolist() == labels[asked_for].tolist()
    in_gallery = ~asked_for if has_roles else np.full(150, True)
    for place, query in enumerate(np.flatnonzero(asked_for)):
        kept = in_gallery & (np.arange(150) != query)
        gallery, gallery_labels = np.concatenate([embeddings[kept], others]), [*labels[kept], *other_labels]
        places = reference.places_of_right(embeddings[query], labels[query], gallery, gallery_labels)
        first, precision, share = reference.figures_of_places(places)
        assert result.first_places[place] == first
        assert result.average_precisions[place] == pytest.approx(precision, rel=1e-12)
        assert result.r_precisions[place] == pytest.approx(share, rel=1e-12)


def test_without_a_photo_besides_it_is_the_same():
    expected = evaluation.rank_catalog(IMAGES, LABELS).summary([1, 2])
    nothing = {"other_embeddings": np.zeros([0, 6], np.float32), "other_labels": np.zeros([0], np.int64)}
    assert evaluation.rank_catalog(IMAGES, LABELS, **nothing).summary([1, 2]) == expected


@pytest.mark.parametrize(
    "others, message",
    [
        ({"other_embeddings": IMAGES}, "`other_embeddings` and `other_labels` must be given together"),
        ({"other_labels": LABELS}, "`other_embeddings` and `other_labels` must be given together"),
        ({"other_embeddings": IMAGES[:, :5], "other_labels": LABELS}, r"must be \[M, 6\] and `other_labels` \[M\]"),
        ({"other_embeddings": IMAGES, "other_labels": LABELS[:9]}, r"Received: shapes \(10, 6\) and \(9,\)"),
        ({"other_embeddings": IMAGES, "other_labels": ["mug"] * 10}, "`labels`"),
        ({"other_embeddings": IMAGES, "other_labels": LABELS, "rerank": True}, "`rerank` False where"),
    ],
)
def test_photos_besides_that_do_not_fit_are_refused(others, message):
    with pytest.raises(ValueError, match=message):
        evaluation.rank_catalog(IMAGES, LABELS, **others)


def test_roles_of_another_length_are_refused():
    with pytest.raises(ValueError, match=r"`roles` and `labels` must .* shapes \(9,\) and \(10,\) for 10 embeddings"):
        evaluation.rank_catalog(IMAGES, LABELS, ROLES[:9])


def test_photos_without_a_role_beside_queries_and_gallery_are_refused():
    """Such as the train photos of In-Shop, which belong neither to its queries nor to its gallery."""
    with pytest.raises(ValueError, match=r"Received: 2 of 10 photos with neither. Measure one split"):
        evaluation.rank_catalog(IMAGES, LABELS, ["", "", *ROLES[2:]])


def test_callback_measures_by_roles():
    kept = KeepEmbeddings()
    history = fit(make_learner(), RetrievalEvaluation(make_dataset(), LABELS, ks=(1,), roles=ROLES), kept, epochs=2)
    expected = [evaluation.rank_catalog(embeddings, LABELS, ROLES).summary([1]) for embeddings in kept.embeddings]
    assert history["val_map@r"] == pytest.approx([result["map@r"] for result in expected])
    assert history["val_map@r"] != [evaluate_retrieval(found, LABELS)["map@r"] for found in kept.embeddings]


def test_callback_searches_photos_besides():
    """As `rank_catalog` with the embeddings of both; of strings, since they are of two catalogues."""
    labels, other_labels = (np.array([f"sku {each}" for each in column]) for column in (LABELS, LABELS + 1))
    others = IMAGES[::-1] + np.float32(0.1)
    evaluation_of_all = RetrievalEvaluation(
        make_dataset(), labels, [1, 2], other_dataset=others, other_labels=other_labels
    )
    learner = make_learner()
    logs = fit(learner, evaluation_of_all, epochs=1)
    embeddings, other_embeddings = (np.asarray(learner.embedder(each)) for each in (IMAGES, others))
    expected = evaluation.rank_catalog(
        embeddings, labels, other_embeddings=other_embeddings, other_labels=other_labels
    ).summary([1, 2])
    for name in ("recall@1", "recall@2", "map@r"):
        assert logs[f"val_{name}"][-1] == pytest.approx(expected[name], abs=1e-6)


@pytest.mark.parametrize(
    "others", [{"other_dataset": IMAGES}, {"other_labels": LABELS}], ids=lambda each: next(iter(each))
)
def test_photos_besides_need_both(others):
    with pytest.raises(ValueError, match="`other_dataset` and `other_labels` must be given together"):
        RetrievalEvaluation(make_dataset(), LABELS, **others)


def test_photos_besides_must_be_as_many_as_their_labels():
    with pytest.raises(ValueError, match="`other_labels`"):
        RetrievalEvaluation(make_dataset(), LABELS, other_dataset=IMAGES, other_labels=LABELS[:9])


def test_callback_adds_what_evaluate_retrieval_finds_after_each_epoch():
    kept = KeepEmbeddings()
    history = fit(make_learner(), RetrievalEvaluation(make_dataset(), LABELS, ks=(1, 2)), kept, epochs=3)
    names = ("recall@1", "recall@2", "map@r", "r_precision")
    assert {name for name in history if name.startswith("val_")} == {f"val_{name}" for name in names}
    expected = [evaluate_retrieval(embeddings, LABELS, ks=(1, 2)) for embeddings in kept.embeddings]
    for name in names:
        assert history[f"val_{name}"] == pytest.approx([result[name] for result in expected])
    assert len(set(history["val_map@r"])) > 1


def test_callback_measures_a_plain_keras_model_too():
    model = keras.Sequential([keras.Input([6]), keras.layers.Dense(3)])
    model.compile(optimizer=keras.optimizers.SGD(0.0), loss=EETLoss())
    history = fit(model, RetrievalEvaluation(make_dataset(), LABELS), epochs=1)
    expected = evaluate_retrieval(model(IMAGES).numpy(), LABELS, ks=(1, 10))
    assert history["val_recall@1"] == [pytest.approx(expected["recall@1"])]
    assert history["val_recall@10"] == [1.0]


def test_prefix_is_put_before_each_name():
    history = fit(make_learner(), RetrievalEvaluation(make_dataset(), LABELS, ks=[3], prefix="held_out_"), epochs=1)
    assert {"held_out_recall@3", "held_out_map@r", "held_out_r_precision"} <= set(history)


def test_callbacks_after_it_see_its_figures():
    seen = []

    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append(logs["val_recall@1"])

    history = fit(make_learner(), RetrievalEvaluation(make_dataset(), LABELS), Watch())
    assert seen == history["val_recall@1"]


def test_measuring_moves_nothing():
    with_it, without = make_learner(), make_learner()
    fit(with_it, RetrievalEvaluation(make_dataset(), LABELS))
    fit(without)
    for weight, expected in zip(with_it.embedder.get_weights(), without.embedder.get_weights()):
        np.testing.assert_array_equal(weight, expected)


# What it takes


def of_heads():
    """A model of two outputs with names, and one of two in a list."""
    keras.utils.set_random_seed(3)
    photos = keras.Input([6])
    first, second = keras.layers.Dense(3, name="first")(photos), keras.layers.Dense(4, name="second")(photos)
    return keras.Model(photos, {"near": first, "far": second}), keras.Model(photos, [first, second])


KINDS = {
    "array": lambda: IMAGES,
    "tensor": lambda: tf.constant(IMAGES),
    "batches": lambda: [IMAGES[:3], IMAGES[3:4], IMAGES[4:]],
    "pairs": lambda: tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).batch(3),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_compiled", [False, True])
def test_whatever_holds_the_images_the_embeddings_are_the_same(kind, is_compiled):
    embedder = make_learner().embedder
    embedder.compile(jit_compile=is_compiled)
    found = evaluation.embed(embedder, KINDS[kind]())
    np.testing.assert_allclose(found, embedder(IMAGES), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_callback_takes_arrays_as_well(kind):
    expected = fit(make_learner(), RetrievalEvaluation(make_dataset(), LABELS))
    labels = [f"sku {label}" for label in LABELS] if kind == "array" else LABELS[:, np.newaxis]
    history = fit(make_learner(), RetrievalEvaluation(KINDS[kind](), labels))
    assert history == {name: pytest.approx(values) for name, values in expected.items()}


@pytest.mark.parametrize(
    "number, output, dim", [(0, "near", 3), (0, "far", 4), (1, "first", 3), (1, "second", 4), (1, 0, 3), (1, 1, 4)]
)
def test_any_output_is_measured(number, output, dim):
    model = of_heads()[number]
    found = evaluation.embed(model, IMAGES, output=output)
    assert found.shape == (10, dim)
    callback, logs = RetrievalEvaluation(IMAGES, LABELS, ks=[1, 2], output=output), {}
    callback.set_model(model)
    callback.on_train_begin()
    callback.on_epoch_end(0, logs)
    assert logs == {f"val_{name}": value for name, value in evaluate_retrieval(found, LABELS, [1, 2]).items()
                    if not name.startswith("num_")}  # fmt: skip


@pytest.mark.parametrize(
    "number, output, known",
    [
        (0, None, "'near', 'far'|'far', 'near'"),
        (0, "embedding", "'near', 'far'|'far', 'near'"),
        (0, 1, "'near', 'far'|'far', 'near'"),
        (1, None, "'first', 'second'"),
        (1, 2, "'first', 'second'"),
        (1, True, "'first', 'second'"),
        (1, "third", "'first', 'second'"),
    ],
)
def test_an_output_that_is_none_is_refused_before_anything_is_learnt(number, output, known):
    callback = RetrievalEvaluation(IMAGES, LABELS, output=output)
    callback.set_model(of_heads()[number])
    with pytest.raises(ValueError, match=f"`output` must be one of the model's outputs: ({known}). Received: output="):
        callback.on_train_begin()


def test_a_single_output_has_the_number_0_and_no_name():
    model = make_learner().embedder
    np.testing.assert_array_equal(evaluation.embed(model, IMAGES, output=0), evaluation.embed(model, IMAGES))
    with pytest.raises(ValueError, match="`output` must be one of the model's outputs: none that have names, and 0"):
        evaluation.embed(model, IMAGES, output="embedding")


@pytest.mark.parametrize(
    "images, labels, message",
    [
        (IMAGES, LABELS[:9], r"`labels` must be \[10\], one for each photo. Received: shape \(9,\)"),
        ([IMAGES[:4], IMAGES[4:]], LABELS[:9], r"`labels` must be \[10\]"),
        (make_dataset(5), LABELS[:1], "one for each image of the dataset. Received: 1 labels for 2 batches"),
        (
            tf.data.Dataset.from_tensor_slices(IMAGES).batch(5, drop_remainder=True),
            LABELS[:9],
            "9 labels for 10 images",
        ),
        (make_dataset().repeat(), LABELS, "`dataset` must end. Received: one that goes on for ever"),
        (IMAGES, np.arange(10), "`labels` must repeat: no image would have a right answer"),
        (IMAGES, np.ones([10, 2]), r"`labels` must be \[10\]"),
        (np.array(3.0), LABELS, r"`images` must be an array \[N, ...\] of numbers, .* Received: images of shape \(\)"),
        ([], [], "`images` must be an array"),
        ([IMAGES, IMAGES[:, :2]], LABELS, r"Received: batches of float32 \(10, 6\), float32 \(10, 2\)"),
        ([IMAGES[:4], IMAGES[4:].astype("float64")], LABELS, r"float32 \(4, 6\), float64 \(6, 6\)"),
        (np.array(["a.jpg", "b.jpg"]), [1, 1], "`images` must be an array"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_measured_is_refused_when_the_callback_is_made(images, labels, message):
    with pytest.raises(ValueError, match=message):
        RetrievalEvaluation(images, labels)


def test_roles_are_checked_when_the_callback_is_made():
    with pytest.raises(ValueError, match=r"`roles` must be \[10\], one for each photo"):
        RetrievalEvaluation(IMAGES, LABELS, roles=ROLES[:9])
    with pytest.raises(ValueError, match=r"`roles` must be 'query', 'gallery' or '' \(both\). .*roles\[9\]='db'"):
        RetrievalEvaluation(IMAGES, LABELS, roles=[*ROLES[:9], "db"])
