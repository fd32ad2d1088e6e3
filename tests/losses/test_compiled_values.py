"""What XLA makes of every loss: the numbers of the loops, at sizes that users have."""

import numpy as np
import pytest
import tensorflow as tf

from eet_tf import EETLoss
from eet_tf.pairs import precision
from tests import reference_gradients
from tests.losses.settings import (
    ANY_ROWS,
    COMPARED,
    check,
    check_shapes,
    expected_of,
    loss_function,
    make_batch,
    make_memory,
)
from tests.rounding import tensor_float_32  # noqa: F401


@pytest.mark.parametrize("name", COMPARED)
def test_traced_for_any_number_of_rows(name):
    """One trace, two sizes, each compiled anew: the shapes and the numbers."""
    loss = COMPARED[name][0]
    check_shapes(loss, None, ANY_ROWS)
    compiled = tf.function(loss_function(loss), input_signature=ANY_ROWS, jit_compile=True)
    for num_rows in (20, 257):
        batch, value, gradient = expected_of(name, num_rows, "uneven")
        check(compiled(*[tf.constant(each) for each in batch]), (value, gradient))


BATCHES = [(20, "even"), (20, "uneven"), (64, "uneven"), (257, "even"), (257, "uneven"), (1024, "uneven")]


@pytest.mark.parametrize("num_rows, labels", BATCHES)
@pytest.mark.parametrize("name", COMPARED)
def test_value_and_gradient_are_the_loops(name, num_rows, labels):
    """Compiled and not."""
    batch, value, gradient = expected_of(name, num_rows, labels)
    function = loss_function(COMPARED[name][0])
    arguments = [tf.constant(each) for each in batch]
    for mode in (tf.function, tf.function(jit_compile=True)):
        check(mode(function)(*arguments), (value, gradient), 12 if (name, num_rows) == ("semi-hard", 1024) else 0)


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.int32, np.int64, np.float32])
def test_labels_of_any_number_type(dtype):
    batch, value, gradient = expected_of("eet", 257, "uneven")
    labels = batch[0] - min(batch[0].min(), 0)  # some types have no negative numbers
    arguments = [tf.constant(each) for each in (labels.astype(dtype), *batch[1:])]
    check(tf.function(loss_function(EETLoss()), jit_compile=True)(*arguments), (value, gradient))


@pytest.mark.usefixtures("tensor_float_32")
@pytest.mark.parametrize("mode", [tf.function, tf.function(jit_compile=True)], ids=["graph", "xla"])
@pytest.mark.parametrize("name", COMPARED)
def test_rounded_factors_change_nothing(name, mode):
    """As on a GPU with TensorFloat-32: products are rounded to 10 bits of mantissa, losses are not."""
    batch, value, gradient = expected_of(name, 257, "uneven")
    check(mode(loss_function(COMPARED[name][0]))(*[tf.constant(each) for each in batch]), (value, gradient))


def test_the_plain_product_would_be_seen(tensor_float_32, monkeypatch):  # noqa: F811
    monkeypatch.setattr(precision, "rounds_factors", lambda: False)
    batch, _, gradient = expected_of("eet", 257, "uneven")
    found = loss_function(EETLoss())(*[tf.constant(each) for each in batch])[1]
    assert np.max(np.abs(found - gradient)) > 2e-4 * np.max(np.abs(gradient))


@pytest.mark.parametrize("name", ["eet", "batch-all", "deviance"])
def test_a_memory_that_is_not_full_is_as_the_photos_it_holds(name):
    """Compiled, against the loops over the batch and the 32 photos of 48 places that are there."""
    memory, batch = make_memory(), make_batch(64)
    filled = memory.is_filled.numpy()
    remembered = memory.embeddings.numpy()[filled], memory.labels.numpy()[filled]
    loops = reference_gradients.Batch(batch[0], batch[1], *remembered)
    value = COMPARED[name][1](loops)
    function = loss_function(COMPARED[name][0], memory)
    found = tf.function(function, jit_compile=True)(*[tf.constant(each) for each in batch])
    check(found, (value, loops.gradient()))
