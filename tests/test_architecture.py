"""Who may import whom. A new arrow between rooms, or a forbidden construct, is a failing test."""

import ast
import importlib.util
import pathlib
import sys

import pytest

PACKAGE = pathlib.Path(__file__).parents[1] / "eet_tf"


# The rooms, lowest first: floor, the rooms it imports from, the packages it needs. `ground` is
# the modules that lie loose in eet_tf/, `eet_tf` the public names, `doors` what `python -m` starts.
ROOMS = {
    "ground": (0, set(), {"keras", "keras_hub", "numpy", "tensorflow"}),
    "data": (1, {"ground"}, {"PIL", "fsspec", "numpy", "openpyxl", "pyarrow", "scipy", "tensorflow"}),
    "embedder": (1, {"ground"}, {"keras", "keras_cv", "numpy", "tensorflow"}),
    "evaluation": (1, {"ground"}, {"keras", "numpy", "tensorflow"}),
    "index": (1, {"ground"}, {"grpc", "milvus_lite", "numpy", "pymilvus", "scann"}),
    "pairs": (1, {"ground"}, {"tensorflow"}),
    "client": (2, {"data", "ground"}, {"grpc", "numpy", "tensorflow", "tensorflow_serving"}),
    "convert": (2, {"data", "ground"}, {"PIL", "numpy", "pillow_heif"}),
    "losses": (2, {"ground", "pairs"}, {"keras", "numpy", "tensorflow"}),
    "pages": (2, {"data", "ground"}, {"PIL", "matplotlib"}),
    "audit": (3, {"data", "ground", "pages"}, {"numpy"}),
    "service": (3, {"client", "data", "ground", "index", "pages"}, {"PIL", "flask", "numpy", "werkzeug"}),
    "training": (3, {"ground", "losses", "pairs"}, {"keras", "numpy", "tensorflow", "tensorflow_addons"}),
    "serving": (
        4,
        {"data", "embedder", "ground", "index", "training"},
        {"PIL", "google", "grpc", "keras", "numpy", "scann", "tensorflow", "tensorflow_serving"},
    ),
    "embedding": (5, {"data", "ground", "serving"}, {"apache_beam", "numpy"}),
    "eet_tf": (6, {"ground"}, set()),
    "doctor": (7, {"eet_tf"}, set()),
    # imports nothing of this package, and bars it from its process
    "verifier": (7, set(), {"absl", "google", "grpc", "numpy", "tensorflow", "tensorflow_serving"}),
    "cli": (
        8,
        {
            *("audit", "client", "convert", "data", "doctor", "eet_tf", "embedder", "embedding", "evaluation"),
            *("ground", "index", "pages", "service", "serving", "training"),
        },
        {"absl", "keras", "numpy", "tensorflow", "werkzeug"},
    ),
    "doors": (9, {"cli"}, set()),
}


def room(name):
    """The room of a module: `data.images` -> `data`; a loose module stands on the ground."""
    top, _, rest = name.partition(".")
    if name.endswith("__main__"):
        return "doors"
    return (top if (PACKAGE / top).is_dir() else "ground") if top else "eet_tf"


# What must run, or start at once, where TensorFlow is not wanted.
WITHOUT_TENSORFLOW = {
    *("_lazy", "arguments", "files", "labels", "terminal", "wording"),
    *("embedding.files", "evaluation.comparison", "evaluation.metrics", "evaluation.postprocessing"),
    *("evaluation.ranking",),
    *(f"data.{name}" for name in ("answers", "attributes", "benchmarks", "catalog", "deepfashion", "drawing")),
    *(f"data.{name}" for name in ("fine_grained", "folders", "limits", "lists", "reasons", "sampling", "synthetic")),
}
ROOMS_WITHOUT_TENSORFLOW = {"audit", "client", "convert", "doctor", "doors", "index", "pages", "service"}
BUT_WITH_TENSORFLOW = {"client.grpc_transport"}


def name_of(file):
    """`eet_tf/data/images.py` -> `data.images`; `eet_tf/data/__init__.py` -> `data`."""
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(file): file for file in sorted(PACKAGE.rglob("*.py"))}
TREES = {name: ast.parse(file.read_text(encoding="utf-8")) for name, file in FILES.items()}
every_module = pytest.mark.parametrize("name", FILES, ids=lambda name: name or "eet_tf")


def imported_names(tree):
    """Every dotted name that any import statement of a module names, wherever it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names)


def arrow(dotted):
    """What a dotted name stands for in MODULES: `.data.images`, `tensorflow`, or None for the standard library."""
    top, _, below = dotted.partition(".")
    if top != "eet_tf":
        is_beside = f"verifier.{top}" in FILES  # a script takes what lies in its folder
        return None if is_beside or top in sys.stdlib_module_names else top
    while below not in FILES:
        below = below.rpartition(".")[0]
    return f".{below}"


def arrows(name):
    return {arrow(dotted) for dotted in imported_names(TREES[name])} - {None}


def rooms_of(name):
    """The rooms that a module imports from, beside its own."""
    return {room(target[1:]) for target in arrows(name) if target.startswith(".")} - {room(name)}


def packages_of(name):
    return {target for target in arrows(name) if not target.startswith(".")}


def test_every_module_has_its_room():
    assert {room(name) for name in FILES} == set(ROOMS)


@pytest.mark.parametrize("name", ROOMS)
def test_a_room_imports_what_the_table_says(name):
    modules = [module for module in FILES if room(module) == name]
    assert set().union(*map(rooms_of, modules)) == ROOMS[name][1]
    assert set().union(*map(packages_of, modules)) == ROOMS[name][2]


@pytest.mark.parametrize("name", ROOMS)
def test_imports_go_down(name):
    floor, rooms, _ = ROOMS[name]
    assert all(ROOMS[other][0] < floor for other in rooms)


def test_rooms_are_few_and_so_are_the_arrows_between_them():
    assert len(ROOMS) <= 24
    assert sum(len(rooms) for _, rooms, _ in ROOMS.values()) < 60


def test_no_module_imports_itself_by_a_detour():
    waiting = {name: {target[1:] for target in arrows(name) if target.startswith(".")} - {name} for name in FILES}
    while waiting:
        free = [name for name, targets in waiting.items() if not targets & set(waiting)]
        assert free, f"a circle among {sorted(waiting)}"
        for name in free:
            del waiting[name]


def test_no_file_is_two_ideas():
    """About 400 lines; what is longer has stood so for long, and comes apart when it is touched."""
    long = {name for name, file in FILES.items() if len(file.read_text(encoding="utf-8").splitlines()) > 510}
    assert not long


@pytest.mark.parametrize(
    "name",
    sorted(
        WITHOUT_TENSORFLOW
        | {name for name in FILES if room(name) in ROOMS_WITHOUT_TENSORFLOW and name not in BUT_WITH_TENSORFLOW}
    ),
)
def test_it_does_without_tensorflow(name):
    assert not arrows(name) & {"tensorflow", "keras", "keras_cv"}


@pytest.mark.parametrize(
    "package, modules",
    {
        "apache_beam": ["embedding.beam"],
        "flask": ["service.app"],
        "grpc": [
            "client.grpc_transport",
            "index.milvus.server",
            "serving.server_state",
            "verifier.bundle_server",
            "verifier.verify",
        ],
        "keras_hub": ["keras_files"],
        "milvus_lite": ["index.milvus.local"],
        "pillow_heif": ["convert.conversion"],
        "pymilvus": ["index.milvus.local", "index.milvus.server"],
        "tensorflow_addons": ["training.addons"],
        "tensorflow_serving": [
            "client.grpc_transport",
            "serving.models_config",
            "serving.server_state",
            "serving.warmup",
            *("verifier.bundle_checks", "verifier.bundle_files", "verifier.bundle_server", "verifier.verify"),
        ],
    }.items(),
)
def test_what_an_extra_installs_is_needed_in_its_own_module_alone(package, modules):
    assert sorted(name for name in FILES if package in arrows(name)) == modules


@every_module
def test_lazy_names_are_there(name):
    """The names that a package offers lazily are arrows too; they must point at modules that define them."""
    for node in ast.walk(TREES[name]):
        is_table = isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "_NAMES"
        for public, module in ast.literal_eval(node.value).items() if is_table else ():
            assert public in top_level_names(TREES[module.removeprefix("eet_tf.")])


def top_level_names(tree):
    return {node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}


@every_module
def test_it_neither_prints_nor_asserts_nor_swallows_errors(name):
    for node in ast.walk(TREES[name]):
        assert not isinstance(node, ast.Assert), f"assert in line {node.lineno}"
        is_bare = isinstance(node, ast.ExceptHandler) and node.type is None
        assert not is_bare, f"bare except in line {node.lineno}"
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            # commands speak; libraries do not
            is_said = called == "print" and room(name) in ("cli", "verifier")
            assert is_said or called not in ("print", "breakpoint", "eval", "exec"), f"{called} in line {node.lineno}"


@every_module
def test_it_neither_pickles_nor_imports_everything(name):
    for dotted in imported_names(TREES[name]):
        assert dotted.partition(".")[0] not in ("pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve")
        assert not dotted.startswith(".") and not dotted.endswith("*"), dotted


@every_module
def test_keras_is_import_keras(name):
    """Never `tf.keras`, `keras.src` or `keras.backend`, neither imported nor reached by attribute.

    Whether a graph is traced for XLA, TensorFlow says under no public name.
    """
    allowed = {"tensorflow.python.ops.control_flow_util"} if name == "plans" else set()
    reached = {ast.unparse(node) for node in ast.walk(TREES[name]) if isinstance(node, ast.Attribute)}
    for dotted in (reached | set(imported_names(TREES[name]))) - allowed:
        for forbidden in ("tf.keras", "tensorflow.keras", "tensorflow.python", "keras.src", "keras.backend"):
            assert not (dotted + ".").startswith(forbidden + "."), dotted


@pytest.mark.parametrize("folder", ["train", "export"])
def test_no_script_hides_a_module(folder):
    """`python train/main.py` puts that folder first on the path, where a script takes every import of its name."""
    names = {script.stem for script in (PACKAGE.parent / folder).glob("*.py")}
    assert names
    assert not {name for name in names if name in sys.stdlib_module_names or importlib.util.find_spec(name)}


@every_module
def test_no_module_is_a_drawer_for_everything(name):
    assert not {"utils", "util", "common", "helpers", "misc"} & set(name.split("."))


@every_module
def test_public_functions_take_no_kwargs(name):
    """Layers hand Keras's own on, and nothing else may."""
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            assert node.args.kwarg is None, f"{node.name} in line {node.lineno}"
