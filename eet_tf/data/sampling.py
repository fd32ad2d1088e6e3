"""Which photos make a batch. NumPy only; knows labels, not images."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


class PKSampler:
    """Batches of P classes x K photos, class after class, so that every anchor has positives and negatives.

    - A pass visits every class exactly once, in a random order; passes follow each other without end.
    - The last batch of a pass is filled with the first classes of the next pass that are not in it yet.
    - From a class of more than K photos each visit takes the next K of a shuffled round, so that over the visits
      every photo is used equally often. A round's end is filled from the next round, without repeats in the batch.
    - From a class of fewer than K photos every visit takes all of them and then repeats some: no photo is used more
      than once more often than another. Repeats have distance 0 and cost nothing but compute.
    - The same seed gives the same batches; each epoch has its own, whatever came before it.

    Args:
        labels: `[N]` integer labels.
        classes_per_batch: P, at least 2.
        examples_per_class: K, at least 2.
        seed: any integer.

    Raises:
        ValueError: if P or K is below 2 or there are fewer than P classes.

    Example:

    >>> sampler = PKSampler([7, 7, 7, 8, 8, 9], classes_per_batch=2, examples_per_class=2, seed=0)
    >>> [[7, 7, 7, 8, 8, 9][row] for row in next(sampler.batches(epoch=0))]
    [9, 9, 7, 7]
    """

    def __init__(self, labels, classes_per_batch: int = 16, examples_per_class: int = 4, seed: int = 0):
        labels = np.asarray(labels)
        for name, value in {"classes_per_batch": classes_per_batch, "examples_per_class": examples_per_class}.items():
            if value < 2:
                raise ValueError(f"`{name}` must be at least 2, to make pairs. Received: {name}={value}.")
        order = np.argsort(labels, kind="stable")
        _, starts = np.unique(labels[order], return_index=True)
        self._rows_of_class = np.split(order, starts[1:])
        if classes_per_batch > len(self._rows_of_class):
            raise ValueError(
                f"`classes_per_batch` must be at most the number of classes, {len(self._rows_of_class)}. "
                f"Received: classes_per_batch={classes_per_batch}."
            )
        self.classes_per_batch = classes_per_batch
        self.examples_per_class = examples_per_class
        self.seed = seed
        self._num_rows = len(labels)

    @property
    def batch_size(self) -> int:
        """Photos in a batch, P x K."""
        return self.classes_per_batch * self.examples_per_class

    @property
    def steps_per_epoch(self) -> int:
        """Batches it takes to draw as many photos as there are, and to visit every class."""
        by_photos = -(-self._num_rows // self.batch_size)
        by_classes = -(-len(self._rows_of_class) // self.classes_per_batch)
        return max(by_photos, by_classes)

    def batches(self, epoch: int) -> Iterator[np.ndarray]:
        """Endless batches of one epoch: `[P * K]` row numbers, the K of a class side by side."""
        rng = np.random.default_rng([self.seed, epoch])
        queues = [np.empty(0, dtype=np.int64) for _ in self._rows_of_class]
        waiting: list[int] = []
        while True:
            yield np.concatenate([self._photos(number, queues, rng) for number in self._next_classes(waiting, rng)])

    def _next_classes(self, waiting: list[int], rng) -> list[int]:
        """Takes the first P different classes out of `waiting`, which it fills pass by pass."""
        chosen: dict[int, int] = {}
        place = 0
        while len(chosen) < self.classes_per_batch:
            if place == len(waiting):
                waiting.extend(rng.permutation(len(self._rows_of_class)).tolist())
            chosen.setdefault(waiting[place], place)
            place += 1
        for taken in sorted(chosen.values(), reverse=True):
            del waiting[taken]
        return list(chosen)

    def _photos(self, number: int, queues: list[np.ndarray], rng) -> np.ndarray:
        rows = self._rows_of_class[number]
        if len(rows) <= self.examples_per_class:
            repeats = -(-self.examples_per_class // len(rows))
            return np.concatenate([rng.permutation(rows) for _ in range(repeats)])[: self.examples_per_class]
        queue = queues[number]
        if len(queue) < self.examples_per_class:
            fresh = rng.permutation(rows)
            is_queued = np.isin(fresh, queue)
            queue = np.concatenate([queue, fresh[~is_queued], fresh[is_queued]])
        queues[number] = queue[self.examples_per_class :]
        return queue[: self.examples_per_class]
