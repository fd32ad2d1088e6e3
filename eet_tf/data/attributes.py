"""What a catalogue's attribute columns mean as numbers for training: yes, no or unknown for each attribute."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from eet_tf.data.catalog import Catalog, CatalogError
from eet_tf.data.kinds import is_of_tuples
from eet_tf.wording import counted

_ANSWERS = np.array(["no", "yes", ""], dtype=object)  # found by value: 0, 1, and -1 for the last
_VALUES = {"no": 0, "yes": 1, "": -1}
_MOST_WORDS = 1000


@dataclasses.dataclass(frozen=True, eq=False)
class AttributeTable:
    """Holds the attributes of photos as numbers.

    Args:
        names: the A attributes, each a column's name or `"column=word"`.
        values: `[N, A]` int8, 1 = yes, 0 = no, -1 = unknown, one row per photo.
    """

    names: tuple[str, ...]
    values: np.ndarray


def encode_attributes(
    catalog: Catalog, columns: str | Sequence[str], names: Sequence[str] | None = None
) -> AttributeTable:
    """Attribute columns as a table of yes, no and unknown.

    - A column that has only `"yes"`, `"no"` and `""` is one attribute, named as the column.
    - A cell of any other column is a set of words with commas between them, a single word in the simplest case.
      Blanks around a word are dropped. Each word is an attribute `"column=word"`; a column's words are sorted. A number
      or a bool is a word, as the list writes it; a column of several values a photo has these for words.
    - An empty cell is unknown: -1 for every attribute of its column.
    - Without `names`, an attribute that has no yes or no no among the known rows is left out: it teaches nothing.
    - With `names`, learnt from another split, exactly these are given, in this order. Other words are passed over: a
      cell that has only such words says no to the known ones. Other cells of a yes/no attribute are unknown.

    Args:
        catalog: `N` photos.
        columns: attribute columns to encode, in this order, or `"all"` of them. `"category"` is the categories.
        names: the attributes to encode, as a table of the training photos names them.

    Returns:
        An `AttributeTable` of the N photos.

    Raises:
        CatalogError: if a column is unknown or none is given, a column has more than 1,000 different words, `names`
            has one that belongs to no column, or no attribute is left.

    Example:

    >>> columns = {"colour": ["red", "red, blue", ""], "waterproof": ["no", "", "yes"]}
    >>> table = encode_attributes(Catalog(["1.jpg", "2.jpg", "3.jpg"], ["a", "b", "c"], attributes=columns), "all")
    >>> table.names  # every known photo is red, which teaches nothing
    ('colour=blue', 'waterproof')
    >>> table.values.tolist()
    [[0, 0], [1, -1], [-1, 1]]
    """
    columns = _chosen_columns(catalog, columns)
    if names is None:
        tables = [_teaching(_encode_column(column, _cells(catalog, column))) for column in columns]
    else:
        wanted = _by_column(names, columns)
        tables = [_encode_names(column, _cells(catalog, column), some) for column, some in wanted.items()]
    found = [name for table in tables for name in table.names]
    if not found:
        raise CatalogError(
            f"No attribute is left of {', '.join(columns)}: none has a yes and a no among the "
            f"{counted(len(catalog), 'photo')} of {catalog.source}. Choose other columns."
        )
    values = np.concatenate([table.values for table in tables], axis=1)
    if names is None:
        return AttributeTable(tuple(found), values)
    places = {name: place for place, name in enumerate(found)}
    return AttributeTable(tuple(names), values[:, [places[name] for name in names]])


def answer_columns(names: Sequence[str], values: np.ndarray) -> dict[str, np.ndarray]:
    """The columns of a catalogue that say `"yes"`, `"no"` or `""`, for a table of 1, 0 and -1.

    Args:
        names: A names of attributes, none twice.
        values: `[N, A]` integers, 1 = yes, 0 = no, -1 = unknown.

    Returns:
        `{name: [N] strings}`, for `Catalog`.

    Example:

    >>> {name: column.tolist() for name, column in answer_columns(["red", "wet"], np.array([[1, 0], [-1, 1]])).items()}
    {'red': ['yes', ''], 'wet': ['no', 'yes']}
    """
    return {name: _ANSWERS[column] for name, column in zip(names, values.T)}


def _chosen_columns(catalog: Catalog, columns: str | Sequence[str]) -> list[str]:
    if isinstance(columns, str) and columns != "all":
        raise CatalogError(f"`columns` must be 'all' or a list of columns. Received: columns={columns!r}.")
    chosen = list(catalog.attributes) if columns == "all" else list(dict.fromkeys(columns))
    if not chosen:
        raise CatalogError(
            f"`columns` must name a column or more. Received: columns={columns!r}; {catalog.source} has the attributes "
            f"{sorted(catalog.attributes) or 'none'}."
        )
    return chosen


def _cells(catalog: Catalog, column: str) -> np.ndarray:
    """`[N]` texts of a column, or tuples of texts."""
    cells = catalog.column(column)
    return cells if is_of_tuples(cells) else catalog.column_texts(column)


def _encode_column(column: str, cells: np.ndarray) -> AttributeTable:
    """Every attribute that a column has, named by what stands in it."""
    texts, codes = _distinct(cells)
    if set(texts.tolist()) <= set(_VALUES):
        return _encode_answers(column, texts, codes)
    words = sorted(set().union(*map(_words, texts.tolist())))
    if len(words) > _MOST_WORDS:
        raise CatalogError(
            f"Column {column!r} has {len(words):,} different words, more than {_MOST_WORDS:,}: it is an identifier or "
            "a text, not an attribute. Leave it out of `columns`."
        )
    return _encode_words(column, texts, codes, words)


def _encode_names(column: str, cells: np.ndarray, names: list[str]) -> AttributeTable:
    """The named attributes of a column, whatever else stands in it."""
    texts, codes = _distinct(cells)
    tables = [_encode_answers(column, texts, codes)] if column in names else []
    words = [name[len(column) + 1 :] for name in names if name != column]
    tables += [_encode_words(column, texts, codes, words)] if words else []
    return AttributeTable(
        tuple(name for table in tables for name in table.names),
        np.concatenate([table.values for table in tables], axis=1),
    )


def _distinct(cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Texts, stripped, or tuples: all that stand in a column, and for each row the place of what it has."""
    codes = np.where(cells == "yes", 1, np.where(cells == "no", 0, 2))
    if np.array_equal(_ANSWERS[codes], cells):  # hundreds of columns are like that, and sorting each takes long
        return _ANSWERS, codes
    places = {cell: place for place, cell in enumerate(sorted(set(cells.tolist())))}
    codes = np.fromiter(map(places.__getitem__, cells.tolist()), np.int64, len(cells))
    distinct = [cell if isinstance(cell, tuple) else cell.strip() for cell in places]
    return np.fromiter(distinct, dtype=object, count=len(distinct)), codes


def _words(cell: str | tuple[str, ...]) -> set[str]:
    return set(cell) if isinstance(cell, tuple) else {word.strip() for word in cell.split(",")} - {""}


def _encode_answers(column: str, texts: np.ndarray, codes: np.ndarray) -> AttributeTable:
    values = np.array([_VALUES.get(text, -1) for text in texts.tolist()], dtype=np.int8)
    return AttributeTable((column,), values[codes][:, None])


def _encode_words(column: str, texts: np.ndarray, codes: np.ndarray, words: list[str]) -> AttributeTable:
    values = np.zeros((len(texts), len(words)), dtype=np.int8)
    places = {word: place for place, word in enumerate(words)}
    for row, present in enumerate(map(_words, texts.tolist())):
        if present:
            values[row, [places[word] for word in present if word in places]] = 1
        else:
            values[row] = -1
    return AttributeTable(tuple(f"{column}={word}" for word in words), values[codes])


def _teaching(table: AttributeTable) -> AttributeTable:
    """The attributes that some photo is known to have and another to lack."""
    kept = np.flatnonzero((table.values == 1).any(axis=0) & (table.values == 0).any(axis=0))
    return AttributeTable(tuple(table.names[place] for place in kept), table.values[:, kept])


def _by_column(names: Sequence[str], columns: list[str]) -> dict[str, list[str]]:
    """The names that belong to each column. A column's own name may hold "=": the longest that fits has the name."""
    wanted: dict[str, list[str]] = {}
    for name in names:
        owners = [column for column in columns if name == column or name.startswith(f"{column}=")]
        if not owners:
            raise CatalogError(
                f"`names` must be attributes of the columns {', '.join(columns)}. Received: {name!r}. "
                "Encode the columns that the names were learnt from."
            )
        wanted.setdefault(max(owners, key=len), []).append(name)
    return wanted
