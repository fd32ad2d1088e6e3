"""The names that examples of errors may use, beside those of Python."""
# ruff: noqa: F401

import functools
import hashlib
import io
import json
import pathlib
import sys
from unittest import mock

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

import eet_tf
import eet_tf.client
from eet_tf import data, evaluation, index, replicas
from eet_tf.cli.complaints import Complaints
from eet_tf.data import Catalog
from eet_tf.embedder import features
from eet_tf.embedding.files import EmbeddingFolder, choose_num_shards, find_folder, open_folder
from eet_tf.evaluation import attribute_metrics, comparison, metrics, postprocessing
from eet_tf.evaluation.comparison import ClassResults
from eet_tf.index import ExactIndex, MilvusIndex, ScannConfiguration, ScannIndex, load_index, verify_index
from eet_tf.pages import report
from eet_tf.serving import ServedEmbedder
from eet_tf.training import addons, run

LABELS = np.array([0, 0, 1, 1, 2, 2])
UNIT = np.eye(4, dtype=np.float32)[[0, 1, 2, 3, 0, 1]]


def write(name, content=""):
    """Writes a file, with the folders above it; its name."""
    path = pathlib.Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogateescape"))
    return name


def photo():
    """The bytes of a PNG of one pixel."""
    file = io.BytesIO()
    Image.new("RGB", (1, 1)).save(file, "PNG")
    return file.getvalue()


def photos(*names):
    """Writes photos; their names."""
    return [write(name, photo()) for name in names]


def mugs(**columns):
    """A catalogue of four photos of two products."""
    given = {"paths": ["1.png", "2.png", "3.png", "4.png"], "skus": ["mug", "mug", "cup", "cup"]}
    return Catalog(**{**given, "source": "catalog.csv", "lines": [2, 3, 4, 5], **columns})


def built(kind=ExactIndex, **given):
    """An index of six photos of three products, with an attribute of each kind."""
    attributes = {"price": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], "colour": list("rgbrgb"), "new": [True, False] * 3}
    how = {"photos": list("abcdef"), "attributes": attributes, "fingerprint": "f00d", **given}
    return kind.build(UNIT, list("112233"), **how)


def saved(**given):
    """As `built`, and saved to the folder `index`."""
    made = built(**given)
    made.save("index")
    return made


def manifest(**changed):
    """Changes what the manifest of the saved index says."""
    path = pathlib.Path("index/manifest.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))


def contents():
    """The folder of the saved index's files."""
    return next(pathlib.Path("index").glob("contents-*"))


def damaged(name, content):
    """Replaces an array of the saved index by another, as if it had been saved so."""
    np.save(contents() / name, content)
    resigned()


def resigned():
    """Lets the manifest say of each file of the saved index what it is now."""
    files = {}
    for path in sorted(each for each in contents().rglob("*") if each.is_file() and each.name != "updates.log"):
        content = path.read_bytes()
        files[str(path.relative_to(contents()))] = {
            "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
        }
    manifest(files=files)


def models(*versions, config=None):
    """Writes versions of the model `embedder`, which hold nothing, and a `models.config`."""
    for version in versions:
        write(f"embedder/{version}/saved_model.pb")
    if config is not None:
        write("models.config", config)


def publish(*arguments, **options):
    """As `export/publish.py`."""
    from eet_tf.serving import publishing

    publishing.publish(*arguments, **options)


def complained(method, *arguments):
    """What a command says of a flag."""
    complaints = Complaints()
    getattr(complaints, method)(*arguments)
    complaints.end()


def embedded(num_shards=1):
    """Writes a folder of embeddings of two photos; opens it."""
    pathlib.Path("embeddings").mkdir()
    made = EmbeddingFolder("embeddings", "f00d", 2, num_shards, "../serving/1")
    made.save()
    for shard, rows in enumerate(made.deal(["a.jpg", "b.jpg"])):
        names = [["a.jpg", "b.jpg"][row] for row in rows]
        made.write(shard, names, np.eye(2, dtype=np.float32)[rows], rows != 1)
    return open_folder("embeddings")


@functools.cache
def embedder():
    """A model from images of 32 pixels to unit vectors."""
    keras.utils.set_random_seed(0)
    return eet_tf.build_embedder("small_cnn", 4, image_size=32)


def fingerprint():
    """The fingerprint of the embedder."""
    return eet_tf.serving.embedder_fingerprint(embedder())


def network(*shape, output=None, batch_size=None):
    """A model of images that ends in what `output` makes of them, by default the mean of each channel."""
    images = keras.Input(shape, batch_size=batch_size)
    return keras.Model(images, (output or keras.layers.GlobalAveragePooling2D())(images))


def learner(**given):
    """A learner of vectors, which is not compiled."""
    return eet_tf.MetricLearner(keras.Sequential([keras.Input([4]), keras.layers.Dense(4)]), **given)


def classes(*rows, head="sku,num_queries,recall@1"):
    """Writes results product by product; the file."""
    return write("classes.csv", "\n".join([head, *rows]))


def inshop(*lines, count=None):
    """Writes an In-Shop list of these rows; the folder."""
    head = [str(len(lines) if count is None else count), "image_name item_id evaluation_status"]
    write("Eval/list_eval_partition.txt", "\n".join([*head, *lines]))
    photos(*(line.split()[0] for line in lines))
    return "."


def consumer(*lines):
    """Writes a Consumer-to-Shop list of these rows; the folder."""
    head = [str(len(lines)), "image_pair_name_1 image_pair_name_2 item_id evaluation_status"]
    write("Eval/list_eval_partition.txt", "\n".join([*head, *lines]))
    photos(*(name for line in lines for name in line.split()[:2]))
    return "."


def cub(**files):
    """Writes the lists of CUB, two photos of two classes, with some of them replaced; the folder."""
    content = {
        "images": "1 a/1.png\n2 b/2.png",
        "classes": "1 001.Albatross\n2 002.Auklet",
        "image_class_labels": "1 1\n2 2",
        **files,
    }
    for name, text in content.items():
        write(f"attributes/{name}.txt" if "attribute" in name else f"{name}.txt", text)
    photos("images/a/1.png", "images/b/2.png")
    return "."


def cars(**variables):
    """Writes the MATLAB file of Cars196, one photo, with some of its variables replaced; the folder."""
    from scipy.io import savemat

    dtype = [("relative_im_path", object), ("class", object)]
    content = {
        "annotations": np.array([("car_ims/1.png", 1)], dtype=dtype),
        "class_names": np.array(["Volvo", "Fiat"], dtype=object),
        **variables,
    }
    savemat("cars_annos.mat", content)
    photos("car_ims/1.png")
    return "."


def made():
    """All of these names."""
    return dict(globals())
