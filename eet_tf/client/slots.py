"""How many requests are on their way at once: fewer where a server does not keep up."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from eet_tf.client.retries import StoppedError, TransientError

_LOOK = 0.1  # seconds between two looks at whether a wait was ended


class Slots:
    """A number of requests that may be on their way at once, which follows what the server can take.

    A request that failed in a way that may pass halves the number, once for all that were on their way with it. One
    that was answered adds a part of one, so that as many answers as there are slots add one.

    Args:
        most: of them; the number is from 1 to this.

    Example:

    >>> slots = Slots(8)
    >>> for _ in range(2):
    ...     with contextlib.suppress(TransientError), slots.one(threading.Event()):
    ...         raise TransientError
    >>> slots.number
    2

    Reference: Chiu and Jain, "Analysis of the Increase and Decrease Algorithms for Congestion Avoidance" (1989).
    """

    def __init__(self, most: int):
        self._most, self._limit, self._taken, self._halvings = most, float(most), 0, 0
        self._changed = threading.Condition()

    @property
    def number(self) -> int:
        """How many there are now."""
        return int(self._limit)

    @contextlib.contextmanager
    def one(self, stop: threading.Event) -> Iterator[None]:
        """Waits until one is free and takes it, for a `with`.

        Args:
            stop: ends the wait when it is set.

        Raises:
            StoppedError: if `stop` was set.
        """
        with self._changed:
            while self._taken >= self.number and not stop.is_set():
                self._changed.wait(_LOOK)
            if stop.is_set():
                raise StoppedError
            self._taken += 1
            halvings = self._halvings
        try:
            yield
            with self._changed:
                self._limit = min(self._most, self._limit + 1 / self._limit)
        except TransientError:
            with self._changed:
                if halvings == self._halvings:
                    self._halvings += 1
                    self._limit = max(1.0, self._limit / 2)
            raise
        finally:
            with self._changed:
                self._taken -= 1
                self._changed.notify_all()
