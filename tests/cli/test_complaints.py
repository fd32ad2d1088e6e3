"""Complaints are said together, each once, and name the flag."""

import os

import pytest

from eet_tf.cli.complaints import CommandError, Complaints


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
