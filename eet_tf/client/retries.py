"""What goes wrong between a client and a server, and what of it is tried again."""

from __future__ import annotations

import collections
import dataclasses
import itertools
import random
import threading
import time
from collections.abc import Callable

_FIRST_WAIT, _LONGEST_WAIT = 0.1, 5.0  # seconds
_SHORTEST_TRY, _LAST_TRY = 0.001, 1.0  # seconds; the latter for one more where a wait would end after the deadline


class ServingError(RuntimeError):
    """Tells that a server did not answer; the message says what happened, which server it is, and how to repair it."""


class TransientError(Exception):
    """One try failed in a way that may pass: the server is away, late or busy."""


class TooLargeError(Exception):
    """A message that the other side will not take; a smaller one may do."""


class StoppedError(Exception):
    """Nobody waits for the answer any more."""


@dataclasses.dataclass(frozen=True)
class Retries:
    """For how long something is tried again.

    The wait before try n + 1 is drawn from [0, 0.1 * 2**n] seconds, at most 5: clients that a server turned away
    together do not come back together.

    Args:
        timeout: seconds that one try may take.
        deadline: seconds that all tries and the waits between them may take.
        clock: tells the time, in seconds.
        draw: a number between two others.

    Reference: Brooker, "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015), "full jitter".
    """

    timeout: float
    deadline: float
    clock: Callable[[], float] = time.monotonic
    draw: Callable[[float, float], float] = random.uniform

    def call(self, attempt: Callable[[float], object], target: str, stop: threading.Event):
        """Calls `attempt(timeout)` until it does not raise `TransientError`, and returns what it returns.

        Args:
            attempt: is told how many seconds it may take. What else it raises is not caught.
            target: the server, for the message.
            stop: ends the waits at once when it is set.

        Raises:
            ServingError: if no time is left for another try.
            StoppedError: if `stop` was set.

        Example:

        >>> Retries(timeout=1.0, deadline=9.0).call(lambda timeout: timeout, "localhost:8500", threading.Event())
        1.0
        """
        start, seen = self.clock(), collections.Counter[str]()
        for number in itertools.count():
            try:
                return attempt(max(_SHORTEST_TRY, min(self.timeout, self.deadline - (self.clock() - start))))
            except TransientError as error:
                seen[str(error)] += 1
                seconds = self.clock() - start
                wait = self.draw(0.0, min(_LONGEST_WAIT, _FIRST_WAIT * 2 ** min(number, 9)))
                if seconds + wait >= self.deadline:
                    wait = self.deadline - seconds - _LAST_TRY
                    if wait < _FIRST_WAIT:
                        raise _gave_up(target, seconds, seen) from error
            if stop.wait(wait):
                raise StoppedError
        return None  # never; the count has no end


def _gave_up(target: str, seconds: float, seen: collections.Counter[str]) -> ServingError:
    tries = sum(seen.values())
    what = "; ".join(f"{text} ({times} times)" if times > 1 else text for text, times in seen.most_common(3))
    return ServingError(
        f"the server at {target} did not answer after {tries} {'try' if tries == 1 else 'tries'} in {seconds:.1f} s: "
        f"{what}. Is it running, is this its address and port? If it is only slow or busy, raise `timeout` or "
        "`deadline`."
    )
