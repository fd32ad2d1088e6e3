"""Search inside the SavedModel: as `ExactIndex.search(group_by_sku=True)` answers, with no catalogue in the graph."""

import io
import json
import os

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import eet_tf
from eet_tf.evaluation.postprocessing import Whitening
from eet_tf.index import CatalogIndexError, ExactIndex, ScannConfiguration, ScannIndex
from eet_tf.index.storage import Vectors
from eet_tf.serving import SavedModelError, embedder_fingerprint, export_embedder, search_graph
from eet_tf.serving.catalog import served_catalog
from eet_tf.serving.saved_model import MANIFEST
from eet_tf.serving.search_graph import CatalogSearch

SIZE, DIM = 32, 8
STORAGES = ["float32", "bfloat16", "int8"]


def unit(rows):
    """Rows of length 1."""
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def catalog_of(num_rows, num_products, dim, seed=0):
    """A tenth of the vectors are copies of others; products have very different numbers of photos, in no order."""
    rng = np.random.default_rng(seed)
    vectors = unit(rng.normal(size=[num_rows, dim]) + 0.5 * rng.normal(size=dim))
    vectors[rng.integers(0, num_rows, num_rows // 10)] = vectors[rng.integers(0, num_rows, num_rows // 10)]
    # all products once, then more and more of the first
    products = np.concatenate([np.arange(num_products), rng.geometric(0.1, num_rows - num_products) % num_products])
    return vectors, [f"sku {number}" for number in rng.permutation(products)]


def exact_index(storage="float32", num_rows=600, num_products=60, dim=16, seed=0):
    vectors, skus = catalog_of(num_rows, num_products, dim, seed)
    return ExactIndex.build(vectors, skus, storage=storage, fingerprint="embedder")


def queries_for(index, number, seed=1):
    """Half of them rows of the catalogue, where ties are."""
    rng = np.random.default_rng(seed)
    queries = unit(rng.normal(size=[number, index.dim]))
    own = rng.integers(0, index.size, number // 2)
    queries[: number // 2] = unit(index.embeddings[own].astype(np.float64))
    return queries


def searched(index, queries, k, storage=None, kind=CatalogSearch):
    """Skus and scores as the graph finds them."""
    search = kind(served_catalog(index, k, storage, [index.fingerprint], index.dim), k)
    signature = [tf.TensorSpec([None, index.dim], tf.float32)]
    skus, scores = tf.function(search.__call__, input_signature=signature)(queries)
    return skus.numpy().astype(str), scores.numpy()


def assert_as_the_index(index, queries, k, kind=CatalogSearch, **arguments):
    skus, scores = searched(index, queries, k, kind=kind, **arguments)
    expected = index.search(queries, k, group_by_sku=True)
    np.testing.assert_array_equal(skus, expected.skus)
    # float64 sums in another order, rounded to float32: now and then another last digit
    np.testing.assert_allclose(scores, expected.scores, rtol=0, atol=1e-7)
    assert all(len(set(row)) == k for row in skus.tolist())


# The search


@pytest.mark.parametrize("k", [1, 7, 60])
@pytest.mark.parametrize("storage", STORAGES)
def test_it_answers_as_the_exact_index(storage, k):
    index = exact_index(storage)
    assert_as_the_index(index, queries_for(index, 20), k)


@pytest.mark.parametrize("rows_per_block", [1, 7, 100, 599, 600, 601])
@pytest.mark.parametrize("storage", STORAGES)
def test_blocks_of_any_size_give_the_same(storage, rows_per_block, monkeypatch):
    """The most photographed product has over 60 rows, so it goes on through many blocks of 7."""
    monkeypatch.setattr(search_graph, "_ROWS_PER_BLOCK", rows_per_block)
    index = exact_index(storage)
    assert np.unique(index.skus, return_counts=True)[1].max() > 35
    assert_as_the_index(index, queries_for(index, 6), 9)


@pytest.mark.parametrize("seed", range(5))
def test_catalogues_of_other_shapes(seed):
    rng = np.random.default_rng(seed)
    num_products = int(rng.integers(1, 50))
    index = exact_index(
        "float32", num_products + int(rng.integers(0, 300)), num_products, int(rng.integers(2, 40)), seed
    )
    assert_as_the_index(index, queries_for(index, 9, seed), int(rng.integers(1, num_products + 1)))


def test_one_product_with_nearly_all_photos_does_not_crowd_out_the_others():
    """1,000 photos of one product beside the query, and one photo each of four products far from it."""
    rng = np.random.default_rng(0)
    near = unit(rng.normal(size=[1, 8]) + 0.01 * rng.normal(size=[1000, 8]))
    index = ExactIndex.build(
        np.concatenate([near, unit(rng.normal(size=[4, 8]))]), ["near"] * 1000 + list("abcd"), fingerprint="f"
    )
    skus, _ = searched(index, near[:1], 5)
    assert skus[0, 0] == "near" and set(skus[0]) == {"near", *"abcd"}
    assert_as_the_index(index, near[:1], 5)


def test_ties_go_to_the_smaller_row_of_the_best_photo():
    """Product "a" has the first row, but its best photo, as good as the best of "b" and "c", is the last."""
    vectors = np.eye(4, dtype=np.float32)[[1, 0, 2, 0, 0]]
    index = ExactIndex.build(vectors, ["a", "c", "b", "b", "a"], fingerprint="f")
    skus, scores = searched(index, np.eye(4, dtype=np.float32)[:1], 3)
    assert skus.tolist() == [["c", "b", "a"]]
    assert scores.tolist() == [[1, 1, 1]]


def test_scores_below_and_at_zero_are_in_order():
    """Negative scores order backwards as bits, and -0.0 is a tie with 0.0."""
    vectors = np.float32([[-1, 0, 0], [-0.6, 0.8, 0], [0, 1, 0], [0, 0, 1], [0.6, 0, 0.8], [-0.0, -1, 0]])
    index = ExactIndex.build(vectors, list("abcdef"), fingerprint="f")
    skus, scores = searched(index, np.float32([[1, 0, 0], [-1, 0, 0]]), 6)
    assert skus.tolist() == [list("ecdfba"), list("abcdfe")]
    np.testing.assert_allclose(scores, [[0.6, 0, 0, 0, -0.6, -1], [1, 0.6, 0, 0, 0, -0.6]], atol=1e-7)


def test_an_answer_depends_on_nothing_but_its_query():
    """Bit for bit, whatever else is in the batch and in what order."""
    index = exact_index("int8", 3000, 500, 24)
    queries = queries_for(index, 33)
    skus, scores = searched(index, queries, 10)
    order = np.random.default_rng(2).permutation(33)
    for some in ([5], slice(3, 20), order):
        some_skus, some_scores = searched(index, queries[some], 10)
        np.testing.assert_array_equal(some_skus, skus[some])
        np.testing.assert_array_equal(some_scores, scores[some])


def test_no_queries_have_no_neighbours():
    skus, scores = searched(exact_index(), np.zeros([0, 16], np.float32), 3)
    assert skus.shape == scores.shape == (0, 3)


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("index_storage", STORAGES)
def test_vectors_are_kept_as_asked(index_storage, storage):
    """By NumPy: each product's largest float64 product with what that storage makes of the index's rows."""
    index = exact_index(index_storage)
    rows = Vectors.of(index.embeddings, storage).rows(slice(None)).astype(np.float64)
    queries = queries_for(index, 12)
    products = sorted(set(index.skus.tolist()))
    best = np.stack([(queries @ rows[index.skus == sku].T).max(axis=1) for sku in products], axis=1)
    skus, scores = searched(index, queries, 8, storage)
    np.testing.assert_allclose(scores, -np.sort(-best, axis=1)[:, :8], atol=1e-6)
    for row, (names, values) in enumerate(zip(skus, scores)):
        np.testing.assert_allclose(values, [best[row, products.index(sku)] for sku in names], atol=1e-6)


def test_what_was_added_and_deleted_since_the_index_was_built_counts(tmp_path):
    index = exact_index()
    queries = queries_for(index, 10)
    index.delete(skus=["sku 0", "sku 7"])
    index.upsert(queries[:3], ["new a", "new b", "sku 9"], photos=["x", "y", "z"])
    index.save(tmp_path / "index")
    for source in (index, str(tmp_path / "index"), tmp_path / "index"):
        search = CatalogSearch(served_catalog(source, 5, None, ["embedder"], 16), 5)
        skus = search(tf.constant(queries))[0].numpy().astype(str)
        np.testing.assert_array_equal(skus, index.search(queries, 5, group_by_sku=True).skus)


def test_skus_may_be_of_any_letters():
    index = ExactIndex.build(np.eye(3, dtype=np.float32), ["Ærø", "靴", "x y/z"], fingerprint="f")
    search = CatalogSearch(served_catalog(index, 1, None, ["f"], 3), 1)
    skus = search(tf.eye(3))[0].numpy()[:, 0]
    assert [sku.decode() for sku in skus] == ["Ærø", "靴", "x y/z"]


def test_memory_is_bounded_by_blocks(run_python):
    """All scores of 256 queries and 200,000 rows as float64 would be 410 MB a copy; a block's are 17 MB."""
    [printed] = run_python(
        """
import resource
import numpy as np, tensorflow as tf
from eet_tf.index import ExactIndex
from eet_tf.serving.catalog import served_catalog
from eet_tf.serving.search_graph import CatalogSearch

rng = np.random.default_rng(0)
vectors = rng.normal(size=[200_000, 4])
vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
index = ExactIndex.build(vectors, rng.integers(0, 50_000, 200_000), fingerprint="f")
search = tf.function(
    CatalogSearch(served_catalog(index, 5, None, ["f"], 4), 5).__call__, input_signature=[tf.TensorSpec([None, 4])]
)
search(vectors[:1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
search(vectors[:256])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
""",
        fresh=True,
    )
    assert int(printed) < 300


# What is refused


@pytest.fixture(scope="module")
def embedder():
    """Random kernels, and every other weight off its start."""
    model = eet_tf.build_embedder("small_cnn", DIM, image_size=SIZE)
    rng = np.random.default_rng(3)
    weights = [rng.normal(0, 0.2, weight.shape) if weight.ndim > 1 else weight for weight in model.get_weights()]
    model.set_weights([weight if weight.ndim != 1 else rng.uniform(0.5, 1.5, weight.shape) for weight in weights])
    return model


def photo(seed, format="PNG"):
    """A drawn one, 50 x 40."""
    blocks = np.random.default_rng(seed).integers(0, 256, [4, 5, 3]).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(blocks).resize((50, 40), Image.Resampling.BILINEAR).save(buffer, format)
    return buffer.getvalue()


PHOTOS = [photo(seed, "JPEG" if seed % 2 else "PNG") for seed in range(30)]


@pytest.fixture(scope="module")
def index(embedder):
    """The photos above, two of each product but of the last, embedded."""
    images = tf.stack([eet_tf.data.decode_and_resize(photo, SIZE) for photo in PHOTOS])
    skus = [f"product {row // 2}" for row in range(29)] + ["alone"]
    return ExactIndex.build(embedder(images, training=False).numpy(), skus, fingerprint=embedder_fingerprint(embedder))


def refused(embedder, index, tmp_path, match, error=CatalogIndexError, **arguments):
    with pytest.raises(error, match=match):
        export_embedder(embedder, str(tmp_path / "new"), catalog_index=index, **arguments)
    assert not (tmp_path / "new").exists()


def test_an_index_of_another_embedder_is_refused(embedder, index, tmp_path):
    other = ExactIndex.build(index.embeddings, index.skus, fingerprint="another")
    refused(embedder, other, tmp_path, "`catalog_index` must be of this embedder.*fingerprint 'another'")


def test_an_index_of_an_unknown_embedder_is_refused(embedder, index, tmp_path):
    other = ExactIndex.build(index.embeddings, index.skus)
    refused(embedder, other, tmp_path, "`catalog_index` must be of this embedder.*fingerprint None")


def test_an_index_without_the_whitening_is_refused(embedder, index, tmp_path):
    turned = Whitening(np.zeros(DIM), np.eye(DIM)[::-1])
    refused(embedder, index, tmp_path, "or its whitening differs", whitening=turned)


def test_an_index_of_another_dimension_is_refused(embedder, tmp_path):
    other = ExactIndex.build(np.eye(5), list("abcde"), fingerprint=embedder_fingerprint(embedder))
    refused(embedder, other, tmp_path, "`catalog_index` must be of the embedder's 8 dimensions. Received: one of 5")


@pytest.mark.parametrize("k", [0, -1, 17, 2.0, True, "3"])
def test_k_that_is_no_number_of_products_is_refused(embedder, index, tmp_path, k):
    refused(embedder, index, tmp_path, "`k` must be an integer from 1 to the catalogue's 16 products", k=k)


def test_an_unknown_storage_is_refused(embedder, index, tmp_path):
    refused(embedder, index, tmp_path, "`catalog_storage` must be one of float32, bfloat16", catalog_storage="float16")


def test_what_is_no_index_is_refused(embedder, tmp_path):
    refused(
        embedder, 3, tmp_path, "`catalog_index` must be an ExactIndex, a ScannIndex or the folder of one. Received: 3"
    )
    refused(embedder, str(tmp_path / "nowhere"), tmp_path, "nowhere")


def test_scann_without_an_index_is_refused(embedder, tmp_path):
    refused(
        embedder,
        None,
        tmp_path,
        "`scann_in_graph` must come with `catalog_index`",
        SavedModelError,
        scann_in_graph=True,
    )


# In the SavedModel


@pytest.fixture(scope="module")
def base(embedder, index, tmp_path_factory):
    """A base path with one version of each storage, 1 to 3."""
    base = tmp_path_factory.mktemp("search")
    for storage in STORAGES:
        export_embedder(embedder, str(base), catalog_index=index, k=4, catalog_storage=storage)
    return base


@pytest.mark.parametrize("version", [1, 2, 3])
def test_bytes_go_in_and_products_come_out(base, index, version):
    """Row by row as the index answers the served embeddings; what is no image gets nothing and harms none."""
    signatures = tf.saved_model.load(str(base / str(version))).signatures
    photos = [PHOTOS[3], b"no image", PHOTOS[29], photo(99), PHOTOS[0][:90]]
    answer = {name: value.numpy() for name, value in signatures["search"](image_bytes=tf.constant(photos)).items()}
    embeddings = signatures["serving_default"](image_bytes=tf.constant(photos))["embedding"].numpy()
    assert sorted(answer) == ["ok", "score", "sku"]
    assert answer["ok"].tolist() == [True, False, True, True, False]
    assert (answer["sku"][[1, 4]] == b"").all() and (answer["score"][[1, 4]] == 0).all()
    good = [0, 2, 3]
    kept = ExactIndex.build(index.embeddings, index.skus, storage=STORAGES[version - 1])
    expected = kept.search(embeddings[good], 4, group_by_sku=True)
    np.testing.assert_array_equal(answer["sku"][good].astype(str), expected.skus)
    np.testing.assert_allclose(answer["score"][good], expected.scores, atol=1e-6)
    # of photos that are so much alike, fewer bits may take one for another
    assert version > 1 or answer["sku"][[0, 2], 0].astype(str).tolist() == ["product 1", "alone"]


def test_the_signature_is_as_documented(base):
    signature = tf.saved_model.load(str(base / "1")).signatures["search"]
    assert signature.structured_input_signature == (
        (),
        {"image_bytes": tf.TensorSpec([None], tf.string, "image_bytes")},
    )
    outputs = {name: (spec.dtype, spec.shape.as_list()) for name, spec in signature.structured_outputs.items()}
    assert outputs == {
        "sku": (tf.string, [None, 4]),
        "score": (tf.float32, [None, 4]),
        "ok": (tf.bool, [None]),
    }
    assert not [name for name in outputs if name.endswith("_bytes")]  # REST would encode it


@pytest.mark.parametrize("number", [0, 1, 16])
def test_any_number_of_photos_is_searched(base, number):
    signature = tf.saved_model.load(str(base / "1")).signatures["search"]
    answer = signature(image_bytes=tf.constant(PHOTOS[:number], tf.string, [number]))
    assert {name: value.shape.as_list() for name, value in answer.items()} == {
        "sku": [number, 4],
        "score": [number, 4],
        "ok": [number],
    }


def test_the_manifest_names_what_is_searched(base, index):
    for version, storage in enumerate(STORAGES, 1):
        with open(base / str(version) / MANIFEST) as file:
            manifest = json.load(file)
        assert manifest["signatures"] == ["serving_default", "embed_images", "search", "describe"]
        assert manifest["search"] == {
            "k": 4,
            "size": 30,
            "num_products": 16,
            "storage": storage,
            "fingerprint": index.fingerprint,
        }
        assert manifest["needs_ops"] == []


def test_every_operation_is_one_of_a_stock_server(base):
    """None of another library: their names have a `>`."""
    model = tf.saved_model.load(str(base / "1"))
    for signature in model.signatures.values():
        definition = signature.graph.as_graph_def()
        nodes = [*definition.node, *(node for function in definition.library.function for node in function.node_def)]
        assert not {node.op for node in nodes if ">" in node.op or node.op in ("PyFunc", "EagerPyFunc")}


def test_a_whitened_embedder_searches_whitened_vectors(embedder, tmp_path):
    rng = np.random.default_rng(0)
    whitening = Whitening(rng.normal(size=DIM) / 9, rng.normal(size=[DIM, 5]))
    images = tf.stack([eet_tf.data.decode_and_resize(photo, SIZE) for photo in PHOTOS])
    vectors = whitening.apply(embedder(images, training=False).numpy())
    index = ExactIndex.build(vectors, range(30), fingerprint=embedder_fingerprint(embedder, whitening))
    folder = export_embedder(embedder, str(tmp_path), whitening=whitening, catalog_index=index, k=1)
    answer = tf.saved_model.load(folder).signatures["search"](image_bytes=tf.constant(PHOTOS))
    assert answer["sku"].numpy()[:, 0].astype(int).tolist() == list(range(30))
    np.testing.assert_allclose(answer["score"], 1, atol=1e-5)


def test_a_large_catalogue_lies_beside_the_graph(embedder, tmp_path):
    """100,000 x 8 float32 are 3.2 MB, which with the skus would show in the graph."""
    rng = np.random.default_rng(0)
    index = ExactIndex.build(
        unit(rng.normal(size=[100_000, DIM])), np.arange(100_000), fingerprint=embedder_fingerprint(embedder)
    )
    folder = export_embedder(embedder, str(tmp_path), catalog_index=index)
    assert os.path.getsize(os.path.join(folder, "saved_model.pb")) < 2e6
    assert os.path.getsize(os.path.join(folder, "variables", "variables.data-00000-of-00001")) > 100_000 * DIM * 4


# With ScaNN's operations


@pytest.fixture(scope="module")
def scann_search():
    """The class, where the operations are there."""
    from eet_tf.serving.scann_graph import ScannSearch, _import_ops

    try:
        _import_ops()
    except ImportError as error:
        pytest.skip(str(error))
    return ScannSearch


CONFIGURATIONS = {
    "brute force": ScannConfiguration(),
    "all candidates": ScannConfiguration(num_candidates=600),
    "all leaves": ScannConfiguration(num_candidates=600, num_leaves=20, num_leaves_to_search=20),
}


@pytest.mark.parametrize("configuration", CONFIGURATIONS.values(), ids=CONFIGURATIONS)
@pytest.mark.parametrize("storage", STORAGES)
def test_scann_that_looks_at_everything_answers_as_the_exact_index(scann_search, storage, configuration):
    vectors, skus = catalog_of(600, 200, 16)
    index = ScannIndex.build(vectors, skus, storage=storage, configuration=configuration, fingerprint="f")
    exact = ExactIndex.build(vectors, skus, storage=storage, fingerprint="f")
    queries = queries_for(exact, 20)
    found, scores = searched(index, queries, 5, kind=scann_search)
    expected = exact.search(queries, 5, group_by_sku=True)
    np.testing.assert_allclose(scores, expected.scores, rtol=0, atol=1e-7)
    np.testing.assert_array_equal(found, expected.skus)


def test_scann_always_finds_k_products(scann_search):
    """One leaf of forty looked at, for as many products as there are: the rest is found by comparing."""
    vectors, skus = catalog_of(600, 60, 16)
    few = ScannConfiguration(num_candidates=20, num_leaves=40, num_leaves_to_search=1)
    index = ScannIndex.build(vectors, skus, configuration=few, fingerprint="f")
    found, scores = searched(index, queries_for(index, 9), 60, kind=scann_search)
    assert all(set(row) == set(skus) for row in found.tolist())
    assert (np.diff(scores, axis=1) <= 0).all()


def test_a_version_with_scann_says_what_it_needs(scann_search, embedder, index, base, tmp_path):
    folder = export_embedder(embedder, str(tmp_path), catalog_index=index, k=4, scann_in_graph=True)
    with open(os.path.join(folder, MANIFEST)) as file:
        needed = json.load(file)["needs_ops"]
    signatures = tf.saved_model.load(folder).signatures
    definition = signatures["search"].graph.as_graph_def()
    nodes = [*definition.node, *(node for function in definition.library.function for node in function.node_def)]
    assert sorted({node.op for node in nodes if node.op.startswith("Scann>")}) == sorted(needed)
    photos = tf.constant([*PHOTOS[:6], b"no image"])
    answer = signatures["search"](image_bytes=photos)
    expected = tf.saved_model.load(str(base / "1")).signatures["search"](image_bytes=photos)
    for name in ("sku", "ok"):
        assert (answer[name].numpy() == expected[name].numpy()).all()
    np.testing.assert_allclose(answer["score"], expected["score"], atol=1e-6)
    assert signatures["search"](image_bytes=tf.zeros([0], tf.string))["sku"].shape == [0, 4]


def test_without_scanns_operations_the_export_says_so(embedder, index, tmp_path, monkeypatch):
    def missing():
        raise ImportError("The operations of the package scann cannot be loaded: undefined symbol.")

    monkeypatch.setattr("eet_tf.serving.scann_graph._import_ops", missing)
    refused(
        embedder,
        index,
        tmp_path,
        "`scann_in_graph` must be False here.*undefined symbol",
        SavedModelError,
        scann_in_graph=True,
    )
