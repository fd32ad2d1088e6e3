"""Progress of long work: one line that changes on a terminal, plain lines in a file."""

import io

import pytest

from eet_tf import terminal
from eet_tf.terminal import Progress, seconds_text
from eet_tf.wording import counted


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that is set by the test."""
    now = [100.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    return now


def test_a_file_gets_a_line_every_ten_seconds_and_no_codes(clock):
    log = io.StringIO()
    progress = Progress("photos read", 400, stream=log)
    for second in range(1, 26):
        clock[0] = 100.0 + second
        progress.update(10 * second)
    progress.end(400)
    lines = log.getvalue().splitlines()
    assert lines == [
        "100 of 400 photos read, 10/s, 30 s left",
        "200 of 400 photos read, 10/s, 20 s left",
        "400 of 400 photos read.",
    ]
    assert not set("\r\x1b\x08") & set(log.getvalue())


def test_a_terminal_gets_one_line_that_changes(clock):
    log = Terminal()
    progress = Progress("photos read", 400, stream=log)
    for tenth in range(1, 11):
        clock[0] = 100.0 + tenth / 10
        progress.update(400 * tenth // 10)
    progress.end(400)
    assert log.getvalue().count("\n") == 1 and log.getvalue().endswith("\n")
    assert 3 <= log.getvalue().count("\r") <= 6
    shorter = log.getvalue().rpartition("\r")[2]
    assert shorter.rstrip() == "400 of 400 photos read." and len(shorter) > 30  # what stood there is painted over


def test_without_a_total_there_is_no_time_left(clock):
    log = io.StringIO()
    progress = Progress("photos read", stream=log)
    clock[0] += 20
    progress.update(30)
    assert log.getvalue() == "30 photos read, 1.5/s\n"


@pytest.mark.parametrize(
    "seconds, text", [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (3599.9, "1 h 0 min"), (90061, "25 h 1 min")]
)
def test_durations(seconds, text):
    assert seconds_text(seconds) == text


@pytest.mark.parametrize(
    "count, noun, text", [(1, "query", "1 query"), (2, "query", "2 queries"), (0, "photo", "0 photos")]
)
def test_numbers_with_nouns(count, noun, text):
    assert counted(count, noun) == text
