"""The door of all commands: flags read, help shown, what is wrong said in one message without a traceback."""

import os

import pytest
from absl import flags

from eet_tf.cli import door
from eet_tf.cli.complaints import CommandError
from eet_tf.cli.door import Command, Definitions


def make_command(main=lambda positional: None, **how):
    values = flags.FlagValues()
    define = Definitions(values)
    define.string("photos", None, "Where they are.", required=True)
    define.integer("number_of_things", 1, "Number of things.", lower_bound=1)
    define.float("share_of_things", 0.5, "Share of them.")
    define.enum("kind_of_thing", "a", ["a", "b"], "Kind of thing.")
    define.multi_string("name", [], "Name; may be given several times.")
    define.bool("quick", False, "Whether to hurry.")
    define.alias("thing", "kind_of_thing")
    return Command(main, values, "Does things.\n\nExamples:\n  eet things --photos=x", **how)


def called(capsys, *arguments, **how):
    """(status, printed, errors) of a command."""
    status = door.run(make_command(**how), "eet things", arguments)
    return status, *capsys.readouterr()


def test_flags_are_set_and_the_rest_is_handed_on(capsys):
    seen = []
    command = make_command(lambda positional: seen.append(positional), takes="PHOTO...")
    assert door.run(command, "eet things", ["a.jpg", "--photos=x", "--thing=b", "--quick", "b.jpg"]) == 0
    assert seen == [["a.jpg", "b.jpg"]]
    assert (command.flags.photos, command.flags.kind_of_thing, command.flags.quick) == ("x", "b", True)


def test_a_second_call_begins_with_the_defaults():
    command = make_command()
    door.run(command, "eet things", ["--photos=x", "--number_of_things=7", "--name=a"])
    door.run(command, "eet things", ["--photos=x", "--name=b"])
    assert (command.flags.number_of_things, command.flags.name) == (1, ["b"])


@pytest.mark.parametrize(
    "arguments, said",
    [
        ([], "error: --photos must be given.\n`eet things --help` shows the flags.\n"),
        (["--photos=x", "--fotos=1"], "error: `eet things` has no flag --fotos. Did you mean --photos?\n"),
        (["--photos=x", "--unlike=1"], "error: `eet things` has no flag --unlike.\n"),
        (["--photos"], "error: Missing value for --photos"),
        (["--photos=x", "--quick=maybe"], "error: --quick must be true or false. Received: --quick=maybe.\n"),
        (["--flagfile=/nowhere/x"], "error: --flagfile must be a file with one flag a line. Received: '/nowhere/x'.\n"),
        (["--photos=x", "more"], "error: `eet things` takes flags only, which begin with --. Received: more."),
        (
            ["--photos=x", "--number_of_things=0", "--share_of_things=half", "-kind_of_thing=c"],
            "error: --number_of_things must be a positive integer. Received: --number_of_things=0.\n"
            "--share_of_things must be a number. Received: --share_of_things=half.\n"
            "--kind_of_thing must be one of a, b. Received: --kind_of_thing=c.\n",
        ),
    ],
    ids=str,
)
def test_wrong_flags_are_said_together(capsys, arguments, said):
    status, printed, errors = called(capsys, *arguments)
    assert (status, printed) == (2, "")
    assert errors.startswith(said)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_numbers_are_finite(capsys, value):
    _, _, errors = called(capsys, "--photos=x", f"--share_of_things={value}")
    assert errors == f"error: --share_of_things must be a finite number. Received: --share_of_things={value}.\n"


@pytest.mark.parametrize(
    "error, status, said",
    [
        (OSError(28, os.strerror(28), "/full/x"), 1, "'/full/x' cannot be read or written: No space left on device."),
        (OSError("odd"), 1, "A file cannot be read or written: odd."),
        (CommandError("--n must be"), 2, "--n must be"),
        (ValueError("`k` must be"), 1, "`k` must be"),
        (MemoryError(), 1, "The memory of this machine is full."),
        (KeyboardInterrupt(), 130, "Interrupted."),
    ],
    ids=str,
)
def test_what_ends_a_command_is_one_line(capsys, error, status, said):
    def main(_):
        raise error

    ended, _, errors = called(capsys, "--photos=x", main=main)
    assert (ended, errors.startswith(f"error: {said}")) == (status, True)


def test_what_is_a_fault_of_ours_is_not_hidden():
    with pytest.raises(ZeroDivisionError):
        door.run(make_command(lambda _: 1 / 0), "eet things", ["--photos=x"])


def test_help_shows_the_first_flags_and_helpfull_all(capsys):
    short = called(capsys, "--help", first=("photos", "kind_of_thing"), takes="PHOTO...")[1]
    assert short.startswith(
        "usage: eet things [flags] PHOTO...\n\nDoes things.\n\nExamples:\n  eet things --photos=x\n"
    )
    assert "--photos=TEXT\n      Where they are.\n" in short
    assert "--kind_of_thing=a|b\n      Kind of thing. Default: a.\n" in short
    assert "--share_of_things" not in short and "`eet things --helpfull` shows all 6 flags." in short
    full = called(capsys, "--helpfull", first=("photos",))[1]
    assert "--share_of_things=NUMBER\n      Share of them. Default: 0.5.\n" in full and "--[no]quick\n" in full
    assert "--name=TEXT\n      Name; may be given several times.\n" in full
    assert "--thing=" not in full and "repeat this option" not in full


def test_flags_that_are_not_known_are_left_to_those_who_know_them():
    seen = []
    command = make_command(lambda rest: seen.append(rest), leaves_rest=True)
    assert door.run(command, "eet things", ["--photos=x", "--runner=FlinkRunner"]) == 0
    assert seen == [["--runner=FlinkRunner"]]
