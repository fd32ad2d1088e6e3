"""`eet`: its overview, its commands, its doors, and that none costs more to start than it must."""

import importlib
import pathlib
import re
import subprocess
import sys

import pytest
from absl import flags

from eet_tf.cli import catalogs, door
from eet_tf.cli.main import COMMANDS, main
from eet_tf.data.benchmarks import LOADERS

ROOT = pathlib.Path(__file__).parents[2]
WITH_FLAGS = [name for name in COMMANDS if name != "doctor"]
HEAVY = {"tensorflow", "keras", "numpy", "scann", "matplotlib", "PIL", "flask", "apache_beam", "pymilvus", "grpc"}


def command_of(name):
    module, attribute, _ = COMMANDS[name]
    return getattr(importlib.import_module(f"eet_tf.cli.{module}"), attribute)


def test_the_overview_names_every_command_with_what_it_does(capsys):
    for arguments in ([], ["--help"], ["help"]):
        assert main(arguments) == 0
        printed, errors = capsys.readouterr()
        assert not errors
        for name, (_, _, what) in COMMANDS.items():
            assert re.search(rf"^  {name} +{re.escape(what)}$", printed, re.M)


def test_a_command_that_does_not_exist_is_named_with_the_closest(capsys):
    assert main(["serch", "x.jpg"]) == 2
    assert capsys.readouterr().err.startswith(
        "error: 'serch' is no command. Did you mean `eet search`? The commands are:"
    )
    assert main(["index", "bild"]) == 2
    assert "Did you mean `eet index build`?" in capsys.readouterr().err
    assert main(["index"]) == 2
    assert "index upsert   Add photos" in capsys.readouterr().out
    assert main(["index", "--help"]) == 0


@pytest.mark.parametrize("name", WITH_FLAGS)
def test_help_has_examples_and_sentences_that_say_what_is_set(name):
    command = command_of(name)
    assert re.search(rf"^Examples?:\n  eet {name}\b", command.help, re.M)
    text = door.help_text(command, f"eet {name}", is_full=True)
    assert max(map(len, text.splitlines())) <= 120
    for flag in command.flags:
        sentence = command.flags[flag].help.partition(">: ")[2] or command.flags[flag].help
        assert sentence[0].isupper() or sentence.startswith(("host:port", "k ")), f"--{flag}: {sentence}"
        assert sentence.partition(";\n")[0].rstrip().endswith("."), f"--{flag}: {sentence}"
    assert set(command.first) <= set(command.flags)


@pytest.mark.parametrize("name", [*WITH_FLAGS, ""])
def test_help_imports_nothing_heavy(name, run_python):
    code = f"""
import sys
from eet_tf.cli.main import main
main([*{name.split()!r}, "--help"])
print(*sorted({{name.partition(".")[0] for name in sys.modules}}))
"""
    assert not set(run_python(code, fresh=True)[0].splitlines()[-1].split()) & HEAVY


def test_layouts_are_those_that_can_be_loaded():
    assert set(catalogs.LAYOUTS) == set(LOADERS)


DOORS = {
    "train/main.py": "train",
    "train/evaluate.py": "evaluate",
    "train/compare.py": "compare",
    "export/main.py": "export",
    "export/verify.py": "verify",
    "export/publish.py": "publish",
    "export/build_index.py": "index build",
    "export/search.py": "search",
    "export/make_report.py": "report",
    "export/serve_demo.py": "serve",
    "export/embed_beam.py": "embed",
}


def test_every_script_is_a_door_of_a_few_lines():
    scripts = {str(path.relative_to(ROOT)) for folder in ("train", "export") for path in (ROOT / folder).glob("*.py")}
    assert scripts == {*DOORS, "export/index_admin.py"}
    for script in scripts:
        assert len((ROOT / script).read_text(encoding="utf-8").splitlines()) <= 10


@pytest.mark.parametrize("door_of", [*DOORS, "-m eet_tf.audit", "-m eet_tf.doctor", "-m eet_tf search"])
def test_a_door_leads_to_its_command(door_of):
    printed = subprocess.run(
        [sys.executable, *door_of.split(), "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    name = DOORS.get(door_of, door_of.rpartition(".")[2].removeprefix("-m eet_tf ").strip())
    assert printed.startswith(f"usage: eet {name} [")


def test_names_of_photos_become_names_of_folders():
    assert catalogs.name_of("photos/catalog.csv") == "photos"
    assert catalogs.name_of("/data/Shoes 2026/") == "Shoes_2026"
    assert catalogs.name_of("/") == "photos"


def test_the_layout_is_that_of_what_lies_there(tmp_path):
    (tmp_path / "Ebay_train.txt").write_text("image_id class_id super_class_id path\n")
    (tmp_path / "Ebay_test.txt").write_text("image_id class_id super_class_id path\n")
    values = flags.FlagValues()
    catalogs.define_catalog(door.Definitions(values))
    values(["x", f"--data={tmp_path}"])
    assert catalogs.layout_of(values) == "sop"
    values(["x", "--dataset=folder"])
    assert catalogs.layout_of(values) == "folder"
    values(["x", "--dataset=synthetic"])
    assert catalogs.layout_of(values) == "synthetic"
