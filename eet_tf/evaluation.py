"""Retrieval measured on an embedder: of a dataset, and after every epoch of a training."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from eet_tf import metrics


def embed(embedder: keras.Model, dataset: tf.data.Dataset, verbose: int = 0) -> np.ndarray:
    """The embeddings of a dataset of image batches, in its order: `[N, D]` float32.

    Args:
        embedder: a model from images to embeddings.
        dataset: batches of images, e.g. `gallery_dataset(catalog, image_size)`.
        verbose: as in `keras.Model.predict`; 1 shows a progress bar.
    """
    return np.asarray(embedder.predict(dataset, verbose=verbose), np.float32)


class RetrievalEvaluation(keras.callbacks.Callback):
    """Embeds a catalogue after every epoch and adds R@K and mAP@R to the epoch's logs.

    Put it before callbacks that read those logs. Use photos of products that are not trained on, and never those that
    the final figures come from.

    Args:
        dataset: batches of images, e.g. `gallery_dataset(held_out, image_size)`.
        labels: `[N]` the class of each image.
        ks: the K of each R@K.
        prefix: put before each name, as Keras does for validation.
        verbose: as in `keras.Model.predict`; 1 shows a progress bar, for catalogues that take a while.

    Example:

    >>> evaluation = RetrievalEvaluation(gallery_dataset(held_out, 64), held_out.labels)  # doctest: +SKIP
    >>> learner.fit(dataset, callbacks=[evaluation])  # doctest: +SKIP
    """

    def __init__(
        self, dataset: tf.data.Dataset, labels, ks: Sequence[int] = (1, 10), prefix: str = "val_", verbose: int = 0
    ):
        super().__init__()
        self.dataset = dataset
        self.labels = np.asarray(labels)
        self.ks = tuple(ks)
        self.prefix = prefix
        self.verbose = verbose

    def on_epoch_end(self, epoch, logs=None):
        """Measures, and adds to `logs`."""
        result = metrics.evaluate_retrieval(embed(self.model, self.dataset, self.verbose), self.labels, self.ks)
        shares = {name: value for name, value in result.items() if not name.startswith("num_")}
        logs.update({self.prefix + name: value for name, value in shares.items()})
