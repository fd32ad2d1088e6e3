"""Which photos make a batch. NumPy only; knows labels, not images."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from eet_tf.labels import check_labels


class PKSampler:
    """Draws batches of P classes x K photos, class after class, so that every anchor has positives and negatives.

    - A pass visits every class exactly once, in a random order; passes follow each other without end.
    - The last batch of a pass is filled with the first classes of the next pass that are not in it yet.
    - From a class of more than K photos each visit takes the next K of a shuffled round, so that over the visits
      every photo is used equally often. A round's end is filled from the next round, without repeats in the batch.
    - From a class of fewer than K photos every visit takes all of them and then repeats some: no photo is used more
      than once more often than another. Repeats have distance 0 and cost nothing but compute.
    - The same seed gives the same batches; each epoch has its own, whatever came before it.

    With categories, some batches favour one, so that their negatives are alike (arXiv 1810.04652):

    - With probability `category_probability`, drawn anew for every batch, the whole batch comes from one category,
      and every category is equally likely, however large.
    - Each category has passes of its own, which visit its classes equally often; the rest of the batches come from
      the pass over all classes.
    - A category with fewer than P classes gives all of them, and the batch is filled from the pass over all classes.
    - A class whose photos lie in several categories belongs to the one with most of them, the first by name on a tie.

    Args:
        labels: `[N]` or `[N, 1]` labels, integers or strings.
        classes_per_batch: P, at least 2.
        examples_per_class: K, at least 2.
        seed: any integer.
        categories: `[N]` category names, one per photo; needed for `category_probability`.
        category_probability: share of the batches that favour a category, in [0, 1], default 0. The paper has 0.8.

    Raises:
        ValueError: if P or K is below 2, there are fewer than P classes, a label or a category is missing, or
            `category_probability` is no share or is given without categories.

    Reference: Dodds et al., arXiv 1810.04652, for category-favouring batches; their shuffle buffer blurs them, here
        they are exact.

    Example:

    >>> sampler = PKSampler([7, 7, 7, 8, 8, 9], classes_per_batch=2, examples_per_class=2, seed=0)
    >>> [[7, 7, 7, 8, 8, 9][row] for row in next(sampler.batches(epoch=0))]
    [9, 9, 7, 7]
    """

    def __init__(
        self,
        labels,
        classes_per_batch: int = 16,
        examples_per_class: int = 4,
        seed: int = 0,
        categories=None,
        category_probability: float = 0.0,
    ):
        labels = check_labels("labels", labels)
        for name, value in {"classes_per_batch": classes_per_batch, "examples_per_class": examples_per_class}.items():
            if value < 2:
                raise ValueError(f"`{name}` must be at least 2, to make pairs. Received: {name}={value}.")
        order = np.argsort(labels, kind="stable")
        _, starts = np.unique(labels[order], return_index=True)
        self._num_rows = len(labels)
        self._rows_of_class = np.split(order, starts[1:])
        if classes_per_batch > len(self._rows_of_class):
            raise ValueError(
                f"`classes_per_batch` must be at most the number of classes, {len(self._rows_of_class)}. "
                f"Received: classes_per_batch={classes_per_batch}."
            )
        if not 0 <= category_probability <= 1:
            raise ValueError(
                f"`category_probability` must be in [0, 1]. Received: category_probability={category_probability}."
            )
        if category_probability and categories is None:
            raise ValueError("`category_probability` needs `categories`, one name per photo. Received: none.")
        self._classes_of_category = [] if categories is None else self._group_by_category(categories)
        self.category_probability = category_probability
        self.classes_per_batch = classes_per_batch
        self.examples_per_class = examples_per_class
        self.seed = seed

    @property
    def batch_size(self) -> int:
        """The number of photos in a batch, P x K."""
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
        all_classes = _Passes(np.arange(len(self._rows_of_class)), rng)
        categories = [_Passes(classes, rng) for classes in self._classes_of_category]
        while True:
            chosen = self._next_classes(all_classes, categories, rng)
            yield np.concatenate([self._photos(number, queues, rng) for number in chosen])

    @property
    def num_rows(self) -> int:
        """The photos it draws from, N."""
        return self._num_rows

    def endless(
        self, first_epoch: int = 0, steps_per_epoch: int | None = None, part: tuple[int, int] = (0, 1)
    ) -> Iterator[np.ndarray]:
        """Returns the batches of one epoch after another, without end.

        Args:
            first_epoch: the epoch it begins with.
            steps_per_epoch: batches of each epoch, default `steps_per_epoch` of the sampler.
            part: `(k, n)`: only the k-th of n equal parts of each batch, k counted from 0.

        Raises:
            ValueError: at once, if a batch does not fall into `n` parts.

        Example:

        >>> sampler = PKSampler([7, 7, 7, 8, 8, 9], classes_per_batch=2, examples_per_class=2, seed=0)
        >>> [[7, 7, 7, 8, 8, 9][row] for row in next(sampler.endless(part=(1, 2)))]
        [7, 7]
        """
        share, remainder = divmod(self.batch_size, part[1])
        if remainder or not 0 <= part[0] < part[1]:
            raise ValueError(
                f"`part` must be (k, n), k below n, and n must divide the {self.batch_size} photos of a batch. "
                f"Received: part={part}."
            )
        rows = slice(part[0] * share, (part[0] + 1) * share)
        steps = steps_per_epoch or self.steps_per_epoch
        epochs = itertools.count(first_epoch)
        return (batch[rows] for epoch in epochs for batch in itertools.islice(self.batches(epoch), steps))

    def _next_classes(self, all_classes: _Passes, categories: list[_Passes], rng) -> list[int]:
        chosen: list[int] = []
        if self.category_probability and rng.random() < self.category_probability:
            category = categories[rng.integers(len(categories))]
            chosen = category.take(min(self.classes_per_batch, category.num_classes), [])
        return chosen + all_classes.take(self.classes_per_batch - len(chosen), chosen)

    def _group_by_category(self, categories) -> list[np.ndarray]:
        """Class numbers of each category, a class counting to the one most of its photos lie in."""
        categories = check_labels("categories", categories, self._num_rows, may_be_empty=True)
        names, numbers = np.unique(categories, return_inverse=True)
        numbers = numbers.reshape(-1)
        main = np.array([np.argmax(np.bincount(numbers[rows])) for rows in self._rows_of_class])
        groups = [np.flatnonzero(main == number) for number in range(len(names))]
        return [classes for classes in groups if classes.size]

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


class _Passes:
    """Endless passes over class numbers, each in a random order; what is taken is different within a batch."""

    def __init__(self, classes: np.ndarray, rng):
        self._classes = classes
        self._rng = rng
        self._waiting: list[int] = []

    @property
    def num_classes(self) -> int:
        return len(self._classes)

    def take(self, count: int, unwanted: list[int]) -> list[int]:
        """Takes the first `count` different classes that are not in `unwanted`; the others keep their place."""
        places: dict[int, int] = {}
        place = 0
        while len(places) < count:
            if place == len(self._waiting):
                self._waiting.extend(self._rng.permutation(self._classes).tolist())
            if self._waiting[place] not in unwanted:
                places.setdefault(self._waiting[place], place)
            place += 1
        for taken in sorted(places.values(), reverse=True):
            del self._waiting[taken]
        return list(places)
