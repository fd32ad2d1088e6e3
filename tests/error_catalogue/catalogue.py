"""Reads, runs and writes the examples of errors.

    python -m tests.error_catalogue.catalogue    writes what the examples say now into their files

A file of examples reads like a session of Python: code behind `>>>`, and below it what a user reads. Each example runs
in an empty folder of its own, with the names of `names.py`.
"""

import contextlib
import functools
import os
import pathlib
import re
import tempfile
import warnings
from typing import NamedTuple

from tests.error_catalogue import names, sites

FOLDER = pathlib.Path(__file__).parent
FILES = ("data", "index", "models", "serving")
TAKEN = "(nothing is refused)"


class Example(NamedTuple):
    """Some code, and what it says."""

    code: str
    message: str


def read(file):
    """The examples of a file, and its first lines, before them."""
    head, *parts = re.split(r"(?m)^>>> ", (FOLDER / f"{file}.txt").read_text(encoding="utf-8"))
    return head, [_example(part) for part in parts]


def _example(part):
    first, *lines = part.rstrip("\n").split("\n")
    code = [first]
    while lines and lines[0].startswith("... "):
        code.append(lines.pop(0)[4:])
    return Example("\n".join(code), "\n".join(lines))


def write(file):
    """Writes a file anew, with what its examples say now."""
    head, examples = read(file)
    said = [Example(each.code, refused(each.code)[0]) for each in examples]
    text = "\n\n".join(">>> " + each.code.replace("\n", "\n... ") + "\n" + each.message for each in said)
    (FOLDER / f"{file}.txt").write_text(head + text + "\n", encoding="utf-8")


@functools.cache
def refused(code):
    """What an example says, and the sites behind it."""
    with tempfile.TemporaryDirectory() as folder, inside(folder), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            exec(compile(code, "<example>", "exec"), names.made())
        except (Exception, SystemExit) as error:
            return steady(message_of(error), folder), frozenset(sites_behind(error))
    return TAKEN, frozenset()


@contextlib.contextmanager
def inside(folder):
    """Within this the process is in a folder."""
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def message_of(error):
    """What a user reads of it."""
    return str(error.code) if isinstance(error, SystemExit) else str(error)


def steady(message, folder):
    """A message without what differs between computers and runs."""
    message = message.replace(os.path.realpath(folder), "FOLDER").replace(folder, "FOLDER")
    message = re.sub(r"(Keras,? )\d+\.\d+\.\d+", r"\1VERSION", message)
    message = re.sub(r"'[0-9a-f]{16}'", "'0123456789abcdef'", message)
    message = re.sub(r"(sequential|dense)(_\d+)?\b", r"\1", message)
    message = re.sub(r"in \d+\.\d s", "in 0.0 s", message)
    message = re.sub(r"contents-[0-9a-f]{12}", "contents-0123456789ab", message)
    return "\n".join(line.rstrip() for line in message.split("\n"))


def sites_behind(error):
    """The sites that raised an error or what it was made of, and the complaints in it."""
    places, said = set(_places(error, set())), message_of(error)
    for site in sites.all_sites():
        is_raised = any(file == site.file and site.first <= line <= site.last for file, line in places)
        # complaints are raised together, by another raise than their own
        if is_raised or (not site.words.startswith("<") and site.is_said_in(said)):
            yield site


def _places(error, seen):
    """(file, line) where it, its causes and what it was caught beside were raised."""
    if error is None or id(error) in seen:
        return
    seen.add(id(error))
    step = error.__traceback__
    while step is not None and step.tb_next is not None:
        step = step.tb_next
    if step is not None:
        yield os.path.relpath(step.tb_frame.f_code.co_filename, sites.ROOT), step.tb_lineno
    yield from _places(error.__cause__, seen)
    yield from _places(error.__context__, seen)


if __name__ == "__main__":
    for each in FILES:
        write(each)
