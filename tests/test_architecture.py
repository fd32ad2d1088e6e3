"""Who may import whom. A new arrow between rooms, or a forbidden construct, is a failing test."""

import ast
import importlib.util
import pathlib
import sys

import pytest

PACKAGE = pathlib.Path(__file__).parents[1] / "eet_tf"


def room(name):
    return name.partition(".")[0]


# Level of each module, and all it imports from outside the standard library: modules of eet_tf by their name below it.
MODULES = {
    # 0: stands on nothing of ours
    "_lazy": (0, set()),
    "client.retries": (0, set()),
    "compat": (0, {"keras", "tensorflow"}),
    "files": (0, set()),
    "labels": (0, {"numpy"}),
    "plans": (0, {"tensorflow"}),
    "precision": (0, {"tensorflow"}),
    "ranking_on_gpu": (0, {"numpy", "tensorflow"}),
    "replicas": (0, {"tensorflow"}),
    "terminal": (0, set()),
    "data.drawing": (0, {"PIL", "numpy"}),
    "data.bmp": (0, {".data.headers", "tensorflow"}),
    "data.gif": (0, {".data.headers", ".data.limits", "tensorflow"}),
    "data.headers": (0, {".data.limits", "numpy", "tensorflow"}),
    "data.images": (
        0,
        {".data.bmp", ".data.gif", ".data.headers", ".data.limits", ".data.orientation", "tensorflow"},
    ),
    "data.limits": (0, set()),
    "data.orientation": (0, {".data.headers", "tensorflow"}),
    "data.reading": (0, {".data.images", ".data.reasons", "numpy", "tensorflow"}),
    "data.reasons": (0, {".data.limits"}),
    "data.values": (1, {".labels", "numpy"}),
    "index.checks": (0, {"numpy"}),
    "index.milvus_filters": (0, {".index.checks", ".index.numerals", "numpy"}),
    "index.milvus_server": (0, {".index.checks", "grpc", "pymilvus"}),
    "index.milvus_local": (0, {".index.milvus_server", "milvus_lite", "pymilvus"}),
    "index.numerals": (0, set()),
    "index.storage": (0, {"numpy"}),
    # 1
    "arguments": (1, {".files"}),
    "embedder": (2, {".arguments", "keras", "keras_cv", "numpy", "tensorflow"}),
    "commands": (1, {".files", ".terminal", "absl"}),
    "data.catalog": (1, {".data.values", "numpy"}),
    "compilation": (1, {".compat", "keras", "tensorflow"}),
    "data.sampling": (1, {".labels", "numpy"}),
    "batches": (0, {"numpy", "tensorflow"}),
    "objectives": (0, {"keras", "tensorflow"}),
    "pieces": (1, {".compat", ".plans", "keras", "tensorflow"}),
    "pairwise": (1, {".plans", ".precision", "tensorflow"}),
    "thumbnails": (1, {".data.reading", ".data.reasons", "PIL"}),  # the former where a photo is shown
    "ranking": (1, {".plans", ".ranking_on_gpu", "numpy"}),  # imported where TensorFlow is there already
    # 2
    "client.batches": (2, {".client.retries", ".data.reasons"}),
    "client.refusals": (2, {".client.retries"}),
    "client.slots": (2, {".client.retries"}),
    "data": (2, {"._lazy"}),
    "data.attributes": (2, {".data.catalog", "numpy"}),
    "data.benchmarks": (
        2,
        {
            *(".data.catalog", ".data.deepfashion", ".data.fine_grained", ".data.folders", ".data.lists"),
            *(".data.synthetic", "numpy"),
        },
    ),
    "data.deepfashion": (2, {".data.attributes", ".data.catalog", ".data.lists", "numpy"}),
    "data.fine_grained": (2, {".data.attributes", ".data.catalog", ".data.lists", "numpy", "scipy"}),
    "data.augment": (2, {".arguments", "tensorflow"}),
    "data.answers": (2, {".data.catalog", "numpy"}),
    "data.folders": (2, {".data.catalog", ".data.reasons", ".terminal"}),
    "data.lists": (2, {".data.catalog", ".data.values"}),
    "data.pipeline": (
        2,
        {
            *(".data.catalog", ".data.images", ".data.reading", ".data.reasons", ".data.sampling"),
            *("numpy", "tensorflow"),
        },
    ),
    "data.splits": (2, {".data.catalog", ".data.values", "numpy"}),
    "data.synthetic": (2, {".data.catalog", ".data.drawing", "PIL", "numpy"}),
    "demo.photos": (2, {".thumbnails", "PIL"}),
    "embedding_files": (2, {".files", "numpy"}),
    "index.base": (2, {".index.checks"}),
    "index.columns": (2, {".index.checks", ".index.numerals", "numpy"}),
    "index.folder": (2, {".files", ".index.checks", ".terminal"}),
    "index.log": (2, {".files"}),
    "index.texts": (2, {".index.checks", ".index.numerals"}),
    "metrics": (2, {".labels", ".ranking", "numpy"}),
    "mining": (2, {".pairwise", ".plans", "tensorflow"}),
    "postprocessing": (2, {".files", "numpy"}),
    # 3
    "client.grpc_transport": (
        3,
        {".client.refusals", ".client.retries", "grpc", "numpy", "tensorflow", "tensorflow_serving"},
    ),
    "client.rest_transport": (3, {".client.refusals", ".client.retries", "numpy"}),
    "class_pairs": (3, {".mining", ".pairwise", ".precision", ".replicas", "tensorflow"}),
    "class_runs": (3, {".mining", ".pairwise", ".plans", ".precision", ".replicas", "tensorflow"}),
    "comparison": (3, {".files", ".labels", ".metrics", "numpy"}),
    "evaluation": (3, {".labels", ".metrics", ".postprocessing", "keras", "numpy", "tensorflow"}),
    "index.milvus_collection": (
        3,
        {
            *(".index.checks", ".index.columns", ".index.milvus_filters", ".index.milvus_local"),
            *(".index.milvus_server", "numpy"),
        },
    ),
    "index.rows": (3, {".index.columns", ".index.storage", "numpy"}),
    # 4
    "class_distances": (4, {".class_pairs", ".class_runs", ".mining", ".plans", "tensorflow"}),
    # 5
    "index.milvus_place": (
        5,
        {
            *(".index.checks", ".index.columns", ".index.folder", ".index.log", ".index.milvus_collection"),
            *(".index.milvus_local", ".index.milvus_server", "numpy"),
        },
    ),
    "client": (5, {".client.embedding_client", ".client.retries"}),
    "client.embedding_client": (
        5,
        {
            *(".client.batches", ".client.grpc_transport", ".client.refusals", ".client.rest_transport"),
            *(".client.retries", ".client.slots", ".data.limits", "numpy"),
        },
    ),
    "index.search": (5, {".index.rows", ".index.storage", "numpy"}),
    "losses": (5, set()),
    "losses.attributes": (5, {".losses.base", "keras", "tensorflow"}),
    "losses.base": (5, {".compat", ".losses.labels", ".pairwise", ".plans", ".replicas", "tensorflow"}),
    "losses.binomial": (
        5,
        {".losses.base", ".mining", ".pairwise", ".plans", ".precision", ".replicas", "keras", "tensorflow"},
    ),
    "losses.eet": (
        5,
        {".class_distances", ".losses.base", ".losses.triplet", ".mining", ".plans", "keras", "tensorflow"},
    ),
    "losses.labels": (5, {"numpy", "tensorflow"}),
    "losses.sgml": (5, {".losses.attributes", ".losses.base", ".losses.binomial", ".precision", "keras", "tensorflow"}),
    "losses.triplet": (5, {".losses.base", ".mining", ".pairwise", ".plans", ".replicas", "keras", "tensorflow"}),
    # 6
    "audit": (6, {"._lazy"}),
    "audit.__main__": (
        6,
        {
            *(".audit.duplicates", ".audit.findings", ".audit.page", ".commands", ".data.benchmarks"),
            *(".data.catalog", ".data.folders", ".terminal"),
        },
    ),
    "audit.duplicates": (6, {".audit.prints", "numpy"}),
    "audit.findings": (
        6,
        {
            *(".arguments", ".audit.duplicates", ".audit.prints", ".data.answers", ".data.catalog", ".data.splits"),
            *(".data.values", "numpy"),
        },
    ),
    "audit.page": (
        6,
        {".arguments", ".audit.findings", ".data.catalog", ".data.reasons", ".files", ".thumbnails"},
    ),
    "audit.prints": (6, {".data.reading", ".data.reasons", "numpy"}),  # the former where photos are read
    "convert": (6, {"._lazy"}),
    "convert.__main__": (
        6,
        {".commands", ".convert.conversion", ".data.benchmarks", ".data.catalog", ".data.folders", ".terminal"},
    ),
    "convert.conversion": (
        6,
        {
            *(".data.catalog", ".data.folders", ".data.limits", ".data.reading", ".data.reasons", ".files"),
            *("PIL", "numpy", "pillow_heif"),
        },
    ),
    "addons": (6, {".compat", ".losses.base", ".mining", ".pairwise", "keras", "tensorflow", "tensorflow_addons"}),
    "index.local": (
        6,
        {
            *(".index.base", ".index.checks", ".index.columns", ".index.folder", ".index.log", ".index.rows"),
            *(".index.search", ".index.storage", "numpy"),
        },
    ),
    "index.tuning": (6, {".index.checks", ".index.search", ".index.storage", "numpy"}),
    "memory": (6, {".compat", ".losses.base", ".losses.labels", ".pairwise", ".replicas", "keras", "tensorflow"}),
    "report": (6, {".arguments", ".files", ".thumbnails", "matplotlib"}),
    "run": (6, {".compat", ".files", ".terminal", "keras", "numpy", "tensorflow"}),
    # 7
    "index.exact": (7, {".index.local"}),
    "index.milvus": (
        7,
        {
            *(".index.base", ".index.checks", ".index.columns", ".index.folder", ".index.local"),
            *(
                ".index.milvus_collection",
                ".index.milvus_local",
                ".index.milvus_place",
                ".index.milvus_server",
                "numpy",
            ),
        },
    ),
    "index.verify": (
        7,
        {".index.checks", ".index.folder", ".index.local", ".index.milvus", ".index.search", "numpy"},
    ),
    "index.lookup": (7, {".index.checks", ".index.columns", ".index.local", "numpy"}),
    "index.scann": (
        7,
        {
            *(".index.checks", ".index.local", ".index.rows", ".index.search", ".index.storage", ".index.tuning"),
            *("numpy", "scann"),
        },
    ),
    "learner": (
        7,
        {
            *(".batches", ".compat", ".compilation", ".embedder", ".losses.attributes", ".losses.base"),
            *(".losses.binomial", ".losses.eet", ".losses.sgml", ".losses.triplet", ".memory", ".objectives"),
            *(".pieces", ".plans", ".replicas", "keras", "tensorflow"),
        },
    ),
    # 8
    "index": (
        8,
        {
            *(".index.base", ".index.checks", ".index.exact", ".index.folder", ".index.lookup", ".index.milvus"),
            *(".index.scann", ".index.texts", ".index.verify"),
        },
    ),
    "loading": (8, {".embedder", ".learner", "keras"}),
    # 9
    "workers": (9, {".batches", ".learner", ".loading", ".replicas", "keras", "tensorflow"}),
    "demo": (9, {".demo.app", ".demo.photos"}),
    "demo.app": (
        9,
        {".client", ".data.reasons", ".demo.filters", ".demo.photos", ".index", "flask", "numpy", "werkzeug"},
    ),
    "demo.filters": (9, {".index", ".index.numerals", "numpy"}),
    "serving": (9, {".serving.fingerprint", ".serving.saved_model", ".serving.servable", ".serving.served"}),
    "serving.catalog": (9, {".index", ".index.storage", "numpy"}),
    "serving.fingerprint": (9, {".data.images", ".embedder", "keras", "numpy"}),
    "serving.graph": (9, {".compat", ".data.images", ".data.limits", ".embedder", "keras", "tensorflow"}),
    "serving.saved_model": (
        9,
        {
            *(".data.limits", ".embedder", ".files", ".index", ".serving.catalog", ".serving.fingerprint"),
            ".serving.graph",
            *(".serving.scann_graph", ".serving.search_graph", ".serving.servable", ".terminal", "keras", "tensorflow"),
        },
    ),
    "serving.servable": (
        9,
        {".compat", ".compilation", ".embedder", ".index.checks", ".loading", "keras", "numpy"},
    ),
    "serving.scann_graph": (
        9,
        {".index", ".index.scann", ".serving.catalog", ".serving.search_graph", "numpy", "scann", "tensorflow"},
    ),
    "serving.search_graph": (9, {".serving.catalog", "numpy", "tensorflow"}),
    "serving.served": (
        9,
        {".data.catalog", ".data.limits", ".data.reasons", ".files", ".serving.saved_model", "numpy", "tensorflow"},
    ),
    "serving.bundle": (
        9,
        {
            *(".data.images", ".files", ".serving.deployment", ".serving.models_config", ".serving.saved_model"),
            *(".serving.warmup", "keras", "numpy", "tensorflow"),
        },
    ),
    "serving.deployment": (9, {".files", ".serving.readme"}),
    "serving.readme": (9, {".data.limits"}),
    "serving.models_config": (9, {".files", ".serving.servable", "google", "tensorflow_serving"}),
    "serving.server_state": (9, {"grpc", "tensorflow", "tensorflow_serving"}),
    "serving.publishing": (9, {".serving.models_config", ".serving.servable", ".serving.server_state"}),
    "serving.warmup": (
        9,
        {".data.drawing", ".serving.saved_model", "PIL", "numpy", "tensorflow", "tensorflow_serving"},
    ),
    # 10
    "beam": (10, {".data.reasons", ".embedding_files", ".serving", "apache_beam", "numpy"}),
    # 9: the public names, lazily
    "": (9, {"._lazy"}),
    # 10: looks at the package from outside, and must run where nothing else is installed
    "doctor": (12, set()),
    "doctor.__main__": (12, {".doctor.diagnosis", ".doctor.facts", ".terminal"}),
    "doctor.diagnosis": (12, set()),
    "doctor.facts": (12, {".", ".doctor.diagnosis"}),
}
WITHOUT_TENSORFLOW = [
    "labels",
    "metrics",
    "ranking",
    "postprocessing",
    "comparison",
    "embedding_files",
    "files",
    "terminal",
    "commands",
    "arguments",
    "_lazy",
    "report",
    "thumbnails",
    "data.catalog",
    "data.answers",
    "data.folders",
    "data.sampling",
    "data.drawing",
    "data.limits",
    "data.reasons",
]
WITHOUT_TENSORFLOW += ["data.synthetic", "data.benchmarks", "data.attributes", "data.deepfashion", "data.fine_grained"]
WITHOUT_TENSORFLOW += [
    name
    for name in MODULES
    if room(name) in ("audit", "client", "convert", "demo", "doctor") and name != "client.grpc_transport"
]
WITHOUT_TENSORFLOW += ["data.lists", *[name for name in MODULES if name.startswith("index")]]


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
        return None if top in sys.stdlib_module_names else top
    while below not in FILES:
        below = below.rpartition(".")[0]
    return f".{below}"


def arrows(name):
    return {arrow(dotted) for dotted in imported_names(TREES[name])} - {None}


def test_every_module_has_its_place():
    assert set(FILES) == set(MODULES)


@every_module
def test_it_imports_what_the_table_says(name):
    assert arrows(name) == MODULES[name][1]


@every_module
def test_its_imports_go_down_or_stay_in_the_room(name):
    level = MODULES[name][0]
    for target in (target[1:] for target in MODULES[name][1] if target.startswith(".")):
        assert MODULES[target][0] < level or (room(target) == room(name) and MODULES[target][0] == level), target


def test_no_module_imports_itself_by_a_detour():
    waiting = {
        name: {target[1:] for target in targets if target.startswith(".")} for name, (_, targets) in MODULES.items()
    }
    while waiting:
        free = [name for name, targets in waiting.items() if not targets & set(waiting)]
        assert free, f"a circle among {sorted(waiting)}"
        for name in free:
            del waiting[name]


@pytest.mark.parametrize("name", WITHOUT_TENSORFLOW)
def test_it_does_without_tensorflow(name):
    assert not arrows(name) & {"tensorflow", "keras", "keras_cv"}


@pytest.mark.parametrize(
    "package, modules",
    {
        "apache_beam": ["beam"],
        "flask": ["demo.app"],
        "grpc": ["client.grpc_transport", "index.milvus_server", "serving.server_state"],
        "milvus_lite": ["index.milvus_local"],
        "pillow_heif": ["convert.conversion"],
        "pymilvus": ["index.milvus_local", "index.milvus_server"],
        "tensorflow_addons": ["addons"],
        "tensorflow_serving": [
            "client.grpc_transport",
            "serving.models_config",
            "serving.server_state",
            "serving.warmup",
        ],
    }.items(),
)
def test_what_an_extra_installs_is_needed_in_its_own_module_alone(package, modules):
    assert sorted(name for name in MODULES if package in arrows(name)) == modules


@pytest.mark.parametrize("name", [name for name in MODULES if room(name) == "losses"])
def test_losses_know_no_photos_no_index_and_no_network(name):
    assert {room(target[1:]) for target in arrows(name) if target.startswith(".")} <= {
        "losses",
        "class_distances",
        "mining",
        "pairwise",
        "plans",
        "precision",
        "replicas",
        "compat",
    }


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
            # `python -m eet_tf.audit` is a script that is installed with the package, and speaks as scripts do
            is_said = called == "print" and name.endswith(".__main__")
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
