"""Which photos are nearly the same, among many, without comparing each with all.

Candidates come from random hyperplanes, each side of which is a bit: photos that share all the bits of a band are
compared. What they are cut by is each photo's brightness pattern, measured against the catalogue's own average and
spread, so that white backgrounds and outlines that all photos share part nobody.

A pair is confirmed if, once the darker photo is given the brightness and contrast of the other,

- colours differ by no more than the tolerance on average, and in each of 8 x 8 cells lightness and hue by no more than
  the tolerance and a tenth of the edge that runs through it: what the cells around it differ by, in the photo where
  that is less. Stronger compression and another size blur edges, and a strong one more; a product in another colour
  differs where there is no edge.
- in each quarter of the picture the fine detail at 32 x 32, what is left once the surroundings are subtracted, agrees
  to 15 %. So two prints are told apart on the same shirt, and two wallets by a seam, for all that their outlines weigh.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from eet_tf.audit.prints import COLOR_SIDE, GREY_SIDE, LUMA, PhotoPrints

TOLERANCE = 3.0  # of 255; the measurements behind it are in docs/data.md
LEAST_SPREAD = 2.0  # standard deviation of the grey levels below which a photo shows one colour, and says nothing
_NUM_BANDS = 24
_LEAST_BITS, _MOST_BITS = 8, 24
_WINDOW = 16  # of photos that share a band, each is compared with so many: bounds what one much-copied photo costs
_PAIRS_AT_ONCE = 4096
_PATTERN_SIDE = 16
_MOST_GAIN = 1.5  # contrast that may differ between copies
_EDGE_SHARE = 0.1  # of the contrast among cells side by side, that a cell may differ by
_DETAIL_SHARE, _LEAST_DETAIL = 0.15, 1.0  # how far detail may differ: a share of its own strength, or so many of 255
_SURROUNDINGS = 5  # cells of 32 x 32
_MOST_LIGHTER = 20.0  # levels, of a copy that is burnt out in part
_BURNT = 248  # the level from which a cell may have been lighter
_LEAST_UNBURNT = 8  # cells that tell how light a photo is


def near_groups(prints: PhotoPrints, tolerance: float = TOLERANCE) -> list[np.ndarray]:
    """Groups of photos of which each is a near copy of another in it.

    - The same bytes are copies, whatever they show. Otherwise photos of one colour are left out.
    - Found are copies that were re-encoded, resized, made darker, or lighter with little burnt out. Not found: crops,
      mirrors, turns. docs/data.md has the shares.
    - Time grows with N log N, memory is a few hundred bytes a photo besides `prints`.

    Args:
        prints: what `read_prints` made of N photos.
        tolerance: largest difference in colour, of 255, away from edges.

    Returns:
        Sorted row numbers of each group of two or more, by the first.

    Example:

    >>> import os, tempfile
    >>> from PIL import Image
    >>> from eet_tf.audit.prints import read_prints
    >>> noise = np.random.default_rng(0).integers(0, 256, [2, 40, 40, 3], dtype=np.uint8)
    >>> files = [os.path.join(tempfile.mkdtemp(), name) for name in ("a.png", "b.png", "copy.bmp")]
    >>> for file, pixels in zip(files, [*noise, noise[0]]):
    ...     Image.fromarray(pixels).save(file)
    >>> [group.tolist() for group in near_groups(read_prints(files))]
    [[0, 2]]
    """
    number = len(prints.grey)
    union = _Union(number)
    union.join(*_equal_neighbors(prints.digests, np.flatnonzero(prints.is_readable)))
    rows = np.flatnonzero(prints.is_readable & (spread(prints) >= LEAST_SPREAD))
    if len(rows) > 1:
        comparison = _Comparison(prints, tolerance)
        for first, second in _candidates(prints.grey, rows):
            is_apart = union.find(first) != union.find(second)
            first, second = first[is_apart], second[is_apart]
            is_near = comparison.are_near(first, second)
            union.join(first[is_near], second[is_near])
    return union.groups()


def spread(prints: PhotoPrints) -> np.ndarray:
    """`[N]` float32, the standard deviation of each photo's grey levels or colours: 0 if it is of one colour."""
    by_grey = _by_portions(prints.grey.reshape(len(prints.grey), -1), _contrast)
    return np.maximum(by_grey, _by_portions(prints.color, _largest_contrast))


class _Comparison:
    """Says which pairs of photos are near copies of each other.

    Args:
        prints: of N photos.
        tolerance: largest difference in colour, of 255, away from edges.
    """

    def __init__(self, prints: PhotoPrints, tolerance: float):
        self._grey, self._color = prints.grey, prints.color
        self._tolerance = tolerance
        grey = prints.grey.reshape(len(prints.grey), -1)
        self._mean, self._contrast = _by_portions(grey, _mean), _by_portions(grey, _contrast)

    def are_near(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """`[M]` bool for `[M]` rows and `[M]` rows."""
        portions = range(0, len(first), _PAIRS_AT_ONCE)
        parts = [self._are_near(*(rows[at : at + _PAIRS_AT_ONCE] for rows in (first, second))) for at in portions]
        return np.concatenate([np.zeros(0, bool), *parts])

    def _are_near(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        is_lighter = self._mean[first] > self._mean[second]
        first, second = np.where(is_lighter, second, first), np.where(is_lighter, first, second)
        gain = self._contrast[second] / self._contrast[first]
        is_near = self._agree(first, second, gain, self._mean[second] - gain * self._mean[first])
        # a lighter copy may be burnt out in part; what is not tells how much lighter it is
        left = np.flatnonzero(~is_near & (self._mean[second] - self._mean[first] <= _MOST_LIGHTER))
        apart = np.abs(self._color[first[left]].astype(np.int16) - self._color[second[left]]).mean((1, 2, 3))
        left = left[apart <= _MOST_LIGHTER]
        gain, offset, is_known = _unburnt_light(self._color[first[left]], self._color[second[left]])
        left = left[is_known]
        is_near[left] = self._agree(first[left], second[left], gain, offset)
        return is_near

    def _agree(self, first: np.ndarray, second: np.ndarray, gain: np.ndarray, offset: np.ndarray) -> np.ndarray:
        """Whether the first photos, their levels multiplied and shifted, are the second."""
        agree = (gain < _MOST_GAIN) & (gain > 1 / _MOST_GAIN)
        for is_so in (self._colors_agree, self._details_agree):
            left = np.flatnonzero(agree)
            agree[left] = is_so(first[left], second[left], gain[left], offset[left])
        return agree

    def _colors_agree(self, first, second, gain, offset) -> np.ndarray:
        one, other = _relit(self._color[first], gain, offset), self._color[second].astype(np.float32)
        bounds = self._tolerance * np.maximum(1.0, gain)  # in the levels of the flatter of the two
        agree = np.abs(other - one).mean((1, 2, 3)) <= bounds
        left = np.flatnonzero(agree)
        one, other, bounds = one[left], other[left], bounds[left, None, None, None]
        light, other_light = (one @ LUMA)[..., None], (other @ LUMA)[..., None]
        agree[left] = _cells_agree(light, other_light, bounds) & _cells_agree(one - light, other - other_light, bounds)
        return agree

    def _details_agree(self, first, second, gain, offset) -> np.ndarray:
        detail = _detail(_relit(self._grey[first], gain, offset))
        other = _detail(self._grey[second].astype(np.float32))
        strength = np.minimum(_by_quarters(detail), _by_quarters(other))
        least = _LEAST_DETAIL * np.maximum(1.0, gain)[:, None]
        return (_by_quarters(detail - other) <= np.maximum(_DETAIL_SHARE * strength, least)).all(1)


def _relit(levels: np.ndarray, gain: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Levels of M photos as they are in another light."""
    shape = (len(levels),) + (1,) * (levels.ndim - 1)
    return np.clip(levels * gain.reshape(shape) + offset.reshape(shape), 0.0, 255.0)


def _unburnt_light(color: np.ndarray, lighter: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gain and offset that make M photos as light as M others, from cells that are not burnt out in these.

    Returns:
        `[L]` gains and `[L]` offsets of those of which it is known, and `[M]` bool, which they are.
    """
    is_unburnt = lighter.max(-1) < _BURNT
    number = is_unburnt.sum((1, 2))
    is_known = (number >= _LEAST_UNBURNT) & (number < COLOR_SIDE**2)
    weights = is_unburnt[is_known] / number[is_known, None, None]
    one, other = color[is_known].astype(np.float32) @ LUMA, lighter[is_known].astype(np.float32) @ LUMA
    mean, other_mean = ((levels * weights).sum((1, 2)) for levels in (one, other))
    variance = (np.square(one - mean[:, None, None]) * weights).sum((1, 2))
    other_variance = (np.square(other - other_mean[:, None, None]) * weights).sum((1, 2))
    gain = np.sqrt((other_variance + 1e-3) / (variance + 1e-3))
    return gain, other_mean - gain * mean, is_known


def _cells_agree(one: np.ndarray, other: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """Whether `[M, 8, 8, C]` cells differ by no more than the bounds and a share of the edge that they are on."""
    edges = np.minimum(_edges(one), _edges(other))
    return (np.abs(one - other) <= bounds + _EDGE_SHARE * edges).all((1, 2, 3))


def _edges(cells: np.ndarray) -> np.ndarray:
    """What each cell and the eight around it differ by."""
    padded = np.pad(cells, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    shifts = [(down, right) for down in range(3) for right in range(3)]
    around = [padded[:, down : down + COLOR_SIDE, right : right + COLOR_SIDE] for down, right in shifts]
    return np.max(around, 0) - np.min(around, 0)


def _by_quarters(values: np.ndarray) -> np.ndarray:
    """`[M, 4]` root mean square of `[M, 32, 32]`."""
    half = GREY_SIDE // 2
    return np.sqrt(np.square(values).reshape(-1, 2, half, 2, half).mean((2, 4))).reshape(-1, 4)


def _by_portions(values: np.ndarray, measure: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """`[N]` float32, a measure of each row, with little memory."""
    portions = range(0, len(values), _PAIRS_AT_ONCE)
    parts = [measure(values[at : at + _PAIRS_AT_ONCE].astype(np.float32)) for at in portions]
    return np.concatenate([np.zeros(0, np.float32), *parts])


def _mean(grey: np.ndarray) -> np.ndarray:
    return grey.mean(1)


def _contrast(grey: np.ndarray) -> np.ndarray:
    return grey.std(1) + 1e-3


def _largest_contrast(color: np.ndarray) -> np.ndarray:
    return color.reshape(len(color), -1, 3).std(1).max(1)


def _detail(grey: np.ndarray) -> np.ndarray:
    margin = _SURROUNDINGS // 2
    padded = np.pad(grey, ((0, 0), (margin, margin), (margin, margin)), mode="edge")
    none = np.zeros_like(padded[:, :GREY_SIDE])
    rows = sum((padded[:, shift : shift + GREY_SIDE] for shift in range(_SURROUNDINGS)), none)
    cells = sum((rows[:, :, shift : shift + GREY_SIDE] for shift in range(_SURROUNDINGS)), np.zeros_like(grey))
    return grey - cells / _SURROUNDINGS**2


# Candidates


def _candidates(grey: np.ndarray, rows: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of rows that share a band, `[M]` and `[M]`, band after band."""
    patterns = _patterns(grey, rows)
    num_bits = int(np.clip(np.ceil(np.log2(len(rows))), _LEAST_BITS, _MOST_BITS))
    rng = np.random.default_rng(0)
    for _ in range(_NUM_BANDS):
        planes = rng.normal(size=[patterns.shape[1], num_bits + 1]).astype(np.float32)
        sides = patterns @ planes
        keys = (sides[:, :num_bits] > 0) @ (1 << np.arange(num_bits))
        order = np.lexsort((sides[:, num_bits], keys))  # the last plane puts the likest of a band side by side
        yield _shared(keys[order], rows[order])


def _shared(keys: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of neighbours with one key, at most `_WINDOW` apart; `keys` is sorted."""
    pairs = []
    for shift in range(1, min(_WINDOW, len(keys) - 1) + 1):
        places = np.flatnonzero(keys[shift:] == keys[:-shift])
        if not places.size:
            break
        pairs.append((rows[places], rows[places + shift]))
    if not pairs:
        return rows[:0], rows[:0]
    return np.concatenate([first for first, _ in pairs]), np.concatenate([second for _, second in pairs])


def _patterns(grey: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """`[N, 256]` float32: each photo without its brightness and contrast, against the catalogue's mean and spread."""
    side = GREY_SIDE // _PATTERN_SIDE
    patterns = np.empty([len(rows), _PATTERN_SIDE**2], np.float32)
    for at in range(0, len(rows), _PAIRS_AT_ONCE):
        cells = grey[rows[at : at + _PAIRS_AT_ONCE]].reshape(-1, _PATTERN_SIDE, side, _PATTERN_SIDE, side)
        patterns[at : at + _PAIRS_AT_ONCE] = cells.mean((2, 4), dtype=np.float32).reshape(len(cells), -1)
    patterns -= patterns.mean(1, keepdims=True)
    patterns /= patterns.std(1, keepdims=True) + 1e-3
    patterns -= patterns.mean(0)
    patterns /= patterns.std(0) + 0.05  # a cell that is white in nearly all photos is not blown up
    return patterns


def _equal_neighbors(digests: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = rows[np.argsort(digests[rows], kind="stable")]
    places = np.flatnonzero(digests[order][1:] == digests[order][:-1])
    return order[places], order[places + 1]


class _Union:
    """Which rows belong together, as pairs are joined.

    Args:
        number: how many rows there are, each alone at first.
    """

    def __init__(self, number: int):
        self._parent = np.arange(number)

    def find(self, rows: np.ndarray) -> np.ndarray:
        """`[M]` the row that stands for each one's group."""
        found = self._parent[rows]
        while (above := self._parent[found]).tolist() != found.tolist():
            found = above
        return found

    def join(self, first: np.ndarray, second: np.ndarray) -> None:
        """Joins the groups of each pair."""
        for one, other in zip(first.tolist(), second.tolist()):
            one, other = self._root(one), self._root(other)
            self._parent[max(one, other)] = min(one, other)

    def _root(self, row: int) -> int:
        while (above := int(self._parent[row])) != row:
            self._parent[row] = self._parent[above]
            row = above
        return row

    def groups(self) -> list[np.ndarray]:
        """Sorted rows of each group of two or more, by the first."""
        roots = self.find(np.arange(len(self._parent)))
        order = np.argsort(roots, kind="stable")
        parts = np.split(order, np.flatnonzero(np.diff(roots[order])) + 1)
        return [part for part in parts if len(part) > 1]
