"""From photos to unit vectors: every family of backbones, its pixels, its weights, and the file it is saved in."""

import os

import keras
import numpy as np
import pytest
import tensorflow as tf

from eet_tf import EETLoss, build_embedder, load_embedder
from eet_tf.embedder import backbones
from eet_tf.embedder.backbones import BACKBONES
from eet_tf.embedder.heads import AttributeHead, UnitLength, attribute_names
from eet_tf.embedder.pixels import PixelScaling
from eet_tf.embedder.pooling import GeMPooling, GridPooling, pooling_layer

# keras-cv and what it imports are old; only the two backbones of basic blocks need them
keras_cv_is_old = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
BUILT = [  # one of each family
    "small_cnn",
    pytest.param("resnet18_v2", marks=keras_cv_is_old),
    "mobilenet_v2",
    "resnet50",
    "resnet50_v2",
    "efficientnet_b0",
    "efficientnet_v2_b0",
]
PHOTOS = np.random.default_rng(0).uniform(0, 255, size=[3, 32, 32, 3]).astype(np.float32)


def small(**arguments):
    keras.utils.set_random_seed(4)
    return build_embedder("small_cnn", **{"embedding_dim": 8, "image_size": 32, **arguments})


def network_of(model):
    """The backbone within an embedder."""
    return next(layer for layer in model.layers if isinstance(layer, keras.Model))


@pytest.mark.parametrize("backbone", BUILT)
def test_every_family_ends_in_a_unit_vector(backbone):
    model = build_embedder(backbone, embedding_dim=8, image_size=32)
    assert type(model).__module__.partition(".")[0] == "keras"
    assert (model.input_shape, model.output_shape) == ((None, 32, 32, 3), (None, 8))
    embeddings = model(PHOTOS)
    assert embeddings.dtype == tf.float32
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), np.ones(3), rtol=1e-5)
    in_training = model(PHOTOS, training=True)  # where batch norm gives even untrained features a size
    assert np.linalg.norm(in_training[0] - in_training[1]) > 1e-3


def test_every_other_backbone_is_known_to_keras():
    """Building all of them takes minutes; that Keras has them is what can go wrong."""
    assert set(BACKBONES) == {
        *backbones._APPLICATIONS,
        "resnet18_v2",
        "resnet34_v2",
        "small_cnn",
        *backbones._CUT,
        *backbones._JOINED,
    }
    for function, _ in backbones._APPLICATIONS.values():
        assert callable(getattr(keras.applications, function))


@pytest.mark.parametrize(
    "backbone, last_layer, channels",
    [("mobilenet_v2_stride16", "block_13_expand_relu", 576), ("mobilenet_v2_block8", "block_8_expand_relu", 384)],
)
def test_a_backbone_cut_short_takes_the_weights_of_the_whole_one(backbone, last_layer, channels, tmp_path):
    """Its features are those of the whole network at that layer: 4 x 4 places for 64 pixels."""
    whole = network_of(build_embedder("mobilenet_v2", embedding_dim=8, image_size=64))
    whole.save_weights(tmp_path / "whole.weights.h5")
    cut = network_of(build_embedder(backbone, 8, image_size=64, weights=str(tmp_path / "whole.weights.h5")))
    pixels = np.random.default_rng(2).uniform(-1, 1, [2, 64, 64, 3]).astype(np.float32)
    at_layer = keras.Model(whole.input, whole.get_layer(last_layer).output)(pixels)
    assert at_layer.shape == (2, 4, 4, channels)
    np.testing.assert_allclose(cut(pixels), at_layer, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [64, 72, 80, 97])
def test_joined_stages_stand_side_by_side(size, tmp_path):
    """Each place of the late stage beside the four of the early one that it covers, also where sizes are odd."""
    whole = network_of(build_embedder("mobilenet_v2", embedding_dim=8, image_size=size))
    whole.save_weights(tmp_path / "whole.weights.h5")
    weights = str(tmp_path / "whole.weights.h5")
    joined = network_of(build_embedder("mobilenet_v2_joined", 8, size, weights, pooling="avg"))
    pixels = np.random.default_rng(3).uniform(-1, 1, [2, size, size, 3]).astype(np.float32)
    stages = [whole.get_layer(name).output for name in ("block_3_project_BN", "block_9_add")]
    early, late = (np.asarray(each) for each in keras.Model(whole.input, stages)(pixels))
    height, width, channels = late.shape[1:]
    padded = np.zeros([2, 2 * height, 2 * width, early.shape[3]], np.float32)
    padded[:, : early.shape[1], : early.shape[2]] = early
    found = np.asarray(joined(pixels))
    assert found.shape == (2, height, width, 4 * early.shape[3] + channels)
    for y in range(height):
        for x in range(width):
            four = [padded[:, 2 * y + down, 2 * x + right] for down in (0, 1) for right in (0, 1)]
            np.testing.assert_allclose(
                found[:, y, x], np.concatenate([*four, late[:, y, x]], axis=1), rtol=1e-5, atol=1e-5
            )


def test_joined_stages_have_no_last_stride_to_leave_out():
    with pytest.raises(ValueError, match="`last_stride` must be 2 .*mobilenet_v2_joined"):
        build_embedder("mobilenet_v2_joined", 8, 64, last_stride=1)


@pytest.mark.parametrize(
    "backbone, module",
    [
        ("resnet101", "resnet"),
        ("resnet50_v2", "resnet_v2"),
        ("mobilenet_v2", "mobilenet_v2"),
        ("efficientnet_b3", "efficientnet"),
        ("efficientnet_v2_s", "efficientnet_v2"),
        ("convnext_xlarge", "convnext"),
    ],
)
def test_pixels_are_scaled_as_the_backbone_was_trained(backbone, module):
    expected = getattr(keras.applications, module).preprocess_input(PHOTOS.copy())
    scaled = PixelScaling(backbones._APPLICATIONS[backbone][1])(PHOTOS)
    np.testing.assert_allclose(scaled, expected, rtol=1e-5, atol=1e-4)


def test_other_backbones_get_pixels_between_0_and_1():
    np.testing.assert_allclose(PixelScaling("unit")(PHOTOS), PHOTOS / 255, rtol=1e-6)
    assert small().get_layer("pixel_scaling").mode == "unit"


@pytest.mark.parametrize("backbone, mode", [("mobilenet_v2", "tf"), ("small_cnn", "unit")])
def test_scaling_is_part_of_the_model(backbone, mode):
    model = build_embedder(backbone, embedding_dim=8, image_size=32, pooling="avg")
    network = network_of(model)
    x = tf.reduce_mean(network(PixelScaling(mode)(PHOTOS)), axis=[1, 2])
    expected = tf.math.l2_normalize(model.get_layer("projection")(x), axis=-1)
    np.testing.assert_allclose(model(PHOTOS), expected, rtol=1e-4, atol=1e-5)


def test_gem_lies_between_mean_and_maximum():
    features = np.random.default_rng(1).uniform(0.1, 2, size=[2, 5, 4, 6]).astype(np.float32)
    pooled = np.asarray(GeMPooling()(features))
    assert pooled.shape == (2, 6)
    assert np.all(pooled > features.mean(axis=(1, 2))) and np.all(pooled < features.max(axis=(1, 2)))


def gem(features, exponent):
    """A layer in use, its exponent changed from the 3 it starts with."""
    layer = GeMPooling()
    layer(features)
    assert float(layer.exponent) == 3.0
    layer.exponent.assign(exponent)
    return layer


@pytest.mark.parametrize("exponent", [1.0, 3.0, 7.5])
def test_gem_is_its_formula(exponent):
    """`mean(x^p)^(1/p)`, which for p = 1 is the mean; values below 1e-6 count as 1e-6."""
    features = np.random.default_rng(1).normal(size=[2, 5, 4, 6]).astype(np.float32)
    layer = gem(features, exponent)
    expected = np.mean(np.maximum(features.astype(np.float64), 1e-6) ** exponent, axis=(1, 2)) ** (1 / exponent)
    np.testing.assert_allclose(layer(features), expected, rtol=1e-4)


def test_gem_never_becomes_less_than_a_mean():
    """An exponent that training drives below 1 acts as 1."""
    features = np.random.default_rng(1).uniform(0.1, 2, size=[2, 5, 4, 6]).astype(np.float32)
    layer = gem(features, -2.0)
    np.testing.assert_allclose(layer(features), features.mean(axis=(1, 2)), rtol=1e-5)


def test_gem_learns_its_exponent_and_has_finite_gradients_at_zero():
    """After ReLU many features are exactly 0."""
    features = tf.constant(np.maximum(np.random.default_rng(1).normal(size=[2, 5, 4, 6]), 0).astype(np.float32))
    layer = GeMPooling()
    with tf.GradientTape() as tape:
        tape.watch(features)
        pooled = tf.reduce_sum(layer(features))
    slopes = tape.gradient(pooled, [features, *layer.trainable_variables])
    assert len(slopes) == 2
    assert all(np.all(np.isfinite(slope)) for slope in slopes)
    assert float(slopes[1]) > 0


def test_gem_survives_half_precision():
    """300^3 is 27,000,000, far above the largest float16, 65,504."""
    layer = GeMPooling(dtype="mixed_float16")
    pooled = layer(tf.fill([1, 2, 2, 3], tf.constant(300.0, tf.float16)))
    assert pooled.dtype == tf.float16
    np.testing.assert_allclose(tf.cast(pooled, tf.float32), np.full([1, 3], 300.0), rtol=1e-3)


def test_avg_pooling_is_keras():
    assert isinstance(small(pooling="avg").get_layer("pooling"), keras.layers.GlobalAveragePooling2D)
    assert isinstance(small().get_layer("pooling"), GeMPooling)


def cell_by_cell(features, cells):
    """Each place cut into `cells` x `cells` equal pieces, so that every cell is made of whole pieces."""
    pieces = np.repeat(np.repeat(features, cells, axis=1), cells, axis=2)
    height, width = features.shape[1:3]
    means = [
        pieces[:, i * height : (i + 1) * height, j * width : (j + 1) * width].mean(axis=(1, 2))
        for i in range(cells)
        for j in range(cells)
    ]
    return np.concatenate(means, axis=1)


@pytest.mark.parametrize("shape", [(4, 4), (8, 8), (6, 5), (7, 13), (3, 2)])
def test_grid_pooling_is_the_mean_of_every_cell(shape):
    features = np.random.default_rng(1).normal(size=[2, *shape, 3]).astype(np.float32)
    pooled = GridPooling(4)(features)
    assert pooled.shape == (2, 48)
    np.testing.assert_allclose(pooled, cell_by_cell(features, 4), atol=1e-6)


def test_grid_pooling_tells_left_from_right():
    model = small(pooling="grid", image_size=64)
    assert model.get_layer("projection").get_weights()[0].shape[0] == 16 * 256
    photo = np.random.default_rng(2).uniform(0, 255, [1, 64, 64, 3]).astype(np.float32)
    pooled = keras.Model(model.input, model.get_layer("pooling").output)
    mirrored = pooled(photo[:, :, ::-1])
    assert np.abs(pooled(photo) - mirrored).max() > 1e-3


def test_a_map_too_small_for_the_grid_is_refused():
    with pytest.raises(ValueError, match="feature map of 2 x 2. Received: pooling='grid', which needs 4 x 4 or more"):
        small(pooling="grid", image_size=32)


def test_unit_length_leaves_a_zero_vector_finite():
    np.testing.assert_array_equal(UnitLength()(np.zeros([1, 4], np.float32)), np.zeros([1, 4]))


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_ends_in_float32_of_unit_length(policy, set_policy):
    set_policy(policy)
    model = small()
    assert model.get_layer("projection").compute_dtype == policy.removeprefix("mixed_")
    embeddings = model(PHOTOS)
    assert embeddings.dtype == tf.float32
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), np.ones(3), rtol=1e-5)


@pytest.mark.parametrize("backbone", ["small_cnn", "mobilenet_v2"])
def test_weights_of_the_backbone_come_from_a_file(backbone, tmp_path):
    path = os.fspath(tmp_path / "backbone.weights.h5")
    first = build_embedder(backbone, embedding_dim=8, image_size=32)
    network_of(first).save_weights(path)
    second = build_embedder(backbone, embedding_dim=8, image_size=32, weights=path)
    for weight, expected in zip(network_of(second).get_weights(), network_of(first).get_weights()):
        np.testing.assert_array_equal(weight, expected)
    assert not np.array_equal(second.get_layer("projection").get_weights()[0], first.layers[-2].get_weights()[0])


@pytest.mark.parametrize("backbone", ["small_cnn", "mobilenet_v2"])
def test_weights_of_another_backbone_are_refused(backbone, tmp_path):
    path = os.fspath(tmp_path / "other.weights.h5")
    keras.Sequential([keras.Input([5]), keras.layers.Dense(3), keras.layers.Dense(2)]).save_weights(path)
    with pytest.raises(ValueError, match=f"`weights` could not be loaded into {backbone}. Received: weights='.*other"):
        build_embedder(backbone, image_size=32, weights=path)


@pytest.mark.parametrize("backbone", ["small_cnn", "mobilenet_v2", "resnet50"])
def test_a_missing_weights_file_is_named(backbone):
    with pytest.raises(
        ValueError, match="`weights` must be None, 'imagenet' or an existing file. .*weights='no/such.h5'"
    ):
        build_embedder(backbone, image_size=32, weights="no/such.h5")


def test_a_file_that_holds_no_weights_is_refused(tmp_path):
    path = tmp_path / "broken.weights.h5"
    path.write_bytes(b"not an HDF5 file")
    with pytest.raises(ValueError, match="`weights` could not be loaded into small_cnn"):
        build_embedder("small_cnn", image_size=32, weights=os.fspath(path))


def test_imagenet_weights_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match="`weights` must be None or a path for small_cnn"):
        build_embedder("small_cnn", image_size=32, weights="imagenet")


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"backbone": "resnet51"}, "`backbone` must be one of .*resnet50.* Received: backbone='resnet51'"),
        (
            {"pooling": "sum"},
            "`pooling` must be one of gem, avg, max, avg_max, grid, cls, none. Received: pooling='sum'",
        ),
        (
            {"backbone": "small_cnn", "image_size": 32, "freeze_until": "stage_1_relo"},
            "`freeze_until` must be a layer of small_cnn, e.g. stage_1_relu, .*. Received: freeze_until='stage_1_relo'",
        ),
        ({"embedding_dim": 0}, "`embedding_dim` must be an integer of at least 1. Received: embedding_dim=0"),
        ({"image_size": 31}, "`image_size` must be an integer of at least 32. Received: image_size=31"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        build_embedder(**arguments)


def batch_norms(model):
    return [layer for layer in network_of(model).layers if isinstance(layer, keras.layers.BatchNormalization)]


@pytest.mark.parametrize("backbone", ["small_cnn", pytest.param("resnet18_v2", marks=keras_cv_is_old)])
def test_frozen_batch_norm_keeps_its_statistics_and_weights(backbone):
    model = build_embedder(backbone, embedding_dim=8, image_size=32, freeze_batch_norm=True)
    norms = batch_norms(model)
    assert len(norms) >= 4
    before = [weight for layer in norms for weight in layer.get_weights()]
    model(PHOTOS, training=True)
    for weight, expected in zip([weight for layer in norms for weight in layer.get_weights()], before):
        np.testing.assert_array_equal(weight, expected)
    trainable = {id(variable) for variable in model.trainable_variables}
    assert not any(id(variable) in trainable for layer in norms for variable in layer.variables)
    assert trainable


def test_layers_up_to_the_named_one_keep_their_weights(tmp_path):
    """Also in a model that was saved; the layers behind it, and the projection, train."""
    last = "stage_1_relu"
    model = small(freeze_until=last)
    model.save(tmp_path / "model.keras")
    for each in (model, load_embedder(os.fspath(tmp_path / "model.keras"))):
        layers = network_of(each).layers
        place = [layer.name for layer in layers].index(last)
        assert [layer.trainable for layer in layers[1:]] == [number > place for number in range(1, len(layers))]
        frozen = {id(variable) for layer in layers[: place + 1] for variable in layer.variables}
        assert frozen and not frozen & {id(variable) for variable in each.trainable_variables}
    before = [weight.copy() for weight in model.get_weights()]
    model.compile("sgd", loss=EETLoss())
    model.fit(PHOTOS, np.arange(len(PHOTOS)) // 2, verbose=0)
    moved = [np.any(old != new) for old, new in zip(before, model.get_weights())]
    num_frozen = sum(len(layer.weights) for layer in network_of(model).layers[: place + 1])
    assert not any(moved[:num_frozen]) and any(moved[num_frozen:])


@pytest.mark.parametrize("pooling, expected", [("max", 1.0), ("avg_max", 1.25)])
def test_maximum_pooling_is_by_hand(pooling, expected):
    features = np.zeros([1, 2, 2, 3], np.float32)
    features[0, 1, 0] = 1.0
    np.testing.assert_allclose(pooling_layer(pooling, features)(features), np.full([1, 3], expected))


def test_batch_norm_learns_unless_frozen():
    model = small()
    model(PHOTOS, training=True)
    assert all(layer.trainable and np.any(np.asarray(layer.moving_mean) != 0) for layer in batch_norms(model))


def test_batch_norm_is_still_frozen_in_a_loaded_model(tmp_path):
    small(freeze_batch_norm=True).save(tmp_path / "model.keras")
    norms = batch_norms(load_embedder(os.fspath(tmp_path / "model.keras")))
    assert norms and not any(layer.trainable for layer in norms)


@pytest.mark.parametrize("backbone", ["small_cnn", "mobilenet_v2", pytest.param("resnet18_v2", marks=keras_cv_is_old)])
def test_a_loaded_embedder_is_the_saved_one(backbone, tmp_path):
    model = build_embedder(backbone, embedding_dim=8, image_size=32)
    model.save(tmp_path / "model.keras")
    for path in (tmp_path / "model.keras", tmp_path):
        np.testing.assert_array_equal(load_embedder(os.fspath(path))(PHOTOS), model(PHOTOS))


def test_a_fresh_process_computes_the_same_embeddings(tmp_path, run_python):
    model = small()
    model.get_layer("pooling").exponent.assign(2.5)
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "photos.npy", PHOTOS)
    run_python(f"""
import numpy
from eet_tf import load_embedder
folder = {os.fspath(tmp_path)!r}
numpy.save(folder + "/embeddings.npy", load_embedder(folder)(numpy.load(folder + "/photos.npy")))
""")
    np.testing.assert_allclose(np.load(tmp_path / "embeddings.npy"), model(PHOTOS), rtol=0, atol=1e-6)


@pytest.mark.parametrize("path", ["missing.keras", "."])
def test_loading_what_is_not_there_names_it(path, tmp_path):
    with pytest.raises(ValueError, match=r"`path` must be a .keras file or a training run's folder"):
        load_embedder(os.fspath(tmp_path / path))


def test_layers_come_back_from_their_configuration():
    for layer in (
        PixelScaling("caffe", name="pixels"),
        GeMPooling(name="pooling"),
        GridPooling(3, name="grid"),
        UnitLength(name="unit"),
        AttributeHead(["striped", "red"], name="attributes"),
    ):
        again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
        assert type(again) is type(layer)
        assert again.get_config() == layer.get_config()


# Attributes


def test_without_attribute_names_there_is_one_output():
    model = small()
    assert isinstance(model(PHOTOS), tf.Tensor)
    assert attribute_names(model) == ()


def test_an_attribute_head_is_a_second_output():
    model = small(attribute_names=np.array(["striped", "red", "long sleeves"]))
    outputs = model(PHOTOS)
    assert set(outputs) == {"embedding", "attributes"}
    assert {name: (rows.shape.as_list(), rows.dtype) for name, rows in outputs.items()} == {
        "embedding": ([3, 8], tf.float32),
        "attributes": ([3, 3], tf.float32),
    }
    np.testing.assert_allclose(np.linalg.norm(outputs["embedding"], axis=1), np.ones(3), rtol=1e-5)
    assert attribute_names(model) == ("striped", "red", "long sleeves")


def test_the_attribute_head_is_linear_on_the_pooled_features():
    model = small(attribute_names=["striped", "red"])
    head = model.get_layer("attributes")
    head.set_weights([np.random.default_rng(0).normal(size=weight.shape) for weight in head.get_weights()])
    pooled = keras.Model(model.input, model.get_layer("pooling").output)(PHOTOS)
    kernel, bias = head.get_weights()
    np.testing.assert_allclose(model(PHOTOS)["attributes"], pooled @ kernel + bias, rtol=1e-4, atol=1e-5)


def test_an_attribute_head_leaves_the_embedding_as_it_is():
    """With the same seed the same weights, too."""
    np.testing.assert_array_equal(small(attribute_names=["striped"])(PHOTOS)["embedding"], small()(PHOTOS))


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_attributes_in_half_precision_are_float32(policy, set_policy):
    set_policy(policy)
    model = small(attribute_names=["striped", "red"])
    assert model.get_layer("pooling").compute_dtype == policy.removeprefix("mixed_")
    assert model(PHOTOS)["attributes"].dtype == tf.float32
    assert all(weight.dtype == np.float32 for weight in model.get_layer("attributes").get_weights())


def test_a_loaded_embedder_knows_its_attributes(tmp_path):
    model = small(attribute_names=("striped", "red"))
    model.save(tmp_path / "model.keras")
    loaded = load_embedder(os.fspath(tmp_path))
    assert attribute_names(loaded) == ("striped", "red")
    for name, rows in loaded(PHOTOS).items():
        np.testing.assert_array_equal(rows, model(PHOTOS)[name])


@pytest.mark.parametrize("names", ["striped", ["striped", ""], ["red", "striped", "red"], [1, 2], [None]])
def test_attribute_names_that_name_nothing_are_refused(names):
    message = "`attribute_names` must be distinct strings that are not empty. Received: attribute_names="
    with pytest.raises(ValueError, match=message):
        small(attribute_names=names)
