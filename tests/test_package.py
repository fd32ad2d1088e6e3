"""What is published: a source archive and a wheel, what lies in them, and the wheel at work away from its source.

Both are made by the hooks that `python -m build` calls, without a network; the wheel from the source archive.
"""

import contextlib
import email
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import urllib.request
import venv
import zipfile

import numpy
import pytest

import eet_tf
from eet_tf.data import make_synthetic_catalog

ROOT = pathlib.Path(__file__).parents[1]
NAME = f"eet_tf-{eet_tf.__version__}"
NOT_SOURCE = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "runs", "site")
# calls a hook of the build backend that pyproject.toml names, and says what it made
HOOK = "import setuptools.build_meta as b, sys; print(getattr(b, sys.argv[1])(sys.argv[2]))"
TINY = (
    *("--backbone=small_cnn", "--image_size=32", "--embedding_dim=8", "--epochs=1", "--steps_per_epoch=2"),
    *("--classes_per_batch=2", "--examples_per_class=2", "--strategy=one_device"),
)
SMOKE = """
import importlib.metadata
import pathlib
import keras
import numpy as np
import eet_tf
from eet_tf import EETLoss
from eet_tf.index import ExactIndex, load_index

model = keras.Sequential([keras.Input([6]), keras.layers.Dense(4)])
model.compile(optimizer="sgd", loss=EETLoss())
images = np.random.default_rng(0).normal(size=[8, 6]).astype("float32")
history = model.fit(images, np.array([0, 0, 1, 1, 2, 2, 3, 3]), batch_size=8, verbose=0).history
assert np.isfinite(history["loss"][0])

ExactIndex.build(np.eye(2, dtype="float32"), skus=["mug", "cup"]).save("index")
assert load_index("index").search([0.0, 1.0], k=1).skus.tolist() == [["cup"]]

assert importlib.metadata.version("eet-tf") == eet_tf.__version__
print(pathlib.Path(eet_tf.__file__).parent)
"""


def clean_environment():
    """The variables of this process, but for what would let the package be found in the checkout."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return environment | {
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "-1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }


def run(*command, cwd):
    """What a command printed; fails the test, showing why, if it did not end well."""
    result = subprocess.run(
        [*map(str, command)], cwd=cwd, env=clean_environment(), capture_output=True, text=True, timeout=300, check=False
    )
    if result.returncode:
        pytest.fail(f"{command[1:4]} ended with {result.returncode}:\n{result.stdout}{result.stderr}", pytrace=False)
    return result.stdout


def files_below(folder):
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with `source`, the repository as it is; the source archive made of it; and the wheel made of that."""
    folder = tmp_path_factory.mktemp("package")
    shutil.copytree(ROOT, folder / "source", ignore=NOT_SOURCE)
    built = run(sys.executable, "-c", HOOK, "build_sdist", folder, cwd=folder / "source").splitlines()[-1]
    with tarfile.open(folder / built) as archive:
        archive.extractall(folder, filter="data")
    os.rename(folder / built.removesuffix(".tar.gz"), folder / "unpacked")  # older setuptools: eet-tf-...
    run(sys.executable, "-c", HOOK, "build_wheel", folder, cwd=folder / "unpacked")
    return folder


@pytest.fixture(scope="module")
def wheel(place):
    return place / f"{NAME}-py3-none-any.whl"


@pytest.fixture(scope="module")
def metadata(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return email.message_from_bytes(archive.read(f"{NAME}.dist-info/METADATA"))


def test_the_wheel_has_every_file_of_the_package_and_no_other(place, wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    package = {name for name in names if not name.startswith(f"{NAME}.dist-info/")}
    assert package == {f"eet_tf/{name}" for name in files_below(place / "source" / "eet_tf")}
    assert {"eet_tf/py.typed", "eet_tf/__init__.pyi", "eet_tf/pages/templates/report.html"} < package
    assert {"eet_tf/service/templates/page.html", "eet_tf/service/static/page.js"} < package
    assert any(name.endswith("/LICENSE") for name in names - package)


def test_the_source_archive_has_what_it_takes_and_no_more(place):
    unpacked = place / "unpacked"
    assert files_below(unpacked / "eet_tf") == files_below(place / "source" / "eet_tf")
    assert {path.name for path in unpacked.iterdir()} - {"build"} == {
        *("LICENSE", "README.md", "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "SECURITY.md"),
        *("setup.py", "pyproject.toml", "MANIFEST.in", "constraints.txt", "constraints-addons.txt"),
        *("eet_tf", "eet_tf.egg-info", "PKG-INFO", "setup.cfg"),
    }


def test_the_metadata_say_what_setup_py_says(metadata):
    assert (metadata["Name"], metadata["Version"]) == ("eet-tf", eet_tf.__version__)
    assert set(metadata["Requires-Python"].split(",")) == {">=3.10", "<3.14"}
    assert metadata["Author"] == "The eet-tf authors"
    assert {"visual search", "metric learning", "TensorFlow"} < set(metadata["Keywords"].split(","))
    extras = {
        "addons",
        "beam",
        "cars196",
        "convert",
        "demo",
        "docs",
        "hub",
        "milvus",
        "milvus-server",
        "parquet",
        "remote",
    }
    extras |= {"serving", "test", "xlsx"}
    assert set(metadata.get_all("Provides-Extra")) == extras
    assert "# eet-tf" in (metadata["Description"] or metadata.get_payload())


def test_every_extra_that_the_readme_names_exists(metadata):
    named = set(re.findall(r"eet-tf\[(\w+)\]", (ROOT / "README.md").read_text(encoding="utf-8")))
    assert named and named <= set(metadata.get_all("Provides-Extra"))


def test_the_newest_change_is_of_this_version_and_so_is_the_citation():
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert [heading for heading in headings if heading != "Unreleased"][0] == eet_tf.__version__
    assert f'\nversion: "{eet_tf.__version__}"\n' in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def installed(place, wheel):
    """The `python` of an environment with the wheel and, from the one that runs the tests, the libraries alone."""
    venv.create(place / "venv", with_pip=False, symlinks=True)
    python = place / "venv" / "bin" / "python"
    own = pathlib.Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=place).strip())
    (own / "libraries.pth").write_text(f"{pathlib.Path(numpy.__file__).parents[1]}\n")
    install = ("install", "--quiet", "--no-deps", "--no-index", wheel)
    run(sys.executable, "-m", "pip", "--python", python, *install, cwd=place)
    return python


@pytest.fixture
def elsewhere(installed, tmp_path):
    """A folder without anything of the repository, where nothing but the package can be imported."""
    find = "import importlib.util as u; print([n for n in ('train', 'export', 'tests', 'examples') if u.find_spec(n)])"
    assert run(installed, "-c", find, cwd=tmp_path) == "[]\n"
    return tmp_path


def test_the_wheel_works_from_another_folder(installed, elsewhere):
    own = run(installed, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=elsewhere).strip()
    assert run(installed, "-c", SMOKE, cwd=elsewhere).splitlines()[-1] == os.path.join(own, "eet_tf")


@pytest.mark.slow
def test_the_wheel_alone_does_the_whole_job(installed, elsewhere):
    """From photos to a page that is served, with the command that the wheel installs."""
    eet = installed.parent / "eet"
    version = f"eet-tf {eet_tf.__version__}\n"
    assert run(eet, "--version", cwd=elsewhere) == run(installed, "-m", "eet_tf", "--version", cwd=elsewhere) == version
    make_synthetic_catalog(elsewhere / "photos", num_products=8, photos_per_product=3, image_size=32)
    trained = run(eet, "train", "--data=photos", "--model_dir=run", *TINY, cwd=elsewhere)
    assert re.search(r"R@1 on .+ products, .+: [\d.]+ % before, [\d.]+ % after", trained), trained
    run(eet, "export", "--model=run", cwd=elsewhere)
    run(eet, "index", "build", "--saved_model=run/serving", "--data=photos", "--index=exact", cwd=elsewhere)
    photo = str(min((elsewhere / "photos" / "photos").iterdir()))
    (answer,) = json.loads(run(eet, "search", photo, "--index_dir=run/index", "--k=3", "--json", cwd=elsewhere))
    assert answer["query"] == photo and len(answer["found"]) == 3
    with served(eet, "--index_dir=run/index", cwd=elsewhere) as address:
        like = f"k=2&like={answer['found'][0]['photo']}".encode()
        with urllib.request.urlopen(f"{address}search", like, timeout=60) as response:
            assert len(json.load(response)["neighbors"]) == 2


@contextlib.contextmanager
def served(eet, *flags, cwd):
    """The address of a page that `eet serve` serves on a free port, for a `with`."""
    process = subprocess.Popen(
        [eet, "serve", "--port=0", *flags], cwd=cwd, env=clean_environment(), stdout=subprocess.PIPE, text=True
    )
    try:
        line = process.stdout.readline()
        yield re.search(r"http://\S+/", line)[0]
    finally:
        process.terminate()  # SIGINT is ignored below a shell that runs this in the background
        process.communicate(timeout=60)


def lines_of_pip():
    """The lines of README.md that install something, as they are pasted."""
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    return [line for block in blocks for line in block.splitlines() if "pip install" in line]


@pytest.mark.parametrize("line", lines_of_pip())
def test_what_readme_installs_can_be_installed_from_the_checkout(place, metadata, tmp_path, line):
    """Without a network and without what it depends on, into a folder; the extras are those of the package."""
    command, verb, target = shlex.split(line)
    assert (command, verb) == ("pip", "install")
    path, extras = re.fullmatch(r"(\.[\w./-]*)(?:\[(.+)\])?", target).groups()
    assert set(extras.split(",") if extras else []) <= set(metadata.get_all("Provides-Extra"))
    alone = ("--quiet", "--no-deps", "--no-index", "--no-build-isolation", f"--target={tmp_path / 'installed'}")
    run(sys.executable, "-m", command, verb, *alone, target, cwd=place / "source" / path)
    assert (tmp_path / "installed" / "bin" / "eet").is_file()


def test_readme_says_how_to_install():
    assert "pip install ." in lines_of_pip()


def test_what_is_installed_fits_together(tmp_path):
    assert "No broken requirements" in run(sys.executable, "-m", "pip", "check", cwd=tmp_path)
