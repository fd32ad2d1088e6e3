"""A file is replaced whole or not at all."""

import os
import subprocess
import sys

import pytest

from eet_tf.files import replaced


def write(path, text):
    """Writes and closes."""
    with open(path, "w") as file:
        file.write(text)


def test_a_block_that_ends_well_replaces_the_file(tmp_path):
    write(tmp_path / "a.txt", "old")
    with replaced(tmp_path / "a.txt") as aside:
        write(aside, "new")
        assert (tmp_path / "a.txt").read_text() == "old"
    assert (tmp_path / "a.txt").read_text() == "new"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_the_file_aside_is_in_the_same_folder_with_the_same_ending(tmp_path):
    """A rename is whole only within one file system, and Keras looks at the ending."""
    with replaced(tmp_path / "model.keras") as aside:
        assert os.path.dirname(aside) == str(tmp_path)
        assert aside.endswith(".keras")
        write(aside, "")


def test_a_folder_that_is_missing_is_made(tmp_path):
    with replaced(tmp_path / "one" / "two" / "a.txt") as aside:
        write(aside, "new")
    assert (tmp_path / "one" / "two" / "a.txt").read_text() == "new"


def test_a_relative_path_means_the_folder_it_was_given_in(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with replaced("a.txt") as aside:
        write(aside, "new")
        os.chdir("elsewhere")
    assert (tmp_path / "a.txt").read_text() == "new"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_block_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, error):
    write(tmp_path / "a.txt", "old")
    with pytest.raises(error), replaced(tmp_path / "a.txt") as aside:
        write(aside, "half")
        raise error
    assert (tmp_path / "a.txt").read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_block_that_writes_nothing_is_an_error_and_leaves_the_old_file(tmp_path):
    write(tmp_path / "a.txt", "old")
    with pytest.raises(FileNotFoundError), replaced(tmp_path / "a.txt"):
        pass
    assert (tmp_path / "a.txt").read_text() == "old"


def test_a_killed_block_leaves_the_old_file(tmp_path):
    """Nothing can be tidied up then; what matters is that the file is the old one."""
    write(tmp_path / "a.txt", "old")
    program = (
        "import os, signal, sys\n"
        "from eet_tf.files import replaced\n"
        "with replaced(sys.argv[1]) as aside, open(aside, 'w') as file:\n"
        "    file.write('half'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", program, tmp_path / "a.txt"]).returncode == -9
    assert (tmp_path / "a.txt").read_text() == "old"
