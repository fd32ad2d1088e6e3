"""The signature by which a server says which embedder it runs."""

import numpy as np
import pytest
import tensorflow as tf

import eet_tf
from eet_tf.evaluation.postprocessing import Whitening
from eet_tf.serving import embedder_fingerprint, export_embedder

DIM = 8


@pytest.fixture(scope="module")
def embedder():
    """Its weights do not matter here."""
    return eet_tf.build_embedder("small_cnn", DIM, image_size=32)


def describe(embedder, folder, whitening=None):
    """The signature of a SavedModel, loaded without this package."""
    version = export_embedder(embedder, str(folder), whitening=whitening)
    return tf.saved_model.load(version).signatures["describe"]


def test_it_says_the_fingerprint_and_the_length_once_for_each_row(embedder, tmp_path):
    signature = describe(embedder, tmp_path)
    for queries in ([], ["one"], ["", "b", "c"]):
        said = signature(query=tf.constant(queries, tf.string, [len(queries)]))
        assert said["fingerprint"].numpy().tolist() == [embedder_fingerprint(embedder).encode()] * len(queries)
        assert said["embedding_dim"].numpy().tolist() == [DIM] * len(queries)
        assert said["embedding_dim"].dtype == tf.int32


def test_its_input_and_outputs_are_as_documented(embedder, tmp_path):
    """Rows in, rows out: what REST's row format and batching on a server need."""
    signature = describe(embedder, tmp_path)
    (spec,) = signature.structured_input_signature[1].values()
    assert (spec.name, spec.dtype, spec.shape.as_list()) == ("query", tf.string, [None])
    outputs = {name: (spec.dtype, spec.shape.as_list()) for name, spec in signature.structured_outputs.items()}
    assert outputs == {"fingerprint": (tf.string, [None]), "embedding_dim": (tf.int32, [None])}


def test_it_says_the_names_of_attributes(tmp_path):
    embedder = eet_tf.build_embedder("small_cnn", DIM, image_size=32, attribute_names=["colour=red", "gr\u00fcn"])
    said = describe(embedder, tmp_path)(query=tf.constant(["a", "b"]))
    assert said["attribute_names"].numpy().tolist() == [[b"colour=red", "gr\u00fcn".encode()]] * 2


def test_a_whitened_embedder_is_another(embedder, tmp_path):
    whitening = Whitening(np.zeros(DIM), np.eye(DIM)[:, :5])
    said = describe(embedder, tmp_path, whitening)(query=tf.constant([""]))
    assert said["fingerprint"].numpy().tolist() == [embedder_fingerprint(embedder, whitening).encode()]
    assert said["embedding_dim"].numpy().tolist() == [5]
