"""How far apart the classes of a batch are, found along with each anchor's hardest triplet, by the plan that suits."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from eet_tf import plans
from eet_tf.pairs import class_pairs, class_runs
from eet_tf.pairs.mining import Classes, Triplets


class Separation(NamedTuple):
    """How far each class c is from the others; D(c, c') is the distance of the nearest rows of two classes.

    Each is `[M]` by number of the class, with M as large as the classes are many or larger. What belongs to no class,
    or to the only one, means nothing.

    Attributes:
        decays: the sum of `exp(-D(c, c'))` over the other classes.
        nearest: the smallest `D(c, .)`.
        nearest_class: int32, the class it belongs to.
    """

    decays: tf.Tensor
    nearest: tf.Tensor
    nearest_class: tf.Tensor


def separate(anchors, anchor_rows, references, classes: Classes) -> tuple[Triplets, Separation]:
    """Each anchor's farthest positive and nearest negative, and how far the classes are from each other.

    Distances below 0.001 count as 0, with gradient 0, but for that of each class to the nearest one: those are taken
    from differences, the others from a matrix multiplication.

    Args:
        anchors: `[A, D]` unit vectors; with a gradient.
        anchor_rows: `[A]` int32, the row of `references` that each anchor is, one after the other.
        references: `[B, D]` unit vectors, those of all replicas; with a gradient.
        classes: of the references.

    Returns:
        Triplets of the anchors, and the separation of all classes, the same on all replicas.
    """
    plan = class_runs if plans.uses_masks() else class_pairs
    triplets, *separation = plan.separate(anchors, anchor_rows, references, classes)
    return triplets, Separation(*separation)
