"""TensorFlow Serving: a server embeds the photos, this process builds an index of them and searches it.

    eet export --model=runs/mine --output_dir=served --bundle
    (cd served && docker compose up -d)
    python examples/09_serving_client.py --server=localhost:8500

With --server=http://localhost:8501 it asks by REST. It takes about 3 seconds and prints:

    localhost:8500 gives 32 numbers for a photo.
    32 photos are indexed.
    A photo of bottle-pink-zigzag-star finds bottle-pink-zigzag-star, jar-pink-zigzag-star, mug-brown-dots-heart
    Bytes that are no photo: ok is False
"""

import argparse
import pathlib

from eet_tf.client import EmbeddingClient
from eet_tf.data import make_synthetic_catalog
from eet_tf.index import ExactIndex

parser = argparse.ArgumentParser()
parser.add_argument("--server", default="localhost:8500", help="HOST:PORT for gRPC, http://HOST:PORT for REST")
parser.add_argument("--model", default="embedder", help="name of the model on the server")
flags = parser.parse_args()

catalog = make_synthetic_catalog("runs/serving_client/photos", num_products=8, photos_per_product=4, image_size=64)

# A request is tried again while the server is away or busy, until its deadline. Threads may share one client.
with EmbeddingClient(flags.server, model=flags.model, batch_size=16, deadline=30.0) as client:
    print(f"{flags.server} gives {client.embedding_dim} numbers for a photo.")
    embeddings, ok = client.embed(catalog.files)  # paths, or the bytes of photos
    photos, skus = catalog.paths[ok], catalog.skus[ok]
    index = ExactIndex.build(embeddings[ok], skus, photos, fingerprint=client.fingerprint)
    print(f"{len(index)} photos are indexed.")

    # The fingerprint is asked anew: the server may have taken up another model since, whose vectors do not fit.
    query = pathlib.Path(catalog.files[0]).read_bytes()
    vectors, _ = client.embed([query])
    neighbors = index.search(vectors, k=3, group_by_sku=True, fingerprint=client.fingerprint)
    print(f"A photo of {catalog.skus[0]} finds {', '.join(neighbors.skus[0])}")

    _, ok = client.embed([b"some text"])
    print(f"Bytes that are no photo: ok is {ok[0]}")
