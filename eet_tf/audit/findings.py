"""What an audit looks for in a catalogue, and which of it stands in the way of training."""

from __future__ import annotations

import collections
import dataclasses
import os
import re
from collections.abc import Callable, Sequence

import numpy as np

from eet_tf.arguments import check_integer, check_number
from eet_tf.audit.duplicates import LEAST_SPREAD, TOLERANCE, near_groups, spread
from eet_tf.audit.prints import PhotoPrints, read_prints
from eet_tf.data import splits, values
from eet_tf.data.answers import has_answers
from eet_tf.data.catalog import Catalog
from eet_tf.wording import counted

EXAMPLES_PER_CLASS = 4  # as `eet train` has it
_MOST_PLACES = 6  # of copies, that are told
_FLOAT_SKU = re.compile(r"\d+\.0")
_MEASURED = ("validation", "test")
_MOST_FLOAT_SKUS = 100  # shown one by one
LEAST_SIDE = 32  # pixels; no copy of a smaller photo is found either
MOST_ELONGATED = 4.0  # the longer side over the shorter: squashed to a square, little is left of the latter


@dataclasses.dataclass(frozen=True)
class Finding:
    """One kind of thing that was found.

    Args:
        kind: a short name, such as `"unreadable"`.
        title: what was found, with its number.
        advice: what it does and what to do about it.
        blocks: whether training must wait until it is mended.
        groups: rows of the catalogue that belong together, one tuple for each time it was found.
        notes: what is to be said of each group.
    """

    kind: str
    title: str
    advice: str
    blocks: bool
    groups: tuple[tuple[int, ...], ...]
    notes: tuple[str, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class AuditResult:
    """Holds the findings of an audit.

    Args:
        catalog: what was audited.
        findings: those that block first.
        categories: photos and products of each category, largest first; empty without categories.
        num_training: photos and products that would be learned from.
    """

    catalog: Catalog
    findings: tuple[Finding, ...]
    categories: dict[str, tuple[int, int]]
    num_training: tuple[int, int]

    @property
    def blocks(self) -> bool:
        """Whether a finding blocks training."""
        return any(finding.blocks for finding in self.findings)

    def finding(self, kind: str) -> Finding | None:
        """The finding of that kind, if there is one."""
        return next((finding for finding in self.findings if finding.kind == kind), None)

    def summary(self) -> str:
        """Returns a line per finding, and whether training may start."""
        catalog = self.catalog
        lines = [
            f"{counted(len(catalog), 'photo')} of {counted(catalog.num_classes, 'product')}, "
            f"{self.num_training[0]:,} to learn from."
        ]
        lines += [f"{'mend' if finding.blocks else 'look'}: {finding.title}" for finding in self.findings]
        lines += ["Something must be mended before training." if self.blocks else "Training may start."]
        return "\n".join(lines)


def audit_catalog(
    catalog: Catalog,
    examples_per_class: int = EXAMPLES_PER_CLASS,
    tolerance: float = TOLERANCE,
    num_threads: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> AuditResult:
    """Decodes every photo of a catalogue once and says what is wrong with photos and labels.

    What is learned from is the split `"train"`, or all of it if there are no splits, as in training. Training must wait
    for

    - photos that cannot be read (JPEG, PNG, BMP, GIF and WebP can),
    - products to learn from with a single photo, or fewer than two products,
    - products that are in two splits: figures would not be of unseen products,
    - a split `"test"` or `"validation"` in which no photo has another of its product.

    To be looked at, since only a person can say what is right:

    - near copies in different splits, of different products, and of one product,
    - products to learn from with fewer than `examples_per_class` photos, which are repeated in every batch,
    - products of other splits with a single photo, which nothing can find,
    - skus or paths that differ and look the same, in case, Unicode form or characters that are not seen,
    - skus such as `4711.0`, which a table program made of whole numbers,
    - photos that are tiny, elongated or of one colour.

    Args:
        catalog: the photos; their files are read, nothing is changed.
        examples_per_class: K, photos of each product in a batch.
        tolerance: largest difference in colour between near copies, of 255, away from edges.
        num_threads: that decode; default the number of CPUs.
        progress: called now and then with the number of photos read.

    Raises:
        ValueError: if `examples_per_class` is below 2 or `tolerance` is negative.

    Example:

    >>> import tempfile
    >>> from eet_tf.data import make_synthetic_catalog
    >>> result = audit_catalog(make_synthetic_catalog(tempfile.mkdtemp(), 4, 3, image_size=48))
    >>> print(result.summary())
    12 photos of 4 products, 6 to learn from.
    look: 2 products have fewer than 4 photos
    Training may start.
    """
    check_integer("examples_per_class", examples_per_class, 2)
    check_number("tolerance", tolerance, 0)
    prints = read_prints(catalog.files.tolist(), num_threads, progress, catalog.photo_cache)
    is_training = splits.is_learned(catalog)
    findings = [
        _unreadable(catalog, prints),
        _few_products(catalog, is_training),
        _single_photos(catalog, is_training),
        _shared_products(catalog),
        *_alike_names(catalog),
        _float_skus(catalog),
        *_copies(catalog, near_groups(prints, tolerance)),
        _small_products(catalog, is_training, examples_per_class),
        _no_answers(catalog),
        _cannot_be_found(catalog, is_training),
        *_odd_photos(prints),
    ]
    found = sorted(filter(None, findings), key=lambda finding: not finding.blocks)
    training = int(is_training.sum()), len(set(catalog.labels[is_training].tolist()))
    return AuditResult(catalog, tuple(found), _categories(catalog), training)


def _finding(
    kind: str,
    title: str,
    advice: str,
    groups: Sequence[np.ndarray | Sequence[int]],
    notes: Sequence[str],
    blocks: bool = False,
) -> Finding | None:
    """None if there are no groups; in the title, `{n}` is their number, `{s}` and `{has}` go with it."""
    if not len(groups):
        return None
    title = title.format(
        n=f"{len(groups):,}", s="" if len(groups) == 1 else "s", has="has" if len(groups) == 1 else "have"
    )
    rows = tuple(tuple(int(row) for row in group) for group in groups)
    return Finding(kind, title, advice, blocks, rows, tuple(notes))


def _unreadable(catalog: Catalog, prints: PhotoPrints) -> Finding | None:
    notes = [f"{catalog.where(row)}: {catalog.paths[row]}: {reason}" for row, reason in prints.unreadable.items()]
    return _finding(
        "unreadable",
        "{n} photo{s} cannot be read",
        "Replace each file, or delete its row.",
        [(row,) for row in prints.unreadable],
        notes,
        blocks=True,
    )


def _few_products(catalog: Catalog, is_training: np.ndarray) -> Finding | None:
    rows = np.flatnonzero(is_training)
    if len(set(catalog.labels[rows].tolist())) > 1:
        return None
    advice = "Learning needs two products at least, to tell apart."
    if not len(rows):
        title, note = "There is no photo to learn from", splits.split_complaints(catalog)[0]
        return _finding("few_products", title, advice, [np.arange(len(catalog))], [note], blocks=True)
    return _finding("few_products", "There is only one product to learn from", advice, [rows], [""], blocks=True)


def _products(catalog: Catalog, among: np.ndarray, fewest: int, most: int) -> list[np.ndarray]:
    """Rows of each product that has from `fewest` to `most` photos among some rows, a mask."""
    rows = np.flatnonzero(among)
    counts = np.bincount(catalog.labels[rows], minlength=catalog.num_classes)
    rows = rows[(counts[catalog.labels[rows]] >= fewest) & (counts[catalog.labels[rows]] <= most)]
    rows = rows[np.argsort(catalog.labels[rows], kind="stable")]
    parts = np.split(rows, np.flatnonzero(np.diff(catalog.labels[rows])) + 1)
    return sorted(filter(len, parts), key=len)


def _named(catalog: Catalog, groups: Sequence[np.ndarray]) -> list[str]:
    return [
        f"{_place(catalog, group[0])}: {catalog.skus[group[0]]}: {counted(len(group), 'photo')}" for group in groups
    ]


def _single_photos(catalog: Catalog, is_training: np.ndarray) -> Finding | None:
    groups = _products(catalog, is_training, 1, 1)
    return _finding(
        "single_photos",
        "{n} product{s} to learn from {has} a single photo",
        "It has no second one to be near to. Add photos, or leave such products out with --drop_singles.",
        groups,
        _named(catalog, groups),
        blocks=True,
    )


def _small_products(catalog: Catalog, is_training: np.ndarray, examples_per_class: int) -> Finding | None:
    groups = _products(catalog, is_training, 2, examples_per_class - 1)
    return _finding(
        "small_products",
        f"{{n}} product{{s}} {{has}} fewer than {examples_per_class} photos",
        "A batch takes so many of each product, and fills up with repeats of what there is; from repeats nothing is "
        "learned. Add photos, or train with a smaller --examples_per_class.",
        groups,
        _named(catalog, groups),
    )


def _cannot_be_found(catalog: Catalog, is_training: np.ndarray) -> Finding | None:
    measured = [np.asarray(catalog.splits == name, bool) for name in _MEASURED] if catalog.splits is not None else []
    groups = [group for among in measured for group in _products(catalog, among & ~is_training, 1, 1)]
    return _finding(
        "cannot_be_found",
        "{n} product{s} to test on {has} a single photo",
        "There is no other photo that a search for it could find, so it counts in no figure.",
        groups,
        _named(catalog, groups),
    )


def _no_answers(catalog: Catalog) -> Finding | None:
    """Nothing to measure in what is measured."""
    if catalog.splits is None:
        return None
    parts = {name: np.flatnonzero(catalog.splits == name) for name in _MEASURED}
    empty = {name: rows for name, rows in parts.items() if len(rows) and not has_answers(catalog.take(rows))}
    if not empty:
        return None
    title = f"No photo of the split {' or '.join(map(repr, empty))} has another of its product that a search could find"
    advice = "Training would have nothing to measure. Add photos, or leave the split out of the list."
    return _finding("no_answers", title, advice, list(empty.values()), [f"the split {name!r}" for name in empty], True)


def _shared_products(catalog: Catalog) -> Finding | None:
    groups = splits.shared_products(catalog)
    return _finding(
        "shared_products",
        "{n} product{s} {has} photos in several splits",
        "What is measured on them is not how unseen products are found. Give all photos of a product one split.",
        groups,
        [f"{_place(catalog, rows[0])}: {catalog.skus[rows[0]]}: {_splits(catalog, rows)}" for rows in groups],
        blocks=True,
    )


def _alike_names(catalog: Catalog) -> list[Finding | None]:
    """Names that a person takes for the same: skus, and paths, which may also be one file written in two ways."""
    return [
        _alike(
            catalog,
            "alike_skus",
            "{n} group{s} of skus that look the same",
            "They differ in case, Unicode form, blanks or characters that are not seen, so they are different products "
            "here. If they are one product, write its sku in one way.",
            catalog.skus,
            values.look,
        ),
        _alike(
            catalog,
            "alike_paths",
            "{n} group{s} of paths that look the same",
            "Is one photo listed twice? Each path is a photo of its own here.",
            catalog.paths,
            lambda path: values.look(os.path.normpath(path)),
        ),
    ]


def _alike(catalog: Catalog, kind: str, title: str, advice: str, texts: np.ndarray, look) -> Finding | None:
    groups = values.look_alike(texts.tolist(), look)
    notes = [", ".join(f"{_place(catalog, row)}: {ascii(texts[row])}" for row in rows) for rows in groups]
    return _finding(kind, title, advice, groups, notes)


def _float_skus(catalog: Catalog) -> Finding | None:
    labels = [label for label, sku in enumerate(catalog.label_skus.tolist()) if _FLOAT_SKU.fullmatch(sku)]
    groups = [np.flatnonzero(catalog.labels == label) for label in labels[:_MOST_FLOAT_SKUS]]
    return _finding(
        "float_skus",
        "{n} sku{s} end in .0" if len(labels) <= _MOST_FLOAT_SKUS else f"{len(labels):,} skus end in .0",
        "A table program makes floats of whole numbers where a value of the column is missing: then 4711 becomes "
        "4711.0, which other systems do not know. Save the list with the sku as text.",
        groups,
        [f"{_place(catalog, rows[0])}: {catalog.skus[rows[0]]}" for rows in groups],
    )


def _splits(catalog: Catalog, rows: np.ndarray) -> str:
    return ", ".join(f"{number} in {name or 'none'}" for name, number in splits.count_splits(catalog, rows))


def _copies(catalog: Catalog, groups: list[np.ndarray]) -> list[Finding | None]:
    """Near copies: a group counts once, as the worst that it is."""
    kinds: dict[str, list[np.ndarray]] = {"split": [], "product": [], "same": []}
    for rows in groups:
        in_splits = 1 if catalog.splits is None else len(set(catalog.splits[rows].tolist()) - {""})
        products = len(set(catalog.labels[rows].tolist()))
        kinds["split" if in_splits > 1 else "product" if products > 1 else "same"].append(rows)
    notes = {kind: [_copies_note(catalog, rows) for rows in found] for kind, found in kinds.items()}
    return [
        _finding(
            "copies_across_splits",
            "{n} group{s} of near copies in different splits",
            "A photo that was learned from is found again in the test, which makes the figures too good; and if the "
            "products differ, one of the labels is probably wrong. Leave one out.",
            kinds["split"],
            notes["split"],
        ),
        _finding(
            "copies_across_products",
            "{n} group{s} of near copies of different products",
            "Either the label of one is wrong, or two names stand for one product: training pushes apart what is the "
            "same, and a search that finds it is counted as wrong. Correct the sku, or leave one out.",
            kinds["product"],
            notes["product"],
        ),
        _finding(
            "copies",
            "{n} group{s} of near copies of one product",
            "They teach no more than one of them, and make a product that is tested look easier to find.",
            kinds["same"],
            notes["same"],
        ),
    ]


def _copies_note(catalog: Catalog, rows: np.ndarray) -> str:
    more = f" and {len(rows) - _MOST_PLACES:,} more" if len(rows) > _MOST_PLACES else ""
    return ", ".join(_place(catalog, row) for row in rows[:_MOST_PLACES]) + more


def _place(catalog: Catalog, row: int) -> str:
    """Where the row is listed, and if nobody knows, the photo it lists."""
    return str(catalog.paths[row]) if catalog.lines is None else catalog.where(row)


def _odd_photos(prints: PhotoPrints) -> list[Finding | None]:
    rows = np.flatnonzero(prints.is_readable)
    shorter, longer = prints.sizes[rows].min(1), prints.sizes[rows].max(1)
    sizes = np.array([f"{width} x {height} pixels" for width, height in prints.sizes[rows].tolist()], dtype=np.str_)

    def found(kind, title, advice, is_odd):
        return _finding(kind, title, advice, [(row,) for row in rows[is_odd]], sizes[is_odd].tolist())

    return [
        found(
            "tiny",
            f"{{n}} photo{{s}} of fewer than {LEAST_SIDE} pixels in width or height",
            "Is it a thumbnail that was taken for the photo?",
            shorter < LEAST_SIDE,
        ),
        found(
            "elongated",
            f"{{n}} photo{{s}} more than {MOST_ELONGATED:.0f} times as long as wide",
            "Training squashes it to a square, or shows it small (--fit=letterbox). Crop it, or fill it up.",
            longer > MOST_ELONGATED * shorter,
        ),
        found(
            "one_color",
            "{n} photo{s} of one colour",
            "Is it a placeholder for a photo that is missing?",
            spread(prints)[rows] < LEAST_SPREAD,
        ),
    ]


def _categories(catalog: Catalog) -> dict[str, tuple[int, int]]:
    """Photos and products of each category, largest first."""
    if catalog.categories is None:
        return {}
    photos = collections.Counter(catalog.categories.tolist())
    products = collections.Counter(
        category for category, _ in set(zip(catalog.categories.tolist(), catalog.skus.tolist()))
    )
    return {category: (number, products[category]) for category, number in photos.most_common()}
