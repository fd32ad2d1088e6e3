"""Photos at URLs are read in spite of servers that fail now and then; what cannot be read is named in words."""

import builtins
import concurrent.futures
import os
import re
import socket
import threading

import pytest

from eet_tf.data import remote
from eet_tf.data.remote import RemotePhotos, UnreadError, is_url, joined, relative, why_no_reader
from tests.data.photo_server import PhotoServer

PHOTO = bytes(range(256)) * 300  # more than one piece of what is read at once


@pytest.fixture
def server():
    with PhotoServer() as server:
        yield server


@pytest.fixture
def waits():
    """The seconds that were waited for, in place of waiting."""
    return []


@pytest.fixture
def photos(waits):
    return RemotePhotos(timeout=5.0, wait=waits.append, draw=lambda least, most: most)


def why(photos, url):
    with pytest.raises(UnreadError) as caught:
        photos.read(url)
    return str(caught.value)


@pytest.mark.parametrize(
    "path, expected",
    {
        "http://shop.example/a.jpg": True,
        "HTTPS://shop.example/a.jpg?size=2&key=a/b": True,
        "gs://bucket/a.jpg": True,
        "zip://a.jpg::s3://bucket/photos.zip": True,
        "memory://a.jpg": True,
        "file:///disk/a.jpg": False,
        "photos/a.jpg": False,
        "/disk/a:b.jpg": False,
        "C://photos/a.jpg": False,
        "photos/http://a.jpg": False,
        "": False,
    }.items(),
)
def test_what_is_a_url(path, expected):
    assert is_url(path) is expected


@pytest.mark.parametrize(
    "root, path, expected",
    [
        ("photos", "mug/1.jpg", "photos/mug/1.jpg"),
        ("", "mug/1.jpg", "mug/1.jpg"),
        ("photos", "/disk/1.jpg", "/disk/1.jpg"),
        ("photos", "https://shop.example/1.jpg?a=b", "https://shop.example/1.jpg?a=b"),
        ("gs://bucket/mugs", "1.jpg", "gs://bucket/mugs/1.jpg"),
        ("gs://bucket/mugs/", "s3://other/1.jpg", "s3://other/1.jpg"),
        ("gs://bucket/mugs/", "/disk/1.jpg", "/disk/1.jpg"),
        ("photos", "file:///disk/a%20b.jpg", "/disk/a b.jpg"),
        ("photos", "file://localhost/disk/1.jpg", "/disk/1.jpg"),
    ],
)
def test_where_a_photo_lies(root, path, expected):
    assert joined(root, path) == expected


def test_a_url_is_the_same_from_everywhere():
    assert relative("s3://bucket/photos", "runs/index") == "s3://bucket/photos"
    assert relative("", "runs/index") == os.path.join("..", "..")


def test_a_photo_is_read_whole(server, photos, waits):
    assert photos.read(server.put("/mug.jpg", PHOTO)) == PHOTO
    assert waits == []


def test_a_url_is_asked_for_as_it_is_listed(server, photos):
    """Quoted once: what is quoted already stays so."""
    for listed, asked in {
        "/caf\xe9 1.jpg": "/caf%C3%A9%201.jpg",
        "/caf%C3%A9%202.jpg": "/caf%C3%A9%202.jpg",
        "/3.jpg?width=2&sign=a%2Fb+c=": "/3.jpg?width=2&sign=a%2Fb+c=",
    }.items():
        server.put(asked, PHOTO)
        assert photos.read(server.address + listed) == PHOTO
    assert set(server.asked.values()) == {1}


def test_a_redirect_is_followed(server, photos):
    def elsewhere(handler):
        handler.send_response(302)
        handler.send_header("Location", "/there.jpg")
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    server.put("/there.jpg", PHOTO)
    assert photos.read(server.put("/here.jpg", elsewhere)) == PHOTO


@pytest.mark.parametrize("failure", [500, 502, 503, 429, "cut off"])
def test_what_may_pass_is_tried_again(server, photos, waits, failure):
    failure = server.cut_off(PHOTO) if failure == "cut off" else failure
    url = server.put("/mug.jpg", failure, failure, PHOTO)
    assert photos.read(url) == PHOTO
    assert waits == [0.5, 1.0] and server.asked["/mug.jpg"] == 3


def test_waits_grow_up_to_a_limit(server, waits):
    photos = RemotePhotos(attempts=8, wait=waits.append, draw=lambda least, most: most)
    assert why(photos, server.put("/mug.jpg", 503)) == "the server is busy or has failed (HTTP 503), 8 times"
    assert waits == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0]


@pytest.mark.parametrize(
    "told, expected", {"7": 7.0, "3600": 60.0, "Wed, 21 Oct 2015 07:28:00 GMT": 0.5, "?": 0.5}.items()
)
def test_a_server_gets_the_time_that_it_asks_for(server, photos, waits, told, expected):
    """An hour is more than is waited for; a date that is past asks for nothing."""

    def busy(handler):
        handler.send_response(429)
        handler.send_header("Retry-After", told)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    assert photos.read(server.put("/mug.jpg", busy, PHOTO)) == PHOTO
    assert waits == [expected]


def test_a_server_that_fails_with_photo_after_photo_is_not_asked_any_more(server, waits):
    """Each is tried twice; one that is given in between begins the count anew. Another server is asked all the same."""
    photos = RemotePhotos(attempts=2, wait=waits.append)
    for number in range(60):
        server.put(f"/{number}.jpg", PHOTO if number == 20 else 503)
    said = [why(photos, f"{server.address}/{number}.jpg") for number in range(20)]
    assert photos.read(f"{server.address}/20.jpg") == PHOTO
    said += [why(photos, f"{server.address}/{number}.jpg") for number in range(21, 60)]
    assert set(said[:52]) == {"the server is busy or has failed (HTTP 503), 2 times"}
    host = server.address.removeprefix("http://")
    assert set(said[52:]) == {f"{host} failed with 32 photos in a row, and is not asked any more"}
    assert sum(server.asked.values()) == 2 * 52 + 1
    with PhotoServer() as other:
        assert photos.read(other.put("/mug.jpg", PHOTO)) == PHOTO


@pytest.mark.parametrize(
    "status, expected",
    {
        401: "the server asks for a password (HTTP 401)",
        403: "the server does not let you read it (HTTP 403)",
        404: "the server has no such photo (HTTP 404)",
        410: "the server has no such photo any more (HTTP 410)",
        418: "the server does not give it (HTTP 418)",
    }.items(),
)
def test_what_will_not_pass_is_tried_once(server, photos, waits, status, expected):
    assert why(photos, server.put("/mug.jpg", status)) == expected
    assert waits == [] and server.asked["/mug.jpg"] == 1


def test_an_answer_that_stays_cut_off(server, photos):
    said = why(photos, server.put("/mug.jpg", server.cut_off(PHOTO)))
    assert said == "the answer is cut off: 38,400 of 76,800 bytes, 4 times"


@pytest.mark.parametrize(
    "kind, expected", {"silent": "did not answer within", "dripping": "did not come within"}.items()
)
def test_a_server_that_is_too_slow(server, waits, kind, expected):
    """One says nothing; of the other each byte comes in time, and the photo never."""
    photos = RemotePhotos(timeout=0.1, attempts=2, wait=waits.append)
    assert re.search(rf"{expected} 0\.1 s, 2 times$", why(photos, server.put("/mug.jpg", getattr(server, kind))))
    assert len(waits) == 1


def test_no_server_at_all(photos, waits):
    with socket.socket() as bound:  # and nobody listens
        bound.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{bound.getsockname()[1]}"
        assert why(photos, f"http://{host}/mug.jpg") == f"no server answers at {host}, 4 times"
    assert len(waits) == 3


def test_a_host_that_nobody_knows(photos, monkeypatch):
    def unknown(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    said = why(photos, "http://shop.example/mug.jpg")
    assert said == "the host shop.example is not known, or there is no network, 4 times"


@pytest.mark.parametrize("url", ["http://", "http://shop.example:port/mug.jpg", "http://[::1/mug.jpg"])
def test_what_is_no_url(photos, url):
    assert why(photos, url) == "it is no URL of a photo; mend it"


def test_a_server_that_speaks_no_http(photos):
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer():
            for _ in range(4):
                connection, _ = listening.accept()
                with connection:
                    connection.recv(4096)
                    connection.sendall(b"220 mail ready\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/mug.jpg"
        assert why(photos, url) == "the server's answer is cut off or no HTTP, 4 times"
        thread.join()


def test_a_photo_that_is_too_large_is_not_read_to_its_end(server, photos, monkeypatch):
    monkeypatch.setattr(remote, "MAX_BYTES", 2**20)
    assert why(photos, server.put("/mug.jpg", bytes(2**20 + 1))) == "the file has more than 1 MiB"


# The cache


def test_what_is_kept_is_not_fetched_again(server, tmp_path):
    photos = RemotePhotos(str(tmp_path / "new" / "cache"))
    first, second = server.put("/1.jpg", PHOTO), server.put("/2.jpg", PHOTO[::-1])
    for _ in range(2):
        assert photos.read(first) == PHOTO and photos.read(second) == PHOTO[::-1]
    assert set(server.asked.values()) == {1}
    assert RemotePhotos(photos.cache_dir).read(first) == PHOTO  # another process
    photos.forget(first)
    photos.forget(first)
    assert photos.read(first) == PHOTO and server.asked == {"/1.jpg": 2, "/2.jpg": 1}


def test_nothing_is_kept_of_what_failed(server, tmp_path):
    photos = RemotePhotos(str(tmp_path), attempts=1)
    for answer in (404, 500, b"", server.cut_off(PHOTO)):
        url = server.put("/mug.jpg", answer, PHOTO)
        server.asked.clear()
        if answer == b"":
            assert photos.read(url) == b""
        else:
            why(photos, url)
        assert not list(tmp_path.iterdir())
    assert photos.read(url) == PHOTO


def test_a_crash_leaves_no_half_photo(server, tmp_path, monkeypatch):
    """What is written aside and never renamed is not taken for the photo; nor is a file that a disk lost."""
    photos, url = RemotePhotos(str(tmp_path)), server.put("/mug.jpg", PHOTO)
    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            photos.read(url)
    assert not os.path.exists(photos.file(url))
    photos.read(url)
    open(photos.file(url), "wb").close()
    assert photos.read(url) == PHOTO and server.asked["/mug.jpg"] == 3


def test_a_cache_that_cannot_be_written(server, tmp_path):
    (tmp_path / "file").write_text("no folder")
    said = why(RemotePhotos(str(tmp_path / "file")), server.put("/mug.jpg", PHOTO))
    assert said.startswith(f"it cannot be kept in '{tmp_path}/file': ")


def test_many_threads_share_one_cache(server, tmp_path):
    photos = RemotePhotos(str(tmp_path))
    urls = [server.put(f"/{number % 5}.jpg", PHOTO[number % 5 :]) for number in range(60)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert [len(PHOTO) - len(content) for content in pool.map(photos.read, urls)] == [n % 5 for n in range(60)]


# Other protocols


@pytest.fixture
def memory():
    """fsspec's file system in memory, emptied before and after."""
    filesystem = pytest.importorskip("fsspec").filesystem("memory")
    filesystem.store.clear()
    yield filesystem
    filesystem.store.clear()


def test_fsspec_reads_what_it_knows(memory, photos):
    memory.pipe("/shop/mug.jpg", PHOTO)
    assert photos.read("memory://shop/mug.jpg") == PHOTO
    assert why(photos, "memory://shop/cup.jpg") == "there is no such photo"
    assert why_no_reader("memory") == ""


def test_what_a_cloud_raises_is_told_in_one_line(memory, photos, monkeypatch):
    class CloudError(Exception):
        pass

    for error, expected in {
        CloudError("no credentials\nTraceback: much more"): "it cannot be read: no credentials, 4 times",
        CloudError(): "it cannot be read: CloudError, 4 times",
        PermissionError("Access Denied"): "you may not read it: Access Denied",
        IsADirectoryError("shop"): "it is a folder",
        TimeoutError(): "it did not come within 5 s, 4 times",
    }.items():

        def fail(*_, error=error, **__):
            raise error

        monkeypatch.setattr(type(memory), "cat_file", fail)
        assert why(photos, "memory://shop/mug.jpg") == expected


def test_coroutines_are_waited_for_no_longer_than_told(photos, waits):
    """As those of s3fs and gcsfs: fsspec runs them in a thread of its own."""
    fsspec, asyn = pytest.importorskip("fsspec"), pytest.importorskip("fsspec.asyn")

    class Cloud(asyn.AsyncFileSystem):
        protocol = "cloudy"

        async def _cat_file(self, path, start=None, end=None, **options):
            if "late" in path:
                raise fsspec.exceptions.FSTimeoutError
            return path.encode()

    fsspec.register_implementation("cloudy", Cloud, clobber=True)
    assert photos.read("cloudy://shop/mug.jpg") == b"shop/mug.jpg"
    assert why(photos, "cloudy://late.jpg") == "it did not come within 5 s, 4 times"


@pytest.mark.parametrize(
    "protocol, library", {"s3": "s3fs", "gs": "gcsfs", "abfs": "adlfs", "az": "adlfs", "sftp": "paramiko"}.items()
)
def test_the_library_of_a_cloud_is_named(monkeypatch, protocol, library):
    fsspec = pytest.importorskip("fsspec")

    def missing(name):
        raise ImportError(f"Install it to access {name}")

    monkeypatch.setattr(fsspec, "get_filesystem_class", missing)
    assert why_no_reader(protocol) == f"{protocol}:// is read with {library}: pip install {library}"


def test_without_fsspec_both_are_named(monkeypatch):
    imported = builtins.__import__

    def missing(name, *arguments, **others):
        if name == "fsspec":
            raise ImportError(name)
        return imported(name, *arguments, **others)

    monkeypatch.setattr(builtins, "__import__", missing)
    assert why_no_reader("gs") == "gs:// is read with fsspec: pip install 'eet-tf[remote]' gcsfs"
    assert why_no_reader("hdfs") == "hdfs:// is read with fsspec: pip install 'eet-tf[remote]'"
    assert why_no_reader("https") == ""


def test_an_unknown_protocol(photos):
    pytest.importorskip("fsspec")
    assert why(photos, "shop://mug.jpg").startswith("nothing is read from shop://; use https://, ")
