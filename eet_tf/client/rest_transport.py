"""One request to TensorFlow Serving over REST: JSON and base64, with the standard library alone."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import socket
import threading
import urllib.parse
from collections.abc import Sequence

import numpy as np

from eet_tf.client.refusals import refusal
from eet_tf.client.retries import ServingError, TooLargeError, TransientError

_TRANSIENT = (408, 429, 502, 503, 504)


class RestTransport:
    """Connections to a server, kept open between requests. Any number of threads may use it.

    Args:
        target: `http://host:port` or `https://...`; a path in it is kept.
        model: its name on the server.
        version: a number, or None for the newest.
    """

    def __init__(self, target: str, model: str, version: int | None):
        parts = urllib.parse.urlsplit(target)
        kinds = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
        self._target, self._model = target, model
        self._connect, self._host = kinds[parts.scheme], parts.netloc
        chosen = "" if version is None else f"/versions/{version}"
        self._path = f"{parts.path.rstrip('/')}/v1/models/{urllib.parse.quote(model, safe='')}{chosen}:predict"
        self._idle: list[http.client.HTTPConnection] = []
        self._busy: set[http.client.HTTPConnection] = set()
        self._is_closed = False
        self._lock = threading.Lock()

    def predict(
        self, signature: str, argument: str, values: Sequence[bytes], outputs: Sequence[str], timeout: float
    ) -> dict[str, np.ndarray]:
        """Calls a signature of one string input `[N]`; returns its `outputs`. As `GrpcTransport.predict`."""
        instances = [{"b64": base64.b64encode(value).decode("ascii")} for value in values]
        body = json.dumps({"signature_name": signature, "instances": instances})
        status, text = self._post(body, timeout)
        if status == 200:
            return self._columns(text, outputs)
        details = _error_of(text)
        if status == 413:
            raise TooLargeError(f"HTTP {status}, {details}")
        if status in _TRANSIENT:
            raise TransientError(f"HTTP {status}, {details}")
        raise refusal(self._target, self._model, signature, status == 404, details)

    def _post(self, body: str, timeout: float) -> tuple[int, bytes]:
        connection = self._taken(timeout)
        try:
            connection.request("POST", self._path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            status, text = answer.status, answer.read()
        except (OSError, http.client.HTTPException) as error:
            self._give_back(connection, is_usable=False)
            raise TransientError(f"{error or type(error).__name__}") from error
        self._give_back(connection, is_usable=True)
        return status, text

    def _taken(self, timeout: float) -> http.client.HTTPConnection:
        """An idle connection, or a new one."""
        with self._lock:
            connection = self._idle.pop() if self._idle else self._connect(self._host)
            self._busy.add(connection)
        connection.timeout = timeout
        if connection.sock is not None:
            connection.sock.settimeout(timeout)
        return connection

    def _give_back(self, connection: http.client.HTTPConnection, is_usable: bool) -> None:
        with self._lock:
            self._busy.discard(connection)
            if is_usable and not self._is_closed:
                self._idle.append(connection)
                return
        connection.close()

    def _columns(self, text: bytes, outputs: Sequence[str]) -> dict[str, np.ndarray]:
        """Rows of JSON as one array for each output."""
        try:
            rows = json.loads(text)["predictions"]
            names = [name for name in outputs if all(name in row for row in rows)]
            return {name: np.array([row[name] for row in rows]) for name in names}
        except (ValueError, LookupError, TypeError) as error:
            raise ServingError(
                f"the server at {self._target} does not answer as TensorFlow Serving does: {text[:100]!r}. "
                "Is this the address of its REST API?"
            ) from error

    def close(self) -> None:
        """Closes the connections; a request on its way fails."""
        with self._lock:
            self._is_closed = True
            for connection in self._busy:
                if connection.sock is not None:
                    with contextlib.suppress(OSError):  # it has just ended by itself
                        connection.sock.shutdown(socket.SHUT_RDWR)
            while self._idle:
                self._idle.pop().close()


def _error_of(text: bytes) -> str:
    try:
        return str(json.loads(text)["error"])
    except (ValueError, LookupError, TypeError):
        return text[:200].decode("utf-8", "replace")
