"""The neck: a normalisation between the vectors that pair losses see and the vectors that a search sees."""

from __future__ import annotations

import keras

NECKS = ("batch_norm", "layer_norm")
BEFORE_NECK = "before_neck"  # the output of an embedder with a neck that pair losses see; the learner knows it


def neck_layer(neck: str) -> keras.layers.Layer:
    """Makes the layer that normalises projected vectors `[B, D]`, in float32.

    - `"batch_norm"`: batch normalisation with a learnt scale and no offset, so that vectors stay around the origin, as
      cosines want it. Momentum 0.9 and epsilon 1e-5 are those of PyTorch, in which the paper's code is written.
      Each replica normalises by its own photos.
    - `"layer_norm"`: every vector to mean 0 and variance 1, with nothing learnt.

    Reference: Luo, Gu, Liao, Lai, Jiang, "Bag of Tricks and a Strong Baseline for Deep Person Re-identification", arXiv
        1903.07071, section 3.5 [authors: their released code]; Zhai, Wu, "Classification is a Strong Baseline for Deep
        Metric Learning", arXiv 1811.12649.

    Example:

    >>> neck_layer("layer_norm")(np.array([[1.0, 3.0]], np.float32)).numpy().round(3).tolist()
    [[-1.0, 1.0]]
    """
    if neck == "batch_norm":
        return keras.layers.BatchNormalization(
            momentum=0.9, epsilon=1e-5, center=False, dtype="float32", name="batch_norm_neck"
        )
    return keras.layers.LayerNormalization(
        epsilon=1e-5, center=False, scale=False, dtype="float32", name="layer_norm_neck"
    )
