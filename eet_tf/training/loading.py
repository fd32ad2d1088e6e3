"""An embedder from a file, or out of the model that trains it."""

from __future__ import annotations

import os

import keras

from eet_tf.keras_files import UnreadableModel, read_model
from eet_tf.training.learner import MetricLearner


def load_embedder(path: str) -> keras.Model:
    """Loads an embedder that was saved by `model.save`.

    Args:
        path: a `.keras` file, or a training run's folder with `model.keras` in it. Of a whole `MetricLearner` that was
            saved, e.g. by `keras.callbacks.ModelCheckpoint`, the embedder is taken.

    Raises:
        ValueError: if there is none at `path`, or it cannot be loaded.

    Example:

    >>> import tempfile
    >>> from eet_tf import build_embedder
    >>> folder = tempfile.mkdtemp()
    >>> build_embedder("small_cnn", embedding_dim=8, image_size=32).save(os.path.join(folder, "model.keras"))
    >>> load_embedder(folder).output_shape
    (None, 8)
    """
    is_path = isinstance(path, (str, os.PathLike))
    file = os.path.join(path, "model.keras") if is_path and os.path.isdir(path) else path
    if not is_path or not os.path.isfile(file):
        raise ValueError(
            f"`path` must be a .keras file or a training run's folder with model.keras in it. Received: path={path!r}."
        )
    try:
        model = read_model(file)
    except UnreadableModel as why:
        raise ValueError(
            f"`path` must be a .keras file that this version of Keras, {keras.__version__}, can load. Received: "
            f"path={path!r}: {why}. Layers of your own must be known where they are loaded: register "
            "them with keras.saving.register_keras_serializable, or export in Python with eet_tf.export_embedder."
        ) from why
    if not isinstance(model, keras.Model):
        raise ValueError(
            f"`path` must be a Keras model. Received: path={path!r}, which holds a {type(model).__name__}."
        )
    return embedder_of(model)


def embedder_of(model: keras.Model) -> keras.Model:
    """The embedder that a `MetricLearner` trains; any other model is one itself."""
    return model.embedder if isinstance(model, MetricLearner) else model
