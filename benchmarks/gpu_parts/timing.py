"""How calls are timed that a GPU works off later than they return."""

from __future__ import annotations

import statistics
import time


def first_call(call, wait) -> float:
    """Seconds of a call that traces and compiles."""
    started = time.perf_counter()
    wait(call())
    return time.perf_counter() - started


def milliseconds(call, wait, budget_s: float = 0.3, repeats: int = 5) -> float:
    """Median milliseconds of a call, of which many are queued before one result is waited for.

    Args:
        call: what is timed; it has run before.
        wait: gets the last result and returns once it is there.
        budget_s: seconds that all timings together should take; slow calls take longer.
        repeats: how many timings the median is taken of.
    """
    wait(call())
    estimate = first_call(call, wait)
    count = max(3, min(100, int(budget_s / repeats / max(estimate, 1e-6))))
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        for _ in range(count):
            result = call()
        wait(result)
        times.append((time.perf_counter() - started) / count)
    return 1000 * statistics.median(times)
