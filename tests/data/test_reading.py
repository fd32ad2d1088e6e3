"""Files and URLs are read side by side, many at once, and each that cannot be read gets its reason."""

import threading

import numpy as np
import pytest
import tensorflow as tf

from eet_tf.data import reasons, remote
from eet_tf.data.pipeline import naming_unreadable
from eet_tf.data.reading import map_files, read_batches, read_files, survey_files
from tests.data.photo_server import PhotoServer

PNG = tf.io.encode_png(tf.cast(np.arange(12).reshape(2, 2, 3), tf.uint8)).numpy()


@pytest.fixture
def server():
    with PhotoServer() as server:
        yield server


def length(content):
    """A decoder that refuses what is short, and takes a millisecond to build."""
    with tf.control_dependencies([tf.debugging.assert_greater(tf.strings.length(content), 3)]):
        return tf.strings.length(content)


def lengths_of(files, **options):
    """`{row: length}` and `{row: reason}`."""
    seen = {}
    unreadable = read_files(files, length, lambda row, size: seen.update({int(row): int(size)}), **options)
    return seen, unreadable


def test_files_and_urls_are_read_side_by_side(server, tmp_path):
    (tmp_path / "there.jpg").write_bytes(b"12345")
    (tmp_path / "empty.jpg").write_bytes(b"")
    files = [
        server.put("/0.jpg", b"123456"),
        str(tmp_path / "there.jpg"),
        server.put("/2.jpg", 404),
        str(tmp_path / "empty.jpg"),
        server.put("/4.jpg", b"1234567"),
        str(tmp_path / "gone.jpg"),
        server.put("/6.jpg", b"<b>"),
        server.put("/7.jpg", b""),
    ]
    counted = []
    seen, unreadable = lengths_of(files, progress=counted.append)
    assert list(seen.items()) == [(0, 6), (1, 5), (4, 7)]  # in their order
    assert unreadable == {
        2: "the server has no such photo (HTTP 404)",
        3: "the file is empty",
        5: "the file does not exist",
        6: "XML, which a download left in the place of the photo",
        7: "the file is empty",
    }
    assert counted == [8]
    assert server.asked["/2.jpg"] == 1  # its reason is known from the first time


def test_many_photos_are_waited_for_at_once(server):
    """Sixteen answers, none of which is given before all have been asked for: on any number of CPUs."""
    together = threading.Barrier(16, timeout=30)

    def answer(handler):
        together.wait()
        server.give(handler, b"1234")

    files = [server.put(f"/{number}.jpg", answer) for number in range(16)]
    assert lengths_of(files) == (dict.fromkeys(range(16), 4), {})


def test_a_cache_serves_the_second_reading(server, tmp_path):
    """What is no photo is fetched anew: it may have been mended."""
    files = [server.put("/0.jpg", b"1234"), server.put("/1.jpg", b"<b>", b"<b>", b"12345")]
    cache = str(tmp_path / "cache")
    assert lengths_of(files, photo_cache=cache)[0] == {0: 4}
    assert server.asked == {"/0.jpg": 1, "/1.jpg": 1}
    server.asked["/1.jpg"] = 2
    assert lengths_of(files, photo_cache=cache) == ({0: 4, 1: 5}, {})
    assert server.asked == {"/0.jpg": 1, "/1.jpg": 3}


def test_batches_of_bytes_come_in_order(server, tmp_path):
    (tmp_path / "3.jpg").write_bytes(b"3")
    files = [server.put("/0.jpg", b"0"), server.put("/1.jpg", 404), server.put("/2.jpg", b"2"), str(tmp_path / "3.jpg")]
    assert list(read_batches([*files, "gone.jpg"], 2)) == [[b"0", b""], [b"2", b"3"], [b""]]
    assert list(read_batches([], 2)) == []


def test_files_alone_are_read_by_tensorflow_itself(monkeypatch, tmp_path):
    (tmp_path / "0.jpg").write_bytes(b"1234")
    monkeypatch.setattr(tf, "numpy_function", lambda *_, **__: pytest.fail("Python was asked"))
    assert lengths_of([str(tmp_path / "0.jpg")]) == ({0: 4}, {})


def test_a_survey_tells_files_with_the_same_bytes(server, tmp_path):
    (tmp_path / "0.png").write_bytes(PNG)
    seen = {}
    files = [str(tmp_path / "0.png"), server.put("/1.png", PNG), server.put("/2.png", PNG + b"x")]
    assert survey_files(files, 2, lambda row, decoded: seen.update({int(row): decoded})) == {}
    digests = [bytes(seen[row][2]) for row in range(3)]
    assert digests[0] == digests[1] != digests[2] and len(digests[0]) == 32
    np.testing.assert_array_equal(seen[1][0], np.arange(12).reshape(2, 2, 3))
    assert seen[1][1].tolist() == [2, 2]


@pytest.mark.parametrize("protocol", ["s3", "gs"])
def test_what_nothing_here_reads_is_not_tried(monkeypatch, protocol):
    monkeypatch.setattr(remote, "why_no_reader", lambda protocol: f"{protocol}:// is read with a package")
    file = f"{protocol}://bucket/mug.jpg"
    assert reasons.of_missing(file) == reasons.of_file(file) == f"{protocol}:// is read with a package"
    assert reasons.bytes_of(file) == b""
    assert lengths_of([file]) == ({}, {0: f"{protocol}:// is read with a package"})


# Errors in the middle of a training


def one_by_one(files):
    rows = tf.data.Dataset.range(len(files))
    return list(map_files(rows, files, lambda row, content: content, 1).as_numpy_iterator())


def test_a_url_that_fails_in_a_training_is_named(server):
    from eet_tf.data.catalog import Catalog, CatalogError

    paths = [server.put("/0.jpg", b"1234"), server.put("/1.jpg", 403)]
    catalog = Catalog(paths, ["mug", "cup"], source="list.csv", lines=[7, 9])
    with pytest.raises(CatalogError) as caught, naming_unreadable(catalog):
        one_by_one(paths)
    first, second = str(caught.value).splitlines()
    assert first.startswith("1 of 2 photos cannot be read. Replace it, delete its row, or ")
    assert second == f"list.csv:9: {paths[1]!r}: the server does not let you read it (HTTP 403)"
