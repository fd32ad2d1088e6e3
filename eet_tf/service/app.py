"""The page's server: it embeds or looks up what is asked for, searches the index, and shows the catalogue's photos."""

from __future__ import annotations

import os
import threading
import time

import flask
import numpy as np
from werkzeug.exceptions import HTTPException

from eet_tf.client import ServingError
from eet_tf.data import reasons
from eet_tf.index import CatalogIndexError, lookup_photos
from eet_tf.service.filters import Filter, filters_of, read_form
from eet_tf.service.photos import DemoError, Thumbnails, blank_photo

_NUM_SAMPLES = 12
_MOST_NEIGHBORS = 100
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_NO_PHOTO = "This is no photo that can be read: {}. It must be a JPEG, PNG, WebP, BMP or GIF."


class _Refusal(Exception):
    """What the person at the page is told, with an HTTP status."""

    def __init__(self, message: str, status: int):
        super().__init__(message)
        self.message, self.status = message, status


def create_app(
    index, embedder, photo_root: str | os.PathLike, title: str = "Visual product search", max_upload_bytes: int = 2**24
) -> flask.Flask:
    """Makes the page of a catalogue as a WSGI application.

    * `GET /` is the page, `POST /search` takes a form and answers in JSON, `GET /samples` has photos to begin with, and
      `GET /photo?id=...` shows a photo of the catalogue, made small. Only ids that the index holds are looked for, and
      only below `photo_root`; the files themselves are not given out.
    * What is uploaded is embedded and forgotten.
    * What others write to the index's folder is taken up with the next search.
    * It has no users and no passwords: whoever reaches it sees the catalogue.

    Args:
        index: as `load_index` gives it.
        embedder: a `ServedEmbedder` or an `EmbeddingClient`: of the photos' bytes, `embed` makes vectors,
            `fingerprint` says which embedder it is, and `max_pixels` how large a photo may be. It is tried once, so
            that the first person does not wait.
        photo_root: the folder that the index's photo ids are paths in.
        title: of the page.
        max_upload_bytes: of a photo; 16 MiB by default.

    Raises:
        DemoError: if there is no folder `photo_root`, or none of the catalogue's photos in it.
        CatalogIndexError: if the index is of another embedder.
        ServingError: if the embedder's server does not answer.

    Example:

    >>> import tempfile
    >>> from PIL import Image
    >>> from eet_tf.index import ExactIndex
    >>> class Embedder:
    ...     fingerprint, max_pixels = None, 40_000_000
    ...     def embed(self, photos):
    ...         return np.eye(2, dtype="float32")[: len(photos)], np.ones(len(photos), bool)
    >>> folder = tempfile.mkdtemp()
    >>> Image.new("RGB", (8, 8)).save(f"{folder}/mug.png")
    >>> app = create_app(ExactIndex.build(np.eye(2, dtype="float32")[:1], ["mug"], ["mug.png"]), Embedder(), folder)
    >>> app.test_client().post("/search", data={"like": "mug.png"}).json["neighbors"]
    []
    """
    page = _Page(index, embedder, Thumbnails(photo_root), title, max_upload_bytes)
    page.check()
    app = flask.Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = max_upload_bytes + 2**16  # the other fields
    app.json.sort_keys = False  # type: ignore[attr-defined]  # Flask's own provider has it
    app.add_url_rule("/", view_func=page.show, endpoint="page")
    app.add_url_rule("/samples", view_func=page.samples, endpoint="samples")
    app.add_url_rule("/search", view_func=page.search, endpoint="search", methods=["POST"])
    app.add_url_rule("/photo", view_func=page.photo, endpoint="photo")
    app.register_error_handler(_Refusal, lambda refusal: ({"error": refusal.message}, refusal.status))
    app.register_error_handler(HTTPException, page.http_error)
    app.register_error_handler(Exception, page.unexpected_error)
    app.after_request(_with_headers)
    return app


def _with_headers(response: flask.Response) -> flask.Response:
    response.headers.update(_HEADERS)
    if "Cache-Control" not in response.headers:
        response.headers["Cache-Control"] = "no-cache"
    return response


class _Page:
    """The answers to each address."""

    def __init__(self, index, embedder, thumbnails: Thumbnails, title: str, max_upload_bytes: int):
        self._index, self._embedder, self._thumbnails = index, embedder, thumbnails
        self._title, self._max_upload_bytes = title, max_upload_bytes
        self._lock = threading.RLock()  # what is found is still there when it is looked up
        self._filters: list[Filter] = []
        self._sample_photos: list[str] = []
        self._look_over()

    def _look_over(self) -> None:
        photos = self._index.photos
        rows = np.unique(np.linspace(0, len(photos) - 1, min(_NUM_SAMPLES, len(photos))).astype(int))
        self._filters, self._sample_photos = filters_of(self._index), photos[rows].tolist()

    def _refresh(self) -> None:
        try:
            if self._index.refresh():
                self._look_over()
        except (CatalogIndexError, OSError) as error:
            flask.current_app.logger.warning("the index stays as it was read: %s", error)

    def check(self) -> None:
        """Tries what every search will need."""
        if self._sample_photos and not any(map(self._thumbnails.path, self._sample_photos)):
            raise DemoError(
                f"`photo_root` must be the folder of the catalogue's photos. Received: '{self._thumbnails.root}', in "
                f"which there is no {self._sample_photos[0]!r} (a link that leads out of it does not count). Name the "
                "right one with --photo_root."
            )
        if self._sample_photos:
            self._thumbnails.jpeg(self._sample_photos[0])  # the first takes seconds, which load the decoder
        embeddings, _ = self._embedder.embed([blank_photo()])
        self._index.search(embeddings, 1, fingerprint=self._embedder.fingerprint)

    # --- the addresses

    def show(self) -> str:
        """`GET /`."""
        with self._lock:
            self._refresh()
            return flask.render_template(
                "page.html",
                title=self._title,
                filters=self._filters,
                num_photos=self._index.size,
                num_products=self._index.num_skus,
                max_bytes=self._max_upload_bytes,
            )

    def samples(self) -> dict:
        """`GET /samples`."""
        with self._lock:
            return {"neighbors": self._tiles(self._sample_photos, [None] * len(self._sample_photos))}

    def search(self) -> dict:
        """`POST /search`: either a file `photo` or the id `like` of a photo in the index, `k`, `group` and filters."""
        form, start = flask.request.form, time.perf_counter()
        k, liked = _read_k(form.get("k", "24")), form.get("like")
        query, fingerprint = (None, None) if liked else self._embedded()
        with self._lock:
            self._refresh()
            where = _read_where(form, self._index.attributes)
            if liked:
                query = self._vector_of(liked)
            found = self._index.search(query, k + bool(liked), where, "group" in form, fingerprint)
            pairs = zip(found.photos[0].tolist(), found.scores[0].tolist())
            pairs = [(photo, score) for photo, score in pairs if photo != liked][:k]
            tiles = self._tiles([photo for photo, _ in pairs], [score for _, score in pairs])
        return {"neighbors": tiles, "seconds": round(time.perf_counter() - start, 4), "searched": self._index.size}

    def photo(self) -> flask.Response:
        """`GET /photo?id=...`."""
        photo = flask.request.args.get("id", "")
        self._vector_of(photo)  # only what the index holds
        jpeg = self._thumbnails.jpeg(photo)
        if jpeg is None:
            path = self._thumbnails.path(photo)
            why = reasons.of_file(path) if path else "there is no such file"
            raise _Refusal(f"This photo cannot be shown: {why}.", 404)
        response = flask.Response(jpeg, mimetype="image/jpeg")
        response.headers["Cache-Control"] = "private, max-age=600"
        return response

    def http_error(self, error: HTTPException):
        """Every refusal is JSON with one sentence for a person."""
        if error.code == 413:
            limit = self._max_upload_bytes / 2**20
            return {"error": f"This photo is larger than {limit:.3g} MB. Choose a smaller one."}, 413
        return {"error": f"{error.name}."}, error.code

    def unexpected_error(self, error: Exception):
        """Said in full where the server runs, and in general to who looks at the page."""
        flask.current_app.logger.error("%s", error, exc_info=None if isinstance(error, ServingError) else error)
        if isinstance(error, ServingError):
            return {"error": "The server that embeds photos did not answer as it should. Try again in a moment."}, 502
        if isinstance(error, CatalogIndexError):
            return {"error": f"The index cannot be searched: {error}"}, 500
        return {"error": "Something went wrong. Where this page's server runs it says what."}, 500

    # --- what they need

    def _embedded(self) -> tuple[np.ndarray, str | None]:
        file = flask.request.files.get("photo")
        content = file.read() if file else b""
        if not file:
            raise _Refusal("Choose a photo first.", 400)
        if len(content) > self._max_upload_bytes:
            flask.abort(413)
        most = self._embedder.max_pixels
        if reasons.has_too_many_pixels(content, most):  # the embedder would say so, too, but need not be asked
            raise _Refusal(_NO_PHOTO.format(reasons.without_command(reasons.of_bytes(content, most))), 413)
        fingerprint = self._embedder.fingerprint
        embeddings, is_photo = self._embedder.embed([content])
        if not is_photo[0]:
            raise _Refusal(_NO_PHOTO.format(reasons.without_command(reasons.of_bytes(content))), 415)
        return embeddings, fingerprint

    def _vector_of(self, photo: str) -> np.ndarray:
        try:
            vectors = lookup_photos(self._index, [photo]).embeddings
        except CatalogIndexError as error:
            raise _Refusal("This photo is not in the catalogue.", 404) from error
        return vectors / np.linalg.norm(vectors)  # rounded in the index, it may be a little off

    def _tiles(self, photos: list[str], scores: list) -> list[dict]:
        kept = lookup_photos(self._index, photos)
        strings = [name for name, kind in self._index.attributes.items() if kind == "string"]
        shown = [kept.attributes[name].tolist() for name in strings[:3]]
        return [
            {
                "photo": photo,
                "url": flask.url_for("photo", id=photo),
                "sku": sku,
                "score": score,
                "facts": [value for value in facts if value],
            }
            for photo, score, sku, *facts in zip(photos, scores, kept.skus.tolist(), *shown)
        ]


def _read_k(text: str) -> int:
    if not (text.isdecimal() and 1 <= int(text) <= _MOST_NEIGHBORS):
        raise _Refusal(f"The number of photos must be 1 to {_MOST_NEIGHBORS}. Received: {text!r:.20}.", 400)
    return int(text)


def _read_where(form, kinds) -> dict | None:
    try:
        return read_form(form, kinds)
    except ValueError as error:
        raise _Refusal(str(error), 400) from error
