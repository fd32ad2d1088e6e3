"""Search without training: the features of a pretrained Keras model, exported, indexed and searched.

    python examples/05_pretrained_backbone.py --weights=imagenet

Without the flag the network has random weights, so that the script runs without a download. It takes about 15 seconds
on 2 cores, writes runs/pretrained/serving/ and runs/pretrained/index/, and prints (recall@1 is 0.44 with the weights of
ImageNet):

    The SavedModel is runs/pretrained/serving/1: bytes of a photo -> 1280 numbers.
    The index of 32 photos is runs/pretrained/index; recall@1 is 0.06.
    Search it with: eet search PHOTO --index_dir=runs/pretrained/index --saved_model=runs/pretrained/serving
"""

import argparse

import keras

from eet_tf import evaluate_retrieval, export_embedder
from eet_tf.data import make_synthetic_catalog
from eet_tf.index import ExactIndex
from eet_tf.serving import ServedEmbedder

parser = argparse.ArgumentParser()
parser.add_argument("--weights", help="imagenet, or a file of weights; random by default")
weights = parser.parse_args().weights

# Any Keras model from photos in [0, 255] to a vector will do. Its own scaling of pixels belongs into it.
keras.utils.set_random_seed(1)
images = keras.Input([96, 96, 3])
network = keras.applications.MobileNetV2([96, 96, 3], include_top=False, weights=weights, pooling="avg")
features = network(keras.layers.Rescaling(1 / 127.5, offset=-1)(images))
model = keras.Model(images, keras.layers.UnitNormalization()(features))

# The SavedModel decodes and resizes photos as well; it is what TensorFlow Serving runs, and what ServedEmbedder loads.
folder = export_embedder(model, "runs/pretrained/serving")
embedder = ServedEmbedder(folder)
print(f"The SavedModel is {folder}: bytes of a photo -> {embedder.embedding_dim} numbers.")

catalog = make_synthetic_catalog("runs/pretrained/photos", num_products=8, photos_per_product=4)
embeddings = embedder.embed_catalog(catalog)
recall = evaluate_retrieval(embeddings, catalog.labels, ks=[1])["recall@1"]

# The fingerprint keeps vectors of another model out of this index.
index = ExactIndex.build(embeddings, catalog.skus, catalog.paths, catalog.attributes, fingerprint=embedder.fingerprint)
index.save("runs/pretrained/index")
print(f"The index of {len(index)} photos is runs/pretrained/index; recall@1 is {recall:.2f}.")
print("Search it with: eet search PHOTO --index_dir=runs/pretrained/index --saved_model=runs/pretrained/serving")
