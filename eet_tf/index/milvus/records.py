"""Rows as Milvus takes and gives them: which it takes, and the fields and the index of a collection of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from eet_tf.index.checks import CatalogIndexError, Neighbors
from eet_tf.index.columns import Column, to_json
from eet_tf.index.milvus.server import imported

LONGEST_STRING = 65_535  # bytes; Milvus's limit on a VARCHAR
_MISSING: dict[str, Any] = {"string": "", "strings": [], "number": None, "bool": False}
MOST_STRINGS = 4096  # of one photo; Milvus's limit on an ARRAY
MOST_ATTRIBUTES = 61  # Milvus takes 64 fields; `photo`, `sku` and `embedding` are ours


class Hit(NamedTuple):
    """A photo that was found, its product, its score, and its attributes in their order, if they were asked for."""

    photo: str
    sku: str
    score: float
    attributes: tuple = ()


class Row(NamedTuple):
    """One photo of `Records`."""

    photo: str
    sku: str
    attributes: tuple
    embedding: np.ndarray


class Records(NamedTuple):
    """Photos as Milvus takes and gives them.

    Args:
        photos: `[N]` unique strings.
        skus: `[N]` strings.
        attributes: `{name: [N] values}`; a missing number is None, several strings are a list.
        embeddings: `[N, D]` float32.
    """

    photos: list[str]
    skus: list[str]
    attributes: dict[str, list]
    embeddings: np.ndarray

    def row(self, number: int) -> Row:
        """One of them."""
        values = tuple(column[number] for column in self.attributes.values())
        return Row(self.photos[number], self.skus[number], values, self.embeddings[number])

    def rows(self) -> list[Row]:
        """All of them."""
        return [self.row(number) for number in range(len(self.photos))]


def best_of_products(products: dict[str, Hit], hits: Iterable[Hit]) -> dict[str, Hit]:
    """Adds the first hit of each product that is not there yet."""
    for hit in hits:
        products.setdefault(hit.sku, hit)
    return products


def neighbors_of(found: list[list[Hit]], width: int, kinds: Mapping[str, str] | None = None) -> Neighbors:
    """`[Q, width]`; a query for which photos were deleted while others searched is filled up, as `Neighbors` says.

    With the attributes of these kinds, if they were asked for.
    """
    nobody = Hit("", "", -np.inf, tuple(_MISSING[kind] for kind in (kinds or {}).values()))
    hits = [hit for some in found for hit in some + [nobody] * (width - len(some))]
    shape = (len(found), width)
    names = (np.asarray([hit[place] for hit in hits], np.str_).reshape(shape) for place in (1, 0))
    scores = np.asarray([hit.score for hit in hits], np.float32).reshape(shape)
    attributes = None if kinds is None else columns_of(hits, kinds)
    if attributes is not None:
        attributes = {name: values.reshape(shape) for name, values in attributes.items()}
    skus, photos = names
    return Neighbors(skus, scores, photos, attributes)


def columns_of(rows: Sequence[Hit | Row], kinds: Mapping[str, str]) -> dict[str, np.ndarray]:
    """`{name: [N] values}` of rows, as `KeptPhotos` has them."""
    columns = {name: Column(name, kind) for name, kind in kinds.items()}
    values = zip(*(row.attributes for row in rows)) if rows else [[] for _ in kinds]
    return {name: column.decode(column.encode(list(some))) for (name, column), some in zip(columns.items(), values)}


def checked_records(
    photos, skus, columns: dict[str, Column], kept: dict[str, np.ndarray], vectors: np.ndarray
) -> Records:
    """Rows that have been checked, as Milvus takes them; refuses what it does not take."""
    if len(columns) > MOST_ATTRIBUTES:
        raise CatalogIndexError(
            f"`attributes` must be at most {MOST_ATTRIBUTES} with Milvus. Received: {len(columns)}. Leave out those "
            "that nobody searches by, or use ScannIndex."
        )
    attributes = {name: to_json(column, kept[name]) for name, column in columns.items()}
    names, skus = photos.tolist(), skus.tolist()
    _check_lengths("photos", names)
    _check_lengths("skus", skus)
    for name, column in columns.items():
        if column.kind == "string":
            _check_lengths(f"attributes['{name}']", attributes[name])
        if column.kind == "strings":
            _check_several(f"attributes['{name}']", attributes[name])
    return Records(names, skus, attributes, vectors)


def _check_lengths(argument: str, texts: list[str], row: int | None = None) -> None:
    for place, text in enumerate(texts):
        where = f"in row {place if row is None else row}"
        try:
            size = len(text.encode())
        except UnicodeEncodeError as error:
            raise CatalogIndexError(
                f"`{argument}` must be UTF-8 with Milvus. Received: {ascii(text[:40])} {where}. Rename it."
            ) from error
        if size > LONGEST_STRING:
            raise CatalogIndexError(
                f"`{argument}` must be at most {LONGEST_STRING} bytes of UTF-8 each. Received: {text[:40]!r}... "
                f"{where}. Milvus takes no others."
            )


def _check_several(argument: str, values: list[list[str]]) -> None:
    for row, texts in enumerate(values):
        _check_lengths(argument, texts, row)
        if len(texts) > MOST_STRINGS:
            raise CatalogIndexError(
                f"`{argument}` must be at most {MOST_STRINGS} strings for each photo with Milvus. Received: "
                f"{len(texts)} in row {row}. Leave out those that nobody searches by, or use ScannIndex."
            )


def num_bytes(value) -> int:
    """About, of a string, several strings, a number or a truth."""
    if isinstance(value, str):
        return len(value.encode())
    return 8 if isinstance(value, float | int | None) else 8 + sum(8 + len(one.encode()) for one in value)


def schema_of(columns: Mapping[str, str], dim: int):
    """The fields of a collection, as its client describes them."""
    pymilvus, _ = imported()
    kind = pymilvus.DataType
    schema = pymilvus.MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("photo", kind.VARCHAR, is_primary=True, max_length=LONGEST_STRING)
    schema.add_field("sku", kind.VARCHAR, max_length=LONGEST_STRING)
    for place, of in enumerate(columns.values()):
        options = {
            "string": {"datatype": kind.VARCHAR, "max_length": LONGEST_STRING},
            "number": {"datatype": kind.DOUBLE},
            "bool": {"datatype": kind.BOOL},
            "strings": {
                "datatype": kind.ARRAY,
                "element_type": kind.VARCHAR,
                "max_length": LONGEST_STRING,
                "max_capacity": MOST_STRINGS,
            },
        }[of]
        schema.add_field(f"attribute_{place}", **options)
    schema.add_field("embedding", kind.FLOAT_VECTOR, dim=dim)
    return schema


def index_parameters(num_leaves: int):
    """The index of a collection, as its client describes it: SCANN, or FLAT of no leaves."""
    pymilvus, _ = imported()
    parameters = pymilvus.MilvusClient.prepare_index_params()
    # SCANN's `with_raw_data` is left at its default, true: as "True", which is how the client writes it, servers before
    # 2.5.12 take it for nothing and never build the index
    kind, options = ("SCANN", {"nlist": num_leaves}) if num_leaves else ("FLAT", {})
    # the product of unit vectors, as all our indexes have it: COSINE would divide by lengths once more
    parameters.add_index(field_name="embedding", index_type=kind, metric_type="IP", params=options)
    return parameters
