"""How far apart classes are: both plans against plain loops and each other, in blocks, with ties, on two replicas."""

import json

import numpy as np
import pytest
import tensorflow as tf

from eet_tf import make_strategy, plans, replicas
from eet_tf.pairs import class_distances, class_pairs, class_runs, mining, pairwise
from tests import reference

SIZES = {3: 4, 40: 2, 7: 1, 12: 3, 0: 1, 5: 9}  # label -> photos
PLANS = {"blocks": class_pairs, "masks": class_runs}
MODES = {"eager": lambda f: f, "graph": tf.function, "xla": tf.function(jit_compile=True)}


def make_batch(seed, sizes=None, dim=5):
    rng = np.random.default_rng(seed)
    sizes = sizes or SIZES
    labels = rng.permutation(np.repeat(list(sizes), list(sizes.values())))
    centres = {label: rng.normal(size=dim) for label in sizes}
    points = np.stack([centres[label] for label in labels]) + 0.6 * rng.normal(size=[len(labels), dim])
    return labels, reference.unit(points).astype(np.float32)


def use(monkeypatch, plan, block_rows=None):
    monkeypatch.setattr(plans, "uses_masks", lambda: PLANS[plan] is class_runs)
    if block_rows:
        monkeypatch.setattr(pairwise, "block_rows_against", lambda references: block_rows)


def separation(labels, x):
    return class_distances.separate(x, tf.range(tf.shape(x)[0]), x, mining.find_classes(labels))


def weighted(labels, x):
    """A sum of all that is said of each class, each with a weight of its own, and its gradient."""
    with tf.GradientTape() as tape:
        tape.watch(x)
        _, found = separation(labels, x)
        numbers = tf.range(len(np.unique(labels)), dtype=tf.float32)
        decays, nearest = (values[: len(np.unique(labels))] for values in (found.decays, found.nearest))
        total = tf.reduce_sum(tf.sin(3 * numbers + 1) * decays + tf.cos(2 * numbers) * nearest)
    return total, tape.gradient(total, x), found.nearest_class[: len(np.unique(labels))]


def weighted_by_loops(labels, x):
    classes, total = sorted(set(labels.tolist())), 0.0
    for number, c in enumerate(classes):
        table = [reference.class_distance(labels, x, c, other) for other in classes if other != c]
        total += np.sin(3 * number + 1) * np.sum(np.exp(-np.array(table))) + np.cos(2 * number) * min(table)
    return np.array(total)


@pytest.mark.parametrize("block_rows", [None, 1, 3, 7, 20])
@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("seed", range(2))
def test_value_gradient_and_nearest_class_are_the_loops(seed, plan, block_rows, monkeypatch):
    """The largest class is of 9 rows, so that it spans up to nine blocks."""
    use(monkeypatch, plan, block_rows)
    labels, x = make_batch(seed)
    total, gradient, nearest_class = weighted(labels, tf.constant(x))
    assert float(total) == pytest.approx(float(weighted_by_loops(labels, x.astype(np.float64))), rel=1e-5)
    expected = reference.numeric_gradient(lambda x: weighted_by_loops(labels, x), x)
    np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=1e-4)
    classes = sorted(SIZES)
    for number, c in enumerate(classes):
        table = {other: reference.class_distance(labels, x, c, other) for other in classes if other != c}
        assert classes[int(nearest_class[number])] == min(table, key=table.get)


@pytest.mark.parametrize("block_rows", [None, 100, 333])
@pytest.mark.parametrize("mode", ["graph", "xla"])
def test_a_large_batch_is_the_same_by_both_plans(mode, block_rows, monkeypatch):
    """Of 700 rows; classes of 1 to 300 in no order."""
    sizes = {label: 1 + label % 9 for label in range(80)} | {90: 300}
    labels, x = make_batch(3, sizes, dim=16)
    use(monkeypatch, "blocks")
    expected = weighted(labels, tf.constant(x))
    use(monkeypatch, "masks", block_rows)
    found = MODES[mode](lambda x: weighted(labels, x))(tf.constant(x))
    assert float(found[0]) == pytest.approx(float(expected[0]), rel=1e-5)
    np.testing.assert_allclose(found[1], expected[1], rtol=0, atol=2e-5)
    np.testing.assert_array_equal(found[2], expected[2])


@pytest.mark.parametrize("block_rows", [None, 5])
def test_triplets_are_those_of_the_miner(block_rows, monkeypatch):
    labels, x = make_batch(1)
    rows = tf.range(len(labels))
    expected = mining.mine_triplets(x, rows, x, mining.find_classes(tf.constant(labels)))
    use(monkeypatch, "masks", block_rows)
    found, _ = separation(tf.constant(labels), tf.constant(x))
    np.testing.assert_array_equal(found.is_valid, expected.is_valid)
    for chosen, wanted in zip(found[:2], expected[:2]):
        np.testing.assert_array_equal(chosen[expected.is_valid], wanted[expected.is_valid])


@pytest.mark.parametrize("block_rows", [None, 2, 4])
@pytest.mark.parametrize("mode", MODES)
def test_of_pairs_that_are_equally_near_one_is_moved(mode, block_rows, monkeypatch):
    """A photo that a batch shows twice makes two pairs, on a grid on which products are exact; moving both would move
    the classes twice as far. Three classes, so that not all pairs are those of a class and its nearest one."""
    x = np.array([[0, 0], [0, 0], [8, 0], [8, 0], [8, 0], [0, 16], [0, 16], [0, 16.5]], np.float32)
    labels = np.array([0, 0, 1, 1, 1, 2, 2, 2])
    use(monkeypatch, "masks", block_rows)

    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            total = tf.reduce_sum(separation(labels, x)[1].decays[:3])
        return total, tape.gradient(total, x)

    total, found = MODES[mode](gradient)(tf.constant(x))
    far = np.hypot(8, 16)
    assert float(total) == pytest.approx(2 * sum(np.exp(-d) for d in (8, 16, far)), rel=1e-5)
    pulls = [2 * np.exp(-d) for d in (8, 16, far)]
    forces = {0: [pulls[0], pulls[1]], 1: [-pulls[0] - pulls[2] * 8 / far, pulls[2] * 16 / far]}
    for c, expected in forces.items():
        np.testing.assert_allclose(found.numpy()[labels == c].sum(axis=0), expected, rtol=1e-4, atol=1e-8)
    np.testing.assert_allclose(found.numpy().sum(axis=0), 0, atol=1e-8)


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("labels", [[4, 4, 4], [4]])
def test_a_single_class_moves_nothing(labels, plan, monkeypatch):
    use(monkeypatch, plan)
    x = tf.constant(make_batch(0)[1][: len(labels)])
    with tf.GradientTape() as tape:
        tape.watch(x)
        total = separation(np.array(labels), x)[1].decays[0]
    assert float(total) == 0.0
    np.testing.assert_array_equal(tape.gradient(total, x), np.zeros(x.shape))


@pytest.mark.parametrize("plan", PLANS)
def test_the_nearest_class_is_measured_by_differences(plan, monkeypatch):
    """1e-4 apart, which a product of unit vectors in float32 cannot tell from 0. The other pairs are 1.414 apart."""
    use(monkeypatch, plan)
    x = tf.constant([[1.0, 0.0], [1.0, 1e-4], [0.0, 1.0]])
    _, found = separation(np.array([0, 1, 2]), x)
    np.testing.assert_allclose(found.nearest[:2], 1e-4, rtol=1e-4)
    assert float(found.decays[0]) == pytest.approx(np.exp(-1e-4) + np.exp(-np.sqrt(2)), rel=1e-6)


# label -> photos of 20: some classes lie on several replicas, one fills most of one; one class has more than two shares
SHARED = {2: SIZES, 4: {3: 14, 8: 4, 1: 2}}


def report_replicas(count):
    """Runs in a process of its own: what each of some replicas finds, and the gradient that all make together."""
    replicas.split_cpu(count)
    plans.uses_masks = lambda: True
    strategy = make_strategy("mirrored")
    labels, x = make_batch(2, SHARED[count])

    @tf.function
    def step(labels, x):
        classes = mining.find_classes(replicas.gather(labels))
        with tf.GradientTape() as tape:
            tape.watch(x)
            rows, references = replicas.global_rows(tf.shape(x)[0]), replicas.gather(x)
            triplets, found = class_distances.separate(x, rows, references, classes)
            own = tf.gather(classes.of_row, rows)
            weights = tf.sin(tf.cast(rows, tf.float32) + 1)
            total = tf.reduce_sum(weights * (tf.gather(found.decays, own) + 2 * tf.gather(found.nearest, own)))
        return total, tape.gradient(total, x), triplets.negatives

    def shared(array):
        parts = np.split(array, count)
        return strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(parts[context.replica_id_in_sync_group])
        )

    results = strategy.run(step, args=(shared(labels), shared(x)))
    parts = [[part.numpy().tolist() for part in strategy.experimental_local_results(each)] for each in results]
    print(json.dumps(parts))


@pytest.mark.parametrize("count", SHARED)
def test_replicas_find_what_one_finds(count, run_python, monkeypatch):
    code = f"from tests.pairs import test_class_distances; test_class_distances.report_replicas({count})"
    totals, gradients, negatives = json.loads(run_python(code)[0].splitlines()[-1])
    use(monkeypatch, "masks")
    labels, x = make_batch(2, SHARED[count])
    classes = mining.find_classes(tf.constant(labels))
    given = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(given)
        triplets, found = separation(tf.constant(labels), given)
        weights = tf.sin(tf.range(len(labels), dtype=tf.float32) + 1)
        per_row = tf.gather(found.decays, classes.of_row) + 2 * tf.gather(found.nearest, classes.of_row)
        total = tf.reduce_sum(weights * per_row)
    assert sum(totals) == pytest.approx(float(total), rel=1e-5)
    np.testing.assert_allclose(np.concatenate(gradients), tape.gradient(total, given), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(np.concatenate(negatives), triplets.negatives)


@pytest.mark.parametrize("compiled_rows, plain_rows", [(64, 16), (20, 7)])
def test_the_gradient_of_a_compiled_part_goes_through_the_blocks_of_its_forward_pass(
    compiled_rows, plain_rows, monkeypatch
):
    """It is traced later, in a graph that knows nothing of XLA, where blocks are smaller. 57 rows, traced for any."""
    labels, x = make_batch(6, {0: 5, 1: 9, 2: 1, 3: 12, 4: 7, 5: 3, 6: 20})
    use(monkeypatch, "blocks")
    expected = weighted(labels, tf.constant(x))
    monkeypatch.undo()
    limits = {True: (compiled_rows, 2**20), False: (plain_rows, 2**20)}
    monkeypatch.setattr(plans, "block_limits", lambda: limits[plans.is_compiled()])
    monkeypatch.setattr(plans, "uses_masks", lambda: True)

    @tf.function(input_signature=[tf.TensorSpec([None, 5])])
    def in_parts(x):
        with plans.compiling_parts(True):
            return weighted(labels, x)

    found = in_parts(tf.constant(x))
    assert float(found[0]) == pytest.approx(float(expected[0]), rel=1e-5)
    np.testing.assert_allclose(found[1], expected[1], rtol=0, atol=2e-5)
