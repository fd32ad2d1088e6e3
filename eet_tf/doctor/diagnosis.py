"""From what was seen of a machine to what is wrong with it: rules, and no looking."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

Version = tuple[int, ...]

PYTHON_RANGE = ((3, 10), (3, 14))  # from, and below
# without these nothing of the package works
NEEDED = ("tensorflow", "keras", "keras-cv", "scann", "numpy", "protobuf", "pillow", "matplotlib", "absl-py")
# the packages of each extra, and what it is for
EXTRAS = {
    "addons": (("tensorflow-addons",), "models with tensorflow-addons, on TensorFlow 2.15"),
    "serving": (("tensorflow-serving-api",), "bundles for TF Serving and the client by gRPC"),
    "milvus": (("pymilvus", "milvus-lite"), "an index in a Milvus cluster"),
    "hub": (("keras-hub", "tensorflow-text"), "backbones of keras-hub"),
    "beam": (("apache-beam",), "embedding a large catalogue with Apache Beam"),
    "demo": (("flask",), "the page to search with"),
    "xlsx": (("openpyxl",), "lists of photos as Excel files"),
    "parquet": (("pyarrow",), "lists of photos as Parquet files"),
    "remote": (("fsspec",), "photos at s3://, gs:// and other URLs"),
    "convert": (("pillow-heif",), "converting HEIC photos"),
    "cars196": (("scipy",), "reading the annotations of Cars196"),
}
PACKAGES = NEEDED + tuple(package for packages, _ in EXTRAS.values() for package in packages)


@dataclasses.dataclass(frozen=True)
class Row:
    """A set of versions that work together.

    Args:
        name: as a person says it.
        python: versions of Python it exists for: from, and below.
        versions: of each package: from, and below.
        install: the command that installs it.
    """

    name: str
    python: tuple[Version, Version]
    versions: Mapping[str, tuple[Version, Version]]
    install: str


ROWS = (
    Row(
        "TensorFlow 2.20, Keras 3, scann 1.4",
        PYTHON_RANGE,
        {
            "tensorflow": ((2, 20), (2, 21)),
            "keras": ((3,), (4,)),
            "scann": ((1, 4), (1, 5)),
            "protobuf": ((5, 28), (8,)),
        },
        "pip install 'eet-tf' 'tensorflow==2.20.*' 'keras==3.*' 'scann==1.4.*'",
    ),
    Row(
        "TensorFlow 2.15, Keras 2.15, scann 1.3, tensorflow-addons 0.23",
        ((3, 10), (3, 12)),
        {
            "tensorflow": ((2, 15), (2, 16)),
            "keras": ((2, 15), (2, 16)),
            "scann": ((1, 3), (1, 4)),
            "protobuf": ((3, 20, 3), (5,)),
            "tensorflow-addons": ((0, 23), (0, 24)),
        },
        "pip install 'eet-tf[addons]'",
    ),
)


@dataclasses.dataclass(frozen=True)
class Package:
    """What was seen of an installed package.

    Args:
        version: as its metadata has it.
        error: the last line of what it said when it could not be imported; `""` if it could.
    """

    version: str
    error: str = ""


@dataclasses.dataclass(frozen=True)
class Facts:
    """What was seen of a machine.

    Args:
        python: version of the interpreter.
        packages: those of `PACKAGES` that are installed.
        source_version: `eet_tf.__version__`.
        installed_version: of eet-tf by its metadata; None if it is not installed but lies on the path.
        machine: the processor's architecture, such as `"x86_64"`.
        cpu_features: such as `{"avx", "fma"}`; None if they could not be told.
        num_cpus: logical CPUs this process may use.
        memory: bytes; None if it could not be told.
        gpus: names of those that TensorFlow sees.
        environment: the variables among `TF_USE_LEGACY_KERAS` and `KERAS_BACKEND` that are set.
    """

    python: Version
    packages: Mapping[str, Package]
    source_version: str = ""
    installed_version: str | None = None
    machine: str = "x86_64"
    cpu_features: frozenset[str] | None = None
    num_cpus: int = 1
    memory: int | None = None
    gpus: tuple[str, ...] = ()
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Problem:
    """Something that is wrong.

    Args:
        what: what is wrong.
        mend: what to do about it.
        blocks: whether something that is needed does not work; if not, it is good to know.
    """

    what: str
    mend: str
    blocks: bool = True


def parsed(version: str) -> Version:
    """The numbers a version begins with.

    Example:

    >>> parsed("2.20.0rc1"), parsed("0.23")
    ((2, 20, 0), (0, 23))
    """
    numbers = re.match(r"[0-9]+(\.[0-9]+)*", version)
    return tuple(map(int, numbers[0].split("."))) if numbers else ()


def matching_row(facts: Facts) -> Row | None:
    """The set of versions that is installed, if it is one that is supported; tensorflow-addons may be left out."""
    for row in ROWS:
        wanted = {name: limits for name, limits in row.versions.items() if name != "tensorflow-addons"}
        if all(name in facts.packages and _is_in(facts.packages[name], limits) for name, limits in wanted.items()):
            return row
    return None


def diagnose(facts: Facts) -> list[Problem]:
    """What is wrong, that which keeps the package from working first.

    Example:

    >>> facts = Facts(python=(3, 9), packages={})
    >>> diagnose(facts)[0].what
    'Python 3.9 is too old: 3.10 to 3.13 are supported.'
    """
    row = _intended_row(facts)
    problems = [
        *_python(facts, row),
        *_processor(facts),
        *_missing(facts, row),
        *_versions(facts, row),
        *_environment(facts),
        *_imports(facts, row),
        *_own_version(facts),
        *_extras(facts, row),
    ]
    return sorted(problems, key=lambda problem: not problem.blocks)


def _is_in(package: Package, limits: tuple[Version, Version]) -> bool:
    return limits[0] <= parsed(package.version) < limits[1]


def _intended_row(facts: Facts) -> Row:
    """The row of the installed TensorFlow; the first if it is of none."""
    tensorflow = facts.packages.get("tensorflow")
    fitting = [row for row in ROWS if tensorflow and _is_in(tensorflow, row.versions["tensorflow"])]
    return fitting[0] if fitting else ROWS[0]


def _text(version: Version) -> str:
    return ".".join(map(str, version))


def _python(facts: Facts, row: Row) -> list[Problem]:
    least, below = row.python
    last = f"{below[0]}.{below[1] - 1}"
    if least <= facts.python[:2] < below:
        return []
    side = "old" if facts.python < least else "new"
    supported = f"{_text(least)} to {last} are supported"
    if row is not ROWS[0]:
        supported += f" with {row.name}"
    what = f"Python {_text(facts.python[:2])} is too {side}: {supported}."
    return [Problem(what, f"Make an environment with Python {last}.")]


def _processor(facts: Facts) -> list[Problem]:
    if facts.machine.lower() not in ("x86_64", "amd64", "i386", "i686") or facts.cpu_features is None:
        return []
    lacking = [name.upper() for name in ("avx", "fma") if name not in facts.cpu_features]
    if not lacking:
        return []
    return [
        Problem(
            f"The processor has no {' and no '.join(lacking)}: the wheels of TensorFlow and ScaNN end with an illegal "
            "instruction.",
            "Use another machine. In a virtual machine, let it see the host's processor (QEMU: -cpu host).",
        )
    ]


def _missing(facts: Facts, row: Row) -> list[Problem]:
    missing = [name for name in NEEDED if name not in facts.packages]
    if not missing:
        return []
    return [Problem(f"{', '.join(missing)}: not installed.", row.install if "tensorflow" in missing else _install(row))]


def _install(row: Row) -> str:
    return "pip install eet-tf" if row is ROWS[0] else row.install


def _versions(facts: Facts, row: Row) -> list[Problem]:
    tensorflow = facts.packages.get("tensorflow")
    if tensorflow and not _is_in(tensorflow, row.versions["tensorflow"]):
        return [_wrong_tensorflow(facts)]
    wrong = [
        name
        for name, limits in row.versions.items()
        if name in facts.packages and not _is_in(facts.packages[name], limits)
    ]
    if row is ROWS[0] and "tensorflow-addons" in facts.packages:
        wrong.append("tensorflow-addons")
    return [_wrong_version(name, facts, row) for name in wrong]


def _wrong_tensorflow(facts: Facts) -> Problem:
    version = facts.packages["tensorflow"].version
    what = f"TensorFlow {version} is not supported."
    if parsed(version) >= (2, 21):
        what = f"TensorFlow {version} is too new: the op library of scann 1.4 is made for 2.20 (undefined symbol)."
    return Problem(what, ROWS[0].install)


def _wrong_version(name: str, facts: Facts, row: Row) -> Problem:
    version = facts.packages[name].version
    if name == "tensorflow-addons" and row is ROWS[0]:
        return Problem(
            f"tensorflow-addons {version} works with Keras 2 only, not with {row.name}.",
            "pip uninstall tensorflow-addons; or, for it, a second environment: " + ROWS[1].install,
            blocks=False,
        )
    least, below = row.versions[name]
    mend = f"pip install '{name}>={_text(least)},<{_text(below)}'"
    if name == "keras":
        return Problem(f"Keras {version} is installed, and {row.name} needs Keras {_text(least)}.", mend)
    return Problem(
        f"{name} {version} does not go with {row.name}: it must be {_text(least)} or newer, below {_text(below)}.", mend
    )


def _imports(facts: Facts, row: Row) -> list[Problem]:
    return [
        Problem(
            f"{name} {package.version} is installed but cannot be imported: {package.error}",
            _mend_of_import(name, package.error, row, _is_legacy(facts)),
            blocks=name in NEEDED,
        )
        for name, package in facts.packages.items()
        if package.error
    ]


def _mend_of_import(name: str, error: str, row: Row, is_legacy: bool) -> str:
    if is_legacy and "keras" in error.lower():
        return "unset TF_USE_LEGACY_KERAS, and look again"
    if "SIGILL" in error:
        return "The processor lacks an instruction that the wheel is made with. Use another machine."
    if "undefined symbol" in error:
        return f"It was made for another TensorFlow: {row.install}"
    if "GLIBC" in error:
        return "The system is older than the wheel: use a newer Linux."
    if "protobuf" in error.lower() or "Descriptors cannot be created" in error:
        return f"Its protobuf is of another version: {row.install}"
    extra = next((extra for extra, (packages, _) in EXTRAS.items() if name in packages), None)
    again = f"'eet-tf[{extra}]'" if extra else "eet-tf"
    return f"pip install --force-reinstall {name}; if that does not help, a new environment: pip install {again}"


def _is_legacy(facts: Facts) -> bool:
    """Whether TensorFlow is told to take tf-keras; the text is as TensorFlow reads it."""
    return facts.environment.get("TF_USE_LEGACY_KERAS") in ("1", "true", "True")


def _environment(facts: Facts) -> list[Problem]:
    problems = []
    if _is_legacy(facts):
        problems.append(
            Problem(
                "TF_USE_LEGACY_KERAS is set: `tf.keras` is then tf-keras and another than `keras`, with which keras-cv "
                "and tensorflow-addons cannot be imported.",
                "unset TF_USE_LEGACY_KERAS",
            )
        )
    if facts.environment.get("KERAS_BACKEND", "tensorflow") != "tensorflow":
        problems.append(
            Problem(
                f"KERAS_BACKEND is {facts.environment['KERAS_BACKEND']!r}, and everything here is TensorFlow.",
                "unset KERAS_BACKEND",
            )
        )
    return problems


def _own_version(facts: Facts) -> list[Problem]:
    if facts.installed_version in (None, facts.source_version):
        return []
    return [
        Problem(
            f"eet-tf {facts.installed_version} is installed, and the code that runs is {facts.source_version}.",
            "Install again (pip install --editable .), or take the other copy off PYTHONPATH.",
            blocks=False,
        )
    ]


def _extras(facts: Facts, row: Row) -> list[Problem]:
    # what does not go with TensorFlow 2.15, whose protobuf is too old for it, and what does not go with 2.20
    without = {"addons"} if row is ROWS[0] else {"beam", "milvus"}
    hints = []
    for extra, (packages, purpose) in EXTRAS.items():
        missing = [name for name in packages if name not in facts.packages]
        if missing and extra not in without and "tensorflow" in facts.packages:
            what = f"{', '.join(missing)}: not installed, needed for {purpose}."
            hints.append(Problem(what, f"pip install 'eet-tf[{extra}]'", blocks=False))
    serving, tensorflow = facts.packages.get("tensorflow-serving-api"), facts.packages.get("tensorflow")
    if serving and tensorflow and parsed(serving.version)[:2] != parsed(tensorflow.version)[:2]:
        what = f"tensorflow-serving-api {serving.version} is of another version than TensorFlow {tensorflow.version}."
        minor = _text(parsed(tensorflow.version)[:2])
        hints.append(Problem(what, f"pip install 'tensorflow-serving-api=={minor}.*'", blocks=False))
    return hints
