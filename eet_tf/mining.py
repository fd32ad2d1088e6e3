"""Which rows of a batch make a triplet: (embeddings, classes) -> indices, never differentiable."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from eet_tf import compat, pairwise

FAR = 1e9  # the distance of what may not be chosen
_MEMBERS_AT_ONCE = 32


class Triplets(NamedTuple):
    """One triplet per anchor, as rows of the references. Where `is_valid` is false the rows mean nothing."""

    positives: tf.Tensor
    negatives: tf.Tensor
    is_valid: tf.Tensor


class Classes(NamedTuple):
    """Who is in which class, of B rows in M classes; some classes at the end may be empty. All int32.

    `of_row` `[B]`; `sizes` `[M]`; `order` `[B]`, the rows class by class; `starts` `[M]`, where each begins in it.
    """

    of_row: tf.Tensor
    sizes: tf.Tensor
    order: tf.Tensor
    starts: tf.Tensor

    @property
    def count(self) -> tf.Tensor:
        """M."""
        return tf.size(self.sizes)

    @property
    def num_rows(self) -> tf.Tensor:
        """B."""
        return tf.size(self.of_row)


def find_classes(labels: tf.Tensor) -> Classes:
    """The classes of a batch, from `[B]` labels of any number type."""
    of_row, count = compat.number_classes(labels)
    sizes = tf.math.unsorted_segment_sum(tf.ones_like(of_row), of_row, count)
    return Classes(of_row, sizes, tf.argsort(of_row, stable=True), tf.cumsum(sizes, exclusive=True))


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
    num_partners = classes.num_rows if num_partners is None else num_partners

    def one_block(block, rows):
        nearness = pairwise.closeness(block, extended)  # [R, B]
        own = tf.gather(classes.of_row, rows)
        if positives == "partner":
            positive, has_positive = partners(rows, classes, num_partners)
        else:
            positive = first_of_class(lambda found: -at(nearness, found), own, rows, classes)
            has_positive = tf.gather(classes.sizes, own) > 1
        is_same = tf.equal(own[:, tf.newaxis], classes.of_row[tf.newaxis, :])
        if negatives == "semi_hard":
            to_positive = -at(nearness, positive[:, tf.newaxis])[:, 0]
            farthest = tf.argmin(tf.where(is_same, FAR, nearness), axis=1, output_type=tf.int32)
            negative = nearest_beyond(tf.where(is_same, FAR, -nearness), to_positive, farthest)
        else:
            negative = tf.argmax(tf.where(is_same, -FAR, nearness), axis=1, output_type=tf.int32)
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


def pair_masks(labels, rows, reference_labels) -> tuple[tf.Tensor, tf.Tensor]:
    """Which references are positives and which negatives of each row: `[R, B]` bool each.

    Args:
        labels: `[R]` labels of the rows.
        rows: `[R]` int32, the reference that each row is itself.
        reference_labels: `[B]`.
    """
    columns = tf.range(tf.size(reference_labels))
    is_same = tf.equal(labels[:, tf.newaxis], reference_labels[tf.newaxis, :])
    return is_same & tf.not_equal(rows[:, tf.newaxis], columns[tf.newaxis, :]), tf.logical_not(is_same)


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
    nearest = tf.argmin(beyond, axis=1, output_type=tf.int32)
    return tf.where(at(beyond, nearest[:, tf.newaxis])[:, 0] < FAR, nearest, otherwise)
