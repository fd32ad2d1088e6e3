"""What is special to Milvus: quoting, kill -9, several processes, and a server that is reached by its address."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import eet_tf.index
from eet_tf.index import CatalogIndexError, ExactIndex, MilvusIndex, load_index
from eet_tf.index.conditions import read_conditions
from eet_tf.index.milvus import collection as milvus_collection
from eet_tf.index.milvus import index as milvus_index
from eet_tf.index.milvus import place as milvus_place
from eet_tf.index.milvus import server as milvus_server
from eet_tf.index.milvus.filters import blocks_of_names, expression, is_one_of, kept_number, literal, read_number
from eet_tf.index.milvus.records import Hit, Records, neighbors_of
from tests.reference_index import Oracle, assert_agrees, assert_same_rows, make_rows, rows_in_milvus, unit_vectors

pytest.importorskip("pymilvus", reason="the Milvus client does not go with TensorFlow 2.15")
REPOSITORY = pathlib.Path(eet_tf.index.__file__).parents[2]
SIZE = 240
CONDITIONS = [
    None,
    {"colour": "blue"},
    {"colour": ["grün", 'a "b"'], "in_stock": True},
    {"price": {"min": 20, "max": 60.5}},
    {"price": {"max": 30}, "in_stock": [False, True], "colour": "red"},
    {"price": [7, {"min": 90}]},
    {"price": {"min": -np.inf}},
    {"price": {"max": np.inf}},
    {"colour": ""},
    {"colour": "never seen"},
    {"tags": {"contains": ['a "b"', "sale"]}, "price": {"!=": 7}},
    {"colour": {"contains": '"'}},
]


@pytest.fixture(scope="module")
def index():
    return MilvusIndex.build(**make_rows(SIZE))


# --- filters


@pytest.mark.parametrize("group_by_sku", [False, True], ids=["photos", "products"])
@pytest.mark.parametrize("where", CONDITIONS, ids=str)
def test_filters_and_groups(index, where, group_by_sku):
    for k in (1, 7, 60, 500):
        how = {"group_by_sku": group_by_sku, **({"where": where} if where else {})}
        assert_agrees(index, Oracle(make_rows(SIZE)), unit_vectors(5, seed=9), k, **how)


NASTY = ["", '"', "'", "\\", '\\"', '" or photo != "', "\n", "\r\n", "\t", "{x}", "%_", "a]", "ü", "😀", "\x01", "null"]
strings = st.one_of(st.sampled_from(NASTY), st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))


@pytest.fixture(scope="module")
def emptied():
    """An index that the examples below fill and empty, since building one takes half a second."""
    rows = {"embeddings": unit_vectors(1), "skus": ["a"], "photos": ["a"], "attributes": {"name 'of \"it": ["a"]}}
    return MilvusIndex.build(**rows)


@settings(max_examples=60, deadline=None, database=None)
@given(values=st.lists(strings, min_size=1, max_size=6, unique=True), others=st.lists(strings, max_size=3))
def test_any_string_is_found_as_itself_and_as_nothing_else(emptied, values, others):
    """As an attribute, as a sku and as a photo's id, which may not be empty."""
    if len(emptied):
        emptied.delete(photos=list(rows_in_milvus(emptied)))
    names = [f"p{value}" for value in values]
    rows = {"embeddings": unit_vectors(len(values)), "skus": names, "photos": names}
    emptied.upsert(**rows, attributes={"name 'of \"it": values})
    oracle = Oracle({**rows, "attributes": {"name 'of \"it": values}})
    for where in [*values, *others, values[:2] + others]:
        assert_agrees(emptied, oracle, unit_vectors(1, seed=5), 9, where={"name 'of \"it": where})
    assert_agrees(emptied, oracle, unit_vectors(1, seed=5), 9, group_by_sku=True)
    assert emptied.delete(skus=names[0]) == 1 == oracle.delete(skus=names[:1])
    if names[1:]:
        assert emptied.delete(photos=names[1]) == 1 == oracle.delete(photos=names[1:2])
    assert_same_rows(emptied, oracle)


numbers = st.one_of(st.floats(allow_nan=False), st.integers(-(2**60), 2**60), st.sampled_from([0.1, -0.0, 1e-320]))


@settings(max_examples=100, deadline=None, database=None)
@given(value=numbers)
def test_a_number_is_written_so_that_it_is_read_as_itself(value):
    """Infinity becomes the largest number, in the rows and in the conditions; what is least of all stands for none."""
    largest = sys.float_info.max
    assert float(literal(value)) == min(max(float(value), np.nextafter(-largest, 0)), largest) == kept_number(value)
    assert read_number(kept_number(value)) == kept_number(value) > kept_number(None)
    assert read_number(kept_number(None)) is None is read_number(None)


def test_numbers_at_the_ends_are_kept_apart_from_missing_ones():
    prices = [np.inf, -np.inf, np.nan, None, 0.0, 1e308, 5e-324]
    index = MilvusIndex.build(unit_vectors(7), range(7), attributes={"price": prices})
    found = {
        str(where): sorted(index.search(unit_vectors(1), where={"price": where}).photos[0].tolist())
        for where in ({"min": -np.inf}, {"max": np.inf}, {"min": 1e308}, np.inf, {"max": 0}, 5e-324, {"min": np.inf})
    }
    assert list(found.values()) == [
        ["0", "1", "4", "5", "6"],
        ["0", "1", "4", "5", "6"],
        ["0", "5"],
        ["0"],
        ["1", "4"],
        ["6"],
        ["0"],
    ]


def test_expressions_are_what_the_grammar_of_the_cluster_takes():
    """Only the escapes that milvus-lite and the cluster share, and fields by their places."""
    least = repr(np.nextafter(-sys.float_info.max, 0).item())
    kinds = {"colour": "string", "price": "number", "in_stock": "bool", "tags": "strings"}
    fields = {name: f"attribute_{place}" for place, name in enumerate(kinds)}
    for where, expected in [
        ({"price": {"max": 5}}, f"(attribute_1 >= {least} and attribute_1 <= 5.0)"),  # no missing one
        (
            {"price": {">": 2**53 + 1, "!=": [1, 2**60 + 1]}},
            "(attribute_1 >= 9007199254740994.0 and not (attribute_1 in [1.0]))",
        ),
        ({"colour": ['a "b"\\\n', ""]}, r'(attribute_0 in ["a \"b\"\\\n", ""])'),
        ({"price": {"min": -1, "max": 1e20}}, "(attribute_1 >= -1.0 and attribute_1 <= 1e+20)"),
        ({"in_stock": [True, np.bool_(False)]}, "(attribute_2 in [true, false])"),
        (
            {"tags": {"!=": "new", "contains": ["a", "b"]}},
            '(not array_contains_any(attribute_3, ["new"]) and array_contains_all(attribute_3, ["a", "b"]))',
        ),
        (
            {"price": [7, {">": 9}], "tags": "x"},
            '((attribute_1 in [7.0]) or (attribute_1 > 9.0)) and (array_contains_any(attribute_3, ["x"]))',
        ),
        ({"price": [2**53 + 1]}, '(photo in [""])'),
    ]:
        assert expression(read_conditions(where, kinds), fields, kinds) == expected


def test_products_of_very_many_photos_do_not_hide_the_others():
    """One product has 300 of 309 photos, all nearer than the others: more than any fixed factor would fetch."""
    near, far = unit_vectors(1)[0], unit_vectors(9, seed=3)
    noise = np.random.default_rng(0).normal(size=(300, 24)) * 0.001
    vectors = np.concatenate([near + noise, far]).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = {
        "embeddings": vectors,
        "skus": ["big"] * 300 + [f"small-{number // 2}" for number in range(9)],
        "photos": [str(number) for number in range(309)],
        "attributes": {"even": [number % 2 == 0 for number in range(309)]},
    }
    index = MilvusIndex.build(**rows)
    for how in ({}, {"where": {"even": True}}):
        assert_agrees(index, Oracle(rows), near[np.newaxis], 4, group_by_sku=True, **how)
        assert_agrees(index, Oracle(rows), near[np.newaxis], 40, group_by_sku=True, **how)


def test_a_search_is_one_question(index, monkeypatch):
    """A cluster takes milliseconds for each, and a strong one a fifth of a second."""
    asked, original = [], milvus_server.Server.call

    def recorded(self, method, *arguments, options=None):
        asked.append(method)
        return original(self, method, *arguments, options=options)

    monkeypatch.setattr(milvus_server.Server, "call", recorded)
    for how in ({}, {"where": {"price": {">": 7}}}, {"with_attributes": True}, {"group_by_sku": True}):
        index.search(unit_vectors(3), k=5, **how)
    assert asked == ["search"] * 4


# --- what Milvus does not take


def test_strings_that_milvus_does_not_take_are_refused(index):
    rows = make_rows(2)
    for change, message in [
        ({"photos": ["a", "x" * 65_536]}, r"`photos` must be at most 65535 bytes of UTF-8 each.*in row 1"),
        ({"skus": ["ü" * 32_768, "b"]}, r"`skus` must be at most 65535 bytes of UTF-8 each.*in row 0"),
        ({"skus": ["a", "\ud800"]}, r"`skus` must be .*in row 1"),
        ({"attributes": {**rows["attributes"], "colour": ["red", "\ud800"]}}, r"`attributes\['colour'\]` must be"),
    ]:
        for refuses in (index.upsert, MilvusIndex.build):
            with pytest.raises(CatalogIndexError, match=message):
                refuses(**{**rows, **change})
    assert index.size == SIZE


def test_more_neighbors_than_milvus_gives(index, monkeypatch):
    """All rows if they are few, else a refusal; the limit is lowered here."""
    monkeypatch.setattr(milvus_index, "MOST_NEIGHBORS", 250)
    assert index.search(unit_vectors(1), k=100_000).photos.shape == (1, SIZE)
    monkeypatch.setattr(milvus_index, "MOST_NEIGHBORS", 50)
    with pytest.raises(CatalogIndexError, match="`k` must be at most 50 with Milvus. Received: k=51"):
        index.search(unit_vectors(1), k=51)


def test_a_missing_package_names_the_mend(monkeypatch):
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    with pytest.raises(CatalogIndexError, match="needs the package pymilvus"):
        MilvusIndex.check_place("http://127.0.0.1:1")
    with pytest.raises(CatalogIndexError, match=r"pip install 'eet-tf\[milvus\]'"):
        MilvusIndex.build(unit_vectors(2), ["a", "b"])
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "milvus_lite.db", None)
    with pytest.raises(CatalogIndexError, match=r"pip install 'eet-tf\[milvus\]'"):
        MilvusIndex.check_place()


# --- the folder


def test_nothing_is_left_in_the_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(milvus_place.tempfile, "tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    index = MilvusIndex.build(**make_rows(9))
    index.save(tmp_path / "index")
    index.compact()
    copies = [load_index(tmp_path / "index"), index]
    assert len(list((tmp_path / "scratch").iterdir())) > 0
    (tmp_path / "index" / "manifest.json").write_text("{}")
    with pytest.raises(CatalogIndexError):
        load_index(tmp_path / "index")
    del copies, index
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_temporary_folder_of_a_long_name_will_do(tmp_path, monkeypatch):
    """The name of a socket may have 107 bytes."""
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr(milvus_place.tempfile, "tempdir", str(long))
    assert MilvusIndex.build(**make_rows(3)).size == 3


def test_an_index_whose_folder_was_replaced_still_saves_its_rows_elsewhere(tmp_path):
    """Others have removed what it was loaded from; the rows are in its own copy."""
    index = MilvusIndex.build(**make_rows(9))
    index.save(tmp_path / "own")
    index.delete(photos="photo/3.jpg")
    ExactIndex.build(**make_rows(5)).save(tmp_path / "own")
    index.save(tmp_path / "other")
    oracle = Oracle(make_rows(9))
    oracle.delete(photos=["photo/3.jpg"])
    assert_same_rows(load_index(tmp_path / "other"), oracle)


def test_an_update_of_a_folder_that_other_attributes_took_is_refused(tmp_path):
    index = MilvusIndex.build(**make_rows(9))
    index.save(tmp_path)
    MilvusIndex.build(**{**make_rows(5), "attributes": None}).save(tmp_path)
    with pytest.raises(CatalogIndexError, match="replaced by one of another embedder or of other attributes"):
        index.upsert(**make_rows(2))
    assert load_index(tmp_path).size == 5


@pytest.mark.parametrize("step", ["copyfile", "fsync", "replace", "write_text"])
def test_a_crash_while_saving_leaves_the_old_index_or_the_new(index, step, tmp_path, monkeypatch):
    ExactIndex.build(**make_rows(5)).save(tmp_path)
    owner = {"copyfile": shutil, "write_text": pathlib.Path}.get(step, os)
    original, calls = getattr(owner, step), []

    def crashing(*args, **kwargs):
        calls.append(args)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
        patch.setattr(owner, step, crashing)
        index.save(tmp_path)
    assert calls and load_index(tmp_path).kind == "exact"
    copy = MilvusIndex.build(**make_rows(9))
    copy.save(tmp_path)
    assert len(load_index(tmp_path)) == 9 and len(list(tmp_path.iterdir())) == 2


def test_damage_is_named(tmp_path):
    MilvusIndex.build(**make_rows(9)).save(tmp_path)
    path = next(tmp_path.glob("contents-*/milvus/**/*.parquet"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)
    with pytest.raises(CatalogIndexError, match=r"milvus/.*\.parquet has another checksum"):
        load_index(tmp_path)


# --- several processes

WRITER = """
import sys
import numpy as np
from eet_tf.index import load_index
index = load_index(sys.argv[1])
rng = np.random.default_rng(int(sys.argv[2]))
for step in range(int(sys.argv[3]), 100_000):
    vectors = rng.normal(size=(3, 24))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    names = [f"{sys.argv[2]}-{step}-{number}" for number in range(3)]
    index.upsert(vectors, names, names)
    if step % 3 == 2:
        index.delete(photos=names[0])
    print(step, flush=True)
"""


def start_writer(folder, seed=0, step=0):
    scratch = folder.parent / f"{folder.name}-scratch"  # where a killed writer leaves its copy
    scratch.mkdir(exist_ok=True)
    command = [sys.executable, "-c", WRITER, str(folder), str(seed), str(step)]
    environment = {**os.environ, "TMPDIR": str(scratch)}
    return subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, env=environment)


def photos_after(seed, steps):
    for step in range(steps):
        for number in range(3):
            if not (step % 3 == 2 and number == 0):
                yield f"{seed}-{step}-{number}"


def test_kill_9_in_a_loop_loses_nothing_that_was_acknowledged(tmp_path):
    """Killed five times, each time a little later; the next writer goes on from there."""
    MilvusIndex.build(unit_vectors(5), range(5)).save(tmp_path)
    steps, rng = 0, np.random.default_rng(1)
    for _ in range(5):
        with start_writer(tmp_path, step=steps) as process:
            for _ in range(int(rng.integers(1, 20))):
                steps = int(process.stdout.readline()) + 1
            time.sleep(rng.random() * 0.02)
            process.send_signal(signal.SIGKILL)
            steps = max([steps, *[int(line) + 1 for line in process.stdout.read().split()]])
        found = set(rows_in_milvus(load_index(tmp_path))) - set("01234")
        acknowledged = set(photos_after(0, steps))
        allowed = {f"0-{steps}-{number}" for number in range(3)}
        assert acknowledged <= found <= acknowledged | allowed
        assert len(found - acknowledged) in (0, 2, 3)
        if found != acknowledged:
            load_index(tmp_path).delete(photos=sorted(found - acknowledged))


def test_two_writers_and_a_reader(tmp_path):
    """Each writer opens the folder while the other has it open; the reader sees whole updates only."""
    MilvusIndex.build(unit_vectors(5), range(5)).save(tmp_path)
    reader = load_index(tmp_path, read_only=True)
    with start_writer(tmp_path, 1) as first, start_writer(tmp_path, 2) as second:
        lines = [int(process.stdout.readline()) for process in (first, second)]
        for _ in range(10):
            reader.refresh()
            steps = {}
            for photo in set(rows_in_milvus(reader)) - set("01234"):
                seed, step, number = photo.split("-")
                steps.setdefault((seed, int(step)), set()).add(number)
            assert all({"1", "2"} <= numbers for numbers in steps.values())
            lines += [int(process.stdout.readline()) for process in (first, second)]
        for process in (first, second):
            process.kill()
    reader.refresh()
    found = set(rows_in_milvus(reader))
    assert {f"{seed}-{step}-1" for seed in (1, 2) for step in range(max(lines))} <= found


# --- a server that is reached by its address


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """milvus-lite's server, behind a port as a cluster is, and its address; it takes any token."""
    from milvus_lite.adapter.grpc.server import start_server_in_thread

    running, database, port = start_server_in_thread(str(tmp_path_factory.mktemp("server")))
    yield f"http://127.0.0.1:{port}"
    running.stop(grace=1).wait()
    database.close()


@pytest.fixture
def collections(server):
    """The names of the server's collections."""
    import pymilvus

    client = pymilvus.MilvusClient(uri=server)
    yield lambda: set(client.list_collections())
    client.close()


def test_a_life_in_a_cluster(server, collections, tmp_path):
    """What two processes would do: both see each update at once."""
    rows = make_rows(60)
    index, oracle = MilvusIndex.build(**rows, uri=server, collection="shop"), Oracle(rows)
    assert index.collection in collections() and index.collection.startswith("shop_") and index.uri == server
    index.upsert(**make_rows(5, seed=2, prefix="early"))  # before there is a folder
    oracle.upsert(**make_rows(5, seed=2, prefix="early"))
    index.save(tmp_path / "index")
    other = load_index(tmp_path / "index")
    other.upsert(**make_rows(7, seed=3, prefix="new"))
    oracle.upsert(**make_rows(7, seed=3, prefix="new"))
    sku = oracle.rows["photo/3.jpg"][1]
    assert index.delete(skus=sku) == oracle.delete(skus=[sku])
    for each in (index, other, load_index(tmp_path / "index", read_only=True)):
        assert_same_rows(each, oracle)
        for where in CONDITIONS:
            how = {"where": where} if where else {}
            assert_agrees(each, oracle, unit_vectors(3, seed=1), 9, group_by_sku=True, **how)
    skus = {sku for _, sku, _ in oracle.rows.values()}
    assert other.check_rows() == {"photos": len(oracle.rows), "skus": len(skus), "torn_bytes": 0, "recall": None}
    with pytest.raises(CatalogIndexError, match="compacts by itself"):
        other.compact()


def test_pages_fit_in_a_message(monkeypatch):
    """By a stand-in that gives rows by their ids, and takes no answer of more than 40,000 bytes."""
    rows = sorted((f"{number:03d}" * (1 + 999 * (number % 7 == 0)), f"sku-{number}") for number in range(500))
    sizes = []

    class Cluster:
        is_lite = False

        def call(self, method, name, options):
            condition, limit = options.pop("filter"), options.pop("limit")
            asked = {"output_fields": ["photo", "sku"], "consistency_level": "Strong"}
            assert (method, name, options) == ("query", "shop", asked)
            behind = json.loads(condition.removeprefix("photo > ")) if condition else ""
            page = [{"photo": photo, "sku": sku} for photo, sku in rows if photo > behind][:limit]
            page = page[: 1 + len(page) // 2] if len(sizes) % 3 == 1 else page  # fewer, and has more
            if sum(len(row["photo"]) for row in page) > 40_000:
                raise milvus_server.MessageTooLargeError("too large")
            sizes.append(sum(len(row["photo"]) for row in page))
            return page

    monkeypatch.setattr(milvus_collection, "BYTES_PER_REQUEST", 20_000)
    collection = milvus_collection.Collection(Cluster(), "shop", {})
    pages = list(collection._pages("", ["photo", "sku"]))
    assert [(row["photo"], row["sku"]) for page in pages for row in page] == rows
    assert 10_000 < np.median(sizes) < 30_000


def test_requests_fit_in_a_message(monkeypatch):
    """Counted in bytes of UTF-8, row by row: one long text does not make all others count as long."""
    requests = []

    class Cluster:
        is_lite = False

        def call(self, method, name, rows):
            requests.append(rows)

    monkeypatch.setattr(milvus_collection, "BYTES_PER_REQUEST", 10_000)
    texts = ["ü" * 4000, *["a"] * 300, "😀" * 2000]
    photos = [str(number) for number in range(302)]
    records = Records(photos, photos, {"text": texts}, unit_vectors(302, dim=4))
    milvus_collection.Collection(Cluster(), "shop", {"text": "string"}).insert(records)
    assert [row["photo"] for rows in requests for row in rows] == photos and len(requests) == 3
    assert all(len(json.dumps(rows, default=lambda _: "", ensure_ascii=False).encode()) < 40_000 for rows in requests)


def test_names_of_a_filter_are_counted_in_bytes():
    names = ["a" * 3, "ü" * 3, '"' * 3, "b"] * 50
    blocks = list(blocks_of_names(names, 100))
    assert [name for block in blocks for name in block] == names
    assert 60 < np.mean([len(is_one_of("", block).encode()) for block in blocks]) < 120


def test_a_copy_for_another_folder_has_a_collection_of_its_own(server, collections, tmp_path):
    index = MilvusIndex.build(**make_rows(20), uri=server)
    index.save(tmp_path / "own")
    before = collections()
    index.save(tmp_path / "copy")
    copy = load_index(tmp_path / "copy")
    assert collections() - before == {copy.collection}
    copy.delete(photos="photo/3.jpg")
    assert (copy.size, load_index(tmp_path / "own").size) == (19, 20)
    index.save(tmp_path / "own")  # over itself
    assert load_index(tmp_path / "own").collection == index.collection and collections() - before == {copy.collection}


def test_an_update_that_was_cut_short_is_finished_by_the_next(server, tmp_path, monkeypatch):
    """The first request of several arrives, and the process is killed: no part of an update stays alone."""
    MilvusIndex.build(**make_rows(20), uri=server).save(tmp_path)
    oracle = Oracle(make_rows(20))
    more = [make_rows(9, seed=seed, prefix=f"more-{seed}") for seed in (1, 2)]
    monkeypatch.setattr(milvus_collection, "BYTES_PER_REQUEST", 400)  # a few rows each

    def killed_after(number):
        import pymilvus

        original, calls = pymilvus.MilvusClient.upsert, []

        def upsert(*args, **kwargs):
            calls.append(args)
            if len(calls) > number:
                raise KeyboardInterrupt
            return original(*args, **kwargs)

        return upsert

    for ending, rows in zip(("load", "update"), more):
        index = load_index(tmp_path)
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr("pymilvus.MilvusClient.upsert", killed_after(1))
            index.upsert(**rows)
        assert len(oracle.rows) < load_index(tmp_path, read_only=True).size < len(oracle.rows) + 9
        oracle.upsert(**rows)
        if ending == "update":
            assert index.delete(photos="photo/3.jpg") == oracle.delete(photos=["photo/3.jpg"])
        assert_same_rows(load_index(tmp_path), oracle)


@pytest.mark.parametrize("place", ["own", "copy"])
def test_an_update_that_the_cluster_did_not_take_outlives_a_save(server, place, tmp_path, monkeypatch):
    import pymilvus

    index, oracle = MilvusIndex.build(**make_rows(20), uri=server), Oracle(make_rows(20))
    index.save(tmp_path / "own")

    def down(*args, **kwargs):
        raise pymilvus.MilvusException(message="connection lost")

    with monkeypatch.context() as patch:
        patch.setattr("pymilvus.MilvusClient.upsert", down)
        with pytest.raises(CatalogIndexError, match="connection lost"):
            index.upsert(**make_rows(3, seed=1, prefix="new"))
        with pytest.raises(CatalogIndexError, match="connection lost.*build the index anew in another folder"):
            load_index(tmp_path / "own")
    oracle.upsert(**make_rows(3, seed=1, prefix="new"))
    index.save(tmp_path / place)
    assert_same_rows(load_index(tmp_path / place), oracle)


def test_rows_that_are_there_twice_are_no_index(server, collections, monkeypatch):
    """As after an answer that was lost: the client sends the request again, and the server takes it again."""
    before, original = collections(), milvus_collection.Collection.count
    monkeypatch.setattr(milvus_collection.Collection, "count", lambda self, *a: 2 * original(self, *a))
    with pytest.raises(CatalogIndexError, match="must keep each photo once. Received: 18 rows of 9"):
        MilvusIndex.build(**make_rows(9), uri=server)
    assert collections() == before


def test_a_copy_that_could_not_be_written_leaves_no_collection(server, collections, tmp_path, monkeypatch):
    index = MilvusIndex.build(**make_rows(9), uri=server)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(milvus_place, "save_contents", full)
        with pytest.raises(CatalogIndexError, match=f"No space left on device. Its photos are in .*{index.collection}"):
            index.save(tmp_path / "own")
        index._folder = tmp_path / "elsewhere"
        before = collections()
        with pytest.raises(OSError, match="No space left"):
            index.save(tmp_path / "copy")
    assert collections() == before


def test_an_update_that_the_cluster_did_not_take_is_made_later(server, tmp_path, monkeypatch):
    import pymilvus

    index, oracle = MilvusIndex.build(**make_rows(20), uri=server), Oracle(make_rows(20))
    index.save(tmp_path)

    def down(*args, **kwargs):
        raise pymilvus.MilvusException(message="connection lost")

    with monkeypatch.context() as patch:
        patch.setattr("pymilvus.MilvusClient.upsert", down)
        with pytest.raises(CatalogIndexError, match="connection lost.*is made by the next update or load"):
            index.upsert(**make_rows(3, seed=1, prefix="new"))
    oracle.upsert(**make_rows(3, seed=1, prefix="new"))
    assert index.delete(photos="new/1.jpg") == oracle.delete(photos=["new/1.jpg"])
    assert_same_rows(index, oracle)


def test_the_token_is_sent_and_written_nowhere(server, tmp_path, monkeypatch, capfd):
    import pymilvus

    monkeypatch.setenv("MILVUS_TOKEN", "root:very-secret")
    tokens = []

    class Client(pymilvus.MilvusClient):
        def __init__(self, **arguments):
            tokens.append(arguments["token"])
            super().__init__(**arguments)

    with monkeypatch.context() as patch:
        patch.setattr("pymilvus.MilvusClient", Client)
        MilvusIndex.check_place(server, "shop")
    index = MilvusIndex.build(**make_rows(9), uri=server)
    index.save(tmp_path)
    load_index(tmp_path).upsert(**make_rows(3, seed=1, prefix="new"))
    with pytest.raises(CatalogIndexError) as refused:
        MilvusIndex.check_place("http://127.0.0.1:1")
    assert tokens == ["root:very-secret"] and "very-secret" not in str(refused.value)
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert server.encode() in written and b"very-secret" not in written
    assert "very-secret" not in "".join(capfd.readouterr()) + repr(index)


@pytest.mark.parametrize(
    "place, message",
    [
        ({"collection": "shop"}, "`collection` must come with `uri`"),
        ({"uri": "milvus.db"}, "`uri` must be http://host:port .*Received: uri='milvus.db'"),
        ({"uri": "http://root:secret@host:19530"}, "without a name or password. Received: uri='host'.*MILVUS_TOKEN"),
        ({"uri": 7}, "`uri` must be"),
        ({"uri": "http://host:99999"}, "`uri` must be http://host:port"),
        ({"uri": "http://host:port"}, "`uri` must be http://host:port"),
        ({"uri": "http://host", "collection": "1 shop"}, "`collection` must be letters, digits and _"),
        ({"consistency": "strong"}, "`consistency` must come with `uri`"),
        ({"uri": "http://host", "consistency": "weak"}, "`consistency` must be session or strong. Received: .*'weak'"),
        ({"uri": "http://host", "timeout": 0}, "`timeout` must be seconds, more than 0. Received: timeout=0"),
        ({"uri": "http://host", "timeout": "soon"}, "`timeout` must be seconds"),
        ({"uri": "http://host", "timeout": np.nan}, "`timeout` must be seconds"),
    ],
)
def test_places_that_are_none_are_refused(place, message):
    for refuses in (MilvusIndex.check_place, lambda **place: MilvusIndex.build(**make_rows(2), **place)):
        with pytest.raises(CatalogIndexError, match=message) as refused:
            refuses(**place)
        assert "secret" not in str(refused.value)


def test_a_cluster_that_does_not_answer_is_named():
    with pytest.raises(CatalogIndexError, match="127.0.0.1:1.*Is the server up"):
        MilvusIndex.build(**make_rows(2), uri="http://127.0.0.1:1")


def test_a_build_that_fails_leaves_no_collection(server, collections, monkeypatch):
    before = collections()
    monkeypatch.setattr(
        milvus_collection.Collection, "flush", lambda *_: (each for each in ()).throw(KeyboardInterrupt)
    )
    with pytest.raises(KeyboardInterrupt):
        MilvusIndex.build(**make_rows(9), uri=server)
    assert collections() == before


def test_a_dropped_collection_is_named(server, tmp_path):
    import pymilvus

    index = MilvusIndex.build(**make_rows(9), uri=server)
    index.save(tmp_path)
    pymilvus.MilvusClient(uri=server).drop_collection(index.collection)
    with pytest.raises(CatalogIndexError, match=f"collection '{index.collection}' must exist.*`eet index build` again"):
        load_index(tmp_path)


# --- servers that there are none of here


class OtherServer:
    """Stands in for the client of a server of another version, or of one without SCANN; records what it is asked."""

    def __init__(self, version="v2.6.4", refuses=()):
        self.version, self.refuses, self.created = version, refuses, []

    def get_server_version(self, timeout):
        return self.version

    def create_collection(self, name, schema, consistency_level, timeout):
        self.created.append(consistency_level)

    def drop_collection(self, name, timeout):
        self.created.append("dropped")

    def create_index(self, name, index_params, sync, timeout):
        import pymilvus

        (index,) = index_params
        self.created.append(index.index_type)
        if index.index_type in self.refuses:
            raise pymilvus.MilvusException(message="invalid index type")


@pytest.mark.parametrize("version", ["v2.2.16", "2.3.4", "v1.1.1", "v2.3.0-dev"])
def test_an_old_server_is_refused_by_its_version(version, monkeypatch):
    """Before anything is asked of it; the message names both versions."""
    monkeypatch.setattr("pymilvus.MilvusClient", lambda **arguments: OtherServer(version))
    for use in (MilvusIndex.check_place, lambda uri: MilvusIndex.build(unit_vectors(2), ["a", "b"], uri=uri)):
        with pytest.raises(CatalogIndexError, match=f"must be 2.3.5 or newer. Received: {version}"):
            use(uri="http://127.0.0.1:1")


@pytest.mark.parametrize("version", ["v2.3.5-lite", "2.3.10", "v2.6.4", "v3.0.0", "a cloud's own"])
def test_newer_servers_are_taken(version):
    assert not milvus_server.Server(OtherServer(version), "there").is_lite


def test_few_rows_are_compared_and_many_searched_by_scann():
    for num_rows, kind in [(20_000, "FLAT"), (20_001, "SCANN")]:
        client = OtherServer()
        milvus_collection.Collection.create(milvus_server.Server(client, "there"), "shop", {}, 24, num_rows)
        assert client.created == ["Strong", kind]


def test_a_server_without_scann_compares_all():
    client = OtherServer(refuses=["SCANN"])
    made = milvus_collection.Collection.create(milvus_server.Server(client, "there"), "shop", {}, 24, 30_000)
    assert client.created == ["Strong", "SCANN", "FLAT"] and made.num_leaves == 0


def test_only_a_refusal_makes_an_index_flat(monkeypatch):
    """A server that does not answer for a while would else have a large index without SCANN for good."""
    client = OtherServer()
    server = milvus_server.Server(client, "there")
    original = server.call

    def late(method, *arguments, options=None):
        if method == "create_index":
            raise milvus_server.NoAnswerError("late")
        return original(method, *arguments, options=options)

    monkeypatch.setattr(server, "call", late)
    with pytest.raises(CatalogIndexError, match="late"):
        milvus_collection.Collection.create(server, "shop", {}, 24, 30_000)
    assert client.created == ["Strong", "dropped"]


def test_a_collection_that_cannot_be_made_is_dropped():
    client = OtherServer(refuses=["SCANN", "FLAT"])
    with pytest.raises(CatalogIndexError, match="must `create_index` as it is asked. Received from it: invalid index"):
        milvus_collection.Collection.create(milvus_server.Server(client, "there"), "shop", {}, 24, 30_000)
    assert client.created[-1] == "dropped"


def test_a_query_with_fewer_neighbors_costs_the_others_none():
    found = [
        [Hit("a", "x", 0.9, ("red", 1.0)), Hit("b", "y", 0.5, ("", None))],
        [Hit("c", "z", 0.7, ("blue", 2.0))],
        [],
    ]
    neighbors = neighbors_of(found, 2, {"colour": "string", "price": "number"})
    assert neighbors.photos.tolist() == [["a", "b"], ["c", ""], ["", ""]]
    assert neighbors.skus.tolist() == [["x", "y"], ["z", ""], ["", ""]]
    assert neighbors.scores[0].tolist() == np.float32([0.9, 0.5]).tolist()
    assert neighbors.scores[1, 1] == neighbors.scores[2, 0] == -np.inf
    assert neighbors.attributes["colour"].tolist() == [["red", ""], ["blue", ""], ["", ""]]
    np.testing.assert_array_equal(neighbors.attributes["price"], [[1, np.nan], [2, np.nan], [np.nan, np.nan]])


def test_more_attributes_than_milvus_has_fields_for_are_refused():
    attributes = {f"a{number}": [number, 1.0] for number in range(62)}
    for refuses in (MilvusIndex.check_catalog, lambda *rows: MilvusIndex.build(unit_vectors(2), *rows)):
        with pytest.raises(CatalogIndexError, match="`attributes` must be at most 61 with Milvus. Received: 62"):
            refuses(["a", "b"], ["a", "b"], attributes)


def test_waiting_outlasts_calls_without_an_answer():
    answers = iter([0, None, 1, None, None, 2])

    def progress():
        answer = next(answers)
        if answer is None:
            raise milvus_server.NoAnswerError("late")
        return answer

    assert milvus_server.wait(progress, lambda answer: answer == 2, "count", standstill=60) == 2
    with pytest.raises(milvus_server.NoAnswerError, match="late"):
        answers = iter([0, *[None] * 1000])
        milvus_server.wait(progress, lambda answer: False, "count", standstill=0.1)


def test_waiting_ends_when_nothing_goes_on():
    answers = iter([0, 1, 2, 2, 3])
    assert milvus_server.wait(lambda: next(answers), lambda answer: answer == 3, "count", standstill=60) == 3
    start = time.monotonic()
    with pytest.raises(CatalogIndexError, match=r"must count. Received: no progress for 0.2 seconds \(7\)"):
        milvus_server.wait(lambda: 7, lambda answer: False, "count", standstill=0.2)
    assert time.monotonic() - start < 5


def test_the_manifest_keeps_how_the_cluster_searches(server, tmp_path):
    index = MilvusIndex.build(**make_rows(9), uri=server)
    index.save(tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    how = {"consistency": "session", "timeout": 10.0}
    assert manifest["settings"] == {"uri": server, "collection": index.collection, "num_leaves": 0, **how}
    manifest["settings"]["num_leaves"] = 17
    for name in how:
        del manifest["settings"][name]  # as version 0.1 has written it
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    assert index.is_exact and not load_index(tmp_path).is_exact


def test_what_is_only_for_indexes_in_this_process_says_so():
    index = MilvusIndex.build(unit_vectors(3), ["a", "b", "c"])
    with pytest.raises(CatalogIndexError, match="`index` must be an ExactIndex or a ScannIndex.*kind 'milvus'"):
        eet_tf.index.attribute_values(index, "colour")
