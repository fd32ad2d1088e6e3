"""How every command starts and ends: its flags, its help, and one line where something is wrong."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Sequence

from absl import flags

from eet_tf.cli.complaints import CommandError, Complaints, os_error_text
from eet_tf.terminal import open_door

_HELP = ("--help", "-h", "-help", "--helpshort")
_HELP_FULL = ("--helpfull", "-helpfull")
_KINDS = {"int": "NUMBER", "float": "NUMBER", "strings": "TEXT,TEXT"}


class Definitions:
    """The functions `flags.DEFINE_string` and so on as `string` and so on, for the flags of one command.

    Args:
        values: the flags that a definition is added to.

    Example:

    >>> values = flags.FlagValues()
    >>> define = Definitions(values)
    >>> number = define.integer("k", 10, "Number of neighbors.", lower_bound=1)
    >>> values(["search", "--k=3", "photo.jpg"]), values.k
    (['search', 'photo.jpg'], 3)
    """

    def __init__(self, values: flags.FlagValues):
        self._values = values

    def __getattr__(self, kind: str) -> Callable:
        return functools.partial(getattr(flags, f"DEFINE_{kind}"), flag_values=self._values)


@dataclasses.dataclass(frozen=True)
class Command:
    """One command: what it does with its flags, and what its help says.

    Args:
        main: takes the positional arguments, returns the exit status (None for 0).
        flags: the flags; set before `main` is called.
        help: what it does, and examples, as `--help` shows it.
        first: flags that `--help` shows; `--helpfull` shows all. Empty: all of them.
        takes: what positional arguments stand for, such as `"PHOTO..."`; empty if there may be none.
        leaves_rest: whether flags that are not known are left to `main`, which passes them on.
    """

    main: Callable[[list[str]], int | None]
    flags: flags.FlagValues
    help: str
    first: tuple[str, ...] = ()
    takes: str = ""
    leaves_rest: bool = False


def run(command: Command, name: str, arguments: Sequence[str]) -> int:
    """Runs a command to its end and returns its exit status: 2 if it was called wrongly, 1 if something else is wrong.

    What is wrong is printed as one `error: ` message.

    Args:
        command: the command.
        name: what a person calls it by, such as `"eet train"`.
        arguments: flags and positional arguments.
    """
    open_door()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # exceptions of TensorFlow say all that matters
    try:
        if any(argument in (*_HELP, *_HELP_FULL) for argument in arguments):
            print(help_text(command, name, is_full=any(argument in _HELP_FULL for argument in arguments)), flush=True)
            return 0
        return _guarded(command, name, list(arguments))
    except BrokenPipeError:  # who read the output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return _failed("Interrupted.", status=130)
    except CommandError as error:
        return _failed(str(error), status=2)
    except OSError as error:
        return _failed(os_error_text(error))
    except (ValueError, MemoryError) as error:
        return _failed(str(error) or "The memory of this machine is full.")


def _guarded(command: Command, name: str, arguments: list[str]) -> int:
    positional = parsed(command, name, arguments)
    _refuse_infinite_numbers(command.flags)
    if positional and not command.takes and not command.leaves_rest:
        raise CommandError(
            f"`{name}` takes flags only, which begin with --. Received: {' '.join(positional)}. See --help."
        )
    return command.main(positional) or 0


def _failed(message: str, status: int = 1) -> int:
    sys.stdout.flush()
    print(f"error: {message}", file=sys.stderr, flush=True)
    return status


def parsed(command: Command, name: str, arguments: list[str]) -> list[str]:
    """Sets a command's flags and returns the positional arguments.

    Raises:
        CommandError: names every value that a flag does not take, where absl names the first.
    """
    for flag in command.flags:  # another call of the same process may have set them
        command.flags[flag].unparse()
    try:
        return command.flags([name, *arguments], known_only=command.leaves_rest)[1:]
    except flags.Error as error:
        refusals = refused_values(command.flags, arguments) or _in_our_words(error, command, name)
    raise CommandError("\n".join(refusals) + f"\n`{name} --help` shows the flags.")


def _in_our_words(error: flags.Error, command: Command, name: str) -> list[str]:
    """What absl says of the flags, line by line."""
    if isinstance(error, flags.UnrecognizedFlagError):
        close = difflib.get_close_matches(error.flagname, command.flags, n=1)
        hint = f" Did you mean --{close[0]}?" if close else ""
        return [f"`{name}` has no flag --{error.flagname}.{hint}"]
    if isinstance(error, flags.CantOpenFlagFileError):
        return [f"--flagfile must be a file with one flag a line. Received: {str(error).rpartition(': ')[2]}."]
    return [_line_in_our_words(line) for line in str(error).splitlines()]


def _line_in_our_words(line: str) -> str:
    missing = re.match(r"flag --(\w+)=None: Flag", line)
    if missing:
        return f"--{missing[1]} must be given."
    choice = re.match(r"flags (.*): (Exactly|At most) one of \((\w+), (\w+)\)", line)
    if choice:
        amount = "One" if choice[2] == "Exactly" else "At most one"
        given = [f"--{pair}" for pair in choice[1].split(", ") if not pair.endswith(("=None", "=False"))]
        received = " ".join(given) or "neither"
        return f"{amount} of --{choice[3]} and --{choice[4]} must be given. Received: {received}."
    wrong = re.match(r"flag --(\w+=.*): (?:\('(.*?)', .*\)|(.*))", line, re.S)
    return f"--{wrong[1]}: {wrong[2] or wrong[3]}." if wrong else line.replace("flag --", "--")


def refused_values(values: flags.FlagValues, arguments: Sequence[str]) -> list[str]:
    """What flags say of the values that they do not take, of arguments like `--epochs=0`."""
    refusals = []
    for argument in arguments:
        name, _, value = argument.lstrip("-").partition("=")
        if argument.startswith("-") and "=" in argument and name in values:
            parser = values[name].parser
            try:
                parser.parse(value)
            except (ValueError, TypeError):
                refusals.append(f"--{name} must be {_allowed(parser)}. Received: --{name}={value}.")
    return refusals


def _allowed(parser: flags.ArgumentParser) -> str:
    """What a flag takes."""
    if isinstance(parser, flags.BooleanParser):
        return "true or false"
    values = getattr(parser, "enum_values", None)
    return f"one of {', '.join(values)}" if values else parser.syntactic_help


def _refuse_infinite_numbers(values: flags.FlagValues) -> None:
    complaints = Complaints()
    for name in values:
        value = values[name].value
        if isinstance(value, float) and not math.isfinite(value):
            complaints.add(f"--{name} must be a finite number. Received: --{name}={value}.")
    complaints.end()


def help_text(command: Command, name: str, is_full: bool = False) -> str:
    """What `--help` shows: what the command does, how it is called, and its first or all of its flags."""
    all_names = [flag for flag in command.flags if command.flags[flag].name == flag and not _is_alias(command, flag)]
    names = all_names if is_full or not command.first else [flag for flag in command.first if flag in command.flags]
    lines = [f"usage: {name} [flags]{' ' * bool(command.takes)}{command.takes}", "", command.help.strip(), "", "Flags:"]
    width = min(shutil.get_terminal_size((100, 24)).columns, 100)
    for flag in names:
        lines += _described(command.flags[flag], width)
    if len(names) < len(all_names):
        lines += ["", f"`{name} --helpfull` shows all {len(all_names)} flags. --flagfile=FILE reads flags from a file."]
    return "\n".join(lines)


def _is_alias(command: Command, flag: str) -> bool:
    return type(command.flags[flag]).__name__ == "_FlagAlias"


def _described(flag: flags.Flag, width: int) -> list[str]:
    """A flag's line and, below it, what it sets."""
    values = getattr(flag.parser, "enum_values", None)
    kind = "|".join(values) if values else _KINDS.get(flag.parser.flag_type().split()[-1], "TEXT")
    head = f"  --[no]{flag.name}" if flag.boolean else f"  --{flag.name}={kind if len(kind) < 60 else 'NAME'}"
    help_ = flag.help.partition(">: ")[2] if values else flag.help  # absl puts the values before it
    help_ = help_.partition(";\n")[0]  # and behind it that it may be repeated
    help_ += f" One of {', '.join(values)}." if values and len(kind) >= 60 else ""
    if flag.default is not None and flag.default != [] and not flag.boolean:
        shown = ",".join(flag.default) if isinstance(flag.default, list) else flag.default
        help_ += f" Default: {shown}." if shown != "" else ""
    return [head, *textwrap.wrap(help_, width - 6, initial_indent=" " * 6, subsequent_indent=" " * 6)]
