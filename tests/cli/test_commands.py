"""The door of all scripts: complaints together, one line for a number that is none and for a disk that fails."""

import os

import pytest
from absl import flags
from eet_tf.cli.commands import CommandError, Complaints

from eet_tf.cli import commands


@pytest.fixture
def some_flags():
    """Flags of a script, taken away afterwards."""
    flags.DEFINE_integer("number_of_things", 1, "", lower_bound=1)
    flags.DEFINE_float("share_of_things", 0.5, "")
    flags.DEFINE_enum("kind_of_thing", "a", ["a", "b"], "")
    flags.FLAGS(["script"])
    yield flags.FLAGS
    for name in ("number_of_things", "share_of_things", "kind_of_thing"):
        delattr(flags.FLAGS, name)


def refusing(*arguments):
    raise ValueError(f"`thing` must be another. Received: {arguments}.")


def test_complaints_are_said_together_and_once(tmp_path):
    complaints = Complaints()
    complaints.end()
    complaints.file("report", str(tmp_path))
    complaints.folder("output_dir", "")
    complaints.existing("photo_root", str(tmp_path / "gone"))
    complaints.existing("other", None)
    assert complaints.check(refusing, 1) is None and complaints.check(refusing, 1) is None
    assert complaints.given("index_dir", "x", refusing, 2) is None
    assert complaints.check(open, str(tmp_path / "gone")) is None
    assert complaints.check(int, "5") == 5 and complaints.given("n", "6", int) == 6
    with pytest.raises(CommandError) as refused:
        complaints.end()
    assert str(refused.value).splitlines() == [
        f"--report must be a file that can be written. Received: --report={tmp_path}, which is a folder.",
        "--output_dir must be a folder that can be written to. Received: --output_dir=, which names no folder.",
        f"--photo_root must be there. Received: --photo_root={tmp_path}/gone, which does not exist.",
        "`thing` must be another. Received: (1,).",
        "--index_dir=x: `thing` must be another. Received: ('x', 2).",
        f"'{tmp_path}/gone' cannot be read or written: {os.strerror(2)}. "
        "Look at its rights and at the space on its disk.",
    ]


@pytest.mark.parametrize("value", [0, 2, -1, float("nan")])
def test_ends_of_a_range_are_in_it(value):
    complaints = Complaints()
    for right in (0.5, 1, 1.5, None):
        complaints.number("n", right, 0.5, 1.5)
    complaints.above("n", 1e-9, 0)
    complaints.above("n", None, 0)
    complaints.end()
    complaints.number("n", value, 0.5, 1.5)
    with pytest.raises(CommandError, match=r"^--n must be from 0.5 to 1.5. Received: --n="):
        complaints.end()


@pytest.mark.parametrize(
    "error, said",
    [
        (
            OSError(28, os.strerror(28), "/full/x"),
            "error: '/full/x' cannot be read or written: No space left on device",
        ),
        (OSError("odd"), "error: A file cannot be read or written: odd"),
        (CommandError("--n must be"), "error: --n must be"),
    ],
)
def test_a_disk_that_fails_ends_in_a_line(some_flags, error, said):
    def main(argv):
        raise error

    with pytest.raises(SystemExit, match=said):
        commands.guarded(main)(["script"])


def test_what_is_a_fault_of_ours_is_not_hidden(some_flags):
    with pytest.raises(ZeroDivisionError):
        commands.guarded(lambda argv: 1 / 0)(["script"])


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_numbers_are_finite(some_flags, value):
    some_flags(["script", f"--share_of_things={value}"])
    with pytest.raises(
        SystemExit, match=f"--share_of_things must be a finite number. Received: --share_of_things={value}"
    ):
        commands.guarded(lambda argv: 0)(["script"])


def test_all_values_that_flags_do_not_take_are_said(some_flags):
    wrong = [
        "--number_of_things=0",
        "--share_of_things=half",
        "-kind_of_thing=c",
        "--unknown=1",
        "--number_of_things=2",
    ]
    refusals = commands.refused_values(["script", *wrong])
    assert refusals == [
        "--number_of_things=0: --number_of_things must be a positive integer.",
        "--share_of_things=half: --share_of_things must be a number.",
        "--kind_of_thing=c: --kind_of_thing value should be one of <a|b>.",
    ]
    with pytest.raises(SystemExit, match="(?s)error: --number_of_things=0: .*--share_of_things=half: .*--help"):
        commands._parsed(["script", *wrong])
    with pytest.raises(SystemExit, match="error: Unknown command line flag 'unknown'"):
        commands._parsed(["script", "--unknown=1"])
    assert commands._parsed(["script", "--number_of_things=2", "rest"]) == ["script", "rest"]
