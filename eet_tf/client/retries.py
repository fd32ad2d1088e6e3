"""What goes wrong between a client and a server, and what of it is tried again."""

from __future__ import annotations

import dataclasses
import itertools
import random
import time
from collections.abc import Callable

_FIRST_WAIT, _LONGEST_WAIT = 0.1, 5.0  # seconds


class ServingError(RuntimeError):
    """A server that did not answer as asked; the message says what happened, names the server and how to mend it."""


class TransientError(Exception):
    """One try failed in a way that may pass: the server is away, late or busy."""


class TooLargeError(Exception):
    """A message that the other side will not take; a smaller one may do."""


@dataclasses.dataclass(frozen=True)
class Retries:
    """How often something is tried, and for how long.

    The wait before try n + 1 is drawn from [0, 0.1 * 2**n] seconds, at most 5: clients that a server turned away
    together do not come back together.

    Args:
        max_tries: at least 1.
        timeout: seconds that one try may take.
        deadline: seconds that all tries and the waits between them may take.
        clock: tells the time, in seconds.
        sleep: waits for that many seconds.
        draw: a number between two others.

    Reference: Brooker, "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015), "full jitter".
    """

    max_tries: int
    timeout: float
    deadline: float
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    draw: Callable[[float, float], float] = random.uniform

    def call(self, attempt: Callable[[float], object], target: str):
        """Calls `attempt(timeout)` until it does not raise `TransientError`, and returns what it returns.

        Args:
            attempt: is told how many seconds it may take. What else it raises is not caught.
            target: the server, for the message.

        Raises:
            ServingError: if the last try failed too, or no time is left for another.

        Example:

        >>> Retries(max_tries=3, timeout=1.0, deadline=9.0).call(lambda timeout: timeout, "localhost:8500")
        1.0
        """
        start = self.clock()
        for number in itertools.count(1):
            try:
                return attempt(min(self.timeout, self.deadline - (self.clock() - start)))
            except TransientError as error:
                seconds = self.clock() - start
                wait = self.draw(0.0, min(_LONGEST_WAIT, _FIRST_WAIT * 2 ** (number - 1)))
                if number == self.max_tries or seconds + wait >= self.deadline:
                    raise _gave_up(target, number, seconds, error) from error
            self.sleep(wait)
        return None  # never; the count has no end


def _gave_up(target: str, tries: int, seconds: float, error: TransientError) -> ServingError:
    return ServingError(
        f"the server at {target} did not answer after {tries} {'try' if tries == 1 else 'tries'} in {seconds:.1f} s: "
        f"{error}. Is it running, is this its address and port? If it is only slow or busy, raise `timeout`, "
        "`deadline` or `max_tries`."
    )
