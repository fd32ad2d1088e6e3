"""Files of Keras models: how they are opened, and in few words why one is not; and keras-hub, where it is needed."""

from __future__ import annotations

import os
import re
import zipfile

import keras

from eet_tf import compat
from eet_tf.wording import said_by


def read_model(file: str | os.PathLike) -> keras.Model:
    """Opens a file that `model.save` wrote, and imports keras-hub first if its layers are in it.

    Raises:
        ValueError: says in one sentence that keras-hub is missing.
        UnreadableModel: with the reason, if it cannot be opened.
    """
    if _has_layers_of_keras_hub(file):
        import_keras_hub(f"{os.fspath(file)!r} has layers of it")
    try:
        model = keras.models.load_model(file, custom_objects=compat.layers_of_applications(), compile=False)
    except Exception as error:  # a damaged file can fail in any way
        raise UnreadableModel(_reason(os.fspath(file), error)) from error
    if isinstance(model, keras.Model):
        hold_what_is_not_saved(model)
    return model


def hold_what_is_not_saved(model: keras.Model) -> None:
    """Keeps weights of keras-hub's DINOv2 and DINOv3 from training that it does not save, or that nothing uses.

    Its DINOv2 stores positions for the size that it was pretrained at, and interpolates them as a file is opened: what
    a training makes of them would be lost. Mask tokens stand for patches that pretraining alone hides.
    """
    for variable in model.variables:
        if variable.name in ("interpolated_position_embeddings", "mask_token"):
            variable.trainable = False


class UnreadableModel(Exception):
    """Why a file of a model was not opened, as part of a sentence."""


def import_keras_hub(why: str):
    """The package keras-hub, by which Keras then knows its layers.

    Args:
        why: what it is needed for, as a whole sentence without its end.

    Raises:
        ValueError: if it is not installed.
    """
    try:
        import keras_hub  # takes seconds, and is an extra
    except ImportError as error:
        raise ValueError(
            f"keras-hub is needed: {why}. Install it with pip install 'eet-tf[hub]', under Python 3.11 or later and "
            f"TensorFlow 2.20 ({said_by(error)})."
        ) from error
    return keras_hub


def _has_layers_of_keras_hub(file: str | os.PathLike) -> bool:
    try:
        with zipfile.ZipFile(file) as opened:
            return b'"keras_hub' in opened.read("config.json")
    except (OSError, KeyError, zipfile.BadZipFile):
        return False  # which opening it will say in better words


def _reason(file: str, error: Exception) -> str:
    """The class that is not known, that it holds Python code, or the first line of what Keras says."""
    unknown = re.search(r"(?:Could not locate \w+|Unknown \w+:) '([^']+)'", str(error))
    if unknown:
        return f"nothing is known of {unknown[1]!r}"
    if "lambda" in str(error).lower():
        return "a Lambda layer in it is Python code, which is not run; make a layer class of it and save it again"
    if not _is_whole(file):
        return "it is no .keras file, or it is cut off"
    return said_by(error)


def _is_whole(file: str) -> bool:
    """Whether a file is of the kind that Keras names after its ending: a zip file, or HDF5."""
    return zipfile.is_zipfile(file) or not file.endswith(".keras")
