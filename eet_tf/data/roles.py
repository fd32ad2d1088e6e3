"""Which column of a table says what: the photo's path, its product, its category and its split."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Callable, Mapping, Sequence

from eet_tf.data.catalog import CatalogError

ROLES = ("path", "sku", "category", "split")
_NEEDED = ("path", "sku")
_MOST_SHOWN = 50
# other names that these columns have in shops' tables, the likeliest first; letters and digits alone are compared
_SYNONYMS = {
    "path": (
        *("path", "imagepath", "photopath", "filepath", "image", "photo", "picture", "file", "filename", "imagefile"),
        *("photofile", "imagename", "img", "imgpath", "imagesrc", "imageurl", "imagelink", "photourl", "url", "bild"),
    ),
    "sku": (
        *(
            "sku",
            "productid",
            "itemid",
            "articleid",
            "productcode",
            "itemcode",
            "articlenumber",
            "articleno",
            "product",
        ),
        *("item", "article", "productno", "productnumber", "itemno", "variantsku", "style", "styleid", "artikelnummer"),
        *("label", "class", "classid", "handle", "id"),
    ),
}


def read_columns(text: str) -> dict[str, str]:
    """Reads which columns of a table to use, as the flag `--columns` writes it.

    Args:
        text: pairs `role:column` with commas between. A role is `path`, `sku`, `category` or `split`; the column is
            named as the table's header does, without a comma in it. Empty text means that none is renamed.

    Returns:
        `{role: column}`, what `load_csv` and the other readers of tables take as `columns`.

    Raises:
        CatalogError: if a pair is none, a role is unknown, or a role or a column is there twice.

    Example:

    >>> read_columns("path:image, sku:product_id")
    {'path': 'image', 'sku': 'product_id'}
    """
    columns: dict[str, str] = {}
    for pair in text.split(",") if text.strip() else []:
        role, colon, column = (part.strip() for part in pair.partition(":"))
        if not colon or not role or not column:
            raise _refusal(text, f"{pair.strip()!r} is no role:column")
        if role in columns:
            raise _refusal(text, f"{role} is there twice")
        columns[role] = column
    return check_columns(columns, text)


def check_columns(columns: Mapping[str, str] | None, shown: object = None) -> dict[str, str]:
    """Returns `columns` as a dict; refuses what is no role, no name, or twice the same column.

    Args:
        columns: `{role: column}`, or None for none.
        shown: what a message says was received; `columns` itself if left out.
    """
    shown = columns if shown is None else shown
    if columns is None:
        return {}
    if not isinstance(columns, Mapping):
        raise _refusal(shown, "it is no dict")
    for role, column in columns.items():
        if role not in ROLES:
            raise _refusal(shown, f"{str(role)!r} is none of the roles {', '.join(ROLES)}")
        if not isinstance(column, str) or not column.strip():
            raise _refusal(shown, f"the column of {role} has no name")
    if len(set(columns.values())) < len(columns):
        raise _refusal(shown, "two roles have one column")
    return {role: column.strip() for role, column in columns.items()}


def _refusal(shown: object, why: str) -> CatalogError:
    if isinstance(shown, Mapping):
        shown = ",".join(f"{role}:{column}" for role, column in shown.items())
    return CatalogError(
        "`columns` must say which column of the table has which role, such as path:image,sku:product_id. "
        f"Received: columns={str(shown)!r}; {why}."
    )


def roles_of(place: str, names: Sequence[str], columns: Mapping[str, str]) -> dict[str, str]:
    """The column of each role that a table has.

    Args:
        place: of the header, for messages.
        names: of the columns.
        columns: `{role: column}`; a role that is not in it has the column of its own name.

    Returns:
        `{role: column}`, with `"path"` and `"sku"`, and without the roles that no column has.

    Raises:
        CatalogError: if a needed column is not there, or a name is there twice. It lists the columns, and proposes the
            `--columns` for names that are common in shops.

    Example:

    >>> roles_of("list.csv:1", ["image", "sku", "colour"], {"path": "image"})
    {'path': 'image', 'sku': 'sku'}
    >>> roles_of("list.csv:1", ["image", "product_id"], {})
    Traceback (most recent call last):
        ...
    eet_tf.data.catalog.CatalogError: list.csv:1: the header must name columns 'path' and 'sku', each once. \
Received: ['image', 'product_id']. If 'image' is the photo's path and 'product_id' is the product's sku, say so with \
--columns=path:image,sku:product_id (columns={'path': 'image', 'sku': 'product_id'} in Python).
    """
    unknown = [f"{role}:{column}" for role, column in columns.items() if column not in names]
    if unknown:
        raise CatalogError(
            f"{place}: `columns` must name columns of the table. Received: {', '.join(unknown)}; its columns are "
            f"{_shown(names)}."
        )
    needed = [columns.get(role, role) for role in _NEEDED]
    check_header(place, names, needed, functools.partial(_proposal, names, columns))
    if "category" in columns and columns["category"] != "category" and "category" in names:
        raise CatalogError(
            f"{place}: `columns` must not give the role category to {columns['category']!r} where another column is "
            "named 'category'. Rename that one."
        )
    return {role: columns.get(role, role) for role in ROLES if columns.get(role, role) in names}


def check_header(place: str, names: Sequence[str], needed: Sequence[str], propose: Callable[[], str] = str) -> None:
    """Refuses a header that lacks a needed column or names one twice.

    Args:
        place: of the header, for messages.
        names: of the columns.
        needed: columns that must be there.
        propose: what to do about a column that is not there, in a sentence; empty for nothing.
    """
    twice = sorted({name for name in names if name and list(names).count(name) > 1})
    if set(needed) <= set(names) and not twice:
        return
    what = f"{'columns' if len(needed) > 1 else 'a column'} {' and '.join(map(repr, needed))}"
    what += ", each once" if len(needed) > 1 else ", once"
    found = f" These stand there twice: {', '.join(map(repr, twice))}." if twice else ""
    mend = "" if set(needed) <= set(names) else propose()
    raise CatalogError(
        f"{place}: the header must name {what}. Received: {_shown(names)}.{found}{' ' * bool(mend)}{mend}"
    )


def _shown(names: Sequence[str]) -> str:
    return f"{len(names)} columns" if len(names) > _MOST_SHOWN else str(list(map(str, names)))


def _proposal(names: Sequence[str], columns: Mapping[str, str]) -> str:
    """The `--columns` that names the columns which are likely meant."""
    free = [name for name in names if name and name not in columns.values()]
    found = dict(columns)
    for role in _NEEDED:
        if role in names and role not in found:
            free = [name for name in free if name != role]
        elif role not in found and (name := _likely(role, free)):
            found[role] = name
    if found == dict(columns):
        return "Rename the columns, or say which is which with --columns=path:...,sku:... ."
    lacking = [role for role in _NEEDED if role not in found and role not in names]
    guesses = [f"{found[role]!r} is {what}" for role, what in _MEANT.items() if role in found and role not in columns]
    pairs = [f"{role}:{column}" for role, column in found.items()] + [f"{role}:..." for role in lacking]
    flag = "" if any("," in column for column in found.values()) else shlex.quote(f"--columns={','.join(pairs)}")
    python = "" if lacking else f"columns={found} in Python"
    how = f"{flag} ({python})" if flag and python else flag or python
    return f"If {' and '.join(guesses)}, say so with {how}."


_MEANT = {"path": "the photo's path", "sku": "the product's sku"}


def _likely(role: str, names: Sequence[str]) -> str | None:
    """The first of the names that is a synonym of a role, the likeliest synonym first."""
    looks = {"".join(filter(str.isalnum, name.casefold())): name for name in reversed(names)}
    return next((looks[synonym] for synonym in _SYNONYMS[role] if synonym in looks), None)
