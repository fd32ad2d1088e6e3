"""Which rows of a batch make a triplet or a class pair: (embeddings, labels) -> indices, never differentiable."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from eet_tf import compat, pairwise


class Triplets(NamedTuple):
    """One triplet per anchor, as rows of the references. Where `is_valid` is false the rows mean nothing."""

    positives: tf.Tensor
    negatives: tf.Tensor
    is_valid: tf.Tensor


class ClassPairs(NamedTuple):
    """For classes c, c' of a batch the nearest rows u of c and v of c'. Valid where both exist and differ."""

    rows: tf.Tensor
    other_rows: tf.Tensor
    is_valid: tf.Tensor
    class_of_row: tf.Tensor
    class_sizes: tf.Tensor


def mine_triplets(
    anchors, anchor_labels, anchor_rows, references, reference_labels, positives: str = "hard", negatives: str = "hard"
) -> Triplets:
    """For each anchor one positive and one negative among the references.

    An anchor is never its own positive. An anchor that lacks a positive or a negative is marked invalid.

    Args:
        anchors: `[A, D]` unit vectors.
        anchor_labels: `[A]` labels.
        anchor_rows: `[A]` int32, the row of `references` that each anchor is.
        references: `[B, D]` unit vectors to choose from.
        reference_labels: `[B]` labels.
        positives: `"hard"`, the farthest one, or `"partner"`, the next row of an anchor at an even row; anchors at odd
            rows are invalid.
        negatives: `"hard"`, the nearest one, or `"semi_hard"`, the nearest that is farther than the positive, and if
            none is, the farthest.

    Returns:
        `Triplets` of `[A]` int32, int32 and bool.

    Reference: Hermans, Beyer, Leibe, arXiv 1703.07737, eq. 5 (hard); Schroff, Kalenichenko, Philbin, arXiv
        1503.03832, section 3.2 (semi-hard); Dodds et al., arXiv 1810.04652 (partner).
    """
    references = tf.stop_gradient(references)

    def one_block(rows, labels, own):
        nearness = pairwise.closeness(rows, references)
        is_positive, is_negative = pair_masks(labels, own, reference_labels, positives)
        positive = tf.argmin(tf.where(is_positive, nearness, nearness.dtype.max), axis=1, output_type=tf.int32)
        if negatives == "semi_hard":
            nearness = semi_hard_nearness(nearness, tf.gather(nearness, positive, batch_dims=1), is_negative)
        negative = tf.argmax(tf.where(is_negative, nearness, nearness.dtype.min), axis=1, output_type=tf.int32)
        is_valid = tf.reduce_any(is_positive, axis=1) & tf.reduce_any(is_negative, axis=1)
        return positive, negative, is_valid

    blocks = [tf.stop_gradient(anchors), anchor_labels, anchor_rows]
    return Triplets(*pairwise.map_row_blocks(one_block, blocks, (tf.int32, tf.int32, tf.bool)))


def pair_masks(labels, rows, reference_labels, positives: str = "hard") -> tuple[tf.Tensor, tf.Tensor]:
    """Which references are positives and which negatives of each row: `[R, B]` bool each.

    Args:
        labels: `[R]` labels of the rows.
        rows: `[R]` int32, the reference that each row is itself.
        reference_labels: `[B]`.
        positives: with `"partner"` only the next reference counts, and only for rows at even places.
    """
    columns = tf.range(tf.size(reference_labels))
    is_same = tf.equal(labels[:, tf.newaxis], reference_labels[tf.newaxis, :])
    if positives == "partner":
        partner = tf.where(rows % 2 == 0, rows + 1, -tf.ones_like(rows))
        return is_same & tf.equal(partner[:, tf.newaxis], columns[tf.newaxis, :]), tf.logical_not(is_same)
    return is_same & tf.not_equal(rows[:, tf.newaxis], columns[tf.newaxis, :]), tf.logical_not(is_same)


def semi_hard_nearness(nearness, nearness_of_positive, is_negative) -> tf.Tensor:
    """Nearness made such that the largest among the negatives is the semi-hard one.

    Args:
        nearness: `[R, B]`, larger means nearer.
        nearness_of_positive: `[R]`.
        is_negative: `[R, B]` bool.

    Returns:
        `[R, B]`: as it was for negatives farther than the positive; rows with none such, turned round.
    """
    is_beyond = is_negative & (nearness < nearness_of_positive[:, tf.newaxis])
    has_beyond = tf.reduce_any(is_beyond, axis=1, keepdims=True)
    return tf.where(has_beyond, tf.where(is_beyond, nearness, nearness.dtype.min), -nearness)


def nearest_class_pairs(embeddings, labels) -> ClassPairs:
    """For every ordered pair of classes the two rows, one of each, that are nearest to each other.

    Args:
        embeddings: `[B, D]`.
        labels: `[B]`.

    Returns:
        `ClassPairs` with `rows`, `other_rows` (int32) and `is_valid` (bool) of shape `[M, M]`, `class_of_row` `[B]`
        and `class_sizes` `[M]` (int32). M is the number of classes, or an upper bound with empty classes.
    """
    embeddings = tf.stop_gradient(embeddings)
    class_of_row, num_classes = compat.number_classes(labels)
    distances, nearest = _nearest_row_of_each_class(embeddings, class_of_row, num_classes)
    _, rows = _segment_argmin(distances, class_of_row, num_classes)
    other_rows = tf.transpose(tf.gather(tf.transpose(nearest), tf.transpose(rows), batch_dims=1))
    return _as_class_pairs(rows, other_rows, class_of_row, num_classes)


def _nearest_row_of_each_class(embeddings, class_of_row, num_classes):
    """`[B, M]`: for each row the negative closeness of, and the row number of, the nearest member of each class."""
    squares = tf.reduce_sum(tf.square(embeddings), axis=-1)

    def one_block(rows, own_squares):
        squared = own_squares[:, tf.newaxis] - pairwise.closeness(rows, embeddings)
        smallest, which = _segment_argmin(tf.transpose(squared), class_of_row, num_classes)
        return tf.transpose(smallest), tf.transpose(which)

    return pairwise.map_row_blocks(one_block, [embeddings, squares], (tf.float32, tf.int32))


def _segment_argmin(values, segments, num_segments):
    """Minimum over the rows of each segment, `[R, N]` -> (`[S, N]`, row numbers `[S, N]`); lowest row on a tie."""
    smallest = tf.math.unsorted_segment_min(values, segments, num_segments)
    num_rows = tf.shape(values)[0]
    is_smallest = tf.equal(values, tf.gather(smallest, segments))
    candidates = tf.where(is_smallest, tf.range(num_rows)[:, tf.newaxis], num_rows)
    which = tf.math.unsorted_segment_min(candidates, segments, num_segments)
    return smallest, tf.minimum(which, num_rows - 1)


def _as_class_pairs(rows, other_rows, class_of_row, num_classes) -> ClassPairs:
    class_sizes = tf.math.unsorted_segment_sum(tf.ones_like(class_of_row), class_of_row, num_classes)
    exists = class_sizes > 0
    numbers = tf.range(num_classes)
    differ = tf.not_equal(numbers[:, tf.newaxis], numbers[tf.newaxis, :])
    is_valid = exists[:, tf.newaxis] & exists[tf.newaxis, :] & differ
    return ClassPairs(rows, other_rows, is_valid, class_of_row, class_sizes)
