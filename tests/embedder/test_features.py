"""A projection that begins as a whitening gives the vectors of that whitening, until it is trained."""

import keras
import numpy as np
import pytest

import eet_tf
from eet_tf.embedder.features import begin_as_whitening, pooled_features
from eet_tf.evaluation.postprocessing import Whitening, fit_whitening

RNG = np.random.default_rng(0)
PHOTOS = RNG.uniform(0, 255, [96, 32, 32, 3]).astype(np.float32) * RNG.uniform(0.2, 1, [96, 1, 1, 3])


def embedder(dim=24, **arguments):
    keras.utils.set_random_seed(3)
    return eet_tf.build_embedder("small_cnn", dim, image_size=32, **arguments)


@pytest.mark.parametrize("arguments", [{}, {"attribute_names": ["red"]}, {"pooling": "avg"}])
def test_vectors_are_those_of_the_whitening(arguments):
    model = embedder(**arguments)
    before = np.linalg.norm(model.get_layer("projection").get_weights()[0])
    features = pooled_features(model).predict(PHOTOS, verbose=0)
    whitening = fit_whitening(features, 24)
    begin_as_whitening(model, whitening)
    outputs = model.predict(PHOTOS, verbose=0)
    found = outputs["embedding"] if isinstance(outputs, dict) else outputs
    np.testing.assert_allclose(found, whitening.apply(features), atol=2e-3)
    assert np.linalg.norm(model.get_layer("projection").get_weights()[0]) == pytest.approx(before, rel=1e-5)


def test_dimensions_that_a_whitening_lacks_stay_random():
    model = embedder()
    kernel, bias = model.get_layer("projection").get_weights()
    features = pooled_features(model).predict(PHOTOS, verbose=0)
    begin_as_whitening(model, fit_whitening(features, 10))
    changed, shifted = model.get_layer("projection").get_weights()
    np.testing.assert_array_equal(changed[:, 10:], kernel[:, 10:])
    np.testing.assert_array_equal(shifted[10:], bias[10:])
    assert np.abs(changed[:, :10] - kernel[:, :10]).min(axis=0).max() > 0


@pytest.mark.parametrize("shape, said", [((255, 8), "from 255 to 8"), ((256, 25), "from 256 to 25")])
def test_a_whitening_of_other_lengths_is_refused(shape, said):
    whitening = Whitening(np.zeros(shape[0]), np.ones(shape))
    with pytest.raises(
        ValueError, match=f"`whitening` must be from 256 to at most 24 dimensions. Received: one {said}"
    ):
        begin_as_whitening(embedder(), whitening)


def test_an_embedder_without_a_projection_is_refused():
    with pytest.raises(ValueError, match="`embedder` must have a projection"):
        pooled_features(embedder(None))
