"""Networks whose training steps are timed, and batches of noise for them."""

import time


def make_learner(backbone: str, image_size: int, microbatch: int | None = None, jit_compile: bool | None = None):
    """Builds an embedder of 512 dimensions with EET around it; `jit_compile=None` leaves the choice to the learner."""
    import keras

    import eet_tf

    keras.utils.set_random_seed(0)
    embedder = eet_tf.build_embedder(backbone, 512, image_size, freeze_batch_norm=True)
    learner = eet_tf.MetricLearner(embedder)
    chosen = {} if jit_compile is None else {"jit_compile": jit_compile}
    learner.compile("adam", eet_tf.EETLoss(), microbatch=microbatch, **chosen)
    return learner


def make_bare(backbone: str, image_size: int, jit_compile: bool | None = None):
    """Builds the same network under Keras alone, with the mean of its outputs for a loss."""
    import keras
    import tensorflow as tf

    import eet_tf

    class MeanOutput(keras.losses.Loss):
        def call(self, y_true, y_pred):
            return tf.reduce_mean(y_pred, axis=-1)

    keras.utils.set_random_seed(0)
    bare = eet_tf.build_embedder(backbone, 512, image_size, freeze_batch_norm=True)
    chosen = {} if jit_compile is None else {"jit_compile": jit_compile}
    bare.compile("adam", MeanOutput(), **chosen)
    return bare


def batches(size: int, image_size: int):
    """Repeats one batch of noise, four photos of each product."""
    import tensorflow as tf

    with tf.device("/cpu:0"):  # where photos come from
        images = tf.random.stateless_uniform([size, image_size, image_size, 3], [1, 2], 0.0, 255.0)
    options = tf.data.Options()
    options.autotune.enabled = False  # its thread sleeps, and the end of every fit waits for it
    return tf.data.Dataset.from_tensors((images, tf.range(size, dtype=tf.int64) // 4)).repeat().with_options(options)


def seconds_per_step(model, dataset, steps: int) -> float:
    """Times one call of `fit()` and divides by its steps."""
    started = time.perf_counter()
    model.fit(dataset, steps_per_epoch=steps, verbose=0, shuffle=False)
    return (time.perf_counter() - started) / steps
