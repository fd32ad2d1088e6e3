"""The way to Milvus: every call of its client goes through here, has a deadline, and is refused in our words."""

from __future__ import annotations

import logging
import os
import re
import socket
import time
import urllib.parse
from collections.abc import Callable, Mapping
from typing import Any

from eet_tf.index.checks import CatalogIndexError
from eet_tf.wording import said_by

TOKEN = "MILVUS_TOKEN"  # the environment variable
TIMEOUT = 10.0  # seconds
OLDEST = (2, 3, 5)  # what the tests run; `upsert` of a key that is a string came with 2.3
_LITE = "milvus_lite"  # how its version begins
# after refused connections gRPC would wait for up to two minutes before it looks again whether the server is back
_CHANNEL = {f"grpc.{name}_reconnect_backoff_ms": wait for name, wait in [("initial", 100), ("min", 100), ("max", 1000)]}
# the last three are said for up to half a minute by a server that has just started
_NOT_LOADED = ("not loaded", "not fully loaded", "nodes not enough", "channel not available", "not ready")
_STANDSTILL = 120.0  # seconds without any progress, after which waiting for a server's own work is given up


class MessageTooLargeError(CatalogIndexError):
    """A request or an answer is larger than the server or its client takes; half of it may do."""


class NotLoadedError(CatalogIndexError):
    """The rows of a collection are not in the server's memory, or not yet."""


class NoAnswerError(CatalogIndexError):
    """The server is away, or did not answer in time; it may do so later."""


class RefusedError(CatalogIndexError):
    """The server understood, and said no."""


class Server:
    """A server of Milvus, asked through its client.

    Args:
        client: a `pymilvus.MilvusClient`.
        address: what messages call it.
        timeout: seconds that it may take to answer a call; None for any number.

    Attributes:
        version: as it names it.
        is_lite: whether it is milvus-lite, which has no index and no users.
    """

    def __init__(self, client, address: str, timeout: float | None = TIMEOUT):
        self._client, self.address, self.timeout = client, address, timeout
        self.version = str(self.call("get_server_version"))
        self.is_lite = self.version.startswith(_LITE)
        numbers = re.match(r"v?(\d+)\.(\d+)\.(\d+)", self.version)
        if not self.is_lite and numbers and tuple(map(int, numbers.groups())) < OLDEST:
            raise CatalogIndexError(
                f"the Milvus server at {address} must be {'.'.join(map(str, OLDEST))} or newer. Received: "
                f"{self.version}. Update it."
            )

    def call(self, method: str, *arguments, options: Mapping[str, Any] | None = None) -> Any:
        """What the client's method returns.

        Args:
            method: its name.
            arguments: that it takes by their places.
            options: that it takes by their names; `timeout` is ours.

        Raises:
            MessageTooLargeError, NotLoadedError, NoAnswerError, RefusedError: as their names say.
            CatalogIndexError: if a right is missing.
        """
        pymilvus, grpc = imported()
        try:
            return getattr(self._client, method)(*arguments, timeout=self.timeout, **(options or {}))
        except grpc.RpcError as error:
            refused = self._refusal(method, error.code().name, str(error.details() or ""))
        except pymilvus.MilvusException as error:
            code = getattr(error.code, "name", str(error.code))  # a status of gRPC, or a number of Milvus's own
            refused = self._refusal(method, code, str(error.message))
        raise refused from None

    def _refusal(self, method: str, code: str, said: str) -> CatalogIndexError:
        text = said.lower()
        if "message larger than max" in text or "results exceed the" in text:
            return MessageTooLargeError(
                f"one message to or from the Milvus server at {self.address} is too large: {said:.200}."
            )
        if any(sign in text for sign in _NOT_LOADED):
            return NotLoadedError(
                f"the Milvus server at {self.address} must have loaded the collection. Received: {said:.200}. If it "
                "has just started, try again in a minute; else load the index again."
            )
        denied = re.search(r"privilege(\w*): permission deny to (\S+)", said, re.IGNORECASE)
        if denied or code in ("PERMISSION_DENIED", "UNAUTHENTICATED"):
            right = f"the right {denied[1]} " if denied else "more rights "
            return CatalogIndexError(
                f"the Milvus server at {self.address} must let us `{method}`. Received: permission denied"
                f"{f' to the user {denied[2]}' if denied else ''}. Grant {right}to the user of the token in the "
                f"environment variable {TOKEN}, or set it to another user's."
            )
        if code == "DEADLINE_EXCEEDED" or "retry timeout" in text or "deadline exceeded" in text:
            return _no_answer(self.address, self.timeout or TIMEOUT, f"to `{method}`")
        if code == "UNAVAILABLE" or "fail connecting" in text:
            return unreachable(self.address, said)
        return RefusedError(
            f"the Milvus server at {self.address} must `{method}` as it is asked. Received from it: {said:.500}. "
            "Its log says more."
        )

    def close(self) -> None:
        """Ends the connection."""
        self._client.close()


def wait(progress: Callable[[], object], is_done: Callable[[Any], bool], what: str, standstill: float = _STANDSTILL):
    """Asks for the progress of a server's own work until it is done, and returns the last answer.

    A server that gives no answer for a while is waited for as one that makes no progress.

    Args:
        progress: asks; what it returns changes as long as the work goes on.
        is_done: of such an answer.
        what: for the message, what is waited for.
        standstill: seconds after which an answer that stays the same is no work any more.

    Raises:
        CatalogIndexError: if nothing changes for so long.
    """
    since, pause, last = time.monotonic(), 0.02, None
    while True:
        answer, silence = last, None
        try:
            answer = progress()
            if is_done(answer):
                return answer
        except NoAnswerError as error:
            silence = error
        if answer != last:
            since, last = time.monotonic(), answer
        if time.monotonic() - since > standstill:
            if silence is not None:
                raise silence
            raise CatalogIndexError(
                f"Milvus must {what}. Received: no progress for {standstill:g} seconds ({answer}). Look into its log: "
                "has it memory and disk left?"
            )
        time.sleep(pause)
        pause = min(1.5 * pause, 1.0)


def connect(uri: str, timeout: float = TIMEOUT) -> Server:
    """The server at `uri`, signed in by the environment variable MILVUS_TOKEN, if that is set.

    Raises:
        CatalogIndexError: if it cannot be reached, does not take the token, or is too old.
    """
    pymilvus, grpc = imported()
    parts, token, begin = urllib.parse.urlsplit(uri), os.environ.get(TOKEN, ""), time.monotonic()
    is_encrypted = parts.scheme == "https"
    how = {"timeout": timeout, "grpc_options": _CHANNEL}
    try:
        # clients share connections by address and token, one that encrypts with one that does not
        client = pymilvus.MilvusClient(uri=uri, token=token, dedicated=is_encrypted, **how)
    except (pymilvus.MilvusException, grpc.RpcError) as error:
        said = str(getattr(error, "message", "") or error)
        if time.monotonic() - begin > 0.9 * timeout:
            raise _no_answer(uri, timeout, "to a new client") from None
        try:
            address = (parts.hostname, parts.port or (443 if is_encrypted else 19530))
            socket.create_connection(address, timeout).close()
        except OSError as why:
            raise unreachable(uri, said_by(why)) from None
        raise CatalogIndexError(
            f"the Milvus server at {uri} must take the token in the environment variable {TOKEN}, which is "
            f"{'set' if token else 'not set'}. Received: {said:.300}. Set it to `user:password`; or is this port not "
            f"Milvus's{', or one that does not encrypt' if is_encrypted else ''}, or the server still starting?"
        ) from None
    return Server(client, uri, timeout)


def _no_answer(address: str, timeout: float, to: str) -> NoAnswerError:
    return NoAnswerError(
        f"the Milvus server at {address} must answer within {timeout:g} seconds. Received: no answer {to}. Is it "
        "overloaded or still starting? Try again, or give it a longer `timeout`."
    )


def unreachable(address: str, why: str) -> NoAnswerError:
    """The refusal of an address where nobody answers."""
    return NoAnswerError(
        f"the Milvus server at {address} must be reachable. Received: {why:.300}. Is the server up, and is this its "
        "address?"
    )


def imported():
    """`pymilvus` and `grpc`, imported here and not above: it takes seconds, and pulls in pandas.

    What pymilvus logs of each failed call, two tracebacks, is left out unless somebody has set a level for it: what
    matters of them is in our refusals.
    """
    try:
        import grpc
        import pymilvus
    except ImportError as error:
        raise missing_package("pymilvus") from error
    for name in ("pymilvus.decorators", "pymilvus.client.connection_manager"):
        logger = logging.getLogger(name)
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.CRITICAL)
    return pymilvus, grpc


def missing_package(name: str) -> CatalogIndexError:
    """The refusal where a package is not installed."""
    return CatalogIndexError(
        f"MilvusIndex needs the package {name}. Received: none of that name. pip install 'eet-tf[milvus]'. ExactIndex "
        "and ScannIndex have the same methods without it."
    )
