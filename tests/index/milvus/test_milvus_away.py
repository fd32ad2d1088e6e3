"""A `MilvusIndex` whose server is frozen, killed or away, or says no."""

import logging
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import eet_tf.index
from eet_tf.index import CatalogIndexError, MilvusIndex, load_index
from tests.milvus_server import MilvusServer, why_not
from tests.reference_index import Oracle, assert_agrees, assert_same_rows, make_rows, rows_in_milvus, unit_vectors

pytestmark = pytest.mark.milvus_server
REPOSITORY = pathlib.Path(eet_tf.index.__file__).parents[2]


@pytest.fixture(scope="module")
def own_server(tmp_path_factory):
    """One that asks for a token, which tests may kill and freeze if they start it again."""
    if why_not():
        pytest.skip(why_not())
    server = MilvusServer(tmp_path_factory.mktemp("server"), with_users=True)
    with server:
        os.environ["MILVUS_TOKEN"] = "root:Milvus"
        yield server
        del os.environ["MILVUS_TOKEN"]


def until(use, seconds=90):
    """What `use` returns once it raises nothing: a server that has just started, or a right, takes its time."""
    end = time.monotonic() + seconds
    while True:
        try:
            return use()
        except (CatalogIndexError, AssertionError):
            if time.monotonic() > end:
                raise
            time.sleep(0.2)


def test_a_frozen_server_is_given_up_after_the_timeout(own_server, tmp_path):
    """Whatever is asked of it; and it is as before when it goes on."""
    index = until(lambda: MilvusIndex.build(**make_rows(60), uri=own_server.uri, timeout=0.8))
    oracle = Oracle(make_rows(60))
    index.save(tmp_path / "index")
    uses = {
        "search": lambda: index.search(unit_vectors(2), k=3, where={"price": {"min": 1}}),
        "size": lambda: index.size,
        "upsert": lambda: index.upsert(**make_rows(3, seed=5, prefix="new")),
        "delete": lambda: index.delete(photos="photo/3.jpg"),
        "verify": index.check_rows,
        "load": lambda: load_index(tmp_path / "index"),
        "build": lambda: MilvusIndex.build(unit_vectors(2), ["a", "b"], uri=own_server.uri, timeout=0.8),
        "check_place": lambda: MilvusIndex.check_place(own_server.uri, timeout=0.8),
    }
    with own_server.frozen():
        for name, use in uses.items():
            start = time.monotonic()
            with pytest.raises(CatalogIndexError, match="must answer within 0.8 s"):
                use()
            assert time.monotonic() - start < 6, name
    oracle.upsert(**make_rows(3, seed=5, prefix="new"))  # is in the log, and made by the next update
    assert index.delete(photos="new/1.jpg") == oracle.delete(photos=["new/1.jpg"])
    assert_same_rows(load_index(tmp_path / "index"), oracle)


def test_a_server_that_is_gone_is_said_in_one_sentence(own_server, tmp_path, capfd, caplog):
    index = until(lambda: MilvusIndex.build(**make_rows(60), uri=own_server.uri))
    index.save(tmp_path / "index")
    assert index.search(unit_vectors(2), k=3).photos.shape == (2, 3)
    capfd.readouterr()
    own_server.kill()
    try:
        with caplog.at_level(logging.DEBUG):
            for use in (
                lambda: index.search(unit_vectors(2), k=3),
                lambda: index.upsert(**make_rows(3, seed=5, prefix="new")),
                lambda: load_index(tmp_path / "index"),
                lambda: MilvusIndex.check_place(own_server.uri, timeout=3),
            ):
                with pytest.raises(CatalogIndexError, match="must be reachable.*Is the server up") as refused:
                    use()
                assert "Traceback" not in str(refused.value) and "grpc" not in str(refused.value).lower()
    finally:
        own_server.start()
    printed = "".join(capfd.readouterr()) + caplog.text
    assert "Traceback" not in printed
    assert until(lambda: load_index(tmp_path / "index").size) == 63  # with what the log had


WRITER = """
import sys
import numpy as np
from eet_tf.index import load_index
index = load_index(sys.argv[1])
rng = np.random.default_rng(int(sys.argv[2]))
for step in range(100_000):
    vectors = rng.normal(size=(3, 24))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    names = [f"{sys.argv[2]}-{step}-{number}" for number in range(3)]
    index.upsert(vectors, names, names)
    print(step, flush=True)
"""


def start_writer(folder, seed=0):
    command = [sys.executable, "-c", WRITER, str(folder), str(seed)]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, cwd=REPOSITORY, text=True, **streams)


@pytest.mark.parametrize("killed", ["writer", "both"])
def test_kill_9_loses_nothing_that_was_acknowledged(killed, own_server, tmp_path):
    MilvusIndex.build(unit_vectors(5), range(5), uri=own_server.uri).save(tmp_path)
    rng = np.random.default_rng(len(killed))
    with start_writer(tmp_path) as writer:
        for _ in range(int(rng.integers(20, 60))):
            last = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        if killed == "both":
            own_server.kill()
        last = max([last, *map(int, writer.stdout.read().split())])
    if killed == "both":
        own_server.start()
    found = until(lambda: set(rows_in_milvus(load_index(tmp_path))))
    acknowledged = {f"0-{step}-{number}" for step in range(last + 1) for number in range(3)}
    assert acknowledged <= found - set("01234") <= acknowledged | {f"0-{last + 1}-{number}" for number in range(3)}
    assert len(found - acknowledged) in (5, 8)


# --- rights


@pytest.fixture(scope="module")
def users(own_server):
    """A function that makes a user with some rights, and returns the token."""
    import pymilvus

    root = pymilvus.MilvusClient(uri=own_server.uri, token="root:Milvus")

    def make(name, *rights):
        root.create_user(name, "Secret123")
        root.create_role(f"{name}s")
        root.grant_role(name, f"{name}s")
        for right in rights:
            kind = "Global" if right in ("CreateCollection", "DropCollection") else "Collection"
            root.grant_privilege(f"{name}s", kind, right, "*")
        return f"{name}:Secret123"

    yield make
    root.close()


def test_who_may_only_search_and_query_opens_an_index_to_read(own_server, users, tmp_path, monkeypatch):
    MilvusIndex.build(**make_rows(60), uri=own_server.uri).save(tmp_path)
    monkeypatch.setenv("MILVUS_TOKEN", users("reader", "Search", "Query"))
    index = until(lambda: load_index(tmp_path, read_only=True))
    assert_agrees(index, Oracle(make_rows(60)), unit_vectors(3, seed=1), 7, group_by_sku=True)
    assert index.check_rows()["photos"] == 60
    for use in (lambda: load_index(tmp_path).upsert(**make_rows(2)), lambda: MilvusIndex.check_place(own_server.uri)):
        with pytest.raises(CatalogIndexError, match="permission denied to the user reader. Grant the right [A-Z]"):
            use()


@pytest.mark.parametrize("missing, method", [("Delete", "delete"), ("Flush", "flush")])
def test_a_missing_right_is_found_before_a_catalogue_is_embedded(missing, method, own_server, users, monkeypatch):
    """One of those that an index needs, and a token that is wrong or missing."""
    rights = ["CreateCollection", "DropCollection", "CreateIndex", "Load", "Flush"]
    rights += ["Insert", "Upsert", "Delete", "Search", "Query"]
    name = f"without{method}"
    monkeypatch.setenv("MILVUS_TOKEN", users(name, *(right for right in rights if right != missing)))

    def refused():
        said = f"must let us `{method}`.*to the user {name}. Grant the right {missing}"
        with pytest.raises(CatalogIndexError, match=said):
            MilvusIndex.check_place(own_server.uri)

    until(refused)
    for token, said in [("root:wrong", "which is set"), ("", "which is not set")]:
        monkeypatch.setenv("MILVUS_TOKEN", token)
        with pytest.raises(CatalogIndexError, match=f"must take the token in .*MILVUS_TOKEN, {said}") as refused:
            MilvusIndex.check_place(own_server.uri)
        assert "wrong" not in str(refused.value)


def test_a_collection_that_could_not_be_dropped_is_named(own_server, users, monkeypatch):
    monkeypatch.setenv("MILVUS_TOKEN", users("builder", "CreateCollection", "CreateIndex"))
    said = "Grant the right Insert.*left with the collection 'shop_[0-9a-f]+': drop"

    def refused():
        with pytest.raises(CatalogIndexError, match=said):
            MilvusIndex.check_place(own_server.uri, "shop")

    until(refused)
