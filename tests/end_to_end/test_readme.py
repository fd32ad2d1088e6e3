"""A fresh reader's walk: README.md and the quick start, followed word by word on a tiny catalogue in an empty folder.

Commands run as they are printed, trainings with small images and few steps. What a page says is printed has to be
printed, apart from the figures.
"""

import importlib
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from eet_tf import compat
from eet_tf.cli.main import COMMANDS
from eet_tf.data import make_synthetic_catalog

pytestmark = pytest.mark.skipif(compat.KERAS_2, reason="its commands are for the default set of versions: make test")
ROOT = pathlib.Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
QUICK_START = (ROOT / "docs" / "quick_start.md").read_text(encoding="utf-8")
RESULTS = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
DATA = ROOT.parent / "shared" / "data"
TINY = "--image_size=32 --embedding_dim=8 --epochs=1 --steps_per_epoch=2 --classes_per_batch=2 --examples_per_class=2"


def blocks(page, language):
    """The blocks of code of a page in one language."""
    return re.findall(rf"```{language}\n(.*?)```", page, re.S)


def commands(page):
    """The lines of a page's shell blocks; one that ends with a backslash goes on in the next."""
    return "".join(blocks(page, "bash")).replace("\\\n", " ").splitlines()


def eet(page):
    """The commands of `eet` on a page, as arguments."""
    return [shlex.split(line)[1:] for line in commands(page) if line.startswith("eet ")]


def shape(line):
    """A printed line without what differs from run to run: figures, plurals, and whether products count as unseen."""
    words = re.sub(r"\b(photo|product)s\b", r"\1", line).replace("unseen ", "")
    return re.sub(r"\d[\d,.:]*", "0", words).strip()


def is_printed(line, lines):
    """Whether a line of that shape was printed; of one that ends in dots, its beginning; of a row, rank and score."""
    if line.startswith("0 "):
        return any(other.split()[:2] == line.split()[:2] for other in lines)
    if line.endswith("..."):
        return any(other.startswith(line.removesuffix("...").strip()) for other in lines)
    return line in lines


def run(command, folder, **environment):
    return subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with `photos/catalog.csv` and `photo.jpg`, as the pages name them, and the package's `__main__`."""
    folder = tmp_path_factory.mktemp("readme")
    catalog = make_synthetic_catalog(str(folder / "photos"), num_products=12, photos_per_product=4, image_size=32)
    shutil.copy(catalog.files[0], folder / "photo.jpg")
    (folder / "eet.py").write_text("import sys\nfrom eet_tf.cli.main import main\n\nsys.exit(main())\n")
    return folder


@pytest.fixture(scope="module")
def printed(workplace, run_script):
    """What the commands of `eet` in the README print, one after the other, progress included."""
    found = []
    for command in eet(README):
        tiny = shlex.split(TINY) if command[0] == "train" else []
        outcome = run_script("eet.py", *command, *tiny, folder=workplace).succeeded()
        found.append(outcome.printed + outcome.errors)
    return found


def test_five_commands_lead_from_photos_to_a_search_and_its_page(printed, workplace):
    assert [command[0] for command in eet(README)] == ["train", "export", "index", "search", "report"]
    assert len(printed) == 5
    for made in ("model.keras", "metrics.json", "serving/1/saved_model.pb", "index/manifest.json", "report.html"):
        assert (workplace / "runs" / "mine" / made).is_file(), made


def test_the_commands_print_what_the_readme_shows(printed):
    shown = [line for line in blocks(README, "text")[0].splitlines() if line.strip() != "..."]
    assert len(shown) > 8
    lines = {shape(line) for output in printed for line in output.splitlines()}
    missing = [line for line in shown if not is_printed(shape(line), lines)]
    assert not missing, f"{missing} are not among {sorted(lines)}"


def test_the_keras_program_prints_what_the_readme_shows(workplace):
    program, output = blocks(README, "python")[0], blocks(README, "text")[1]
    result = run([sys.executable, "-c", program], workplace)
    assert result.returncode == 0, result.stderr
    assert not re.search("warning", result.stderr, re.I), result.stderr
    losses = [float(loss) for loss in re.findall(r"loss: ([\d.]+)", result.stdout)]
    assert losses == pytest.approx([float(loss) for loss in re.findall(r"loss: ([\d.]+)", output)], abs=0.01)
    assert len(losses) == 3
    assert losses[0] > losses[1] > losses[2]


@pytest.mark.slow
def test_the_quick_start_goes_on_where_the_readme_ends(printed, workplace, run_script):
    """Its further commands, then its programs, which read what the commands of the README wrote."""
    done = eet(README)
    assert len(eet(QUICK_START)) > len(done)
    for command in eet(QUICK_START):
        if command not in done and command[0] != "serve" and "--weights=imagenet" not in command:  # no network here
            run_script("eet.py", *command, folder=workplace).succeeded()
    for program in blocks(QUICK_START, "python"):
        smaller = program.replace("=64", "=32").replace("classes_per_batch=8", "classes_per_batch=4")
        result = run([sys.executable, "-c", smaller], workplace)
        assert result.returncode == 0, f"{program}\n{result.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_and_flag_on_a_page_exists(page):
    """So that those exist which nobody runs here, such as a server's."""
    for line in commands(page.read_text(encoding="utf-8")):
        command = line.strip().partition("eet ")[2] if re.match(r"\s*(TF_CONFIG=.* )?eet ", line) else ""
        assert not command or set(re.findall(r"--(?:no)?([a-z_]+)", command)) <= flags_of(command), line


def flags_of(command):
    """The flags that a command line may have; those that `eet embed` passes on are Beam's."""
    name = next(name for name in sorted(COMMANDS, key=len, reverse=True) if f"{command} ".startswith(f"{name} "))
    if name == "doctor":
        return {"json"}
    module, attribute, _ = COMMANDS[name]
    return {*getattr(importlib.import_module(f"eet_tf.cli.{module}"), attribute).flags, "flagfile"}


@pytest.mark.long
@pytest.mark.skipif(not DATA.is_dir(), reason="needs the real photos in ../shared/data")
@pytest.mark.parametrize(
    "data_set, said",
    [
        ("grocery", ["R@1 on unseen test products"]),
        ("fashion", ["14 of the 5,955 photos to measure on are copies", "R@1 on test products"]),
    ],
)
def test_commands_of_the_measured_figures(workplace, run_script, data_set, said):
    """The recipes on the page of results, with fewer steps and small images; a grid needs 64 pixels."""
    command = next(each for each in eet(RESULTS) if any(data_set in part for part in each))
    parts = [part.replace("DATA", str(DATA)) for part in command]
    arguments = [part.replace("train/flagfiles", str(ROOT / "train" / "flagfiles")) for part in parts]
    outcome = run_script("eet.py", *arguments, *shlex.split(TINY), "--image_size=64", folder=workplace).succeeded()
    assert all(text in outcome.printed for text in said)


@pytest.mark.slow
def test_make_demo(tmp_path):
    """The demo's own recipe, with fewer steps, in the environment the tests run in."""
    result = run(
        [
            *("make", "--no-print-directory", "demo", "--old-file=venv", f"PY={sys.executable}", f"RUN={tmp_path}/run"),
            *(f"PHOTOS={tmp_path}/photos", "DEMO_FLAGS=--epochs=1 --steps_per_epoch=3 --virtual_devices=2"),
        ],
        ROOT,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    last = result.stdout.strip().splitlines()
    for line, gallery in zip(last[-3:], ("in the whole catalogue of [\\d,]+ photos", "among the test photos alone")):
        assert re.fullmatch(rf"R@1 on unseen products, {gallery}: [\d.]+ % before, [\d.]+ % after\.", line)
    assert last[-1] == f"The page is {tmp_path}/run/report.html."
    assert 1e5 < (tmp_path / "run" / "report.html").stat().st_size < 3e6


def test_two_commands_do_everything_on_a_bare_machine():
    assert [line for line in commands(README) if line.startswith("make ")] == ["make demo", "make test"]


def test_the_targets_of_the_makefile_exist():
    for target in set(re.findall(r"`?make ([a-z-]+)", README + QUICK_START)) - {"sure"}:
        result = run(["make", "--dry-run", "--old-file=venv", target], ROOT)
        assert result.returncode == 0, target


def test_the_readme_is_short_and_shows_the_page():
    assert len(README.splitlines()) <= 150
    assert "docs/search_page.png" in README[: README.index("## Install")]
