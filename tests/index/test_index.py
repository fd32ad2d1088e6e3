"""Every kind of index against one plain oracle, with every approximation switched off; and every refusal."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import eet_tf.index
from eet_tf.index import CatalogIndexError, ExactIndex, MilvusIndex, ScannConfiguration, ScannIndex, search
from eet_tf.index import scann as scann_room
from eet_tf.index.storage import Vectors
from tests.reference_index import InCluster, needs_milvus, where_installed

SIZE, DIM = 300, 24
# Name -> (class, extra arguments of build). Exhaustive: every row is a candidate and every leaf is searched.
KINDS = {
    "exact": (ExactIndex, {}),
    "scann_brute_force": (ScannIndex, {}),
    "scann_hashing": (ScannIndex, {"configuration": ScannConfiguration(SIZE)}),
    "scann_tree": (ScannIndex, {"configuration": ScannConfiguration(SIZE, 17, 17)}),
    "scann_prefix": (ScannIndex, {"configuration": ScannConfiguration(SIZE, search_prefix=6)}),
    "scann_prefix_of_a_tree": (ScannIndex, {"configuration": ScannConfiguration(SIZE, 17, 17, 6)}),
    "scann_tree_without_hashing": (ScannIndex, {"configuration": ScannConfiguration(0, 17, 17)}),
    "milvus": (MilvusIndex, {}),
    "milvus_cluster": (InCluster, {}),
}


def unit_vectors(count, dim=DIM, seed=0):
    """Random directions, asymmetric: half of the coordinates are positive only."""
    vectors = np.random.default_rng(seed).normal(size=(count, dim))
    vectors[:, ::2] = np.abs(vectors[:, ::2])
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def rows_of(count):
    """Skus of about three photos each, and photo ids in no order."""
    rng = np.random.default_rng(7)
    return [f"sku-{number}" for number in rng.integers(count // 3 + 1, size=count)], [
        f"photos/{number}.jpg" for number in rng.permutation(count)
    ]


def oracle(vectors, queries, k):
    """Sorts every row of every query in plain Python, smaller row first on ties."""
    rows, scores = [], []
    for query in queries.astype(np.float64):
        products = [np.float32((row * query).sum()) for row in vectors.astype(np.float64)]
        order = sorted(range(len(products)), key=lambda row: (-products[row], row))[:k]
        rows.append(order)
        scores.append([products[row] for row in order])
    return np.array(rows), np.array(scores, np.float32)


@pytest.fixture(scope="module", params=where_installed(KINDS))
def index(request):
    kind, extra = KINDS[request.param]
    skus, photos = rows_of(SIZE)
    return kind.build(unit_vectors(SIZE), skus, photos, fingerprint="embedder-1", metadata={"model": "m/1"}, **extra)


@pytest.mark.parametrize("k", [1, 10, 299, 300])
def test_agrees_with_the_oracle(index, k):
    queries = unit_vectors(9, seed=1)
    neighbors = index.search(queries, k=k)
    rows, scores = oracle(unit_vectors(SIZE), queries, k)
    skus, photos = rows_of(SIZE)
    assert neighbors.photos.tolist() == np.array(photos)[rows].tolist()
    assert neighbors.skus.tolist() == np.array(skus)[rows].tolist()
    np.testing.assert_allclose(neighbors.scores, scores, atol=1e-6)
    assert neighbors.scores.dtype == np.float32


def test_more_neighbors_than_rows_gives_every_row_once(index):
    neighbors = index.search(unit_vectors(2, seed=1), k=SIZE + 50)
    assert neighbors.photos.shape == neighbors.scores.shape == neighbors.skus.shape == (2, SIZE)
    assert sorted(neighbors.photos[1]) == sorted(rows_of(SIZE)[1])


def test_one_vector_is_one_query(index):
    query = unit_vectors(1, seed=1)
    assert index.search(query[0], k=3).photos.tolist() == index.search(query, k=3).photos.tolist()


def test_no_queries_give_no_rows(index):
    assert index.search(np.zeros((0, DIM), np.float32), k=3).skus.shape == (0, 3)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_queries_of_other_float_types_are_cast(index, dtype):
    queries = unit_vectors(2, seed=1)
    assert index.search(queries.astype(dtype), k=1).photos.tolist() == index.search(queries, k=1).photos.tolist()


def test_queries_in_any_memory_order(index):
    queries = unit_vectors(4, seed=1)
    strided = np.asfortranarray(np.repeat(queries, 2, axis=0))[::2]
    assert index.search(strided, k=5).photos.tolist() == index.search(queries, k=5).photos.tolist()


def test_facts_of_an_index(index):
    assert (len(index), index.size, index.dim) == (SIZE, SIZE, DIM)
    assert (index.fingerprint, index.metadata) == ("embedder-1", {"model": "m/1"})
    assert index.kind in ("exact", "scann", "milvus") and "size=300" in repr(index)


def test_metadata_is_a_copy(index):
    index.metadata["model"] = "changed"
    assert index.metadata == {"model": "m/1"}


@needs_milvus
def test_is_exact_tells_the_kinds_apart():
    here = [kind for name, kind in KINDS.items() if name != "milvus_cluster"]
    exactness = [kind.build(unit_vectors(SIZE), rows_of(SIZE)[0], **extra).is_exact for kind, extra in here]
    assert exactness == [True, True, False, False, False, False, False, True]


def test_later_edits_of_the_arrays_do_not_reach_the_index():
    vectors, skus = unit_vectors(20), np.array(rows_of(20)[0])
    index = ExactIndex.build(vectors, skus)
    expected = index.search(unit_vectors(1, seed=1), k=20)
    vectors[:], skus[:] = vectors[::-1].copy(), "edited"
    actual = index.search(unit_vectors(1, seed=1), k=20)
    assert actual.skus.tolist() == expected.skus.tolist() and actual.scores.tolist() == expected.scores.tolist()


def test_photos_default_to_row_numbers_and_integers_become_strings():
    index = ExactIndex.build(np.eye(3, dtype=np.float32), skus=[30, 10, 20])
    neighbors = index.search([0.0, 0.0, 1.0], k=3)
    assert neighbors.skus.tolist() == [["20", "30", "10"]] and neighbors.photos.tolist() == [["2", "0", "1"]]


# --- exactness of the oracle kind


def test_copies_of_a_photo_come_in_row_order_whatever_the_batch():
    """Each of 40 photos is there five times, shuffled: float32 BLAS alone would order copies by its own rounding."""
    copies = np.random.default_rng(3).permutation(np.repeat(np.arange(40), 5))
    vectors, queries = unit_vectors(40)[copies], unit_vectors(33, seed=1)
    index = ExactIndex.build(vectors, copies)
    neighbors = index.search(queries, k=8)  # cuts a group of five in two
    assert neighbors.photos.tolist() == oracle(vectors, queries, 8)[0].astype(str).tolist()
    for row, query in enumerate(queries):
        alone = index.search(query, k=8)
        assert alone.photos[0].tolist() == neighbors.photos[row].tolist()
        assert alone.scores[0].tolist() == neighbors.scores[row].tolist()


def test_rounding_does_not_choose_among_equals():
    """Rows are one vector with its coordinates shuffled, so that each has the same product with a constant query; but
    float32 sums depend on the order, and rank the 500 rows by their rounding."""
    vector, rng = unit_vectors(1, dim=512)[0], np.random.default_rng(0)
    vectors = np.stack([rng.permutation(vector) for _ in range(500)])
    query = np.full((1, 512), 512**-0.5, np.float32)
    assert len(np.unique(vectors @ query[0])) > 1  # else this test tests nothing
    rows, scores = search.exact_top_k(Vectors(vectors), query, 20)
    assert rows.tolist() == [list(range(20))] and len(np.unique(scores)) == 1


def test_blocks_of_queries_and_of_candidates_change_nothing(monkeypatch):
    vectors, queries = np.repeat(unit_vectors(50), 4, axis=0), unit_vectors(7, seed=1)
    whole = search.exact_top_k(Vectors(vectors), queries, 30)
    monkeypatch.setattr(search, "_SCORES_PER_BLOCK", 450)  # two queries at a time
    monkeypatch.setattr(search, "_ROWS_PER_BLOCK", 7)
    for expected, actual in zip(whole, search.exact_top_k(Vectors(vectors), queries, 30), strict=True):
        np.testing.assert_array_equal(actual, expected)


@settings(max_examples=60, deadline=None, database=None)
@given(count=st.integers(1, 40), dim=st.integers(1, 9), k=st.integers(1, 45), seed=st.integers(0, 999))
def test_exact_agrees_with_the_oracle_on_any_shape_with_ties(count, dim, k, seed):
    """Half of the rows repeat another row, so that ties are everywhere."""
    originals = unit_vectors(count, dim, seed)
    vectors = originals[np.random.default_rng(seed).integers((count + 1) // 2, size=count)]
    rows, scores = oracle(vectors, originals[:3], k)
    neighbors = ExactIndex.build(vectors, ["a"] * count).search(originals[:3], k=k)
    assert neighbors.photos.tolist() == rows.astype(str).tolist()
    np.testing.assert_array_equal(neighbors.scores, scores)


# --- what ScaNN leaves open


@pytest.mark.parametrize(
    "num_rows, expected",
    [
        (1, (0, 0, 0)),
        (19_999, (0, 0, 0)),
        (20_000, (200, 0, 0)),
        (99_999, (200, 0, 0)),
        (100_000, (200, 316, 32)),
        (1_000_000, (200, 1000, 100)),
    ],
)
def test_configuration_follows_the_number_of_rows(num_rows, expected):
    assert ScannConfiguration.for_size(num_rows) == ScannConfiguration(*expected)


@pytest.mark.parametrize("configuration", [ScannConfiguration(20), ScannConfiguration(20, 17, 1)])
def test_scann_never_returns_fewer_than_k_nor_padding(configuration):
    """One leaf of 17 holds about 18 of 300 rows, fewer than k, and ScaNN alone then pads with row 0 and score NaN."""
    index = ScannIndex.build(unit_vectors(SIZE), range(SIZE), configuration=configuration)
    neighbors = index.search(unit_vectors(5, seed=1), k=250)
    assert np.isfinite(neighbors.scores).all() and (np.diff(neighbors.scores, axis=1) <= 0).all()
    assert [len(set(row)) for row in neighbors.photos.tolist()] == [250] * 5


def test_more_neighbors_than_candidates_do_not_need_the_exact_search(monkeypatch):
    monkeypatch.setattr(scann_room, "exact_top_k", None)
    index = ScannIndex.build(unit_vectors(SIZE), range(SIZE), configuration=ScannConfiguration(20))
    assert np.isfinite(index.search(unit_vectors(5, seed=1), k=250).scores).all()


def test_approximate_scores_are_true_cosines():
    vectors, queries = unit_vectors(SIZE), unit_vectors(5, seed=1)
    index = ScannIndex.build(vectors, range(SIZE), configuration=ScannConfiguration(30, 17, 3))
    neighbors = index.search(queries, k=5)
    expected = np.einsum("qd,qkd->qk", queries, vectors[neighbors.photos.astype(int)])
    np.testing.assert_allclose(neighbors.scores, expected, atol=1e-6)


def test_default_hashing_finds_products_among_20000_rows():
    """Photos of a product are close, as an embedder makes them; queries are other photos of the same products."""
    rng = np.random.default_rng(0)
    products, noise = unit_vectors(5_000, dim=32), 0.1 * rng.normal(size=(20_000, 32))
    vectors = np.repeat(products, 4, axis=0) + noise
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    queries = products[:200]
    skus = np.repeat(np.arange(5_000), 4)
    approximate = ScannIndex.build(vectors, skus)
    found, true = (kind.search(queries, k=10).photos for kind in (approximate, ExactIndex.build(vectors, skus)))
    recall = np.mean([len(set(ours) & set(theirs)) / 10 for ours, theirs in zip(found, true, strict=True)])
    assert not approximate.is_exact and recall > 0.97  # 0.989 was measured; most of the ten are strangers
    assert found[:, :4].tolist() == true[:, :4].tolist()  # the product's own four photos


@pytest.mark.parametrize("count", [1, 2, 15, 16, 17])
def test_small_catalogues(count):
    vectors, queries = unit_vectors(count), unit_vectors(3, seed=1)
    extra = {"configuration": ScannConfiguration(count, 2, 2)} if count >= 16 else {}
    neighbors = ScannIndex.build(vectors, range(count), **extra).search(queries, k=20)
    assert neighbors.photos.tolist() == oracle(vectors, queries, 20)[0].astype(str).tolist()


@pytest.mark.parametrize(
    "configuration, message",
    [
        (ScannConfiguration(20, 41, 5), "at most one leaf per row, 40"),
        (ScannConfiguration(20, 4, 5), "between 1 leaf and all of them"),
        (ScannConfiguration(20, 4, 0), "between 1 leaf and all of them"),
        (ScannConfiguration(0, 0, 3), "between 1 leaf and all of them"),
        (ScannConfiguration(-1), "integers of at least 0"),
        (ScannConfiguration(2.5), "integers of at least 0"),
    ],
)
def test_impossible_configurations_are_refused(configuration, message):
    with pytest.raises(CatalogIndexError, match=f"`configuration` must be .*{message}"):
        ScannIndex.build(unit_vectors(40), range(40), configuration=configuration)


def test_hashing_needs_16_rows():
    with pytest.raises(CatalogIndexError, match=r"brute force .* below 16 rows, here 15"):
        ScannIndex.build(unit_vectors(15), range(15), configuration=ScannConfiguration(15))


def test_missing_scann_names_the_mend(monkeypatch):
    monkeypatch.setitem(sys.modules, "scann.scann_ops.py", None)
    with pytest.raises(ImportError, match=r"pip install scann.*ExactIndex"):
        scann_room._import_scann()


# --- refusals


@pytest.fixture(params=where_installed([ExactIndex, ScannIndex, MilvusIndex, InCluster]))
def kind(request):
    return request.param


def changed(row, value):
    vectors = unit_vectors(5)
    vectors[row] = value
    return vectors


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "embeddings, message",
    [
        (unit_vectors(5)[0], r"2-D floating-point .*=24 values"),
        (unit_vectors(5)[None], r"2-D floating-point .* shape \(1, 5, 24\)"),
        (np.eye(5, dtype=np.int64), "floating-point .* of int64"),
        ([["a", "b"]], "floating-point"),
        (np.zeros((0, 24), np.float32), "at least one row"),
        (np.zeros((5, 0), np.float32), "length 1 .* first row 0"),
        (changed(3, 0.0), r"length 1 .* 1 are not, first row 3 \(length 0\)"),
        (changed(slice(2, 5), 0.5), "3 are not, first row 2"),
        (changed(4, np.nan), "finite.* first row 4"),
        (changed(1, np.inf), "finite.* first row 1"),
        (changed(2, 1e30), "length 1 .* first row 2"),
        (np.full((2, 3), 1e300), "finite"),
    ],
)
def test_bad_embeddings_are_refused(kind, embeddings, message):
    with pytest.raises(CatalogIndexError, match=f"`embeddings` must be .*{message}"):
        kind.build(embeddings, ["sku"] * 5)


def test_lengths_within_the_tolerance_are_taken(kind):
    assert len(kind.build(unit_vectors(5) * 1.0009, ["sku"] * 5)) == 5
    with pytest.raises(CatalogIndexError, match=r"length 1.002"):
        kind.build(unit_vectors(5) * 1.002, ["sku"] * 5)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"skus": ["a"] * 4}, r"`skus` must be one per embedding, 5. Received: skus=4 values"),
        ({"skus": "abcde"}, "`skus` must be one per embedding"),
        ({"skus": [["a"]] * 5}, r"`skus` must be one per embedding, 5. Received: skus=array of shape \(5, 1\)"),
        ({"skus": ["a", "b", None, "d", "e"]}, r"`skus` must be non-empty strings .* skus\[2\]=None"),
        ({"skus": ["a", "b", "c", float("nan"), "e"]}, r"skus\[3\]=nan"),
        ({"skus": ["a", "", "c", "d", "e"]}, r"skus\[1\]=''"),
        ({"skus": np.array([b"a"] * 5)}, r"skus\[0\]=.*a bytes"),
        ({"photos": ["p"]}, "`photos` must be one per embedding"),
        ({"photos": ["p", "q", "r", "q", "p"]}, "`photos` must be unique.*'p' in rows 0 and 4"),
        ({"fingerprint": 7}, "`fingerprint` must be .* Received: fingerprint=7"),
        ({"fingerprint": ""}, "`fingerprint` must be"),
        ({"metadata": [1]}, r"`metadata` must be a dict .* metadata=\[1\]"),
        ({"metadata": {"path": b"x"}}, "`metadata` must be a dict that JSON can hold"),
        ({"metadata": {"share": float("nan")}}, "`metadata` must be a dict"),
    ],
)
def test_bad_rows_are_refused(kind, arguments, message):
    with pytest.raises(CatalogIndexError, match=message):
        kind.build(unit_vectors(5), **{"skus": ["sku"] * 5, **arguments})


@pytest.mark.parametrize("k", [0, -1, 2.0, "3", None, True])
def test_k_must_be_a_positive_integer(index, k):
    with pytest.raises(CatalogIndexError, match=r"`k` must be a positive integer. Received: k="):
        index.search(unit_vectors(1), k=k)


def test_k_may_be_a_numpy_integer(index):
    assert index.search(unit_vectors(1), k=np.int64(2)).skus.shape == (1, 2)


def test_queries_of_another_dimension_are_refused(index):
    with pytest.raises(
        CatalogIndexError, match=r"index's 24 dimensions.*9 dimensions. Was the query embedded by another"
    ):
        index.search(unit_vectors(2, dim=9))


@pytest.mark.parametrize("value, message", [(np.nan, "finite"), (0.0, "length 1"), (3.0, "length 1")])
def test_queries_must_be_finite_unit_vectors(index, value, message):
    queries = unit_vectors(4)
    queries[2] = value
    with pytest.raises(CatalogIndexError, match=f"`queries` must be .*{message}.* first row 2"):
        index.search(queries)


def test_queries_of_another_embedder_are_refused(index):
    with pytest.raises(
        CatalogIndexError, match=r"index's 'embedder-1'.*'embedder-2'.*Rebuild the index with `eet index build`"
    ):
        index.search(unit_vectors(1), fingerprint="embedder-2")


def test_unknown_or_equal_fingerprints_are_taken(index):
    assert index.search(unit_vectors(1), fingerprint="embedder-1").skus.shape == (1, 10)
    assert index.search(unit_vectors(1)).skus.shape == (1, 10)
    without = ExactIndex.build(unit_vectors(5), ["sku"] * 5)
    assert without.search(unit_vectors(1), fingerprint="embedder-2").skus.shape == (1, 5)


# --- the module


def test_importing_the_index_imports_neither_scann_nor_tensorflow():
    code = (
        "import sys; from eet_tf.index import ExactIndex, ScannIndex; import numpy as np;"
        "ExactIndex.build(np.eye(2), ['a', 'b']).search([1.0, 0.0]);"
        "sys.exit(' '.join(name for name in ('scann', 'tensorflow', 'keras') if name in sys.modules) or 0)"
    )
    repository = pathlib.Path(eet_tf.index.__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=repository).returncode == 0
