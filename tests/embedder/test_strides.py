"""The last stride: the same weights, a feature map twice as large, and the same features where both have one."""

import keras
import numpy as np
import pytest

from eet_tf import EETLoss, MetricLearner, build_embedder, load_embedder
from eet_tf.embedder.backbones import named_backbone
from eet_tf.embedder.strides import _layers_of_last_halving, without_last_halving

keras_cv_is_old = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
BACKBONES = [  # one of each family, and the layers that no longer stride
    ("small_cnn", {"stage_3_conv"}),
    ("resnet50", {"conv5_block1_0_conv", "conv5_block1_1_conv"}),
    ("resnet50_v2", {"conv4_block6_2_conv", "max_pooling2d_2"}),
    ("mobilenet_v2", {"block_13_depthwise"}),
    ("mobilenet_v2_stride16", {"block_6_depthwise"}),
    ("efficientnet_b0", {"block6a_dwconv"}),
    ("efficientnet_v2_b0", {"block6a_dwconv2"}),
    pytest.param("resnet18_v2", {"v2_stack_3_block2_2_conv", "v2_stack_3_block2_0_max_pooling"}, marks=keras_cv_is_old),
]
SIZE = 64
every_backbone = pytest.mark.parametrize("backbone, names", BACKBONES)


@pytest.fixture(autouse=True)
def forgets_names():
    """So that layers without names of their own are numbered from the start."""
    keras.backend.clear_session()


def with_statistics(network):
    """Its batch norms no longer those of a new network, so that a wrong order of weights shows."""
    rng = np.random.default_rng(0)
    weights = network.get_weights()
    network.set_weights([each + rng.uniform(0, 0.1, each.shape) if each.ndim == 1 else each for each in weights])
    for layer in network.layers:
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()
    return network


def features(network, name, pixels):
    return np.asarray(keras.Model(network.input, network.get_layer(name).output)(pixels, training=False))


@every_backbone
def test_the_map_is_twice_as_large_and_the_weights_are_the_same(backbone, names):
    """What strode has, at every second place, what it had: its padding moves nothing."""
    network = with_statistics(named_backbone(backbone, SIZE, None).network)
    made = without_last_halving(network)
    assert made.output.shape[1:3] == (2 * network.output.shape[1], 2 * network.output.shape[2])
    assert made.output.shape[3] == network.output.shape[3]
    assert [layer.name for layer in made.layers[1:]] == [layer.name for layer in network.layers[1:]]
    for before, after in zip(network.get_weights(), made.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    assert {layer.name for layer in _layers_of_last_halving(network)} == names
    pixels = np.random.default_rng(1).uniform(-1, 1, [2, SIZE, SIZE, 3]).astype(np.float32)
    for name in names:
        before, after = features(network, name, pixels), features(made, name, pixels)
        # a window of even padding begins at place 0 of a pair, one that was padded below alone at place 1
        found = [after[:, start::2, start::2] for start in (0, 1)]
        errors = [np.abs(each - before).max() / np.abs(before).max() for each in found]
        assert min(errors) < 1e-5, errors


@pytest.mark.parametrize("backbone", ["small_cnn", "mobilenet_v2"])
def test_weights_of_a_file_are_loaded(backbone, tmp_path):
    network = with_statistics(named_backbone(backbone, SIZE, None).network)
    file = str(tmp_path / "its.weights.h5")
    network.save_weights(file)
    model = build_embedder(backbone, 4, SIZE, weights=file, last_stride=1)
    inner = next(layer for layer in model.layers if isinstance(layer, keras.Model))
    for before, after in zip(network.get_weights(), inner.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_normalisation_of_pixels_is_that_of_the_weights():
    """The layer computes something of its weights that is no weight; EfficientNets begin with it."""
    network = named_backbone("efficientnet_b0", 32, None).network
    name = next(layer.name for layer in network.layers if isinstance(layer, keras.layers.Normalization))
    layer = network.get_layer(name)
    weights = [np.asarray([0.4, 0.5, 0.6]), np.asarray([0.2, 0.3, 0.1])]
    layer.set_weights([*weights, *layer.get_weights()[2:]])
    layer.finalize_state()
    pixels = np.random.default_rng(1).uniform(0, 255, [1, 32, 32, 3]).astype(np.float32)
    expected = (pixels / 255 - weights[0]) / np.sqrt(weights[1])
    np.testing.assert_allclose(features(without_last_halving(network), name, pixels), expected, rtol=1e-4, atol=1e-5)


def test_it_trains_freezes_and_is_saved(tmp_path):
    keras.utils.set_random_seed(0)
    model = build_embedder("small_cnn", 8, 32, last_stride=1, freeze_until="stage_1_relu", pooling="grid")
    inner = next(layer for layer in model.layers if isinstance(layer, keras.Model))
    assert inner.output.shape[1:3] == (4, 4)  # which a grid needs and stride 2 has not
    frozen = inner.get_layer("stage_1_conv").get_weights()[0]
    photos = np.random.default_rng(0).uniform(0, 255, [16, 32, 32, 3]).astype(np.float32)
    learner = MetricLearner(model)
    learner.compile("adam", EETLoss())
    learner.fit(photos, np.arange(16) // 4, batch_size=16, verbose=0)
    np.testing.assert_array_equal(inner.get_layer("stage_1_conv").get_weights()[0], frozen)
    model.save(str(tmp_path / "model.keras"))
    opened = load_embedder(str(tmp_path / "model.keras"))
    np.testing.assert_array_equal(opened(photos, training=False), model(photos, training=False))


def test_other_strides_are_refused():
    with pytest.raises(ValueError, match="`last_stride` must be 1 or 2. Received: last_stride=3"):
        build_embedder("small_cnn", image_size=32, last_stride=3)


def test_other_backbones_are_refused():
    """In one sentence, before the backbone is built."""
    with pytest.raises(ValueError, match="`last_stride` must be 2 for a backbone other than .* backbone='vit_b16'"):
        build_embedder("vit_b16", last_stride=1)
