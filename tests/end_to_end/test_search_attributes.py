"""What search.py says of a query's attributes, where the model that embeds it predicts some."""

import io
import re

import numpy as np
import pytest
from PIL import Image

import eet_tf
from eet_tf.index import ExactIndex
from eet_tf.serving import ServedEmbedder

NAMES = [f"attribute {number}" for number in range(12)]


def photo(color):
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), color).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def answer(tmp_path_factory, run_script):
    """A model with known probabilities, and what a search for two photos printed.

    The head's kernel is 0, so the probability of each attribute is the sigmoid of its bias whatever the photo."""
    folder = tmp_path_factory.mktemp("attributes")
    embedder = eet_tf.build_embedder("small_cnn", 8, image_size=32, attribute_names=NAMES)
    head = embedder.get_layer("attributes")
    logits = np.array([-1.0, 3.0, 0.5, -0.1, 0.1, 2.0, 4.0, 1.0, 1.5, 0.3, 0.7, 5.0])
    head.set_weights([np.zeros_like(head.get_weights()[0]), logits])
    served = ServedEmbedder(eet_tf.export_embedder(embedder, str(folder / "serving")))
    photos = [photo((200, 30, 30)), photo((10, 200, 90))]
    embeddings, _ = served.embed(photos)
    ExactIndex.build(
        embeddings,
        ["a", "b"],
        ["a.png", "b.png"],
        fingerprint=served.fingerprint,
        metadata={"saved_model": "../serving"},
    ).save(str(folder / "index"))
    (folder / "red.png").write_bytes(photos[0])
    (folder / "green.png").write_bytes(photos[1])
    queries = [f"--query={folder / name}" for name in ("red.png", "green.png")]
    return logits, run_script("export/search.py", *queries, f"--index_dir={folder / 'index'}", "--k=2").succeeded()


def test_a_querys_likely_attributes_are_said_before_its_neighbours(answer):
    """Of the nine above an even chance the eight most certain, in that order, in one line for each query."""
    logits, outcome = answer
    order = [row for row in np.argsort(-logits) if logits[row] >= 0][:8]
    expected = ", ".join(f"{NAMES[row]} {100 / (1 + np.exp(-logits[row])):.0f} %" for row in order)
    lines = outcome.printed.splitlines()
    for query in ("red.png", "green.png"):
        row = next(number for number, line in enumerate(lines) if line.endswith(query))
        assert lines[row + 1] == f"  seen in it: {expected}"
        assert lines[row + 2].startswith("  rank")
        assert re.fullmatch(r" +1 +1\.000  [ab]  \([ab]\.png\)", lines[row + 3])
