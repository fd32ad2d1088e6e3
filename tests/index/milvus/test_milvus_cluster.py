"""A `MilvusIndex` in a real server: what only such a one does and does not."""

import subprocess
import sys
import time

import numpy as np
import pytest

pytest.importorskip("pymilvus", reason="the Milvus client does not go with TensorFlow 2.15")  # before what needs it

from hypothesis import given, settings
from hypothesis import strategies as st

from eet_tf.index import CatalogIndexError, MilvusIndex, load_index
from eet_tf.index.milvus import collection as milvus_collection
from eet_tf.index.milvus import verification
from eet_tf.index.milvus.server import Server, connect
from tests.index.milvus.test_milvus import strings
from tests.index.milvus.test_milvus_away import REPOSITORY, start_writer
from tests.milvus_server import shared_server
from tests.reference_index import Oracle, assert_agrees, assert_same_rows, rows_in_milvus, unit_vectors

pytestmark = pytest.mark.milvus_server
MANY = 30_000  # more than are compared with one by one


@pytest.fixture(scope="module")
def uri():
    """Of the server that all tests share which do not harm it."""
    return shared_server().uri


@pytest.fixture(scope="module")
def client(uri):
    """As a person has it who looks into the server."""
    import pymilvus

    client = pymilvus.MilvusClient(uri=uri)
    yield client
    client.close()


def clustered(count, dim=32, seed=0):
    """Vectors in 60 clusters, as those of products are, unlike random ones."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(60, dim))[rng.integers(60, size=count)] + 0.4 * rng.normal(size=(count, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def many(uri):
    """An index that is searched by SCANN, its vectors, and a number between 0 and 1 for each."""
    vectors, number = clustered(MANY), np.random.default_rng(3).random(MANY)
    skus = [f"sku-{row // 3}" for row in range(MANY)]
    return MilvusIndex.build(vectors, skus, attributes={"number": number}, uri=uri), vectors, number


# --- ids that are hostile


def test_a_product_is_deleted_whatever_its_photos_are_called(uri):
    photos = ['a" or photo != "', 'a 12" vinyl.jpg', "shoes\\new.jpg", "line\nbreak", "zz", "'"]
    index = MilvusIndex.build(unit_vectors(6), ["a", "b", "c", "a", "b", "c"], photos, uri=uri)
    assert index.delete(skus="a") == 2
    assert set(rows_in_milvus(index)) == set(photos) - {photos[0], photos[3]}
    assert index.check_rows()["photos"] == 4


@pytest.fixture(scope="module")
def emptied(uri):
    """An index that the examples below fill and empty."""
    return MilvusIndex.build(unit_vectors(1), ["a"], ["a"], {"text": ["a"]}, uri=uri)


@settings(max_examples=15, deadline=None, database=None)
@given(names=st.lists(strings, min_size=2, max_size=8, unique=True), size=st.integers(1, 3))
def test_rows_of_any_ids_are_read_in_pages_of_any_size(emptied, names, size):
    """In pages of one to three rows, so that each id becomes a cursor; then some products are deleted."""
    emptied.delete(photos=list(rows_in_milvus(emptied)))
    names = [f"p{name}" for name in names]
    rows = {"embeddings": unit_vectors(len(names)), "skus": names, "photos": names[::-1]}
    oracle = Oracle({**rows, "attributes": {"text": names}})
    emptied.upsert(**rows, attributes={"text": names})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(milvus_collection, "_FIRST_PAGE", size)
        patch.setattr(milvus_collection, "BYTES_PER_REQUEST", 110 * size)
        assert_same_rows(emptied, oracle)
        assert emptied.delete(skus=names[:2]) == oracle.delete(skus=names[:2]) == 2
        assert_same_rows(emptied, oracle)
    for name in names[2:]:
        assert_agrees(emptied, oracle, unit_vectors(1, seed=5), 9, where={"text": name})
    emptied.upsert(unit_vectors(1), ["a"], ["a"], {"text": ["a"]})


def test_rows_that_a_server_has_twice_are_all_read_and_deleted(uri):
    """As after a lost answer. The server takes so many rows for a page, and then leaves out the doubles."""
    index = MilvusIndex.build(unit_vectors(700), range(700), uri=uri)
    collection = index._state.collection
    collection.insert(next(collection.scan(24)))
    assert set(rows_in_milvus(index)) == {str(row) for row in range(700)}
    assert index.delete(skus=[str(row) for row in range(700)]) >= 700
    assert index.size == 0


# --- SCANN


def test_the_index_is_built_when_build_returns(many):
    index, vectors, _ = many
    assert not index.is_exact and index.rows_indexed == (MANY, MANY)
    found = index.search(vectors[::300], k=1)
    assert (
        np.mean(found.photos[:, 0].astype(int) == np.arange(0, MANY, 300)) > 0.9
    )  # a tenth of the leaves is looked at
    checked = index.check_rows()
    assert (checked["photos"], checked["skus"]) == (MANY, MANY // 3) and checked["recall"] > 0.7


def test_an_index_that_the_server_never_builds_is_found_out(uri, client, monkeypatch, tmp_path):
    """As eet-tf 0.1 asked for it."""
    import pymilvus

    def parameters(num_leaves):
        made = pymilvus.MilvusClient.prepare_index_params()
        options = {"nlist": num_leaves, "with_raw_data": True}
        made.add_index(field_name="embedding", index_type="SCANN", metric_type="IP", params=options)
        return made

    monkeypatch.setattr(milvus_collection, "index_parameters", parameters)
    monkeypatch.setattr(milvus_collection, "_BUILDING_STANDSTILL", 1.0)
    monkeypatch.setattr(milvus_collection, "COMPARED", 1000)
    before = set(client.list_collections())
    with pytest.raises(CatalogIndexError, match="must build the index of the collection 'eet_tf_.*no progress for 1 s"):
        MilvusIndex.build(unit_vectors(1500), range(1500), uri=uri)
    assert set(client.list_collections()) == before
    with monkeypatch.context() as patch:
        patch.setattr(milvus_collection.Collection, "flush", lambda self, num_rows: None)
        index = MilvusIndex.build(unit_vectors(1500), range(1500), uri=uri)
    client.flush(index.collection)
    monkeypatch.setattr(verification, "_BUILDING_STANDSTILL", 1.0)
    with pytest.raises(
        CatalogIndexError, match="must be built. Received: 0 of 1500 rows.*again with `eet index build`"
    ):
        index.check_rows()


@pytest.mark.parametrize("share", [0.5, 0.03, 0.001, 0.0001])
def test_there_are_always_k_and_a_filter_costs_no_recall(many, share):
    index, vectors, number = many
    queries, allowed = clustered(40, seed=7), np.flatnonzero(number <= share)
    found = index.search(queries, k=20, where={"number": {"max": share}})
    width = min(20, len(allowed))
    assert found.photos.shape == (40, width) and "" not in found.photos
    true = allowed[np.argsort(-(queries @ vectors[allowed].T), axis=1)[:, :width]]
    hits = [len(set(map(int, ours)) & set(theirs)) for ours, theirs in zip(found.photos.tolist(), true.tolist())]
    assert np.mean(hits) > 0.9 * width


def test_queries_that_the_server_answers_short_are_compared_here(many, monkeypatch):
    """Each third gets nothing, and each fourth a part."""
    index, vectors, number = many
    original = milvus_collection.Collection._search

    def short(self, queries, k, *how):
        found = original(self, queries, k, *how)
        return [hits[: (0 if row % 3 == 0 else 5 if row % 4 == 0 else k)] for row, hits in enumerate(found)]

    monkeypatch.setattr(milvus_collection.Collection, "_search", short)
    queries, allowed = clustered(12, seed=8), np.flatnonzero(number <= 0.01)
    found = index.search(queries, k=8, where={"number": {"max": 0.01}})
    true = allowed[np.argsort(-(queries @ vectors[allowed].T), axis=1)[:, :8]]
    assert found.photos.astype(int).tolist() == true.tolist()
    products = index.search(queries[:1], k=8, where={"number": {"max": 0.01}}, group_by_sku=True)
    assert len(set(products.skus[0].tolist())) == 8


def test_an_index_that_was_small_is_still_exact_when_it_has_grown(uri):
    """FLAT, and 25,000 rows that no segment holds yet."""
    vectors = clustered(25_300, seed=4)
    index = MilvusIndex.build(vectors[:300], range(300), range(300), uri=uri)
    index.upsert(vectors[300:], range(300, 25_300), range(300, 25_300))
    queries = clustered(50, seed=5)
    true = np.argsort(-(queries @ vectors.T), axis=1)[:, :10]
    found = index.search(queries, k=10)
    hits = [len(set(map(int, a)) & set(b)) for a, b in zip(found.photos.tolist(), true.tolist())]
    assert index.is_exact and np.mean(hits) > 9.98  # equal scores to the last digit of float32 aside


# --- what is long or many


def test_long_texts_are_read_in_pages_that_fit(uri):
    """4,000 photos of three texts of 3,500 letters of two bytes: 84 MB. The server sends at most 64."""
    count = 4000
    texts = {f"text {part}": [f"{part}{row}" + "ü" * 3500 for row in range(count)] for part in range(3)}
    index = MilvusIndex.build(unit_vectors(count, dim=8), range(count), range(count), texts, uri=uri)
    assert index.check_rows()["photos"] == count
    assert index.delete(skus=[str(row) for row in range(0, count, 2)]) == count // 2
    found = index.search(unit_vectors(1, dim=8), k=3, where={"text 1": texts["text 1"][7]})
    assert found.photos.tolist() == [["7"]]


def test_rows_of_many_long_texts_are_read_in_pages_that_fit(uri):
    """70 photos of twenty texts of 60,000 bytes each: the first page would be 84 MB, which the server refuses."""
    texts = {f"text {part}": [f"{part}{row}" + "x" * 60_000 for row in range(70)] for part in range(20)}
    index = MilvusIndex.build(unit_vectors(70, dim=8), range(70), range(70), texts, uri=uri)
    assert index.check_rows()["photos"] == 70


def test_long_ids_are_searched_and_deleted_in_requests_that_fit(uri):
    """Ids and products of 60,000 bytes: 400 of them are 24 MB in a filter, and 48 MB in an answer, where 64 fit."""
    names = [f"{row:04d}" + "x" * 60_000 for row in range(400)]
    index = MilvusIndex.build(unit_vectors(400, dim=8), names, names, uri=uri)
    found = index.search(unit_vectors(3, dim=8, seed=2), k=400)
    assert sorted(found.photos[2].tolist()) == names
    assert index.search(unit_vectors(1, dim=8), k=300, group_by_sku=True).skus.shape == (1, 300)
    assert index.delete(photos=names[1:]) == 399 and index.size == 1


def test_many_photos_are_deleted_in_few_requests(uri, monkeypatch):
    """30,000 at once; they were 30 requests of 0.9 s each."""
    index = MilvusIndex.build(clustered(20_000, dim=8), range(20_000), uri=uri)
    server, calls = index._state.collection._server, []
    original = server.call
    monkeypatch.setattr(server, "call", lambda method, *a, **o: calls.append(method) or original(method, *a, **o))
    assert index.delete(photos=[str(row) for row in range(19_999)]) == 19_999
    assert calls.count("delete") <= 2 and len(calls) < 20
    assert index.size == 1


# --- consistency


def test_a_search_sees_what_this_process_has_written(uri):
    index = MilvusIndex.build(unit_vectors(40), range(40), uri=uri)
    rng, waits = np.random.default_rng(0), []
    for step in range(30):
        vector = rng.normal(size=(1, 24))
        vector = (vector / np.linalg.norm(vector)).astype(np.float32)
        index.upsert(vector, [f"new-{step}"], [f"new-{step}"])
        assert index.search(vector, k=1).photos.tolist() == [[f"new-{step}"]]
        index.delete(photos=f"new-{step}")
        assert index.search(vector, k=1).photos.tolist() != [[f"new-{step}"]]
        start = time.monotonic()
        index.search(vector, k=1)
        waits.append(time.monotonic() - start)
    strong = MilvusIndex.build(unit_vectors(40), range(40), uri=uri, consistency="strong")
    start = time.monotonic()
    for _ in range(10):
        strong.search(vector, k=1)
    assert np.median(waits) < (time.monotonic() - start) / 10


def test_a_strong_search_sees_what_another_process_has_written(uri, tmp_path):
    MilvusIndex.build(unit_vectors(40), range(40), uri=uri, consistency="strong", timeout=20).save(tmp_path)
    reader = load_index(tmp_path, read_only=True)
    with start_writer(tmp_path) as writer:
        for _ in range(10):
            step = int(writer.stdout.readline())
            photos = reader.search(unit_vectors(1), k=16_384).photos[0]
            assert f"0-{step}-1" in photos
        writer.kill()


# --- traces


def test_check_place_and_failed_builds_leave_nothing(uri, client, monkeypatch):
    before = set(client.list_collections())
    MilvusIndex.check_place(uri, "shop")
    assert set(client.list_collections()) == before
    for step in ("create_index", "insert", "load_collection"):
        server_call = Server.call

        def killed(self, method, *arguments, step=step, original=server_call, options=None):
            if method == step:
                raise KeyboardInterrupt
            return original(self, method, *arguments, options=options)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Server, "call", killed)
            MilvusIndex.build(unit_vectors(9), range(9), uri=uri)
        assert set(client.list_collections()) == before, step


def test_an_index_of_a_cluster_imports_neither_milvus_lite_nor_faiss(uri):
    code = f"""
import sys
import numpy as np
from eet_tf.index import MilvusIndex
MilvusIndex.build(np.eye(3), ["a", "b", "c"], uri={uri!r}).search([0.0, 0.0, 1.0], k=2)
sys.exit(" ".join(name for name in ("milvus_lite", "faiss", "tensorflow") if name in sys.modules) or 0)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_servers_version_is_known(uri):
    assert connect(uri).version.startswith("v2.3.5")
