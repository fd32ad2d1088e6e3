"""A catalogue as plain Python keeps it, and how it is searched: what every index is compared with."""

import importlib.util
import operator

import numpy as np
import pytest

from eet_tf.index import MilvusIndex
from tests.milvus_server import shared_server

needs_milvus = pytest.mark.skipif(
    importlib.util.find_spec("pymilvus") is None, reason="the Milvus client does not go with TensorFlow 2.15"
)
COLOURS = ["red", "blue", "grün", 'a "b"', ""]
TAGS = ["sale", "new", 'a "b"', "50 %_"]


class InCluster(MilvusIndex):
    """Builds a `MilvusIndex` in the real server that the tests of a process share."""

    @classmethod
    def build(cls, *arguments, **options):
        return MilvusIndex.build(*arguments, **options, uri=shared_server().uri)


def where_installed(kinds, unpack=False):
    """Parameters of a test of every kind; Milvus's are skipped without its client, or left to make test-milvus.

    With `unpack`, each is a tuple of several parameters, of which the first names the kind.
    """
    marked = [(kind if unpack else (kind,), _marks(str(kind).lower())) for kind in kinds]
    return [pytest.param(*parameters, marks=marks) for parameters, marks in marked]


def _marks(kind):
    if "cluster" in kind:
        return pytest.mark.milvus_server
    return needs_milvus if "milvus" in kind else ()


def unit_vectors(count, dim=24, seed=0):
    """Random directions, asymmetric: half of the coordinates are positive only."""
    vectors = np.random.default_rng(seed).normal(size=(count, dim))
    vectors[:, ::2] = np.abs(vectors[:, ::2])
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def make_rows(count, seed=0, prefix="photo"):
    """Arguments of `build` and `upsert`: about three photos of each product, attributes of every kind."""
    rng = np.random.default_rng(seed + 1000)
    tags = np.random.default_rng(seed + 2000).random((count, len(TAGS))) < [0.4, 0.3, 0.1, 0.1]
    return {
        "embeddings": unit_vectors(count, seed=seed),
        "skus": [f"sku-{number}" for number in rng.integers(count // 3 + 1, size=count)],
        "photos": [f"{prefix}/{number}.jpg" for number in rng.permutation(count)],
        "attributes": {
            "colour": rng.choice(COLOURS, p=[0.5, 0.3, 0.1, 0.05, 0.05], size=count).tolist(),
            "price": np.where(rng.random(count) < 0.1, np.nan, rng.integers(100, size=count)).tolist(),
            "in_stock": (rng.random(count) < 0.8).tolist(),
            "tags": [tuple(tag for tag, has in zip(TAGS, row) if has) for row in tags],
        },
    }


class Oracle:
    """The rows in the order in which they came, searched by loops."""

    def __init__(self, rows):
        self.rows = {}  # photo -> (vector, sku, {attribute: value})
        self.upsert(**rows)

    def upsert(self, embeddings, skus, photos, attributes):
        """Replaced photos go to the end, as new ones do."""
        for number, photo in enumerate(photos):
            self.rows.pop(photo, None)
            values = {name: column[number] for name, column in attributes.items()}
            self.rows[photo] = (embeddings[number], skus[number], values)

    def delete(self, photos=None, skus=None):
        """By photo or by product; returns how many."""
        gone = [p for p, row in self.rows.items() if p in (photos or ()) or row[1] in (skus or ())]
        for photo in gone:
            del self.rows[photo]
        return len(gone)

    def search(self, query, k, where=None, group_by_sku=False):
        """`[(photo, sku, score)]`, best first, the earlier row first on ties."""
        found = []
        for photo, (vector, sku, values) in self.rows.items():
            if all(meets(values[name], condition) for name, condition in (where or {}).items()):
                found.append((photo, sku, float(np.dot(vector.astype(np.float64), query.astype(np.float64)))))
        found.sort(key=lambda row: -row[2])
        if group_by_sku:
            best = {}
            for row in found:
                best.setdefault(row[1], row)
            found = list(best.values())
        return found[:k]


def meets(value, condition):
    """Whether a value meets a condition of `where`."""
    if isinstance(condition, dict):
        return all(_COMPARES[sign](value, wanted) for sign, wanted in condition.items())
    if isinstance(condition, list):
        return any(meets(value, one) for one in condition)
    return condition in value if isinstance(value, tuple) else value == condition


_COMPARES = {
    "min": operator.ge,
    "max": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "in": meets,
    "!=": lambda value, wanted: not meets(value, wanted),
    "contains": lambda value, wanted: all(one in value for one in (wanted if isinstance(wanted, list) else [wanted])),
}


def random_where(rng):
    """Conditions on one to three attributes of `make_rows`, of every form, some of which nothing meets."""
    names = rng.choice(["colour", "price", "in_stock", "tags"], size=rng.integers(1, 4), replace=False)
    return {name: _random_condition(name, rng) for name in names.tolist()}


def _random_condition(name, rng):
    values = {
        "colour": [*COLOURS, "never seen"],
        "price": [7, 30, 55.5, 99, -1, 2**53 + 1, np.inf],
        "in_stock": [True, False],
        "tags": [*TAGS, "never seen"],
    }[name]

    def some():
        return [values[place] for place in rng.choice(len(values), size=rng.integers(1, 3), replace=False)]

    if (form := rng.integers(3)) < 2:
        return some() if form else some()[0]
    comparisons = {"in": some(), "!=": rng.choice([some, lambda: some()[0]])()}
    if name == "price":
        comparisons |= {sign: some()[0] for sign in ("min", "max", ">", ">=", "<", "<=")}
    if name in ("colour", "tags"):
        parts = ["e", "b", '"', "ü"] if name == "colour" else TAGS
        comparisons["contains"] = rng.choice(parts, size=rng.integers(1, 3), replace=False).tolist()
    signs = rng.choice(list(comparisons), size=rng.integers(1, 3), replace=False).tolist()
    condition = {sign: comparisons[sign] for sign in signs}
    return [condition, some()[0]] if rng.random() < 0.2 else condition


def assert_same_rows(index, oracle):
    """The index holds exactly the rows of the oracle; in their order, but for Milvus, which keeps none."""
    assert index.size == len(oracle.rows)
    vectors = [vector for vector, _, _ in oracle.rows.values()]
    if not isinstance(index, MilvusIndex):
        assert index.photos.tolist() == list(oracle.rows)
        np.testing.assert_array_equal(index.embeddings, vectors)
        return
    found = rows_in_milvus(index)
    assert sorted(found) == sorted(oracle.rows)
    assert all(found[photo][0] == sku for photo, (_, sku, _) in oracle.rows.items())
    if vectors:
        np.testing.assert_array_equal([found[photo][1] for photo in oracle.rows], vectors)


def rows_in_milvus(index):
    """`{photo: (sku, vector)}`."""
    pages = list(index._state.collection.scan(index.dim))
    return {row[0]: row[1:] for page in pages for row in zip(page.photos, page.skus, page.embeddings)}


def assert_agrees(index, oracle, queries, k, **how):
    """Every answer of the index is that of the oracle."""
    neighbors = index.search(queries, k=k, **how)
    for row, query in enumerate(queries):
        expected = oracle.search(query, k, **how)
        assert neighbors.photos[row].tolist() == [photo for photo, _, _ in expected], how
        assert neighbors.skus[row].tolist() == [sku for _, sku, _ in expected]
        np.testing.assert_allclose(neighbors.scores[row], [score for _, _, score in expected], atol=1e-6)
