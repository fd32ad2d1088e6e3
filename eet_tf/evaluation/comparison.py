"""Which of two embedders finds better: figures class by class in a file, and how far chance reaches. NumPy only."""

from __future__ import annotations

import csv
import dataclasses
import math
import os
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from eet_tf import files
from eet_tf.evaluation.metrics import RetrievalResult
from eet_tf.labels import check_labels
from eet_tf.wording import counted

CLASSES = "classes.csv"  # what a training leaves: the figures of each product, among the products measured on alone
CLASSES_IN_WHOLE_CATALOGUE = "classes_in_whole_catalogue.csv"  # and in all photos
_DRAWS_AT_ONCE = 200_000  # fits the cache
# Two-sided 95 % quantiles of Student's t for 1 to 30 degrees of freedom.
_T_95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
_T_95 += (2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086)
_T_95 += (2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042)


@dataclasses.dataclass(frozen=True, eq=False)
class ClassResults:
    """Retrieval figures added up over the queries of each product: what two runs are compared by.

    As a file it has a row for each product that had a query with a right answer in the gallery. All columns can be
    added up; sorted by `recall@1` it shows which products are not found.

    ```
    sku,num_queries,recall@1,recall@10,map@r,r_precision
    blue mug,4,3,4,2.25,2.5
    ```

    Args:
        skus: `[C]` strings, each another; they are sorted, and the rest with them.
        num_queries: `[C]` int64, the queries of each, 1 or more.
        sums: `{name: [C]}`, over these queries: of `"recall@K"` those that hit, int64; of others the sum of shares.
        source: where it comes from, for error messages.

    Raises:
        ValueError: if a sku is missing or there twice, or lengths differ.

    Example:

    >>> results = ClassResults(["mug", "cup"], [4, 1], {"recall@1": [3, 0]})
    >>> results.mean("recall@1")
    0.6
    """

    skus: np.ndarray
    num_queries: np.ndarray
    sums: Mapping[str, np.ndarray]
    source: str = "results just measured"

    def __post_init__(self):
        skus, order = np.unique(check_labels("skus", self.skus, may_be_empty=True).astype(np.str_), return_index=True)
        columns = {"num_queries": self.num_queries, **self.sums}
        if any(len(column) != len(skus) for column in (self.skus, *columns.values())):
            raise ValueError(
                "`skus` must all be different and have one value each in `num_queries` and `sums`. Received: "
                f"{len(self.skus)} skus, {len(skus)} different; {[len(values) for values in columns.values()]} values."
            )
        columns = {name: np.asarray(column, _kind(name))[order] for name, column in columns.items()}
        object.__setattr__(self, "skus", skus)
        object.__setattr__(self, "num_queries", columns.pop("num_queries"))
        object.__setattr__(self, "sums", columns)

    @classmethod
    def of(cls, result: RetrievalResult, ks: Sequence[int], skus) -> ClassResults:
        """Adds up a ranking.

        Args:
            result: a ranking of queries with labels from 0.
            ks: the K of each R@K.
            skus: `[C]` the sku of each label, e.g. `catalog.label_skus`.

        Raises:
            ValueError: if a label has no sku, or `ks` are not different positive integers.

        Example:

        >>> from eet_tf.evaluation.metrics import rank_queries
        >>> result = rank_queries([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]], [1, 1, 0])
        >>> results = ClassResults.of(result, ks=[1], skus=["cup", "mug"])
        >>> results.skus.tolist(), results.sums["recall@1"].tolist()
        (['mug'], [2])
        """
        labels, num_queries, sums = result.by_class(ks)
        skus = check_labels("skus", skus, may_be_empty=True).astype(np.str_)
        if labels.dtype.kind not in "iu" or labels[0] < 0 or labels[-1] >= len(skus):
            raise ValueError(
                f"`result` must have labels from 0 to {len(skus) - 1}, the places of their skus. "
                f"Received: labels from {labels[0]} to {labels[-1]}."
            )
        return cls(skus[labels], num_queries, sums)

    def mean(self, metric: str) -> float:
        """The mean of one of `sums` over all queries.

        Raises:
            ValueError: if there is none of that name.
        """
        return float(np.sum(self._sums_of(metric)) / np.sum(self.num_queries))

    def _sums_of(self, metric: str) -> np.ndarray:
        if metric not in self.sums:
            raise ValueError(
                f"`metric` must be one of {', '.join(self.sums)}, those of {self.source}. Received: metric={metric!r}."
            )
        return self.sums[metric]

    def write(self, file: str | os.PathLike) -> None:
        """Writes it as CSV; what was there stays until the new file is complete."""
        columns = [self.skus, self.num_queries, *self.sums.values()]
        with files.replaced(file) as aside, _opened(aside, "w", "utf-8") as opened:
            writer = csv.writer(opened)
            writer.writerow(["sku", "num_queries", *self.sums])
            writer.writerows(zip(*[column.tolist() for column in columns]))

    @classmethod
    def read(cls, file: str | os.PathLike) -> ClassResults:
        """Reads what `write` wrote; the rows may have been put in another order.

        Raises:
            ValueError: if it is malformed; the message names the file and the line.
        """
        with _opened(file, "r", "utf-8-sig") as opened:
            reader = csv.reader(opened, strict=True)
            try:
                names, rows = _names(next(reader, [])), {}
                for sku, *numbers in filter(None, reader):
                    if sku in rows:
                        raise ValueError(f"sku {sku!r} is listed a second time")
                    rows[sku] = _numbers(names, numbers)
                if not rows:
                    raise ValueError("no products are listed")
            except (ValueError, csv.Error) as error:
                raise ValueError(f"{os.fspath(file)}:{max(reader.line_num, 1)}: {error}.") from None
        num_queries, *sums = (np.asarray(column) for column in zip(*rows.values()))
        return cls(np.asarray(list(rows), np.str_), num_queries, dict(zip(names[1:], sums)), source=os.fspath(file))


def _opened(file: str | os.PathLike, mode: str, encoding: str):
    """A sku may come from a file name, which may hold bytes that are no text."""
    return open(file, mode, encoding=encoding, errors="surrogateescape", newline="")


def _kind(name: str) -> type:
    """The type of a column: numbers of queries are whole."""
    return int if name == "num_queries" or name.startswith("recall@") else float


def _names(header: list[str]) -> list[str]:
    """The names of the columns of numbers."""
    if header[:2] != ["sku", "num_queries"] or len(header) < 3 or len(set(header)) < len(header):
        raise ValueError(f"the first line must be sku,num_queries,recall@1,... Received: {','.join(header)[:80]!r}")
    return header[1:]


def _numbers(names: list[str], texts: list[str]) -> list:
    """One row's number of queries and sums."""
    if len(texts) != len(names):
        raise ValueError(f"a row must have {len(names) + 1} columns. Received: {len(texts) + 1}")
    num_queries = _number("num_queries", texts[0], 1, 10**9)
    return [num_queries, *[_number(name, text, 0, num_queries) for name, text in zip(names[1:], texts[1:])]]


def _number(name: str, text: str, lowest: float, highest: float) -> float:
    try:
        number = _kind(name)(text)
    except ValueError:
        number = math.nan
    if not lowest <= number <= highest:
        kind = "a whole number" if _kind(name) is int else "a number"
        raise ValueError(f"{name} must be {kind} from {lowest} to {highest}. Received: {text!r}")
    return number


@dataclasses.dataclass(frozen=True)
class Comparison:
    """By how much the second of two methods is better than the first, and how far chance may reach; see `compare`.

    Args:
        difference: the second's mean over queries less the first's: a share, not percent.
        low: lower end of its 95 % interval.
        high: upper end of its 95 % interval.
        num_classes: how many products it rests on.

    Example:

    >>> print(Comparison(difference=0.0231, low=0.0092, high=0.037, num_classes=1927))
    better by 2.31 points (95 % interval 0.92 to 3.70 over 1,927 products)
    >>> print(Comparison(difference=0.004, low=-0.008, high=0.016, num_classes=1927))
    no difference shown: +0.40 points (95 % interval -0.80 to 1.60 over 1,927 products)
    """

    difference: float
    low: float
    high: float
    num_classes: int

    @property
    def is_different(self) -> bool:
        """The interval leaves out 0."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        difference, low, high = self.difference, self.low, self.high
        verdict, sign = ("better by", "") if self.is_different else ("no difference shown:", "+")
        if high < 0:
            verdict, difference, low, high = "worse by", -difference, -high, -low
        return (
            f"{verdict} {_points(difference):{sign}.2f} points "
            f"(95 % interval {_points(low):.2f} to {_points(high):.2f} over {counted(self.num_classes, 'product')})"
        )


def _points(share: float) -> float:
    """Percentage points as they are shown, without a minus before 0."""
    return round(100 * share, 2) + 0.0


def compare(
    first: ClassResults | Sequence[ClassResults],
    second: ClassResults | Sequence[ClassResults],
    metric: str = "recall@1",
    num_resamples: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """Compares two methods on the same queries by a paired bootstrap over products.

    Photos of one product are found or missed together, so that not queries but whole products are drawn, with
    replacement. Each draw gives a difference of the means over its queries; the interval holds 95 % of the draws.

    The interval covers chance in *which products are asked for*: how the difference would come out for others of the
    same kind. It does not cover chance in training. Two trainings with different seeds differ as well, and with one
    seed a side nobody knows how much of the difference that is; with several a side it is averaged away in part, but
    still not in the interval: look at the seeds too, with `mean_interval`.

    Args:
        first: results of the method to compare with, or several: its seeds, whose sums are averaged.
        second: results of the method in question, or several, as many or not.
        metric: name of one of their sums.
        num_resamples: number of draws.
        seed: of the draws.

    Returns:
        A `Comparison`: `second` relative to `first`.

    Raises:
        ValueError: if results are not over the same products and queries, there are fewer than two products, or one
            lacks the metric.

    Example:

    >>> first = ClassResults(["a", "b", "c", "d"], [2, 4, 3, 2], {"recall@1": [0, 2, 2, 1]})
    >>> second = ClassResults(["a", "b", "c", "d"], [2, 4, 3, 2], {"recall@1": [1, 4, 3, 2]})
    >>> print(compare(first, second))
    better by 45.45 points (95 % interval 36.36 to 50.00 over 4 products)

    Reference: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13 (percentile intervals).
    """
    first, second = _seeds(first), _seeds(second)
    for results in (*first, *second):
        _check_same_queries(first[0], results)
    num_queries = first[0].num_queries
    if len(num_queries) < 2:
        raise ValueError(f"`first` must have two products or more to draw from. Received: {len(num_queries)}.")
    difference = _mean_sums(second, metric) - _mean_sums(first, metric)
    draws = np.concatenate(list(_resampled(difference, num_queries, num_resamples, seed)))
    low, high = np.quantile(draws, [0.025, 0.975])
    return Comparison(float(np.sum(difference) / np.sum(num_queries)), float(low), float(high), len(num_queries))


def _seeds(results: ClassResults | Sequence[ClassResults]) -> list[ClassResults]:
    return [results] if isinstance(results, ClassResults) else list(results)


def _check_same_queries(first: ClassResults, other: ClassResults) -> None:
    alone = np.setxor1d(first.skus, other.skus)
    if alone.size:
        raise ValueError(
            f"Results must be over the same products. Received: {alone.size} that only {_one_of(first, other)} "
            f"has, e.g. {str(alone[0])!r}. Measure both on the same catalogue."
        )
    unequal = np.flatnonzero(first.num_queries != other.num_queries)
    if unequal.size:
        row = unequal[0]
        raise ValueError(
            "Results must be over the same queries. "
            f"Received: {counted(unequal.size, 'product')} with unequal num_queries, "
            f"e.g. {str(first.skus[row])!r} with {first.num_queries[row]} in {first.source} and "
            f"{other.num_queries[row]} in {other.source}. Measure both on the same catalogue."
        )


def _one_of(first: ClassResults, other: ClassResults) -> str:
    same = first.source == other.source
    return "one of the two" if same else f"one of {first.source} and {other.source}"


def _mean_sums(results: Sequence[ClassResults], metric: str) -> np.ndarray:
    """`[C]` sums averaged over seeds."""
    return np.mean([one._sums_of(metric) for one in results], axis=0)


def _resampled(difference: np.ndarray, num_queries: np.ndarray, num_resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Differences of the means, a block of draws at a time so that memory stays small."""
    random = np.random.default_rng(seed)
    num_classes = len(num_queries)
    block = max(1, _DRAWS_AT_ONCE // num_classes)
    for start in range(0, num_resamples, block):
        drawn = random.integers(num_classes, size=[min(block, num_resamples - start), num_classes])
        yield difference[drawn].sum(axis=1) / num_queries[drawn].sum(axis=1)


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean over seeds and half the width of its 95 % interval by Student's t.

    It covers chance in training, on the products that were asked for: the other half of what `compare` covers. Beyond
    31 values the quantile for 31 is kept, which is wider than need be by 4 % at most.

    Args:
        values: one figure for each seed.

    Returns:
        `(mean, half_width)`; the half width of a single value is NaN.

    Raises:
        ValueError: if there are no values.

    Example:

    >>> mean, half_width = mean_interval([0.61, 0.63, 0.62])
    >>> print(f"{mean:.3f} +- {half_width:.3f}")
    0.620 +- 0.025
    """
    values = np.asarray(values, np.float64)
    if values.size == 0:
        raise ValueError("`values` must hold one figure or more. Received: none.")
    if values.size == 1:
        return float(values[0]), math.nan
    quantile = _T_95[min(values.size - 1, len(_T_95)) - 1]
    return float(np.mean(values)), float(quantile * np.std(values, ddof=1) / math.sqrt(values.size))
