"""What the values of a table mean: which are texts, which are missing, which name a split.

A missing sku must not become a product named "nan", nor a split that nobody knows all photos.
"""

from __future__ import annotations

import collections
import unicodedata
from collections.abc import Callable, Sequence

import numpy as np

from eet_tf.labels import is_missing

# what programs write where a value is missing; no shop names a product so
MISSING_TEXTS = frozenset({"nan", "NaN", "NAN", "None", "null", "NULL", "NA", "N/A", "n/a", "<NA>", "#N/A", "NaT"})

_SPELLINGS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val"),
    "test": ("test", "testing"),
}
_SPLIT_OF = {spelling: name for name, spellings in _SPELLINGS.items() for spelling in spellings}
SPLITS = tuple(_SPELLINGS)

_MOST_SHARED = 50_000  # different texts of a column that are kept once; more are hardly repeated


def as_objects(values) -> np.ndarray:
    """A column as an array of Python objects, so that a long text takes no room in the rows of short ones."""
    if isinstance(values, np.ndarray) and values.dtype.kind == "U":
        values = shared(values.tolist())
    return np.asarray(values, dtype=object)


def read_names(values: np.ndarray) -> tuple[np.ndarray, dict[int, str]]:
    """Texts and whole numbers as texts.

    Args:
        values: `[N]` objects.

    Returns:
        `[N]` texts, and for each row that holds something else why it is refused.

    Example:

    >>> names, refused = read_names(as_objects(["mug", 4711, None, 12.0]))
    >>> names.tolist()
    ['mug', '4711', '', '']
    >>> list(refused)
    [2, 3]
    """
    rows = values.tolist()
    if set(map(type, rows)) <= {str}:
        return values, {}
    refused = {row: reason for row, value in enumerate(rows) if (reason := _refusal(value))}
    texts = shared(["" if row in refused else str(value) for row, value in enumerate(rows)])
    return as_objects(texts), refused


def _refusal(value: object) -> str | None:
    if isinstance(value, str):
        return None
    if is_missing(value):
        return f" is missing ({_shown(value)}). Fill it in or delete the row"
    if isinstance(value, (float, np.floating)):
        return (
            f" must be text or a whole number. Received: {float(value)!r}, a float. pandas makes floats of whole "
            "numbers where a value of the column is missing: read the column as text, with dtype=str"
        )
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return None
    return f" must be text or a whole number. Received: a {type(value).__name__}"


def _shown(value: object) -> str:
    return {"NAType": "NA", "NaTType": "NaT", "NoneType": "None"}.get(type(value).__name__, "NaN")


def read_cells(values: np.ndarray) -> np.ndarray:
    """Any values as texts, `[N]` -> `[N]`; a missing one is `""`, unknown."""
    rows = values.tolist()
    if set(map(type, rows)) <= {str}:
        return values
    return as_objects(shared(["" if is_missing(value) else str(value) for value in rows]))


def shared(texts: list[str], known: dict[str, str] | None = None) -> list[str]:
    """The same texts; equal ones are one object, as long as there are not too many different ones.

    Args:
        texts: of a column, or of a part of it.
        known: the texts of the parts before, which grows; for a whole column none is needed.
    """
    known = {} if known is None else known
    if len(known) > _MOST_SHARED:
        return texts
    return [known.setdefault(text, text) for text in texts]


def read_split(text: str) -> str | None:
    """The split that a text names, however it is written: `"train"`, `"validation"`, `"test"`; `""` for a blank one.

    Case and surrounding blanks do not matter. `training` is `train`; `val` and `valid` are `validation`; `testing` is
    `test`.

    Returns:
        The name, or None if it is none of these.

    Example:

    >>> [read_split(text) for text in ("TRAIN", " Val ", "", "trian")]
    ['train', 'validation', '', None]
    """
    text = text.strip().casefold()
    return _SPLIT_OF.get(text) if text else ""


def read_splits(texts: Sequence[str]) -> tuple[np.ndarray, dict[str, list[int]]]:
    """Reads a split column.

    Args:
        texts: `[N]`.

    Returns:
        `[N]` names, see `read_split`, and the rows of each text that is none.
    """
    rows: dict[str, list[int]] = collections.defaultdict(list)
    for row, text in enumerate(texts):
        rows[text].append(row)
    names = {text: read_split(text) for text in rows}
    return (
        np.array([names[text] or "" for text in texts], dtype=object),
        {text: rows[text] for text, name in names.items() if name is None},
    )


def allowed_splits() -> str:
    """The splits and their spellings, for messages."""
    return ", ".join(f"{name} ({', '.join(others)})" for name, (_, *others) in _SPELLINGS.items())


def look(text: str) -> str:
    """What a text looks like: equal for texts that a reader cannot tell apart.

    Case, Unicode forms, kinds and numbers of blanks, and characters that are not seen make no difference.

    Example:

    >>> look("Caf\u00e9\u200b  Mug ") == look("cafe\u0301\u00a0mug")
    True
    """
    text = unicodedata.normalize("NFKC", text).casefold()
    seen = "".join(character for character in text if unicodedata.category(character) != "Cf")
    return unicodedata.normalize("NFKC", " ".join(seen.split()))


def look_alike(texts: Sequence[str], look_of: Callable[[str], str] = look) -> list[list[int]]:
    """The rows of texts that differ and look the same: for each such group the first row of each text.

    Example:

    >>> look_alike(["mug", "cup", "Mug", "mug", "MUG"])
    [[0, 2, 4]]
    """
    first: dict[str, int] = {}
    for row, text in enumerate(texts):
        first.setdefault(text, row)
    groups = collections.defaultdict(list)
    for text, row in first.items():
        groups[look_of(text)].append(row)
    return [rows for rows in groups.values() if len(rows) > 1]
