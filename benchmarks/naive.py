"""The losses as most libraries write them: one distance matrix of the whole batch, differentiated from end to end."""

import tensorflow as tf


def distance_matrix(x: tf.Tensor) -> tf.Tensor:
    """Euclidean distances of all rows, `[B, D]` -> `[B, B]`, with a square root that has a gradient at 0."""
    x = tf.math.l2_normalize(x, axis=-1)
    squared = 2.0 - 2.0 * tf.matmul(x, x, transpose_b=True)
    return tf.sqrt(tf.maximum(squared, 1e-12))


def batch_hard(labels: tf.Tensor, x: tf.Tensor, margin: float = 0.3) -> tf.Tensor:
    """Batch-hard triplet loss, `[B]`."""
    distances = distance_matrix(x)
    is_same = tf.equal(labels[:, tf.newaxis], labels[tf.newaxis, :])
    positive = tf.reduce_max(tf.where(is_same, distances, 0.0), axis=1)
    negative = tf.reduce_min(tf.where(is_same, 9.0, distances), axis=1)
    return tf.nn.relu(positive - negative + margin)


def eet(labels: tf.Tensor, x: tf.Tensor, margin: float = 0.3) -> tf.Tensor:
    """EET with all weights 1, `[B]`."""
    distances = distance_matrix(x)
    rows = tf.range(tf.size(labels))
    is_same = tf.equal(labels[:, tf.newaxis], labels[tf.newaxis, :])
    positives = tf.argmax(tf.where(is_same, distances, -1.0), axis=1, output_type=tf.int32)
    negatives = tf.argmin(tf.where(is_same, 9.0, distances), axis=1, output_type=tf.int32)
    to_positive, to_negative, across = [
        tf.gather_nd(distances, tf.stack(pair, axis=1))
        for pair in ((rows, positives), (rows, negatives), (positives, negatives))
    ]
    triplets = tf.nn.relu(to_positive - to_negative + margin) + tf.abs(to_negative - across)

    distinct, number = tf.unique(labels)
    count = tf.size(distinct)
    to_classes = tf.math.unsorted_segment_min(distances, number, count)  # [M, B]
    between = tf.math.unsorted_segment_min(tf.transpose(to_classes), number, count)  # [M, M]
    is_other = tf.linalg.set_diag(tf.ones_like(between, tf.bool), tf.zeros([count], tf.bool))
    decay = tf.reduce_sum(tf.where(is_other, tf.exp(-between), 0.0)) / tf.cast(count * (count - 1), tf.float32)
    far = tf.where(is_other, between, 9.0)
    minima = tf.reduce_min(far, axis=1)
    nearest = tf.argmin(far, axis=1, output_type=tf.int32)
    return triplets + decay + tf.reduce_mean(tf.abs(minima - tf.gather(minima, nearest)))


def binomial_deviance(
    labels: tf.Tensor, x: tf.Tensor, alpha: float = 2.0, beta: float = 0.5, negative_cost: float = 25
):
    """Binomial deviance of all pairs, a scalar."""
    x = tf.math.l2_normalize(x, axis=-1)
    excess = alpha * (tf.matmul(x, x, transpose_b=True) - beta)
    is_same = tf.equal(labels[:, tf.newaxis], labels[tf.newaxis, :])
    is_positive = tf.linalg.set_diag(is_same, tf.zeros_like(labels, tf.bool))
    pulled = _mean_where(is_positive, tf.nn.softplus(-excess))
    return pulled + _mean_where(~is_same, tf.nn.softplus(negative_cost * excess))


def _mean_where(mask: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    count = tf.reduce_sum(tf.cast(mask, tf.float32))
    return tf.math.divide_no_nan(tf.reduce_sum(tf.where(mask, values, 0.0)), count)
