"""Each thing that can be wrong is named with its mend, a healthy machine has nothing, and looking never fails."""

import dataclasses
import json
import os
import pathlib
import re
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eet_tf.cli import doctor
from eet_tf.doctor import facts as looking
from eet_tf.doctor.diagnosis import EXTRAS, NEEDED, PACKAGES, ROWS, Facts, Package, diagnose, matching_row, parsed

REPOSITORY = pathlib.Path(__file__).parents[2]
NEWER = {
    **{name: "1.0" for name in PACKAGES if name != "tensorflow-addons"},
    "tensorflow": "2.20.0",
    "keras": "3.15.1",
    "scann": "1.4.2",
    "protobuf": "6.33.6",
    "tensorflow-serving-api": "2.20.0",
}
OLDER = {
    **{name: "1.0" for name in PACKAGES if name not in ("apache-beam", "pymilvus", "milvus-lite")},
    "tensorflow": "2.15.1",
    "keras": "2.15.0",
    "scann": "1.3.0",
    "protobuf": "4.25.9",
    "tensorflow-addons": "0.23.0",
    "tensorflow-serving-api": "2.15.1",
}
GOOD_CPU = frozenset({"avx", "avx2", "fma"})


def seen(versions=NEWER, without=(), errors=(), **changed):
    """Facts of a healthy machine, but for what is said."""
    errors = dict(errors)
    packages = {
        name: Package(version, errors.get(name, "")) for name, version in versions.items() if name not in without
    }
    healthy = {"python": (3, 11, 7), "source_version": "0.1.0", "installed_version": "0.1.0", "cpu_features": GOOD_CPU}
    return Facts(packages=packages, **{**healthy, **changed})


def only_problem(facts):
    """The one thing that is wrong."""
    problems = diagnose(facts)
    assert len(problems) == 1, problems
    return problems[0]


@pytest.mark.parametrize("versions, row", [(NEWER, ROWS[0]), (OLDER, ROWS[1])], ids=["newer", "older"])
def test_a_healthy_machine_has_nothing(versions, row):
    facts = seen(versions)
    assert diagnose(facts) == []
    assert matching_row(facts) is row


def test_addons_may_be_left_out_of_the_older_set():
    facts = seen(OLDER, without=["tensorflow-addons"])
    assert matching_row(facts) is ROWS[1]
    assert not only_problem(facts).blocks


def test_a_newer_tensorflow_breaks_the_op_library():
    error = "NotFoundError: _scann_ops.so: undefined symbol: _ZN10tensorflow8OpKernel"
    facts = seen({**NEWER, "tensorflow": "2.21.0", "tensorflow-serving-api": "2.21.0"}, errors={"scann": error})
    version, symbol = diagnose(facts)
    assert "2.21.0 is too new" in version.what and "undefined symbol" in version.what
    assert "'tensorflow==2.20.*'" in version.mend
    assert error in symbol.what and "'tensorflow==2.20.*'" in symbol.mend
    assert version.blocks and symbol.blocks
    assert matching_row(facts) is None


def test_a_tensorflow_between_the_two_sets():
    problem = only_problem(seen({**NEWER, "tensorflow": "2.18.0", "tensorflow-serving-api": "2.18.0"}))
    assert problem.blocks and problem.what == "TensorFlow 2.18.0 is not supported."


@pytest.mark.parametrize(
    "versions, what, mend",
    [
        ({**NEWER, "keras": "2.15.0"}, "Keras 2.15.0 is installed", "'keras>=3,<4'"),
        ({**OLDER, "keras": "3.0.5"}, "Keras 3.0.5 is installed", "'keras>=2.15,<2.16'"),
        ({**NEWER, "scann": "1.3.0"}, "scann 1.3.0 does not go with", "'scann>=1.4,<1.5'"),
        ({**NEWER, "protobuf": "4.25.9"}, "protobuf 4.25.9 does not go with", "'protobuf>=5.28,<8'"),
        ({**OLDER, "protobuf": "6.33.6"}, "protobuf 6.33.6 does not go with", "'protobuf>=3.20.3,<5'"),
        ({**OLDER, "tensorflow-addons": "0.22.0"}, "tensorflow-addons 0.22.0 does not go", ">=0.23,<0.24"),
    ],
)
def test_a_package_of_the_other_set(versions, what, mend):
    problem = only_problem(seen(versions))
    assert what in problem.what and mend in problem.mend and problem.blocks


def test_addons_beside_keras_3_is_only_useless():
    problem = only_problem(seen({**NEWER, "tensorflow-addons": "0.23.0"}))
    assert "works with Keras 2 only" in problem.what and "eet-tf[addons]" in problem.mend and not problem.blocks


@pytest.mark.parametrize("name", NEEDED)
def test_what_is_needed_is_missing(name):
    problem = diagnose(seen(without=[name]))[0]
    assert problem.blocks and problem.what == f"{name}: not installed." and "pip install" in problem.mend


@pytest.mark.parametrize("extra", [extra for extra in EXTRAS if extra != "addons"])
def test_a_missing_extra_is_a_hint(extra):
    packages, purpose = EXTRAS[extra]
    problem = only_problem(seen(without=packages))
    assert not problem.blocks and purpose in problem.what and problem.mend == f"pip install 'eet-tf[{extra}]'"


def test_extras_are_those_of_the_setup():
    """Which some are not, being for those who work on the package itself."""
    setup = (REPOSITORY / "setup.py").read_text(encoding="utf-8")
    block = setup[setup.index("extras_require") : setup.index("classifiers")]
    assert set(re.findall(r'^        "([\w-]+)": \[', block, re.M)) == {*EXTRAS, "milvus-server", "test", "docs"}
    for packages, _ in EXTRAS.values():
        for package in packages:
            assert f'"{package}>=' in block or f'"{package}==' in block


def test_needed_is_what_the_setup_requires():
    """And protobuf, which TensorFlow brings."""
    setup = (REPOSITORY / "setup.py").read_text(encoding="utf-8")
    block = setup[setup.index("install_requires") : setup.index("extras_require")]
    assert set(re.findall(r'^        "([a-z-]+)', block, re.M)) == set(NEEDED) - {"protobuf"}


@pytest.mark.parametrize(
    "error, mend",
    [
        ("its process was ended by SIGILL", "another machine"),
        ("ImportError: libm.so.6: version `GLIBC_2.29' not found", "newer Linux"),
        ("TypeError: Descriptors cannot be created directly.", "its protobuf"),
        ("ImportError: something else", "--force-reinstall scann"),
    ],
)
def test_what_is_installed_but_does_not_import(error, mend):
    problem = only_problem(seen(errors={"scann": error}))
    assert error in problem.what and mend.lower() in problem.mend.lower() and problem.blocks


def test_what_is_not_needed_and_does_not_import_is_a_hint():
    problem = only_problem(seen(errors={"flask": "ImportError: no"}))
    assert not problem.blocks and "eet-tf[demo]" in problem.mend


@pytest.mark.parametrize("python, versions", [((3, 9), NEWER), ((3, 14), NEWER), ((3, 12), OLDER)])
def test_python_out_of_range(python, versions):
    problem = only_problem(seen(versions, python=python))
    assert f"Python {python[0]}.{python[1]} is too" in problem.what and problem.blocks


@pytest.mark.parametrize(
    "lacking, named", [({"avx"}, "no AVX"), ({"fma"}, "no FMA"), ({"avx", "fma"}, "no AVX and no")]
)
def test_a_processor_that_is_too_old(lacking, named):
    problem = only_problem(seen(cpu_features=GOOD_CPU - lacking))
    assert named in problem.what and "illegal instruction" in problem.what.replace("\n", " ") and problem.blocks


def test_other_processors_have_other_features():
    assert diagnose(seen(machine="aarch64", cpu_features=frozenset({"asimd"}))) == []
    assert diagnose(seen(cpu_features=None)) == []


@pytest.mark.parametrize("versions", [NEWER, OLDER], ids=["newer", "older"])
def test_legacy_keras(versions):
    problem = only_problem(seen(versions, environment={"TF_USE_LEGACY_KERAS": "1"}))
    assert problem.blocks and problem.mend == "unset TF_USE_LEGACY_KERAS"
    assert diagnose(seen(versions, environment={"TF_USE_LEGACY_KERAS": "0"})) == []


def test_what_legacy_keras_breaks_is_mended_with_it():
    """Seen in both sets: keras-cv 0.9 looks at `tf.keras`, and refuses."""
    error = "ValueError: Unable to import `keras` with `tensorflow`."
    cause, broken = diagnose(seen(errors={"keras-cv": error}, environment={"TF_USE_LEGACY_KERAS": "1"}))
    assert cause.mend == "unset TF_USE_LEGACY_KERAS" and broken.mend == "unset TF_USE_LEGACY_KERAS, and look again"


def test_another_backend():
    assert "'jax'" in only_problem(seen(environment={"KERAS_BACKEND": "jax"})).what
    assert diagnose(seen(environment={"KERAS_BACKEND": "tensorflow"})) == []


def test_another_copy_is_installed():
    problem = only_problem(seen(installed_version="0.0.9"))
    assert "0.0.9" in problem.what and "0.1.0" in problem.what and not problem.blocks
    assert diagnose(seen(installed_version=None)) == []


def test_serving_api_of_another_tensorflow():
    problem = only_problem(seen({**NEWER, "tensorflow-serving-api": "2.19.0"}))
    assert problem.mend == "pip install 'tensorflow-serving-api==2.20.*'" and not problem.blocks


VERSIONS = st.text(max_size=8) | st.from_regex(r"\d{1,2}(\.\d{1,3}){0,3}(rc1|\.dev0)?", fullmatch=True)


@settings(deadline=None, max_examples=200)
@given(
    st.dictionaries(st.sampled_from(PACKAGES), st.builds(Package, VERSIONS, st.text(max_size=20))),
    st.tuples(st.integers(2, 4), st.integers(0, 20), st.integers(0, 9)),
    st.none() | st.frozensets(st.sampled_from(["avx", "fma", "avx2"])),
    st.dictionaries(st.sampled_from(["TF_USE_LEGACY_KERAS", "KERAS_BACKEND"]), st.text(max_size=3)),
)
def test_any_facts_can_be_judged_and_told(packages, python, cpu_features, environment):
    """What blocks comes first; whoever has nothing that blocks has a set of versions that is supported."""
    facts = Facts(python, packages, cpu_features=cpu_features, environment=environment)
    problems = diagnose(facts)
    blocks = [problem.blocks for problem in problems]
    assert blocks == sorted(blocks, reverse=True)
    assert any(blocks) or matching_row(facts) is not None
    assert all(problem.what and problem.mend for problem in problems)
    assert json.loads(doctor.as_json(facts, problems, not any(blocks)))["works"] == (not any(blocks))
    assert doctor.as_text(facts, problems, not any(blocks))


@given(st.text(max_size=10))
def test_any_text_is_parsed(text):
    assert isinstance(parsed(text), tuple)


# Looking


def test_cpu_features(tmp_path):
    (tmp_path / "x86").write_text("model name\t: X\nflags\t\t: fpu AVX fma\nbugs\t:\nflags\t\t: other\n")
    (tmp_path / "arm").write_text("processor : 0\nFeatures : fp asimd\n")
    (tmp_path / "neither").write_text("processor : 0\n")
    assert looking.cpu_features(tmp_path / "x86") == {"fpu", "avx", "fma"}
    assert looking.cpu_features(tmp_path / "arm") == {"fp", "asimd"}
    assert looking.cpu_features(tmp_path / "neither") is None


def test_an_import_that_ends_its_process_or_never_ends():
    assert looking.try_code("import os, signal; os.kill(os.getpid(), signal.SIGILL)", 60)[0] == (
        "its process was ended by SIGILL"
    )
    assert looking.try_code("import time; time.sleep(60)", 0.5)[0] == "no answer within 0.5 s"
    assert looking.try_code("raise SystemExit(3)", 60)[0] == "its process ended with status 3"
    assert looking.try_code("raise ValueError('first\\nlast')", 60)[0] == "last"


def start(*flags, path=(), **environment):
    """The doctor in a process of its own, away from the sources; `path` stands before them."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*map(str, path), str(REPOSITORY)]), **environment}
    return subprocess.run(
        [sys.executable, *flags], cwd="/", env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def test_it_runs_where_nothing_is_installed():
    """Without site-packages: as in a bare environment with the package's code on the path."""
    ended = start("-S", "-m", "eet_tf.doctor")
    assert ended.returncode == 1, ended.stderr
    assert "MEND: tensorflow, keras" in ended.stdout and not ended.stderr
    told = json.loads(start("-S", "-m", "eet_tf.doctor", "--json").stdout)
    assert told["works"] is False and told["versions"] is None and told["facts"]["packages"] == {}
    assert told["facts"]["num_cpus"] >= 1


def fake(folder, name, version, module, code):
    """An installed package, as far as the doctor can see."""
    (folder / f"{name.replace('-', '_')}-{version}.dist-info").mkdir(parents=True)
    metadata = folder / f"{name.replace('-', '_')}-{version}.dist-info" / "METADATA"
    metadata.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (folder / f"{module}.py").write_text(code)


def test_packages_that_break_when_they_are_imported(tmp_path):
    fake(tmp_path, "scann", "1.4.2", "scann", "raise ImportError('_scann_ops.so: undefined symbol: _ZN10')")
    fake(tmp_path, "flask", "3.1", "flask", "import os; os.abort()")
    fake(tmp_path, "keras", "2.15.0", "keras", "")
    (tmp_path / "scipy-9.dist-info").mkdir()  # without metadata
    ended = start("-S", "-m", "eet_tf.doctor", "--json", path=[tmp_path])
    told = json.loads(ended.stdout)
    packages = told["facts"]["packages"]
    assert packages["keras"] == {"version": "2.15.0", "error": ""}
    assert "undefined symbol" in packages["scann"]["error"]
    assert packages["flask"]["error"] == "its process was ended by SIGABRT"
    assert any("needs Keras 3" in problem["what"] for problem in told["problems"])
    assert ended.returncode == 1


def test_this_environment_works():
    """The one that the tests run in is one of the two sets; the sources may be newer than what is installed."""
    ended = start("-m", "eet_tf.doctor", "--json")
    told = json.loads(ended.stdout)
    assert ended.returncode == 0, told["problems"]
    assert told["versions"] in [row.name for row in ROWS]
    assert told["facts"]["packages"]["tensorflow"]["error"] == ""
    assert not any(problem["blocks"] for problem in told["problems"])


def test_facts_are_told_whole():
    facts = seen()
    told = json.loads(doctor.as_json(facts, [], True))
    assert set(told["facts"]) == {field.name for field in dataclasses.fields(Facts)}
    text = doctor.as_text(facts, diagnose(seen(without=["flask"])), True)
    assert "Versions: TensorFlow 2.20, Keras 3, scann 1.4." in text
    assert "hint: flask: not installed, needed for the page to search with." in text
    assert text.endswith("All that is needed works.")
