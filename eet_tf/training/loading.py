"""An embedder from a file, or out of the model that trains it."""

from __future__ import annotations

import os
import re
import zipfile

import keras

from eet_tf.training.learner import MetricLearner
from eet_tf.wording import said_by


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
        model = keras.models.load_model(file, compile=False)
    except Exception as error:  # a damaged file can fail in any way
        raise ValueError(
            f"`path` must be a .keras file that this version of Keras, {keras.__version__}, can load. Received: "
            f"path={path!r}: {_reason(file, error)}. Layers of your own must be known where they are loaded: register "
            "them with keras.saving.register_keras_serializable, or export in Python with eet_tf.export_embedder."
        ) from error
    if not isinstance(model, keras.Model):
        raise ValueError(
            f"`path` must be a Keras model. Received: path={path!r}, which holds a {type(model).__name__}."
        )
    return embedder_of(model)


def embedder_of(model: keras.Model) -> keras.Model:
    """The embedder that a `MetricLearner` trains; any other model is one itself."""
    return model.embedder if isinstance(model, MetricLearner) else model


def _reason(file: str, error: Exception) -> str:
    """The class that is not known, or the first line of what Keras says."""
    unknown = re.search(r"(?:Could not locate \w+|Unknown \w+:) '([^']+)'", str(error))
    if unknown:
        return f"nothing is known of {unknown[1]!r}"
    if not _is_whole(file):
        return "it is no .keras file, or it is cut off"
    return said_by(error)


def _is_whole(file: str) -> bool:
    """Whether a file is of the kind that Keras names after its ending: a zip file, or HDF5."""
    return zipfile.is_zipfile(file) or not file.endswith(".keras")
