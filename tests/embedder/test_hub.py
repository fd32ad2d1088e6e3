"""Backbones of keras-hub, tiny and random, as local presets: towers and a convolutional one, trained and served."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

pytest.importorskip("keras_hub", reason="needs pip install 'eet-tf[hub]'", exc_type=ImportError)

import keras_hub

from eet_tf import MetricLearner, TripletLoss, build_embedder, export_embedder, load_embedder
from eet_tf.embedder.pixels import PixelScaling

SIZE = 32
RNG = np.random.default_rng(0)
PHOTOS = RNG.uniform(0, 255, size=[64, SIZE, SIZE, 3]).astype(np.float32)
SHAPE = (SIZE, SIZE, 3)
TOWER = {"num_layers": 2, "num_heads": 2, "hidden_dim": 16}
PATCHES = {**TOWER, "patch_size": 8, "intermediate_dim": 32}
TEXTS = {"vocabulary_size": 20, "embedding_dim": 16, "max_sequence_length": 8, **TOWER, "intermediate_dim": 32}
models = keras_hub.models


def clip():
    vision = models.CLIPVisionEncoder(image_shape=SHAPE, name="clip_vision", **PATCHES)
    return models.CLIPBackbone(vision, models.CLIPTextEncoder(name="clip_text", **TEXTS), projection_dim=8)


def siglip():
    vision = models.SigLIPVisionEncoder(image_shape=SHAPE, name="siglip_vision", **PATCHES)
    return models.SigLIPBackbone(vision, models.SigLIPTextEncoder(projection_dim=16, name="siglip_text", **TEXTS))


def dinov2():
    return models.DINOV2Backbone(
        image_shape=SHAPE, position_embedding_shape=(48, 48, 3), num_register_tokens=2, **PATCHES
    )


def dinov3():
    return models.DINOV3Backbone(image_shape=SHAPE, num_register_tokens=3, **PATCHES)


def vit():
    return models.ViTBackbone(image_shape=SHAPE, patch_size=(8, 8), mlp_dim=32, **TOWER)


def resnet():
    return models.ResNetBackbone([64], [7], [64, 64], [1, 1], [1, 2], "basic_block", image_shape=(None, None, 3))


SCALE, OFFSET = [0.0146, 0.0150, 0.0142], [-1.79, -1.75, -1.48]
# the backbone, its image converter or None, the layer of it within an embedder, its output, tokens before patches
KINDS = {
    "clip": (clip, ("CLIPImageConverter", SCALE, OFFSET), "clip_vision", (17, 16), 1),
    "siglip": (siglip, ("SigLIPImageConverter", 1 / 127.5, -1.0), "siglip_vision", (16,), 0),
    "dinov2": (dinov2, ("DINOV2ImageConverter", SCALE, OFFSET), "dinov2_backbone", (19, 16), 3),
    "dinov3": (dinov3, None, "dinov3_backbone", (20, 16), 4),
    "vit": (vit, ("ViTImageConverter", 1 / 255, None), "vi_t_backbone", (17, 16), 1),
    "resnet": (resnet, None, "res_net_backbone", (4, 4, 64), 0),
}


@pytest.fixture(scope="module", name="preset")
def preset_fixture(tmp_path_factory):
    """A function from a kind to the folder of its preset, made once."""
    made = {}

    def preset(kind):
        if kind not in made:
            folder = os.fspath(tmp_path_factory.mktemp(kind))
            build, converter, *_ = KINDS[kind]
            keras.utils.set_random_seed(7)
            build().save_to_preset(folder)
            if converter:
                name, scale, offset = converter
                getattr(keras_hub.layers, name)(image_size=(SIZE, SIZE), scale=scale, offset=offset).save_to_preset(
                    folder
                )
            made[kind] = folder
        return made[kind]

    return preset


def built(folder, kind, embedding_dim=8, **arguments):
    scaling = {} if KINDS[kind][1] else {"pixel_scaling": "imagenet"}
    return build_embedder(f"hub:{folder}", embedding_dim, SIZE, **{**scaling, **arguments})


def unit(vectors):
    vectors = np.asarray(vectors, np.float64)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize(
    "kind",
    ["vit", "dinov2", *(pytest.param(kind, marks=pytest.mark.long) for kind in ("clip", "siglip", "dinov3", "resnet"))],
)
def test_it_trains_is_saved_and_served_as_it_is(kind, preset, tmp_path):
    embedder = built(preset(kind), kind)
    network = embedder.get_layer(KINDS[kind][2])
    assert tuple(network.output.shape[1:]) == KINDS[kind][3]
    before = [weight.copy() for weight in network.get_weights()]
    learner = MetricLearner(embedder)
    learner.compile("adam", TripletLoss())
    learner.fit(PHOTOS, np.arange(64) // 4, batch_size=32, shuffle=False, verbose=0)
    assert any(np.any(old != new) for old, new in zip(before, network.get_weights()))
    embeddings = np.asarray(embedder(PHOTOS))
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), np.ones(64), rtol=1e-5)
    embedder.save(tmp_path / "model.keras")
    again = load_embedder(os.fspath(tmp_path))
    np.testing.assert_array_equal(again(PHOTOS), embeddings)
    if kind == "dinov2":  # whose positions keras-hub does not save as they are used
        learner = MetricLearner(again)
        learner.compile("adam", TripletLoss())
        learner.fit(PHOTOS, np.arange(64) // 4, batch_size=32, shuffle=False, verbose=0)
        again.save(tmp_path / "model.keras")
        np.testing.assert_array_equal(load_embedder(os.fspath(tmp_path))(PHOTOS), again(PHOTOS))
    served = tf.saved_model.load(export_embedder(embedder, os.fspath(tmp_path / "serving"))).signatures["embed_images"]
    pixels = np.round(PHOTOS).astype(np.uint8)
    expected = tf.function(lambda images: embedder(images, training=False))(tf.constant(pixels.astype(np.float32)))
    np.testing.assert_array_equal(served(images=tf.constant(pixels))["embedding"], expected)


@pytest.mark.parametrize("kind", KINDS)
def test_features_are_those_of_the_preset(kind, preset):
    """Class token, vectors of an image tower, or the generalised mean of a map; scaled as its converter does."""
    build, converter, *_, num_prefix = KINDS[kind]
    loaded = models.Backbone.from_preset(preset(kind))
    tower = getattr(loaded, "vision_encoder", loaded)
    if converter:
        scaling = keras_hub.layers.ImageConverter.from_preset(preset(kind))
        scaled = np.asarray(scaling(PHOTOS))
    else:
        scaled = np.asarray(PixelScaling("imagenet")(PHOTOS))
    features = np.asarray(tower({name: scaled for name in tower.input} if isinstance(tower.input, dict) else scaled))
    embedder = built(preset(kind), kind, None)
    if features.ndim == 3:
        np.testing.assert_allclose(embedder(PHOTOS), unit(features[:, 0]), atol=1e-4)
        mean = built(preset(kind), kind, None, pooling="avg")
        np.testing.assert_allclose(mean(PHOTOS), unit(features[:, num_prefix:].mean(axis=1)), atol=1e-4)
    elif features.ndim == 2:
        np.testing.assert_allclose(embedder(PHOTOS), unit(features), atol=1e-4)
    else:
        cubes = np.maximum(features.astype(np.float64), 1e-6) ** 3
        np.testing.assert_allclose(embedder(PHOTOS), unit(cubes.mean(axis=(1, 2)) ** (1 / 3)), atol=1e-4)


@pytest.mark.parametrize(
    "kind, takes_it",
    [("dinov2", True), ("dinov3", True), ("resnet", True), ("vit", False), ("clip", False), ("siglip", False)],
)
def test_another_image_size_is_taken_or_refused_in_one_sentence(kind, takes_it, preset):
    arguments = {"embedding_dim": 8, "image_size": 64, "pixel_scaling": "tf"}
    if takes_it:
        embedder = build_embedder(f"hub:{preset(kind)}", **arguments)
        assert embedder(np.zeros([2, 64, 64, 3], np.float32)).shape == (2, 8)
        return
    with pytest.raises(ValueError, match=r"must take images \[B, 64, 64, 3\]. Received: .*Give image_size=32."):
        build_embedder(f"hub:{preset(kind)}", **arguments)


def test_layers_freeze_and_weights_come_from_a_file(preset, tmp_path):
    network = built(preset("vit"), "vit").get_layer("vi_t_backbone")
    network.set_weights([weight + 1 for weight in network.get_weights()])
    file = os.fspath(tmp_path / "vit.weights.h5")
    network.save_weights(file)
    again = built(preset("vit"), "vit", weights=file, freeze_until="vit_patching_and_embedding")
    for weight, expected in zip(again.get_layer("vi_t_backbone").get_weights(), network.get_weights()):
        np.testing.assert_array_equal(weight, expected)
    frozen = again.get_layer("vi_t_backbone").get_layer("vit_patching_and_embedding")
    assert not frozen.trainable_variables and frozen.variables
    assert len(again.trainable_variables) > 4


def test_half_precision_is_that_of_the_policy(preset, set_policy):
    set_policy("mixed_bfloat16")
    embedder = built(preset("vit"), "vit")
    assert embedder.get_layer("vi_t_backbone").compute_dtype == "bfloat16"
    assert embedder(PHOTOS).dtype == "float32"


def test_a_backbone_object_of_keras_hub_is_a_model_of_ones_own():
    embedder = build_embedder(dinov3(), 8, SIZE, pixel_scaling="imagenet")
    assert embedder(PHOTOS).shape == (64, 8)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({}, "`pixel_scaling` must be given for a preset without an image converter: one of none, unit, .*dinov3"),
        ({"weights": "imagenet"}, "`weights` must be None, for those of the preset, or a path"),
        ({"pixel_scaling": "tf", "pooling": "none"}, "another than 'none' for a backbone whose output is tokens"),
    ],
)
def test_what_a_preset_does_not_say_must_be_said(arguments, message, preset):
    with pytest.raises(ValueError, match=message):
        build_embedder(f"hub:{preset('dinov3')}", 8, SIZE, **arguments)


def test_a_folder_that_is_no_preset_is_refused(tmp_path):
    with pytest.raises(ValueError, match="`backbone` must be hub: and a preset of keras-hub or a folder of one"):
        build_embedder(f"hub:{tmp_path}", 8, SIZE, pixel_scaling="tf")


def test_a_model_of_texts_is_refused(tmp_path):
    models.CLIPTextEncoder(name="text", **TEXTS).save_to_preset(tmp_path)
    with pytest.raises(ValueError, match="`backbone` must take images"):
        build_embedder(f"hub:{tmp_path}", 8, SIZE, pixel_scaling="tf")


def test_a_model_opens_in_a_process_that_imports_this_package_alone(preset, tmp_path, run_python):
    """And where keras-hub is missing, one sentence says so, of the file and of a preset."""
    embedder = built(preset("dinov3"), "dinov3")
    file = os.fspath(tmp_path / "model.keras")
    embedder.save(file)
    np.save(tmp_path / "photos.npy", PHOTOS)
    np.save(tmp_path / "expected.npy", embedder(PHOTOS))
    code = f"""
import sys
import numpy as np, eet_tf
sys.modules["keras_hub"] = None
for call in (lambda: eet_tf.load_embedder({file!r}), lambda: eet_tf.build_embedder("hub:vit", 8, 32)):
    try:
        call()
    except ValueError as error:
        print(error)
del sys.modules["keras_hub"]
model = eet_tf.load_embedder({file!r})
photos, expected = (np.load({os.fspath(tmp_path)!r} + name) for name in ("/photos.npy", "/expected.npy"))
print(np.array_equal(model(photos), expected))
"""
    (printed,) = run_python(code, fresh=True)
    of_file, of_preset, is_equal = printed.splitlines()
    assert is_equal == "True"
    assert of_file.startswith(
        f"keras-hub is needed: {file!r} has layers of it. Install it with pip install 'eet-tf[hub]'"
    )
    assert of_preset.startswith("keras-hub is needed: backbone='hub:vit' is of it. Install it with pip install")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dinov2", "siglip"])
def test_an_epoch_of_the_command_on_two_devices_is_exported_and_verified(kind, preset, tmp_path):
    pytest.importorskip("tensorflow_serving", reason="needs pip install 'eet-tf[serving]'")

    def eet(*arguments):
        command = [sys.executable, "-m", "eet_tf", *arguments]
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
        result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert not result.returncode, result.stdout + result.stderr[-4000:]
        return result.stdout

    run = os.fspath(tmp_path / "run")
    flags = ["--dataset=synthetic", f"--data={tmp_path / 'photos'}", f"--model_dir={run}", "--epochs=1"]
    flags += ["--steps_per_epoch=3", "--classes_per_batch=8", "--examples_per_class=4", "--image_size=32"]
    flags += ["--strategy=mirrored", "--virtual_devices=2", f"--backbone=hub:{preset(kind)}", "--embedding_dim=16"]
    printed = eet("train", *flags)
    assert " % before (pretrained features), " in printed
    with open(os.path.join(run, "flags.txt"), encoding="utf-8") as file:
        assert f"--pooling={'cls' if kind == 'dinov2' else 'none'}\n" in file.readlines()
    served = os.fspath(tmp_path / "served")
    assert "checks passed" in eet("export", f"--model={run}", f"--output_dir={served}", "--bundle")
    assert "checks passed" in eet("verify", os.path.join(served, "embedder"))
