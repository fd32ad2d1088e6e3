"""Batches of arrays in memory: what the sampler says, as float32, with labels that are exact."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from eet_tf import EETLoss, MetricLearner
from eet_tf.data import PKSampler, array_dataset

LABELS = np.array([7, 7, 7, 2**53 + 1, 2**53 + 1, 9, 9, 9, 9])
PHOTOS = np.random.default_rng(0).integers(0, 256, size=[9, 4, 5, 3], dtype=np.uint8)
ATTRIBUTES = np.random.default_rng(1).integers(-1, 2, size=[9, 2])


def make_sampler(labels=LABELS, seed=3):
    return PKSampler(labels, classes_per_batch=2, examples_per_class=2, seed=seed)


def drawn(dataset, count=7):
    return [tf.nest.map_structure(np.asarray, batch) for batch in dataset.take(count)]


def test_batches_are_what_the_sampler_says():
    """7 batches are two epochs of three and the first batch of a third."""
    sampler = make_sampler()
    epochs = itertools.chain.from_iterable(itertools.islice(sampler.batches(epoch), 3) for epoch in (2, 3, 4))
    for (images, labels), rows in zip(drawn(array_dataset(PHOTOS, LABELS, sampler, first_epoch=2)), epochs):
        assert images.dtype == np.float32 and labels.dtype == np.int64
        np.testing.assert_array_equal(images, PHOTOS[rows])
        np.testing.assert_array_equal(labels, LABELS[rows])
        assert len(set(labels[:2])) == len(set(labels[2:])) == 1 and labels[0] != labels[2]


@pytest.mark.parametrize("kind", [np.float64, np.float16, np.int32, np.bool_])
def test_vectors_of_any_type_become_float32(kind):
    vectors = np.arange(18).reshape(9, 2).astype(kind)
    images, _ = drawn(array_dataset(vectors, LABELS, make_sampler()), 1)[0]
    assert images.dtype == np.float32 and set(images[:, 0]) <= set(vectors[:, 0].astype(np.float32))


def test_strings_are_numbered_in_sorted_order():
    skus = np.array(["mug", "mug", "cup", "cup", "pot"])
    vectors = np.arange(5.0)[:, np.newaxis]
    for images, labels in drawn(array_dataset(vectors, skus, make_sampler(skus))):
        assert labels.tolist() == [{"cup": 0, "mug": 1, "pot": 2}[skus[int(row)]] for row in images[:, 0]]


def test_attributes_go_with_their_rows():
    vectors = np.arange(9.0)[:, np.newaxis]
    for images, targets in drawn(array_dataset(vectors, LABELS, make_sampler(), attributes=ATTRIBUTES)):
        rows = images[:, 0].astype(int)
        np.testing.assert_array_equal(targets["label"], LABELS[rows])
        np.testing.assert_array_equal(targets["attributes"], ATTRIBUTES[rows].astype(np.float32))


def test_parts_make_up_the_batch_and_are_told_to_the_augmentation():
    def plus(batch, number, part=(0, 1)):
        return batch + 1000.0 * tf.cast(number, tf.float32) + 0.25 * part[0]

    how = {"augment": plus, "first_epoch": 1, "steps_per_epoch": 4}
    whole, first, second = (
        drawn(array_dataset(PHOTOS, LABELS, make_sampler(), part=part, **how)) for part in ((0, 1), (0, 2), (1, 2))
    )
    for (images, labels), one, two in zip(whole, first, second):
        np.testing.assert_array_equal(images, np.concatenate([one[0], two[0] - 0.25]))
        np.testing.assert_array_equal(labels, np.concatenate([one[1], two[1]]))
    assert whole[0][0].min() >= 4000 and whole[6][0].min() >= 10000


def test_a_file_that_is_mapped_into_memory_is_read_row_by_row(tmp_path):
    np.save(tmp_path / "photos.npy", PHOTOS)
    mapped = np.load(tmp_path / "photos.npy", mmap_mode="r")
    for one, other in zip(
        drawn(array_dataset(mapped, LABELS, make_sampler())), drawn(array_dataset(PHOTOS, LABELS, make_sampler()))
    ):
        np.testing.assert_array_equal(one[0], other[0])


def make_model():
    keras.utils.set_random_seed(1)
    return keras.Sequential([keras.Input([2]), keras.layers.Dense(3)])


def test_a_plain_model_and_a_learner_train_on_it_without_a_warning():
    """Warnings are errors; the learner needs no `shuffle=False`."""
    vectors = np.random.default_rng(2).normal(size=[9, 2])
    dataset = array_dataset(vectors, LABELS, make_sampler())
    model, learner = make_model(), MetricLearner(make_model())
    model.compile("sgd", EETLoss())
    learner.compile("sgd", EETLoss())
    of_model = model.fit(dataset, steps_per_epoch=3, shuffle=False, verbose=0).history
    of_learner = learner.fit(dataset, steps_per_epoch=3, verbose=0).history
    assert of_learner["loss"] == pytest.approx(of_model["loss"], rel=1e-5)


def test_a_learner_asks_for_the_end_of_an_endless_epoch():
    learner = MetricLearner(make_model())
    learner.compile("sgd", EETLoss())
    with pytest.raises(
        ValueError, match="`steps_per_epoch` must be given for a dataset without end, e.g. sampler.steps"
    ):
        learner.fit(array_dataset(np.zeros([9, 2]), LABELS, make_sampler()))
