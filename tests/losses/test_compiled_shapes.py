"""What XLA makes of every loss in every setting: no shape that is known only at run time.

On a CPU XLA carries such shapes, and gets them wrong from 17 rows on; on a GPU it ends the training.
"""

import pytest
import tensorflow as tf

import eet_tf
from eet_tf import AttributeLoss, TripletLoss
from eet_tf.losses.base import MetricLoss
from tests.losses.settings import (
    ALL,
    CHOICES,
    NAMES,
    check_shapes,
    dynamic_dimensions,
    hlo_of,
    make_memory,
    settings_of,
)


def test_every_loss_is_here():
    public = {getattr(eet_tf, name) for name in eet_tf.__all__}
    losses = {each for each in public if isinstance(each, type) and issubclass(each, (MetricLoss, AttributeLoss))}
    of_classes = {eet_tf.ArcFaceLoss, eet_tf.NormalizedSoftmaxLoss, eet_tf.ProxyAnchorLoss}  # test_class_losses.py
    assert losses - {MetricLoss, *of_classes} == set(CHOICES)  # MetricLoss is what one's own losses derive from


@pytest.mark.parametrize("loss_class, settings", ALL, ids=NAMES)
def test_no_shape_is_known_only_at_run_time(loss_class, settings):
    check_shapes(loss_class(**settings), None)


@pytest.mark.parametrize("loss_class", [c for c in CHOICES if c is not AttributeLoss])
def test_nor_with_a_memory_that_is_not_full(loss_class):
    for choices in settings_of(loss_class)[:: 1 if loss_class is not TripletLoss else 6]:
        check_shapes(loss_class(**choices), make_memory())


def test_a_shape_known_only_at_run_time_would_be_seen():
    assert dynamic_dimensions(hlo_of(lambda x: tf.unique(x)[0], [tf.constant([1, 1, 2])]))
