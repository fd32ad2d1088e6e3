"""How far apart the classes of a batch are, in small blocks: the plan of `class_distances` for CPUs.

It finds the nearest rows of every two classes along with each anchor's hardest triplet. One matrix multiplication of a
block of anchors with all references serves both. Its gradient is one more: nothing of the size of anchors x references,
nor a vector for each pair of classes, exists at any time. Some matrices have a row for each class, and how many classes
there are is known only at run time: XLA must not compile this.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from eet_tf import replicas
from eet_tf.pairs import mining, pairwise, precision
from eet_tf.pairs.mining import Classes, Triplets

_ROUNDING = 1e-5  # how far a squared distance by a matrix multiplication may be from that by differences


class ClassPairs(NamedTuple):
    """The nearest rows of every two classes c, c'. What stands where no two classes exist means nothing.

    Attributes:
        rows: `[M, M]` int32, at (c, c') the row of c that is nearest to c'. The row of c' that is nearest to c stands
            at (c', c). Where several pairs are equally near, the two may be of different ones.
        squared: `[M, M]` float32, their squared distance; symmetric. By differences for each class and its nearest one,
            otherwise by a matrix multiplication, with 0 for less than it can tell.
    """

    rows: tf.Tensor
    squared: tf.Tensor


def separate(anchors, anchor_rows, references, classes: Classes):
    """See `class_distances.separate`; triplets, and the fields of what it returns."""
    classes = without_empty(classes)
    triplets, pairs = mine(anchors, anchor_rows, references, classes)
    apart, is_valid = distances(anchors, anchor_rows, references, classes, pairs), exist(classes)
    decays = tf.reduce_sum(tf.where(is_valid, tf.exp(-apart), 0.0), axis=1)
    far = tf.where(is_valid, tf.stop_gradient(apart), apart.dtype.max)
    nearest_class = tf.argmin(far, axis=1, output_type=tf.int32)
    return triplets, decays, tf.gather(apart, nearest_class, batch_dims=1), nearest_class


def without_empty(classes: Classes) -> Classes:
    """Classes with as many numbers as there are classes, M, in place of as many as rows; what all the rest here needs.

    XLA refuses a table of as many numbers as it learns at run time, so that none of this is compiled unnoticed.
    """
    count = tf.reduce_max(classes.of_row) + 1
    numbers = tf.range(count)
    return classes._replace(sizes=tf.gather(classes.sizes, numbers), starts=tf.gather(classes.starts, numbers))


def _count(classes: Classes) -> tf.Tensor:
    """M."""
    return tf.size(classes.sizes)


def exist(classes: Classes) -> tf.Tensor:
    """`[M, M]` bool: which pairs are of two classes, neither of them empty."""
    is_used = classes.sizes > 0
    return tf.linalg.set_diag(is_used[:, tf.newaxis] & is_used[tf.newaxis, :], tf.zeros_like(is_used))


def mine(anchors, anchor_rows, references, classes: Classes) -> tuple[Triplets, ClassPairs]:
    """Each anchor's farthest positive and nearest negative, and the nearest rows of every two classes.

    Args:
        anchors: `[A, D]` unit vectors.
        anchor_rows: `[A]` int32, the row of `references` that each anchor is, one after the other.
        references: `[B, D]` unit vectors; under a strategy those of all replicas.
        classes: of the references.

    Returns:
        Triplets of the anchors `[A]`, and pairs of the classes `[M, M]`, the same on all replicas.
    """
    anchors, references = tf.stop_gradient(anchors), tf.stop_gradient(references)
    extended = pairwise.extended(references)

    def one_block(state, block, rows, squares):
        # [B, R], since what is reduced has to be along the slow axis
        nearness = pairwise.closeness(block, extended, transposed=True)
        of_class = tf.math.unsorted_segment_max(nearness, classes.of_row, _count(classes))
        triplets = _hardest(nearness, of_class, rows, classes)
        return _nearer(state, squares[:, tf.newaxis] - tf.transpose(of_class), rows, classes), triplets

    nothing = tf.zeros([_count(classes) + 1, _count(classes)])  # the last row is of no class
    state = ClassPairs(tf.cast(nothing, tf.int32), nothing + tf.float32.max)
    blocks = [anchors, anchor_rows, tf.reduce_sum(tf.square(anchors), axis=1)]
    block_rows = pairwise.block_rows_against(references)
    state, triplets = pairwise.fold_row_blocks(one_block, state, blocks, (tf.int32, tf.int32, tf.bool), block_rows)
    pairs = _over_replicas(ClassPairs(*[field[:-1] for field in state]), anchor_rows, classes)
    numbers = tf.range(_count(classes))
    is_first = numbers[:, tf.newaxis] < numbers[tf.newaxis, :]  # (c', c) may differ from (c, c') in the last bit
    symmetric = tf.where(is_first, pairs.squared, tf.transpose(pairs.squared))
    return Triplets(*triplets), _exact_for_nearest(ClassPairs(pairs.rows, symmetric), references, classes)


def _exact_for_nearest(pairs: ClassPairs, references, classes: Classes) -> ClassPairs:
    """Measures each class and the class nearest to it by differences; of the others, what is only noise becomes 0."""
    squared = tf.where(pairs.squared < pairwise.NEARLY_EQUAL, 0.0, pairs.squared)
    nearest = tf.argmin(tf.where(exist(classes), pairs.squared, pairs.squared.dtype.max), axis=1, output_type=tf.int32)
    numbers = tf.range(_count(classes))
    rows, other_rows = [
        tf.maximum(tf.gather(side, nearest, batch_dims=1), 0) for side in (pairs.rows, tf.transpose(pairs.rows))
    ]
    exact = tf.reduce_sum(tf.square(tf.gather(references, rows) - tf.gather(references, other_rows)), axis=1)
    known = tf.gather(pairs.squared, nearest, batch_dims=1)
    exact = tf.where(tf.abs(exact - known) < _ROUNDING * (1.0 + known), exact, known)  # not if rows of two pairs met
    for places in ([numbers, nearest], [nearest, numbers]):
        squared = tf.tensor_scatter_nd_update(squared, tf.stack(places, axis=1), exact)
    return ClassPairs(pairs.rows, squared)


def _hardest(nearness, of_class, rows, classes: Classes):
    """Rows of the farthest positive and of the nearest negative, and whether both exist, `[R]` each."""
    num_columns = tf.size(rows)
    columns = tf.range(num_columns)
    own = tf.gather(classes.of_row, rows)
    nobody = tf.fill(tf.shape(rows), of_class.dtype.min)
    others = tf.tensor_scatter_nd_update(of_class, tf.stack([own, columns], axis=1), nobody)
    nearest_class = tf.argmax(others, axis=0, output_type=tf.int32)
    flat = tf.reshape(nearness, [-1])

    def nearness_of(candidates):
        return tf.gather(flat, candidates * num_columns + columns[:, tf.newaxis])

    positive = mining.first_of_class(lambda found: -nearness_of(found), own, rows, classes)
    negative = mining.first_of_class(nearness_of, nearest_class, rows, classes)
    is_valid = (tf.gather(classes.sizes, own) > 1) & mining.has_negative(own, classes)
    return positive, negative, is_valid


def _nearer(known: ClassPairs, squared, rows, classes: Classes) -> ClassPairs:
    """What is known of class pairs after a block of rows.

    Args:
        known: what was known before, `[M + 1, M]`.
        squared: `[R, M]` from each row to the nearest of each class.
        rows: `[R]`.
        classes: those of all rows.
    """
    own_classes, number, count = _classes_of_block(rows, classes)
    smallest = tf.math.unsorted_segment_min(squared, number, count)
    places = _lowest_where(tf.equal(squared, tf.gather(smallest, number)), number, count)
    before = ClassPairs(*[tf.gather(field, own_classes) for field in known])
    is_nearer = smallest < before.squared
    after = tf.where(is_nearer, tf.gather(rows, places), before.rows), tf.minimum(smallest, before.squared)
    where = own_classes[:, tf.newaxis]
    return ClassPairs(*[tf.tensor_scatter_nd_update(field, where, new) for field, new in zip(known, after)])


def _classes_of_block(rows, classes: Classes):
    """The C classes that a block has rows of, M where there is none: `[C]`; the place in it of each row; and C."""
    own = tf.gather(classes.of_row, rows)
    distinct, number = tf.unique(own)
    count = tf.size(distinct)
    own_classes = tf.math.unsorted_segment_max(own, number, count)
    return tf.where(own_classes < 0, _count(classes), own_classes), number, count


def _lowest_where(condition, numbers, count) -> tf.Tensor:
    """The first row of each of C classes at which each column is true, `[R, M]` -> `[C, M]`; the last if none is."""
    # a product of integers costs half of what `tf.where` does
    below_end = tf.range(tf.size(numbers)) - tf.size(numbers)
    places = tf.cast(condition, tf.int32) * below_end[:, tf.newaxis]
    return tf.minimum(tf.math.unsorted_segment_min(places, numbers, count), -1) + tf.size(numbers)


def _over_replicas(pairs: ClassPairs, anchor_rows, classes: Classes) -> ClassPairs:
    """Each replica knows the pairs of its own anchors' classes, and passes on those only."""
    if replicas.num_replicas() == 1:
        return pairs
    own_classes, _, _ = _classes_of_block(anchor_rows, classes)
    own_classes = tf.minimum(own_classes, _count(classes) - 1)
    numbers = replicas.gather(own_classes)
    rows, squared = [replicas.gather(tf.gather(field, own_classes)) for field in pairs]
    smallest = tf.math.unsorted_segment_min(squared, numbers, _count(classes))
    is_smallest = tf.equal(squared, tf.gather(smallest, numbers))
    nearest = tf.math.unsorted_segment_max(tf.where(is_smallest, rows, 0), numbers, _count(classes))
    return ClassPairs(tf.maximum(nearest, 0), smallest)


def distances(anchors, anchor_rows, references, classes: Classes, pairs: ClassPairs) -> tf.Tensor:
    """Euclidean distances of the nearest rows of every two classes, `[M, M]`; 0 where there are no two.

    The gradient goes to the anchors: each row that is one of a pair is moved along its distance. Under a strategy each
    replica moves its own, by what all replicas make of the distances.

    Distances below 0.001 come out as 0 with gradient 0, but for that of each class to the nearest one.
    """
    references = tf.stop_gradient(references)

    @tf.custom_gradient
    def measure(anchors):
        is_apart = exist(classes) & (pairs.squared > 0)
        euclidean = tf.where(is_apart, tf.sqrt(tf.where(is_apart, pairs.squared, 1.0)), 0.0)

        def gradient(upstream):
            pull = tf.where(is_apart, upstream / tf.where(is_apart, euclidean, 1.0), 0.0)
            pull = replicas.sum_over(pull + tf.transpose(pull))
            return _pulled(anchor_rows, references, classes, pairs, pull)

        return euclidean, gradient

    return measure(anchors)


def _pulled(anchor_rows, references, classes: Classes, pairs: ClassPairs, pull) -> tf.Tensor:
    """`[A, D]`: for each anchor u the sum of `pull(c, c') (x_u - x_v)` over the pairs (u, v) it is in.

    Of a block of anchors against all references, what each is multiplied by is a matrix with M entries for each class
    and one for each anchor itself. Filling it and multiplying is faster than gathering so many vectors.
    """
    partners = tf.transpose(pairs.rows)
    num_rows = tf.size(classes.of_row)

    def one_block(rows):
        block = tf.size(rows)
        own_classes, _, _ = _classes_of_block(rows, classes)
        is_class = (own_classes < _count(classes))[:, tf.newaxis]
        own_classes = tf.minimum(own_classes, _count(classes) - 1)
        places = tf.gather(pairs.rows, own_classes) - rows[0]  # [C, M]
        is_here = is_class & (places >= 0) & (places < block)
        weights = tf.where(is_here, tf.gather(pull, own_classes), 0.0)
        entries = tf.where(is_here, places * num_rows + tf.gather(partners, own_classes), 0)
        factors = tf.scatter_nd(tf.reshape(entries, [-1, 1]), tf.reshape(-weights, [-1]), [block * num_rows])
        of_rows = tf.math.unsorted_segment_sum(weights, tf.where(is_here, places, -1), block)
        themselves = tf.range(block) * num_rows + rows
        factors = tf.tensor_scatter_nd_add(factors, themselves[:, tf.newaxis], of_rows)
        return (precision.matmul(tf.reshape(factors, [block, num_rows]), references),)

    block_rows = pairwise.block_rows_against(references)
    return pairwise.map_row_blocks(one_block, [anchor_rows], (tf.float32,), block_rows)[0]
