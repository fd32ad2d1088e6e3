"""What an index accepts and returns: rows, queries and answers, each refused whole or taken whole."""

from __future__ import annotations

import dataclasses
import itertools
import json
from typing import NamedTuple

import numpy as np

from eet_tf.wording import counted

UNIT_LENGTH_TOLERANCE = 1e-3  # float16 embeddings are within 5e-4; an embedder without its normalisation is far outside
_LONGEST_SHOWN = 200  # characters of a value in a message


class CatalogIndexError(ValueError):
    """An index that cannot be built, searched, saved or loaded as asked; the message says why and how to mend it."""


@dataclasses.dataclass(frozen=True, eq=False)
class Neighbors:
    """What a search found, best first. Row `i` answers query `i`.

    There are fewer than `k` columns only if the index has no more photos (products, where grouped) that are allowed. A
    query that has fewer neighbours than another, as it can happen where photos are deleted from a Milvus cluster during
    the search, is filled up with `""` and a score of -inf.

    Attributes:
        skus: `[num_queries, k]` strings, the product of each neighbour. Photos of one product may repeat it.
        scores: `[num_queries, k]` float32, cosine similarity in [-1, 1], larger is closer.
        photos: `[num_queries, k]` strings, the id of the catalogue photo that matched.
        attributes: `{name: [num_queries, k] values}`, as in `KeptPhotos`; None unless they were asked for.
    """

    skus: np.ndarray
    scores: np.ndarray
    photos: np.ndarray
    attributes: dict[str, np.ndarray] | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class KeptPhotos:
    """What an index keeps of some photos, in the order in which they were asked for.

    Attributes:
        skus: `[N]` the product on each.
        embeddings: `[N, dim]` float32 unit vectors, as near to what was put in as the index's storage allows.
        attributes: `{name: [N] values}`; a missing string is `""`, a missing number NaN, several strings are a tuple.
    """

    skus: np.ndarray
    embeddings: np.ndarray
    attributes: dict[str, np.ndarray]


class Facts(NamedTuple):
    """What an index keeps of some photos but their vectors, as JSON would hold it.

    Args:
        photos: `[N]` unique strings.
        skus: `[N]` strings.
        attributes: `{name: [N] values}`; a missing string is `""`, a missing number None, several strings are a list.
    """

    photos: list[str]
    skus: list[str]
    attributes: dict[str, list]


def check_unit_vectors(argument: str, values) -> np.ndarray:
    """Returns `values` as contiguous float32 `[N, D]`, or says which row is not a finite vector of length 1."""
    array = np.asarray(values)
    if array.ndim != 2 or not np.issubdtype(array.dtype, np.floating):
        raise CatalogIndexError(
            f"`{argument}` must be 2-D floating-point numbers, one row per photo. "
            f"Received: {argument}={describe(array)}. Pass the embedder's output, cast to float32."
        )
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is refused below
        array = np.ascontiguousarray(array, dtype=np.float32)
        lengths = np.sqrt(np.einsum("nd,nd->n", array, array))
    wrong = np.flatnonzero(~(np.abs(lengths - 1.0) <= UNIT_LENGTH_TOLERANCE))  # NaN is wrong too
    if wrong.size:
        raise CatalogIndexError(_unit_length_message(argument, array, wrong, lengths[wrong[0]]))
    return array


def _unit_length_message(argument: str, array: np.ndarray, wrong: np.ndarray, length: float) -> str:
    what = f"Received: {argument}={describe(array)}, of which {wrong.size} are not, first row {wrong[0]}"
    if not np.isfinite(array[wrong[0]]).all():
        return f"`{argument}` must be finite. {what} (NaN or infinity). Look at that photo and the embedder's weights."
    return (
        f"`{argument}` must be rows of length 1 (within {UNIT_LENGTH_TOLERANCE}). {what} (length {length:.6g}). "
        "Divide each row by its length; an embedder from build_embedder already does."
    )


def check_queries(queries, dim: int) -> np.ndarray:
    """Returns queries `[Q, D]` or `[D]` as float32 `[Q, D]`, having compared D with the index."""
    array = np.asarray(queries)
    array = array[np.newaxis] if array.ndim == 1 else array
    if array.ndim == 2 and array.shape[1] != dim:
        raise CatalogIndexError(
            f"`queries` must be of the index's {dim} dimensions. Received: queries={describe(array)}, "
            f"{array.shape[1]} dimensions. Was the query embedded by another model? Use the embedder that embedded the "
            "catalogue."
        )
    return check_unit_vectors("queries", array)


def check_k(k) -> int:
    """Returns `k`, or refuses what is not a count of neighbours."""
    if not isinstance(k, (int, np.integer)) or isinstance(k, bool) or k < 1:
        raise CatalogIndexError(
            f"`k` must be a positive integer. Received: k={shown(k)}. Ask for at least one neighbour."
        )
    return int(k)


def check_fingerprint(fingerprint) -> str | None:
    """Returns the embedder's fingerprint, or refuses what could never match one."""
    if fingerprint is not None and (not isinstance(fingerprint, str) or not fingerprint):
        raise CatalogIndexError(
            f"`fingerprint` must be a non-empty string or None. Received: fingerprint={shown(fingerprint)}. "
            "Pass the embedder's fingerprint, or leave it out."
        )
    return fingerprint


def check_same_embedder(fingerprint: str | None, index_fingerprint: str | None) -> None:
    """Refuses queries of one embedder against rows of another; unknown on either side is not refused."""
    known = check_fingerprint(fingerprint) is not None and index_fingerprint is not None
    if known and fingerprint != index_fingerprint:
        raise CatalogIndexError(
            f"`fingerprint` must be the index's '{index_fingerprint}'. Received: fingerprint='{fingerprint}'. "
            "The query and the catalogue were embedded by different models, so no score means anything. Rebuild the "
            "index with `eet index build`, or embed the query with the index's model."
        )


def check_strings(argument: str, values, num_rows: int) -> np.ndarray:
    """Returns `[num_rows]` non-empty strings, or says which value is none."""
    array = np.asarray(values) if isinstance(values, np.ndarray) else np.asarray(values, dtype=object)
    if array.shape != (num_rows,):
        raise CatalogIndexError(
            f"`{argument}` must be one per embedding, {num_rows}. Received: {argument}={describe(array)}. "
            "Keep both in the catalogue's order."
        )
    for row, value in enumerate(array if array.dtype.kind not in "Ui" else ()):
        if not isinstance(value, (str, int, np.integer)):
            raise CatalogIndexError(_strings_message(argument, row, value))
    strings = (array if array.dtype.kind == "U" else array.astype(object)).astype(
        np.str_
    )  # a copy, no wider than needed
    empty = np.flatnonzero(strings == "")
    if empty.size:
        raise CatalogIndexError(_strings_message(argument, empty[0], ""))
    return strings


def _strings_message(argument: str, row: int, value) -> str:
    return (
        f"`{argument}` must be non-empty strings or integers. Received: {argument}[{row}]={shown(value)}. "
        "Name that photo's value in the catalogue, or leave the photo out."
    )


def check_photos(photos, num_rows: int) -> np.ndarray:
    """Returns the ids of the photos, or refuses one that is there twice."""
    photos = check_strings("photos", photos, num_rows)
    names, first, counts = np.unique(photos, return_index=True, return_counts=True)
    if len(names) == len(photos):
        return photos
    name = photos[first[counts > 1].min()]
    rows = np.flatnonzero(photos == name)[:2].tolist()
    raise CatalogIndexError(
        f"`photos` must be unique. Received: photos={describe(photos)} with '{name}' in rows {rows[0]} and {rows[1]}. "
        "Drop the repeated photo, or give each row an id of its own."
    )


def check_names(argument: str, names) -> list[str]:
    """Returns one name, or a list of different ones, as a list of strings."""
    names = [names] if isinstance(names, (str, int, np.integer)) else list(names)
    return list(dict.fromkeys(check_strings(argument, np.asarray(names, dtype=object), len(names)).tolist()))


def checked_deletion(photos, skus) -> tuple[list[str] | None, list[str] | None]:
    """Checks what `delete` was given: exactly one of the two."""
    if (photos is None) == (skus is None):
        raise CatalogIndexError(
            f"`photos` or `skus` must be given, and not both. Received: photos={shown(photos)}, skus={shown(skus)}."
        )
    return (
        None if photos is None else check_names("photos", photos),
        None if skus is None else check_names("skus", skus),
    )


def check_asked(photos) -> list[str]:
    """Returns the ids of photos that are looked up, of which one may be there twice."""
    if isinstance(photos, str) or np.ndim(photos) != 1:
        raise CatalogIndexError(f"`photos` must be a list of ids. Received: photos={shown(photos)}.")
    return [plain(photo) for photo in photos]


def refuse_unknown(argument: str, unknown: list) -> None:
    """Refuses to change or look up what is not there."""
    if unknown:
        others = f" and {counted(len(unknown) - 1, 'other')}" if len(unknown) > 1 else ""
        raise CatalogIndexError(
            f"`{argument}` must be in the index. Received: {shown(unknown[0])}{others}, not in it. Nothing has changed."
        )


def check_metadata(metadata) -> dict:
    """Returns a copy of the dict as JSON reads it."""
    if metadata is None:
        return {}
    try:
        if isinstance(metadata, dict):
            return json.loads(json.dumps(metadata, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise CatalogIndexError(_metadata_message(metadata)) from error
    raise CatalogIndexError(_metadata_message(metadata))


def _metadata_message(metadata) -> str:
    return (
        f"`metadata` must be a dict that JSON can hold. Received: metadata={shown(metadata)}. "
        "Turn paths and NumPy values into plain strings and numbers."
    )


def describe(array: np.ndarray) -> str:
    """An array in a message."""
    if array.ndim == 1:
        return counted(len(array), "value")
    what = {"U": "strings", "S": "bytes", "O": "values"}.get(array.dtype.kind, array.dtype.name)
    return f"array of shape {array.shape} of {what}"


def plain(value):
    """A value of NumPy as Python has it: its scalars, and arrays of no dimension; others as they are."""
    is_scalar = isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0)
    return value.item() if is_scalar else value


def shown(value) -> str:
    """A value in a message: short, without NumPy's names of types, and of things that are no values only the type."""
    text = _text(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def _text(value) -> str:
    value = plain(value)
    if isinstance(value, np.ndarray):
        value = value[:_LONGEST_SHOWN].tolist()
    if isinstance(value, (list, tuple, set, frozenset)):
        return f"[{', '.join(_text(one) for one in itertools.islice(value, _LONGEST_SHOWN))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_text(name)}: {_text(one)}' for name, one in value.items())}}}"
    return repr(value) if isinstance(value, (str, int, float, type(None))) else f"a {type(value).__name__}"
