"""One request to TensorFlow Serving over REST: JSON and base64, with the standard library alone."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import socket
import ssl
import threading
import urllib.parse
from collections.abc import Sequence

import numpy as np

from eet_tf.client.refusals import not_found, refusal, wrong_port
from eet_tf.client.retries import ServingError, TooLargeError, TransientError
from eet_tf.wording import said_by

_TRANSIENT = (408, 429, 502, 503, 504)
_CONNECT_SECONDS = 3.0  # until a server has taken a connection; a network that is there does so in milliseconds
_SETTINGS_FRAME = "\x04"  # the fourth byte that a gRPC server sends


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
        self._target, self._model, self._version = target, model, version
        self._kind, self._host = kinds[parts.scheme], parts.netloc
        self._path = f"{parts.path.rstrip('/')}/v1/models/{urllib.parse.quote(model, safe='')}"
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
        version = "" if self._version is None else f"/versions/{self._version}"
        status, text = self._asked("POST", f"{self._path}{version}:predict", body, timeout)
        if status == 200:
            return self._columns(text, outputs)
        details = _error_of(text)
        if status == 413:
            raise TooLargeError(f"HTTP {status}, {details}")
        if status in _TRANSIENT:
            raise TransientError(f"HTTP {status}, {details}")
        if status == 404:
            raise not_found(self._target, self._model, self._version, self._states(timeout), details)
        raise refusal(self._target, self._model, signature, details)

    def _states(self, timeout: float) -> dict[int, tuple[str, str]]:
        """Returns the state and the error of each version that the server knows; empty if it knows none."""
        try:
            _, text = self._asked("GET", self._path, None, timeout)
            rows = json.loads(text)["model_version_status"]
            return {int(row["version"]): (row["state"], row["status"]["error_message"]) for row in rows}
        except (TransientError, ValueError, LookupError, TypeError):
            return {}

    def _asked(self, verb: str, path: str, body: str | None, timeout: float) -> tuple[int, bytes]:
        """The status and the text of an answer, over a connection that was kept open if there is one.

        Such a connection may be dead without our knowing it, and then others are, too: they are dropped together, and
        the request goes over a fresh one at once.
        """
        connection = self._taken()
        was_open = connection.sock is not None
        try:
            if not was_open:
                connection.timeout = min(timeout, _CONNECT_SECONDS)
                connection.connect()
            if self._is_closed:
                raise ConnectionAbortedError("the client was closed")
            connection.sock.settimeout(timeout)
            connection.request(verb, path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            status, text = answer.status, answer.read()
        except (OSError, http.client.HTTPException) as error:
            self._drop(connection)
            if was_open and isinstance(error, ConnectionError) and not self._is_closed:
                return self._asked(verb, path, body, timeout)
            raise self._translated(error) from error
        self._give_back(connection)
        return status, text

    def _translated(self, error: Exception) -> Exception:
        if isinstance(error, http.client.BadStatusLine) and str(error)[3:4] == _SETTINGS_FRAME:
            return wrong_port(self._target, is_rest=True)
        if isinstance(error, ssl.SSLError) and not isinstance(error, TimeoutError):
            return ServingError(
                f"the server at {self._target} cannot be reached by TLS: {error}. Is its certificate one that this "
                "machine trusts? Write http:// if it does not encrypt."
            )
        return TransientError(said_by(error))

    def _taken(self) -> http.client.HTTPConnection:
        """A connection that was kept open, or a new one that is not open yet."""
        with self._lock:
            connection = self._idle.pop() if self._idle else self._kind(self._host)
            self._busy.add(connection)
        return connection

    def _give_back(self, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            self._busy.discard(connection)
            if not self._is_closed:
                self._idle.append(connection)
                return
        connection.close()

    def _drop(self, connection: http.client.HTTPConnection) -> None:
        """Closes a connection that failed, and all that were kept open."""
        with self._lock:
            self._busy.discard(connection)
            idle, self._idle = self._idle, []
        for each in (connection, *idle):
            each.close()

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
