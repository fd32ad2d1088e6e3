"""The batches a sampler draws: P classes of K photos, passes that starve nobody, photos used equally often."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eet_tf.data.sampling import PKSampler


@st.composite
def samplers(draw):
    """A sampler of 2 to 9 classes of 1 to 9 photos, in mixed order, with labels that are not dense; and its labels."""
    counts = draw(st.lists(st.integers(1, 9), min_size=2, max_size=9))
    labels = np.repeat(np.arange(len(counts)) * 7 + 3, counts)
    labels = np.random.default_rng(draw(st.integers(0, 99))).permutation(labels)
    num_classes, num_examples = draw(st.integers(2, len(counts))), draw(st.integers(2, 5))
    return PKSampler(labels, num_classes, num_examples, seed=draw(st.integers(0, 99))), labels


def draw_batches(sampler, number, epoch=0):
    """The first batches of an epoch, `[number, P, K]` rows."""
    batches = list(itertools.islice(sampler.batches(epoch), number))
    return np.stack(batches).reshape(number, sampler.classes_per_batch, sampler.examples_per_class)


@given(samplers())
def test_a_batch_is_p_different_classes_side_by_side(case):
    sampler, labels = case
    batches = draw_batches(sampler, 12)
    drawn = labels[batches]
    assert sampler.batch_size == batches[0].size
    assert (drawn == drawn[:, :, :1]).all()
    for classes in drawn[:, :, 0]:
        assert len(set(classes)) == sampler.classes_per_batch


@given(samplers())
def test_visits_are_as_even_as_passes_allow(case):
    """A pass visits each of C classes once, and a batch takes from its pass, at most, those it borrows from the next.

    A class visited early from the next pass is not visited again in it, so at any moment two classes differ by at
    most 2 visits; and after V visits in all a class has had at least floor(V / C) - 1 of them: none is starved.
    """
    sampler, labels = case
    classes = np.unique(labels)
    visits = labels[draw_batches(sampler, 40)][:, :, 0].reshape(-1)
    counts = np.zeros(len(classes), int)
    for number, visited in enumerate(np.searchsorted(classes, visits), start=1):
        counts[visited] += 1
        if number % sampler.classes_per_batch == 0:
            assert counts.max() - counts.min() <= 2
            assert counts.min() >= number // len(classes) - 1


@given(num_batches=st.integers(1, 4), num_classes=st.integers(2, 5), seed=st.integers(0, 50))
def test_a_pass_that_fills_whole_batches_visits_every_class_once(num_batches, num_classes, seed):
    """With C a multiple of P nothing is borrowed: each C / P batches are one pass."""
    labels = np.repeat(np.arange(num_batches * num_classes), 3)
    sampler = PKSampler(labels, num_classes, 2, seed)
    visits = labels[draw_batches(sampler, 6 * num_batches)][:, :, 0].reshape(6, -1)
    for visited in visits:
        assert sorted(visited) == list(range(num_batches * num_classes))


@given(samplers())
def test_the_first_pass_visits_every_class_once_before_any_twice_but_for_the_last_batch(case):
    """The first floor(C / P) batches hold different classes, and the batch after them brings all that are left."""
    sampler, labels = case
    num_classes = len(np.unique(labels))
    whole, left = divmod(num_classes, sampler.classes_per_batch)
    visits = labels[draw_batches(sampler, whole + 1)][:, :, 0]
    first = visits[:whole].reshape(-1)
    assert len(set(first)) == first.size
    if left:
        assert set(visits.reshape(-1)) == set(labels)


@given(samplers())
def test_a_visit_repeats_a_photo_only_in_a_small_class_and_evenly(case):
    """K photos from n: with n < K each is used floor(K / n) or ceil(K / n) times, otherwise at most once."""
    sampler, labels = case
    sizes = dict(zip(*np.unique(labels, return_counts=True)))
    for visit in draw_batches(sampler, 12).reshape(-1, sampler.examples_per_class):
        size = sizes[labels[visit[0]]]
        _, uses = np.unique(visit, return_counts=True)
        least, most = sampler.examples_per_class // size, -(-sampler.examples_per_class // size)
        assert len(uses) == min(size, sampler.examples_per_class)
        assert max(least, 1) <= uses.min() <= uses.max() <= max(most, 1)


@given(samplers())
def test_photos_of_a_large_class_are_used_equally_often(case):
    """Rounds are used up before the next begins, so at any moment two photos differ by at most one use."""
    sampler, labels = case
    uses = np.zeros(len(labels), int)
    for batch in draw_batches(sampler, 30):
        for visit in batch:
            np.add.at(uses, visit, 1)
            photos = labels == labels[visit[0]]
            if photos.sum() >= sampler.examples_per_class:
                assert np.ptp(uses[photos]) <= 1


def test_photos_of_a_large_class_come_in_another_order_each_round():
    """Six photos in visits of two: were rounds not shuffled anew, the 20 rounds would be cut into the same pairs."""
    labels = np.repeat([0, 1], 6)
    batches = draw_batches(PKSampler(labels, 2, 2, seed=1), 60)
    pairs = {tuple(sorted(visit)) for visit in batches.reshape(-1, 2) if visit[0] < 6}
    assert len(pairs) > 6


@given(samplers(), st.integers(0, 20))
def test_the_same_seed_and_epoch_give_the_same_batches(case, epoch):
    sampler, labels = case
    again = PKSampler(labels, sampler.classes_per_batch, sampler.examples_per_class, sampler.seed)
    draw_batches(again, 3, epoch=epoch + 1)
    np.random.default_rng(0)
    assert (draw_batches(sampler, 5, epoch) == draw_batches(again, 5, epoch)).all()


def test_other_seeds_and_epochs_give_other_batches():
    labels = np.repeat(np.arange(20), 5)
    drawn = {draw_batches(PKSampler(labels, 8, 3, seed), 2, epoch).tobytes() for seed in range(4) for epoch in range(4)}
    assert len(drawn) == 16


def test_global_random_state_is_neither_used_nor_changed():
    sampler = PKSampler(np.repeat(np.arange(6), 3), 3, 2, seed=5)
    np.random.seed(1)
    expected = np.random.random()
    np.random.seed(1)
    first = draw_batches(sampler, 4)
    assert np.random.random() == expected
    assert (draw_batches(sampler, 4) == first).all()


@pytest.mark.parametrize(
    "num_photos, num_classes, expected",
    [(100, 10, 13), (10, 10, 3), (96, 12, 12)],
    ids=["photos decide, rounded up", "classes decide, rounded up", "photos decide"],
)
def test_steps_per_epoch(num_photos, num_classes, expected):
    """P = 4, K = 2: the larger of ceil(photos / 8) and ceil(classes / 4), here (13, 3), (2, 3) and (12, 3)."""
    labels = np.arange(num_photos) % num_classes
    assert PKSampler(labels, 4, 2).steps_per_epoch == expected


@pytest.mark.parametrize("name", ["classes_per_batch", "examples_per_class"])
def test_fewer_than_two_make_no_pairs(name):
    with pytest.raises(ValueError, match=f"`{name}` must be at least 2.*Received: {name}=1"):
        PKSampler([0, 0, 1, 1], **{"classes_per_batch": 2, "examples_per_class": 2, name: 1})


def test_more_classes_than_there_are():
    with pytest.raises(ValueError, match="at most the number of classes, 2. Received: classes_per_batch=3"):
        PKSampler([0, 0, 5, 5], classes_per_batch=3)


CATEGORIES = np.array(["bags", "coats", "shoes"])


@st.composite
def category_samplers(draw):
    """A sampler of 4 to 12 classes in three categories, some of which may be empty or small; labels; categories."""
    of_class = np.array(draw(st.lists(st.integers(0, 2), min_size=4, max_size=12)))
    counts = draw(st.lists(st.integers(1, 4), min_size=len(of_class), max_size=len(of_class)))
    labels = np.repeat(np.arange(len(of_class)), counts)
    labels = np.random.default_rng(draw(st.integers(0, 99))).permutation(labels)
    num_classes, probability = draw(st.integers(2, len(of_class))), draw(st.sampled_from([0.3, 1.0]))
    categories = CATEGORIES[of_class[labels]]
    sampler = PKSampler(labels, num_classes, 2, draw(st.integers(0, 99)), categories, probability)
    return sampler, labels, categories


@given(category_samplers())
def test_a_favouring_batch_takes_all_it_can_from_one_category(case):
    """With probability 1 each batch holds, of at least one category, min(P, classes of that category) classes."""
    sampler, labels, categories = case
    sizes = {name: len(set(labels[categories == name])) for name in set(categories)}
    for batch in draw_batches(sampler, 12)[:, :, 0]:
        assert len(set(labels[batch])) == sampler.classes_per_batch
        if sampler.category_probability == 1:
            names, counts = np.unique(categories[batch], return_counts=True)
            wanted = [min(sampler.classes_per_batch, sizes[name]) for name in names]
            assert any(counts >= wanted)


def make_catalog_of_categories():
    """Category a has 40 classes of 2 photos, b has 10, c has 2."""
    of_class = np.repeat(["a", "b", "c"], [40, 10, 2])
    labels = np.repeat(np.arange(52), 2)
    return labels, of_class[labels]


def test_categories_are_drawn_equally_often_however_large():
    """P = 8 and all batches favour: a and b give whole batches, c is topped up to 8. Each of 1,200 batches is of one of
    three categories with probability 1/3: a count has mean 400 and standard deviation sqrt(1200 * 2 / 9) = 16.3; five
    of them are 82."""
    labels, categories = make_catalog_of_categories()
    batches = draw_batches(PKSampler(labels, 8, 2, 3, categories, 1.0), 1200)[:, :, 0]
    drawn = [tuple(sorted(set(categories[batch]))) for batch in batches]
    counts = [drawn.count(("a",)), drawn.count(("b",)), sum("c" in names for names in drawn)]
    assert sum(counts) == 1200
    assert max(abs(count - 400) for count in counts) < 82


def test_the_share_of_favouring_batches_is_the_probability():
    """Probability 0.8, batches of 8 from category a, 40 of 52 classes, or b: a batch from all is of one category with
    probability below C(40, 8) / C(52, 8) + ... < 0.11. Of 1,500 batches those of a alone or b alone are between
    0.8 * 2/3 = 0.533 and 0.533 + 0.2 * 0.11 = 0.555 on average; five standard deviations are 0.065."""
    labels, categories = make_catalog_of_categories()
    batches = draw_batches(PKSampler(labels, 8, 2, 4, categories, 0.8), 1500)[:, :, 0]
    share = np.mean([len(set(categories[batch])) == 1 for batch in batches])
    assert 0.533 - 0.065 < share < 0.555 + 0.065


def test_a_category_with_few_classes_gives_all_of_them_and_is_topped_up_evenly():
    labels, categories = make_catalog_of_categories()
    batches = draw_batches(PKSampler(labels, 8, 2, 5, categories, 1.0), 600)[:, :, 0]
    topped_up = [batch for batch in batches if "c" in categories[batch]]
    assert all(np.sum(categories[batch] == "c") == 2 for batch in topped_up)
    others = np.concatenate([labels[batch][categories[batch] != "c"] for batch in topped_up])
    counts = np.bincount(others, minlength=50)
    assert counts.max() - counts.min() <= 2  # as even as passes are


def test_classes_of_a_category_are_visited_equally_often():
    labels, categories = make_catalog_of_categories()
    batches = draw_batches(PKSampler(labels, 8, 2, 6, categories, 1.0), 300)[:, :, 0]
    pure = np.concatenate([labels[batch] for batch in batches if set(categories[batch]) == {"a"}])
    counts = np.bincount(pure, minlength=40)[:40]
    assert counts.max() - counts.min() <= 2


def test_a_class_belongs_to_the_category_of_most_of_its_photos():
    """Class 0 lies in b twice and a once; class 1 once in each of a and b, which is a by name."""
    labels = [0, 0, 0, 1, 1, 2, 2, 3, 3]
    categories = ["b", "a", "b", "b", "a", "a", "a", "b", "b"]
    batches = draw_batches(PKSampler(labels, 2, 2, 0, categories, 1.0), 40)[:, :, 0]
    assert {tuple(sorted(set(np.array(labels)[batch]))) for batch in batches} == {(0, 3), (1, 2)}


def test_without_favouring_categories_change_nothing():
    labels, categories = make_catalog_of_categories()
    plain = draw_batches(PKSampler(labels, 8, 2, 5), 9)
    np.testing.assert_array_equal(draw_batches(PKSampler(labels, 8, 2, 5, categories, 0.0), 9), plain)


@pytest.mark.parametrize("probability", [-0.1, 1.5])
def test_a_probability_that_is_no_share(probability):
    with pytest.raises(ValueError, match=rf"`category_probability` must be in \[0, 1\]. Received: .*{probability}"):
        PKSampler([0, 0, 1, 1], 2, 2, categories=["a"] * 4, category_probability=probability)


def test_favouring_needs_categories():
    with pytest.raises(ValueError, match="`category_probability` needs `categories`"):
        PKSampler([0, 0, 1, 1], 2, 2, category_probability=0.8)


def test_categories_must_be_one_per_photo():
    with pytest.raises(ValueError, match=r"`categories` must be \[4\], one for each photo. Received: shape \(3,\)"):
        PKSampler([0, 0, 1, 1], 2, 2, categories=["a", "b", "c"], category_probability=0.8)
