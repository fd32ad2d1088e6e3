"""Which rows of a batch make a triplet: (embeddings, classes) -> indices, never differentiable."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from eet_tf import plans
from eet_tf.pairs import pairwise

FAR = 1e9  # the distance of what may not be chosen
_MEMBERS_AT_ONCE = 32


class Triplets(NamedTuple):
    """One triplet per anchor, as rows of the references. Where `is_valid` is false the rows mean nothing."""

    positives: tf.Tensor
    negatives: tf.Tensor
    is_valid: tf.Tensor


class Classes(NamedTuple):
    """Who is in which class, of B rows. Numbers of classes run from 0; as many are foreseen as rows. All int32.

    Attributes:
        of_row: `[B]`, the class of each row; -1 for a row that is not there.
        sizes: `[B]`, rows of each class; 0 for numbers that no class has.
        order: `[B]`, the rows class by class; those that are not there come last.
        starts: `[B]`, where each class begins in it.
    """

    of_row: tf.Tensor
    sizes: tf.Tensor
    order: tf.Tensor
    starts: tf.Tensor

    @property
    def num_rows(self) -> tf.Tensor:
        """How many rows are there."""
        return tf.reduce_sum(self.sizes)


def find_classes(labels: tf.Tensor, is_present: tf.Tensor | None = None) -> Classes:
    """Numbers the classes of a batch in the order of their labels.

    Every shape is that of the batch: XLA refuses, or gets wrong, what is known only at run time, such as the number of
    classes.

    Args:
        labels: `[B]` of any number type.
        is_present: `[B]` bool, or None if all rows are there.
    """
    labels = tf.convert_to_tensor(labels)
    if labels.dtype.is_integer and labels.dtype.size < 4:
        labels = tf.cast(labels, tf.int32)  # XLA sorts no uint16
    order = tf.argsort(labels, stable=True)
    if is_present is None:
        is_present = tf.ones_like(labels, tf.bool)
    else:
        is_absent = tf.cast(tf.logical_not(tf.gather(is_present, order)), tf.int32)
        order = tf.gather(order, tf.argsort(is_absent, stable=True))
    in_order = tf.gather(labels, order)
    is_next = tf.cast(tf.not_equal(in_order[1:], in_order[:-1]), tf.int32)
    numbers = tf.gather(tf.cumsum(tf.concat([tf.zeros_like(order[:1]), is_next], axis=0)), tf.argsort(order))
    of_row = tf.where(is_present, numbers, -1)
    sizes = tf.math.unsorted_segment_sum(tf.ones_like(of_row), of_row, tf.size(labels))
    return Classes(of_row, sizes, order, tf.cumsum(sizes, exclusive=True))


def is_negative(numbers: tf.Tensor, classes: Classes) -> tf.Tensor:
    """Which rows are of another class: `[R]` numbers of classes -> `[R, B]` bool."""
    of_row = classes.of_row[tf.newaxis, :]
    return tf.not_equal(numbers[:, tf.newaxis], of_row) & (of_row >= 0)


def mine_triplets(
    anchors,
    anchor_rows,
    references,
    classes: Classes,
    positives: str = "hard",
    negatives: str = "hard",
    num_partners=None,
) -> Triplets:
    """For each anchor one positive and one negative among the references.

    An anchor is never its own positive. An anchor that lacks a positive or a negative is marked invalid. Of equally
    near ones the first counts.

    Args:
        anchors: `[A, D]` unit vectors.
        anchor_rows: `[A]` int32, the row of `references` that each anchor is.
        references: `[B, D]` unit vectors to choose from.
        classes: those of the references.
        positives: `"hard"`, the farthest one, or `"partner"`, the next row of an anchor at an even row; anchors at odd
            rows are invalid.
        negatives: `"hard"`, the nearest one, or `"semi_hard"`, the nearest that is farther than the positive, and if
            none is, the farthest.
        num_partners: how many references, from the first on, may be partners; all by default.

    Returns:
        `Triplets` of `[A]` int32, int32 and bool.

    Reference: Hermans, Beyer, Leibe, arXiv 1703.07737, eq. 5 (hard); Schroff, Kalenichenko, Philbin, arXiv
        1503.03832, section 3.2 (semi-hard); Dodds et al., arXiv 1810.04652 (partner).
    """
    extended = pairwise.extended(tf.stop_gradient(references))
    num_partners = tf.size(classes.of_row) if num_partners is None else num_partners

    def one_block(block, rows):
        nearness = pairwise.closeness(block, extended)  # [R, B]
        own = tf.gather(classes.of_row, rows)
        if positives == "partner":
            positive, has_positive = partners(rows, classes, num_partners)
        else:
            positive = farthest_positives(-nearness, own, rows, classes)
            has_positive = tf.gather(classes.sizes, own) > 1
        is_other = is_negative(own, classes)
        if negatives == "semi_hard":
            to_positive = -at(nearness, positive[:, tf.newaxis])[:, 0]
            farthest = argmin(tf.where(is_other, nearness, FAR))
            negative = nearest_beyond(tf.where(is_other, -nearness, FAR), to_positive, farthest)
        else:
            negative = argmin(tf.where(is_other, -nearness, FAR))
        return positive, negative, has_positive & has_negative(own, classes)

    blocks = [tf.stop_gradient(anchors), anchor_rows]
    block_rows = pairwise.block_rows_against(references)
    return Triplets(*pairwise.map_row_blocks(one_block, blocks, (tf.int32, tf.int32, tf.bool), block_rows))


def has_negative(numbers, classes: Classes) -> tf.Tensor:
    """`[R]` bool: whether there are rows of other classes than these, `[R]`."""
    return tf.gather(classes.sizes, numbers) < classes.num_rows


def partners(rows, classes: Classes, num_rows):
    """The next of `num_rows` rows of each even row, and whether it is of the same class."""
    partners = tf.minimum(rows + 1, num_rows - 1)
    is_same = tf.equal(tf.gather(classes.of_row, partners), tf.gather(classes.of_row, rows))
    return partners, is_same & tf.equal(rows % 2, 0) & tf.not_equal(partners, rows)


def at(values: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
    """Entries of each row, `[R, B]`, `[R, N]` -> `[R, N]`."""
    shape = tf.shape(values)
    return tf.gather(tf.reshape(values, [-1]), tf.range(shape[0])[:, tf.newaxis] * shape[1] + columns)


def argmin(values: tf.Tensor) -> tf.Tensor:
    """The first column with the smallest value of each row, `[R, B]` -> `[R]` int32; 0 in a row of NaN.

    XLA takes a minimum into the loop that makes the values. It does not so with an argmin, which is ten times slower.
    """
    if not plans.uses_masks():
        return tf.argmin(values, axis=1, output_type=tf.int32)
    smallest = tf.reduce_min(values, axis=1, keepdims=True)
    columns = tf.range(tf.shape(values)[1])[tf.newaxis, :]
    return tf.reduce_min(tf.where(values > smallest, tf.int32.max, columns), axis=1)


def farthest_positives(distances: tf.Tensor, numbers, rows, classes: Classes) -> tf.Tensor:
    """For each of R rows the farthest of its class, itself left out; the first on a tie.

    Args:
        distances: `[R, B]`, to all rows, in any unit in which more is farther.
        numbers: `[R]` int32, the class of each.
        rows: `[R]` int32, which rows they are.
        classes: those of all rows.

    Returns:
        `[R]` int32; of no meaning where nobody else is in the class.
    """
    if not plans.uses_masks():
        return first_of_class(lambda found: at(distances, found), numbers, rows, classes)
    is_same = tf.equal(numbers[:, tf.newaxis], classes.of_row[tf.newaxis, :])
    is_itself = tf.equal(rows[:, tf.newaxis], tf.range(tf.size(classes.of_row))[tf.newaxis, :])
    return argmin(tf.where(is_same & tf.logical_not(is_itself), -distances, FAR))


def first_of_class(score: Callable, numbers, rows, classes: Classes) -> tf.Tensor:
    """For each of R rows the one with the largest score in a class, itself left out; the first on a tie.

    It looks at the members of the class only, some at a time.

    Args:
        score: function of candidates `[R, N]`, rows of the batch, returning what each is worth to its row, `[R, N]`.
        numbers: `[R]` int32, the class to search.
        rows: `[R]` int32, the rows that search.
        classes: those of all rows.

    Returns:
        `[R]` int32; 0 where nobody else is in the class.
    """
    sizes, starts = tf.gather(classes.sizes, numbers), tf.gather(classes.starts, numbers)
    lowest = tf.float32.min

    def some_members(first, best, best_row):
        members = first + tf.range(_MEMBERS_AT_ONCE)[tf.newaxis, :]
        is_member = members < sizes[:, tf.newaxis]
        candidates = tf.gather(classes.order, tf.where(is_member, starts[:, tf.newaxis] + members, 0))
        is_member &= tf.not_equal(candidates, rows[:, tf.newaxis])
        scores = tf.where(is_member, score(candidates), lowest)
        found = tf.argmax(scores, axis=1, output_type=tf.int32)
        value = tf.reduce_max(scores, axis=1)
        row = tf.gather(candidates, found, batch_dims=1)
        return first + _MEMBERS_AT_ONCE, tf.maximum(best, value), tf.where(value > best, row, best_row)

    start = (0, tf.fill(tf.shape(rows), lowest), tf.zeros_like(rows))
    _, _, best_row = tf.while_loop(lambda first, *_: first < tf.reduce_max(sizes), some_members, start)
    return best_row


def pair_masks(labels, rows, reference_labels, is_present=None) -> tuple[tf.Tensor, tf.Tensor]:
    """Which references are positives and which negatives of each row: `[R, B]` bool each.

    Args:
        labels: `[R]` labels of the rows.
        rows: `[R]` int32, the reference that each row is itself.
        reference_labels: `[B]`.
        is_present: `[B]` bool, or None if all references are there.
    """
    columns = tf.range(tf.size(reference_labels))
    is_same = tf.equal(labels[:, tf.newaxis], reference_labels[tf.newaxis, :])
    is_positive = is_same & tf.not_equal(rows[:, tf.newaxis], columns[tf.newaxis, :])
    is_other = tf.logical_not(is_same)
    if is_present is None:
        return is_positive, is_other
    return is_positive & is_present[tf.newaxis, :], is_other & is_present[tf.newaxis, :]


def nearest_beyond(to_negatives, to_positive, otherwise) -> tf.Tensor:
    """The semi-hard negative: of each row the nearest that is farther than its positive.

    Args:
        to_negatives: `[R, B]` distances, `FAR` where a reference is no negative.
        to_positive: `[R]` distances.
        otherwise: `[R]` int32, what rows get of which no negative is that far.

    Returns:
        `[R]` int32.
    """
    beyond = tf.where(to_negatives > to_positive[:, tf.newaxis], to_negatives, FAR)
    nearest = argmin(beyond)
    return tf.where(at(beyond, nearest[:, tf.newaxis])[:, 0] < FAR, nearest, otherwise)
