"""How TensorFlow Serving puts the requests of several callers into one run of a model, and what that does to them."""

import collections
import concurrent.futures
import dataclasses
import threading
import time

import numpy as np

from tests.serving.served_models import Refused

_SHAPES = (
    "Tensors with name '{}' from different tasks have different shapes and padding is turned off."
    "Set pad_variable_length_inputs to true, or ensure that all tensors with the same name"
    "have equal dimensions starting with the first dim."
)


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of a model: which signature, which outputs (none for all), how many rows, and how many copies of rows."""

    signature: str
    outputs: tuple
    rows: int
    padding: int


class Died(Exception):
    """The server's process has ended."""


class LoadedModel:
    """A model that answers: alone, or with batching, where requests that wait are merged along axis 0.

    Requests wait in queues by signature and by the outputs that they ask for. Where `allowed_batch_sizes` are given, a
    batch is padded with copies of the first row of its last request. If that one has no rows, the process dies;
    requests without rows alone wait for ever.

    Args:
        model: as `served_models` has them.
        batches: whether the server was started with batching.
        first_run_seconds: that the first run for a signature and outputs takes longer than the others.
        runs: a list, to which every `Run` is added.
        die: is called with the reason where the server's process would end.
    """

    def __init__(self, model, batches, first_run_seconds, runs, die):
        self.model, self.signatures = model, model.signatures
        self._batching = model.batching if batches else None
        self._first_run_seconds, self._runs, self._die = first_run_seconds, runs, die
        self._seen, self._queues, self._lock = set(), {}, threading.Lock()

    def predict(self, signature, outputs, inputs):
        """A future of {name: array}."""
        key = signature, tuple(sorted(outputs))
        rows = {len(value) if np.ndim(value) else -1 for value in inputs.values()}
        if self._batching is None:
            answer = concurrent.futures.Future()
            _resolve(answer, lambda: self._run(key, inputs, next(iter(rows)), 0))
            return answer
        if len(rows) > 1 or -1 in rows:
            raise Refused("INVALID_ARGUMENT", "Batching Run() input tensors must have equal 0th-dimension size")
        if (size := rows.pop()) > self._batching["max_batch_size"]:
            largest = self._batching["max_batch_size"]
            raise Refused("INVALID_ARGUMENT", f"Task size {size} is larger than maximum input batch size {largest}")
        with self._lock:
            if key not in self._queues:
                self._queues[key] = _Queue(self._batching, lambda tasks: self._run_batch(key, tasks))
            return self._queues[key].put(inputs, size)

    def warm_up(self, requests):
        """Runs recorded requests, [(signature, outputs, inputs)], unbatched as the server does."""
        for signature, outputs, inputs in requests:
            self._run((signature, tuple(sorted(outputs))), inputs, 0, 0, is_recorded=False)

    def close(self):
        """What waits ends without an answer."""
        with self._lock:
            for queue in self._queues.values():
                queue.close()

    def _run(self, key, inputs, rows, padding, is_recorded=True):
        with self._lock:
            is_first = key not in self._seen
            self._seen.add(key)
        if is_recorded:
            if is_first:
                time.sleep(self._first_run_seconds)
            self._runs.append(Run(*key, rows, padding))
        return self.model.run(key[0], inputs)

    def _run_batch(self, key, tasks):
        total, allowed = sum(size for _, size, _ in tasks), self._batching["allowed_batch_sizes"]
        padding = min((size for size in allowed if size >= total), default=total) - total
        merged = {}
        for name in tasks[0][0]:
            arrays = [inputs[name] for inputs, _, _ in tasks]
            if len({array.shape[1:] for array in arrays}) > 1:
                raise Refused("FAILED_PRECONDITION", _SHAPES.format(name))
            if padding and not tasks[-1][1]:
                self._die("Check failed: limit <= dim0_size (1 vs. 0)")
                raise Died
            merged[name] = np.concatenate([*arrays, *[arrays[-1][:1]] * padding])
        return self._run(key, merged, total, padding)


def _resolve(answer, function):
    """Puts what a function returns or raises into a future."""
    try:
        answer.set_result(function())
    except Exception as error:
        answer.set_exception(error)


class _Queue:
    """Requests for the same run; a thread takes as many as fit into a batch."""

    def __init__(self, batching, run):
        self._largest, self._run = batching["max_batch_size"], run
        self._timeout = batching.get("batch_timeout_micros", 0) / 1e6
        self._most = self._largest * batching.get("max_enqueued_batches", 10)
        # with allowed sizes, requests without rows alone are no batch
        self._least = 1 if batching["allowed_batch_sizes"] else 0
        self._tasks, self._changed, self._is_open = collections.deque(), threading.Condition(), True
        threading.Thread(target=self._work, daemon=True).start()

    def put(self, inputs, size):
        with self._changed:
            if sum(size for _, size, _ in self._tasks) + size > self._most:
                raise Refused("UNAVAILABLE", "The batch scheduling queue to which this task was submitted is full")
            self._tasks.append((inputs, size, concurrent.futures.Future()))
            self._changed.notify_all()
            return self._tasks[-1][2]

    def close(self):
        with self._changed:
            self._is_open = False
            self._changed.notify_all()

    def _work(self):
        while tasks := self._next():
            try:
                answer, start = self._run(tasks), 0
                for _, size, future in tasks:
                    future.set_result({name: value[start : start + size] for name, value in answer.items()})
                    start += size
            except Exception as error:
                for _, _, future in tasks:
                    future.set_exception(error)
        for _, _, future in self._tasks:
            future.set_exception(Died())

    def _next(self):
        """The requests of the next batch; none once the queue is closed."""
        size = lambda: sum(size for _, size, _ in self._tasks)  # noqa: E731
        with self._changed:
            self._changed.wait_for(lambda: not self._is_open or (self._tasks and size() >= self._least))
            self._changed.wait_for(lambda: not self._is_open or size() >= self._largest, self._timeout)
            taken, rows = [], 0
            while self._is_open and self._tasks and rows + self._tasks[0][1] <= self._largest:
                taken.append(self._tasks.popleft())
                rows += taken[-1][1]
            return taken
