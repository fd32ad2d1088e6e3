"""A client of an embedder on a server: photos in batches, several on their way at once, answers in order."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import os
import threading
import urllib.parse
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from eet_tf.client.batches import Photo, batches, read_photos, too_large
from eet_tf.client.refusals import wrong_outputs
from eet_tf.client.retries import Retries, ServingError, StoppedError, TooLargeError
from eet_tf.client.slots import Slots
from eet_tf.data.limits import SERVED_MAX_PIXELS

_BYTES_AROUND = 4096  # of a request, for all but the photos
_BYTES_PER_PHOTO = 32  # around each photo


class EmbeddingClient:
    """Embeds photos through a TensorFlow Serving that runs a SavedModel of `export_embedder`.

    * Photos travel in batches, limited in number and in bytes; several requests are on their way at once, and answers
      come in the order of the photos. If the server takes no message that large, a batch is halved.
    * A request that met a server that is away, late or busy (`UNAVAILABLE`, `DEADLINE_EXCEEDED`, `RESOURCE_EXHAUSTED`)
      is sent again until its `deadline`, after random waits that grow to seconds, and fewer requests are on their way
      at once until the server keeps up. Embedding changes nothing, so twice does no harm.
    * A photo that declares more than `max_pixels` is not sent: its `ok` is false, as the server would answer.
    * Connections are kept open. One client may be used by any number of threads. Close it, or use it in `with`; what
      waits then ends at once.

    Args:
        target: `"host:8500"` for gRPC, unencrypted, which needs `pip install 'eet-tf[serving]'`; or
            `"http://host:8501"` or `https://` for REST, a third more bytes and no need of TensorFlow.
        model: its name on the server.
        version: of the model; None for the newest that is served.
        batch_size: photos in a request. Where the server batches, no more than its `max_batch_size`.
        max_in_flight: requests on their way at once, of all threads together.
        timeout: seconds that one try of a request may take; over REST, that the server may be silent in it.
        deadline: seconds that a request may take with all its tries and waits; a server that starts again is back
            within it.
        max_message_bytes: of a request and of an answer.
        max_pixels: of a photo; by default the 40 million of `export_embedder`.

    Attributes:
        max_pixels: as given.

    Raises:
        ServingError: if an argument is not as described, or tensorflow-serving-api is missing.

    Example:

    >>> with EmbeddingClient("http://localhost:1", deadline=0.1) as client:
    ...     embeddings, ok = client.embed([b"an encoded photo", b"another"])
    Traceback (most recent call last):
    eet_tf.client.retries.ServingError: the server at http://localhost:1 did not answer after ...
    """

    def __init__(
        self,
        target: str,
        model: str = "embedder",
        version: int | None = None,
        batch_size: int = 16,
        max_in_flight: int = 4,
        timeout: float = 10.0,
        deadline: float = 60.0,
        max_message_bytes: int = 32 * 2**20,
        max_pixels: int = SERVED_MAX_PIXELS,
    ):
        counts = {"batch_size": batch_size, "max_in_flight": max_in_flight, "max_pixels": max_pixels}
        _check_positive({**counts, "timeout": timeout, "deadline": deadline, "max_message_bytes": max_message_bytes})
        self.target, self.model, self.max_pixels = _checked_target(target), model, max_pixels
        self._batch_size, self._max_in_flight = batch_size, max_in_flight
        self._retries, self._slots = Retries(timeout, deadline), Slots(max_in_flight)
        self._transport = _transport(target, model, version, max_message_bytes)
        room = max_message_bytes - _BYTES_AROUND - _BYTES_PER_PHOTO * batch_size
        self._max_photo_bytes = max(1, room * 3 // 4 if _is_rest(target) else room)  # base64 makes 4 bytes of 3
        self._pool = concurrent.futures.ThreadPoolExecutor(max_in_flight, "eet_tf.client")
        self._is_closed, self._stops, self._lock = False, set[threading.Event](), threading.Lock()

    def embed(self, photos: Iterable[bytes | str | os.PathLike]) -> tuple[np.ndarray, np.ndarray]:
        """Embeds photos.

        Args:
            photos: `[N]` paths, or encoded bytes. Files are read when their turn comes.

        Returns:
            `[N, D]` float32 unit vectors, and `[N]` bool, false where the bytes are no image, or one of more than
            `max_pixels`; such a row is zeros.

        Raises:
            ServingError: if a file cannot be read, a photo is too large for any message, the server does not answer,
                has no such model, or the model is no embedder of this package.
        """
        found = self._predict_all("serving_default", ("embedding", "ok"), photos)
        if not found:
            return np.zeros([0, self.embedding_dim], np.float32), np.zeros([0], np.bool_)
        return found["embedding"].astype(np.float32, copy=False), found["ok"]

    def search(self, photos: Iterable[bytes | str | os.PathLike]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Finds the products most like each photo, on a server whose model holds its catalogue.

        Args:
            photos: as for `embed`.

        Returns:
            `[N, k]` the skus, best first; `[N, k]` float32, their cosine similarities; and `[N]` bool, false where the
            bytes are no image, or one of more than `max_pixels`. k is the model's own.

        Raises:
            ServingError: as `embed`; or if the model has no catalogue.
        """
        found = self._predict_all("search", ("sku", "score", "ok"), photos)
        if not found:
            return np.zeros([0, 0], np.str_), np.zeros([0, 0], np.float32), np.zeros([0], np.bool_)
        return found["sku"], found["score"].astype(np.float32, copy=False), found["ok"]

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the embedder on the server, asked each time, since the server may load a new version."""
        return str(self._described()["fingerprint"][0])

    @property
    def compatible_with(self) -> tuple[str, ...]:
        """The fingerprints of embedders whose indexes the server's one can search, such as its teacher's."""
        found = self._described().get("compatible_with")
        return () if found is None else tuple(map(str, found[0]))

    @property
    def embedding_dim(self) -> int:
        """D, as the server says it."""
        return int(self._described()["embedding_dim"][0])

    @property
    def attribute_names(self) -> tuple[str, ...]:
        """The attributes that the server's embedder predicts; empty if it predicts none, or was exported before 0.2."""
        names = self._described().get("attribute_names")
        return () if names is None else tuple(map(str, names[0]))

    def predict_attributes(self, photos: Iterable[bytes | str | os.PathLike]) -> np.ndarray:
        """Predicts the attributes of photos.

        Args:
            photos: as for `embed`.

        Returns:
            `[N, A]` float32, the probability of each of `attribute_names`; zeros where the bytes are no image.

        Raises:
            ServingError: as `embed`; or if the embedder predicts no attributes.
        """
        found = self._predict_all("serving_default", ("attributes", "ok"), photos)
        return found["attributes"].astype(np.float32, copy=False) if found else np.zeros([0, 0], np.float32)

    def close(self) -> None:
        """Closes the connections; what is on its way or waits fails at once. A second time does nothing."""
        with self._lock:
            self._is_closed = True
            for stop in self._stops:
                stop.set()
        self._transport.close()
        self._pool.shutdown(cancel_futures=True)

    def __enter__(self) -> EmbeddingClient:
        return self

    def __exit__(self, *error) -> None:
        self.close()

    def _described(self) -> dict[str, np.ndarray]:
        with self._use() as stop:
            names = ("fingerprint", "embedding_dim")
            return self._predict(
                "describe", "query", names, [b""], stop, optional=("attribute_names", "compatible_with")
            )

    @contextlib.contextmanager
    def _use(self) -> Iterator[threading.Event]:
        """An event that ends all waits: when the client is closed, and when the `with` is left."""
        stop = threading.Event()
        with self._lock:
            if self._is_closed:
                raise _closed()
            self._stops.add(stop)
        try:
            yield stop
        except (StoppedError, concurrent.futures.CancelledError) as error:
            raise _closed() from error
        finally:
            stop.set()
            with self._lock:
                self._stops.discard(stop)

    def _predict_all(self, signature: str, outputs: Sequence[str], photos) -> dict[str, np.ndarray]:
        """The outputs for all photos, or {} if there are none. Only some batches are in memory at a time."""
        waiting: collections.deque = collections.deque()
        done = []
        with self._use() as stop:
            try:
                for batch in batches(read_photos(photos, self.max_pixels), self._batch_size, self._max_photo_bytes):
                    waiting.append(self._submitted(signature, outputs, batch, stop))
                    if len(waiting) > 2 * self._max_in_flight:
                        done.append(waiting.popleft().result())
                done.extend(future.result() for future in waiting)
            finally:
                for future in waiting:
                    future.cancel()
        return {name: np.concatenate([rows[name] for rows in done]) for name in outputs} if done else {}

    def _submitted(self, *arguments) -> concurrent.futures.Future:
        try:
            return self._pool.submit(self._predict_photos, *arguments)
        except RuntimeError as error:  # the pool was shut down meanwhile
            raise StoppedError from error

    def _predict_photos(
        self, signature: str, outputs: Sequence[str], batch: list[Photo], stop: threading.Event
    ) -> dict[str, np.ndarray]:
        """The outputs for one batch, sent in halves if it is too large for the server."""
        try:
            return self._predict(signature, "image_bytes", outputs, [photo.content for photo in batch], stop)
        except TooLargeError as error:
            if len(batch) == 1:
                raise too_large(batch[0], f"which the server at {self.target} does not take ({error})") from error
            middle = len(batch) // 2
            halves = [self._predict_photos(signature, outputs, half, stop) for half in (batch[:middle], batch[middle:])]
            return {name: np.concatenate([half[name] for half in halves]) for name in outputs}

    def _predict(
        self,
        signature: str,
        argument: str,
        outputs: Sequence[str],
        values: Sequence[bytes],
        stop: threading.Event,
        optional: Sequence[str] = (),
    ) -> dict[str, np.ndarray]:
        def attempt(timeout: float):
            with self._slots.one(stop):
                return self._transport.predict(signature, argument, values, (*outputs, *optional), timeout)

        try:
            found = self._retries.call(attempt, self.target, stop)
        except Exception as error:
            if stop.is_set():  # a connection that is closed fails in many ways
                raise StoppedError from error
            raise
        missing = [name for name in outputs if name not in found or len(found[name]) != len(values)]
        if missing:
            raise wrong_outputs(self.target, self.model, signature, missing)
        return found


def _closed() -> ServingError:
    return ServingError("the client was closed. Make a new EmbeddingClient, or close it later.")


def _is_rest(target: str) -> bool:
    return target.startswith(("http://", "https://"))


def _checked_target(target: str) -> str:
    if not isinstance(target, str) or not _is_address(target):
        raise ServingError(
            f"`target` must be like 'localhost:8500' (gRPC) or 'http://localhost:8501' (REST). Received: {target!r}."
        )
    return target


def _is_address(target: str) -> bool:
    """Whether it can be asked at all; whether somebody is there only a request tells."""
    if target.startswith("unix:"):  # a socket of this machine, for gRPC
        return True
    try:
        parts = urllib.parse.urlsplit(target if _is_rest(target) else f"//{target}")
        host, port = (parts.hostname or "").encode("idna"), parts.port
    except ValueError:
        return False
    is_whole = not parts.username and (_is_rest(target) or target == parts.netloc)
    return is_whole and bool(host) and b" " not in host and (port != 0 if _is_rest(target) else bool(port))


def _check_positive(arguments: dict) -> None:
    for name, value in arguments.items():
        if not value > 0:
            raise ServingError(f"`{name}` must be more than 0. Received: {name}={value!r}.")


def _transport(target: str, model: str, version: int | None, max_message_bytes: int):
    """What carries requests to such a target; each is imported only where it is used."""
    if _is_rest(target):
        from eet_tf.client.rest_transport import RestTransport

        return RestTransport(target, model, version)
    try:
        from eet_tf.client.grpc_transport import GrpcTransport
    except ImportError as error:
        raise ServingError(
            "gRPC needs tensorflow-serving-api: pip install 'eet-tf[serving]'. Or use REST, e.g. 'http://host:8501'. "
            f"({error})"
        ) from error
    return GrpcTransport(target, model, version, max_message_bytes)
