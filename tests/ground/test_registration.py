"""`import eet_tf` alone lets Keras load what was saved with this package, in either order and from old files."""

import ast
import os
import pathlib
import subprocess
import sys
import textwrap
import zipfile

import keras
import numpy as np
import pytest

import eet_tf
from eet_tf._registration import CLASSES, PACKAGE

ROOT = pathlib.Path(eet_tf.__file__).parent
IMAGES = np.random.default_rng(0).normal(size=[2, 32, 32, 3]).astype(np.float32)
LOSSES = [eet_tf.EETLoss(margin=0.4), eet_tf.TripletLoss(), eet_tf.BinomialDevianceLoss(), eet_tf.AttributeLoss()]
LOSSES += [
    eet_tf.MultiSimilarityLoss(),
    eet_tf.SupervisedContrastiveLoss(),
    eet_tf.SmoothAPLoss(),
    eet_tf.RoadmapLoss(),
]
LOSSES += [eet_tf.RecallAtKLoss(ks=[1, 3]), eet_tf.PrefixLoss(eet_tf.TripletLoss(), [2, 4])]
LOSSES += [eet_tf.CombinedLoss([eet_tf.EETLoss(), eet_tf.TripletLoss()])]
LOAD = """
import keras, numpy as np, sys
before = sorted(name for name in sys.modules if name.startswith("eet_tf.") and "._" not in name)
for path in {paths!r}:
    model = keras.models.load_model(path)
    loss = getattr(model, "_metric_loss", None) or getattr(model, "loss", None)
    print(type(model).__name__, type(loss).__name__, float(np.sum(np.abs(model.get_weights()[0]))))
print(before)
"""


@pytest.fixture(scope="module", name="saved")
def saved_models(tmp_path_factory):
    """`{path: (type of the model, type of its loss, the sum of its first weights)}`."""
    folder = tmp_path_factory.mktemp("saved")
    keras.utils.set_random_seed(0)
    models = {
        "embedder": eet_tf.build_embedder("small_cnn", 4, image_size=32),
        "grid": eet_tf.build_embedder("small_cnn", 4, image_size=64, pooling="grid"),
        "learner": eet_tf.MetricLearner(eet_tf.build_embedder("small_cnn", 4, image_size=32, attribute_names=["red"])),
    }
    models["learner"].compile("sgd", eet_tf.SoftBinomialDevianceLoss(), eet_tf.AttributeLoss())
    for loss in LOSSES:
        models[loss.name] = keras.Sequential([keras.Input([3]), keras.layers.Dense(4)])
        models[loss.name].compile("sgd", loss)
    found = {}
    for name, model in models.items():
        path = os.fspath(folder / f"{name}.keras")
        model.save(path)
        loss = getattr(model, "_metric_loss", None) or getattr(model, "loss", None)
        found[path] = f"{type(model).__name__} {type(loss).__name__} {float(np.sum(np.abs(model.get_weights()[0])))}"
    return found


def with_other_modules(path, folder):
    """The same file as one in which every module of this package has a path that is no more."""
    changed = os.fspath(folder / os.path.basename(path))
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(changed, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "config.json":
                assert b'"eet_tf.' in content
                content = content.replace(b'"module": "eet_tf.', b'"module": "eet_tf.gone.')
            new.writestr(name, content)
    return changed


def test_a_fresh_process_loads_after_importing_the_package_alone(saved, tmp_path, run_python):
    """Also files that name modules which have moved since: Keras goes by the registered name."""
    old = {with_other_modules(path, tmp_path): found for path, found in saved.items()}
    code = "import eet_tf\n" + LOAD.format(paths=[*saved, *old])
    assert run_python(code, fresh=True)[0].splitlines() == [*saved.values(), *old.values(), "[]"]


def test_keras_may_be_imported_first(saved, run_python):
    printed = run_python("import keras\nimport eet_tf\n" + LOAD.format(paths=list(saved)))[0].splitlines()
    assert printed == [*saved.values(), "[]"]


def test_every_class_that_is_registered_is_known_before_its_module_is_imported():
    found = {}
    for file in ROOT.rglob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in (node for node in tree.body if isinstance(node, ast.ClassDef)):
            for decorator in map(ast.unparse, node.decorator_list):
                if "register_keras_serializable" in decorator:
                    assert f"package={PACKAGE!r}" in decorator
                    module = file.relative_to(ROOT.parent).with_suffix("")
                    found[node.name] = ".".join(module.parts).removesuffix(".__init__")
    assert found == CLASSES


def test_a_class_takes_the_place_of_its_stand_in():
    assert keras.saving.get_registered_object("eet_tf>EETLoss") is eet_tf.EETLoss


# A package that is named as Keras is, so that what is about imports takes no seconds.
PRETENDED = """
import os
class saving:
    known = {"eet_tf>UnitLength": "taken"}
    @staticmethod
    def get_custom_objects():
        return saving.known
if os.environ.get("FAILS"):
    raise ImportError("not now")
"""


def run(folder, code):
    """What code prints in an interpreter that takes another package for Keras."""
    (folder / "keras").mkdir()
    (folder / "keras" / "__init__.py").write_text(PRETENDED)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.fspath(folder), os.fspath(ROOT.parent)])}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, env=environment, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("order", ["import eet_tf, keras", "import keras, eet_tf"])
def test_every_class_has_a_stand_in_and_nobody_elses_entry_is_overwritten(order, tmp_path):
    printed = run(tmp_path, f"{order}\nprint(*keras.saving.known, keras.saving.known['eet_tf>UnitLength'])")
    assert printed == ["eet_tf>UnitLength", *[f"eet_tf>{name}" for name in CLASSES if name != "UnitLength"], "taken"]


def test_looking_for_keras_or_failing_to_import_it_changes_nothing(tmp_path):
    code = """
    import copy, importlib.util, os
    import eet_tf
    print(importlib.util.find_spec("keras").loader.get_filename("keras") == importlib.util.find_spec("keras").origin)
    os.environ["FAILS"] = "1"
    try:
        import keras
    except ImportError as error:
        print(str(error).replace(" ", "_"))
    del os.environ["FAILS"]
    import keras
    print(len(keras.saving.known), type(keras.__loader__).__name__, type(keras.__spec__.loader).__name__)
    print(len(copy.deepcopy(keras.saving.known)))
    """
    printed = run(tmp_path, code)
    assert printed == ["True", "not_now", str(len(CLASSES)), *["SourceFileLoader"] * 2, str(len(CLASSES))]
