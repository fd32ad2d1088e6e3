"""The index in a web handler: a photo is posted, and the products that look like it come back as JSON.

    python examples/08_web_handler.py --port=8080
    curl --data-binary @photo.jpg localhost:8080

Without --port it asks itself three times and ends: for a photo, for one that is added to the index meanwhile, and for
bytes that are no photo. It takes about 10 seconds on 2 cores and prints:

    200 {"products": ["mug-brown-dots-heart", "bottle-brown-dots-heart"], "scores": ["0.98", "0.98"]}
    200 {"products": ["new arrival", "mug-brown-dots-heart"], "scores": ["1.00", "0.98"]}
    415 {"error": "This is no photo."}
"""

import argparse
import http.client
import http.server
import json
import pathlib
import threading

from eet_tf import build_embedder, export_embedder
from eet_tf.data import make_synthetic_catalog
from eet_tf.index import ExactIndex, load_index
from eet_tf.serving import ServedEmbedder

parser = argparse.ArgumentParser()
parser.add_argument("--port", type=int, default=0)
port = parser.parse_args().port

# A SavedModel and an index, as `eet export` and `eet index build` write them. This embedder is not trained.
catalog = make_synthetic_catalog("runs/web_handler/photos", num_products=8, photos_per_product=4, image_size=32)
embedder = ServedEmbedder(export_embedder(build_embedder("small_cnn", 32, image_size=32), "runs/web_handler/serving"))
embeddings = embedder.embed_catalog(catalog)
ExactIndex.build(embeddings[1:], catalog.skus[1:], catalog.paths[1:], fingerprint=embedder.fingerprint).save(
    "runs/web_handler/index"
)

# One embedder and one index serve all threads.
index = load_index("runs/web_handler/index", read_only=True)


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers POST requests whose body is a photo."""

    def do_POST(self):  # noqa: N802
        """Embeds the photo and searches the index as it is now."""
        photo = self.rfile.read(int(self.headers["Content-Length"]))
        vectors, is_photo = embedder.embed([photo])
        if not is_photo[0]:
            return self.answer(415, {"error": "This is no photo."})
        index.refresh()  # reads what other processes have added or deleted since
        found = index.search(vectors, k=2, group_by_sku=True, fingerprint=embedder.fingerprint)
        return self.answer(
            200, {"products": found.skus[0].tolist(), "scores": [f"{score:.2f}" for score in found.scores[0]]}
        )

    def answer(self, status, content):
        """Sends JSON."""
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        """Logs nothing."""


def ask(body):
    """Posts bytes to the server and prints its answer."""
    connection = http.client.HTTPConnection("localhost", server.server_port)
    connection.request("POST", "/", body)
    answer = connection.getresponse()
    print(answer.status, answer.read().decode())


with http.server.ThreadingHTTPServer(("localhost", port), Handler) as server:
    if port:
        server.serve_forever()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    photo = pathlib.Path(catalog.files[0]).read_bytes()
    ask(photo)
    load_index("runs/web_handler/index").upsert(embeddings[:1], ["new arrival"], ["new.jpg"])
    ask(photo)
    ask(b"some text")
    server.shutdown()
