"""Rows in Milvus: one collection of a server, which is a cluster, or milvus-lite in this process over a folder."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from eet_tf.index.checks import CatalogIndexError, Facts, shown
from eet_tf.index.conditions import Comparison, Conditions
from eet_tf.index.milvus.filters import (
    blocks_of_names,
    expression,
    is_one_of,
    kept_number,
    literal,
    read_number,
)
from eet_tf.index.milvus.local import LOCAL_MESSAGE
from eet_tf.index.milvus.records import Hit, Records, Row, best_of_products, index_parameters, num_bytes, schema_of
from eet_tf.index.milvus.server import MessageTooLargeError, NotLoadedError, RefusedError, Server, wait

MOST_NEIGHBORS = 16_384  # Milvus's limit on one answer
COMPARED = 20_000  # rows up to which all are compared; an index is of no use below, as for ScannIndex
CONSISTENCIES = ("session", "strong")
BYTES_PER_REQUEST = 2**24  # a cluster takes 64 MB
_BYTES_PER_FILTER = 2**20
_FIRST_PAGE = 256  # rows, of which nobody knows how long they are
_SHARE_OF_LEAVES = 0.1  # searched of SCANN's; as ScannConfiguration does
_CANDIDATES = 200
_BUILDING_STANDSTILL = 600.0  # seconds; a server builds the index of one segment after the other
# a value in a row of an answer, by the kind of its attribute
_READ: dict[str, Callable] = {"number": read_number, "strings": list, "string": str, "bool": bool}


class Collection:
    """One collection: its fields are `photo` (the key), `sku`, `embedding`, and `attribute_0`, `attribute_1`, ...

    Args:
        server: that has it.
        name: of the collection.
        columns: the attributes, `{name: kind}`, in their order.
        num_leaves: of SCANN; 0 is FLAT.
        consistency: of searches, one of `CONSISTENCIES`. All else is read strongly.
    """

    def __init__(
        self, server: Server, name: str, columns: Mapping[str, str], num_leaves: int = 0, consistency: str = "session"
    ):
        self._server = server
        self.name = name
        self.kinds = dict(columns)
        self.fields = {attribute: f"attribute_{place}" for place, attribute in enumerate(columns)}
        self.num_leaves = num_leaves
        self._consistency = consistency.capitalize()

    @classmethod
    def create(
        cls,
        server: Server,
        name: str,
        columns: Mapping[str, str],
        dim: int,
        num_rows: int,
        consistency: str = "session",
    ) -> Collection:
        """Makes an empty one, to be loaded once it is filled; nothing is left of it if that fails.

        Up to `COMPARED` rows, or where the server has no SCANN, it is FLAT: all rows are compared.
        """
        # milvus-lite takes any name of an index, and later does without
        num_leaves = 0 if server.is_lite or num_rows <= COMPARED else max(1, round(math.sqrt(num_rows)))
        made = cls(server, name, columns, num_leaves, consistency)
        try:
            options = {"schema": schema_of(columns, dim), "consistency_level": "Strong"}
            server.call("create_collection", name, options=options)
            try:
                made._create_index()
            except RefusedError:
                if not num_leaves:
                    raise
                made.num_leaves = 0
                made._create_index()
        except BaseException as error:
            made.dropped_after(error)
            raise
        return made

    def _create_index(self) -> None:
        """Makes the index while there are no rows yet."""
        self._server.call("create_index", self.name, index_parameters(self.num_leaves), options={"sync": False})

    def insert(self, records: Records, replace: bool = False) -> None:
        """Adds photos, in requests of some MB; `replace` those that may be there already."""
        for batch in self._batches(records):
            self._server.call("upsert" if replace else "insert", self.name, batch)

    def _batches(self, records: Records) -> Iterator[list[dict]]:
        names = ["photo", "sku", *self.fields.values(), "embedding"]
        columns: list = [records.photos, records.skus]
        for attribute, kind in self.kinds.items():
            values = records.attributes[attribute]
            columns.append([kept_number(value) for value in values] if kind == "number" else values)
        batch: list[dict] = []
        size = 0
        for row in zip(*columns, records.embeddings):
            own = 4 * len(row[-1]) + sum(map(num_bytes, row[:-1]))
            if batch and size + own > BYTES_PER_REQUEST:
                yield batch
                batch, size = [], 0
            batch.append(dict(zip(names, row)))
            size += own
        if batch:
            yield batch

    def delete(self, photos: list[str]) -> None:
        """Deletes photos; one that is not there is no error.

        A cluster does not say when it has deleted, as it does of what is added, so that no later search could wait for
        it. A strong read waits here.
        """
        for some in blocks_of_names(photos, _BYTES_PER_FILTER):
            self._server.call("delete", self.name, options={"filter": is_one_of("photo", some)})
        if not self._server.is_lite:
            self.count()

    def count(self, condition: str = "") -> int:
        """How many photos there are, or how many of them meet a condition."""
        return self._count(condition, "Strong")

    def _count(self, condition: str, consistency: str) -> int:
        rows = self._query(condition, ["count(*)"], consistency=consistency)
        return int(rows[0]["count(*)"])

    def photos_where(self, field: str, values: list[str]) -> list[tuple[str, str]]:
        """The photo and sku of each row whose `photo` or `sku` is one of the values."""
        found = []
        for some in blocks_of_names(values, _BYTES_PER_FILTER):
            asked = set(some)
            for page in self._pages(is_one_of(field, some), ["photo", "sku"]):
                found += [(row["photo"], row["sku"]) for row in page if row[field] in asked]
        return found

    def scan(self, dim: int, condition: str = "") -> Iterator[Records]:
        """All rows, or those that meet a condition, in the order of their photos' ids, some MB at a time."""
        for page in self._pages(condition, ["photo", "sku", *self.fields.values(), "embedding"]):
            embeddings = np.asarray([row["embedding"] for row in page], np.float32).reshape(len(page), dim)
            yield Records(*self._facts(page), embeddings)

    def facts(self) -> Iterator[Facts]:
        """All rows without their vectors, in that order."""
        yield from map(self._facts, self._pages("", ["photo", "sku", *self.fields.values()]))

    def _facts(self, page: list[dict]) -> Facts:
        attributes = {
            name: [_READ[self.kinds[name]](row[field]) for row in page] for name, field in self.fields.items()
        }
        return Facts([row["photo"] for row in page], [row["sku"] for row in page], attributes)

    def rows_of(self, photos: list[str], dim: int) -> dict[str, Row]:
        """Those of these photos that are there, by their ids."""
        found: dict[str, Row] = {}
        for some in blocks_of_names(list(dict.fromkeys(photos)), _BYTES_PER_FILTER):
            asked = set(some)
            for records in self.scan(dim, is_one_of("photo", some)):
                found |= {row.photo: row for row in records.rows() if row.photo in asked}
        return found

    def _pages(self, condition: str, fields: list[str]) -> Iterator[list[dict]]:
        """Rows by their photos' ids, in pages of about `BYTES_PER_REQUEST`.

        The next page begins behind the last id, which is quoted like any other name. (pymilvus's own iterator writes it
        into its expression as it is.) Milvus gives the rows of least id first where it is asked for a few. It may give
        fewer than that although it has more, so only a page of none is the last.
        """
        if self._server.is_lite:  # it gives no order, and looks at all rows for each question
            rows = self._query(condition, ["photo"], limit=LOCAL_MESSAGE)
            size = max(1, BYTES_PER_REQUEST // 4096)
            for start in range(0, len(rows), size):
                some = is_one_of("photo", [row["photo"] for row in rows[start : start + size]])
                yield self._query(some, fields)
            return
        last, size = None, _FIRST_PAGE
        while True:
            behind = "" if last is None else f"photo > {literal(last)}"
            try:
                page = self._query(both(behind, condition), fields, limit=size)
            except MessageTooLargeError:
                if size == 1:
                    raise
                size = max(1, size // 4)
                continue
            if not page:
                return
            yield page
            last = max(row["photo"] for row in page)
            fits = len(page) * BYTES_PER_REQUEST // max(1, sum(map(_size, page)))
            size = max(1, min(fits, 4 * size, MOST_NEIGHBORS))

    def _query(
        self, condition: str, fields: list[str], limit: int | None = None, consistency: str = "Strong"
    ) -> list[dict]:
        options = {"filter": condition, "output_fields": fields, "consistency_level": consistency}
        return self._server.call("query", self.name, options=options if limit is None else {**options, "limit": limit})

    def search(self, queries: np.ndarray, k: int, condition: str, with_attributes: bool = False) -> list[list[Hit]]:
        """The nearest photos that meet the condition, best first, for each query.

        There are fewer than `k`, at most `MOST_NEIGHBORS`, only if no more meet it. Where SCANN finds fewer in the
        leaves that it looks at, it looks at all of them, and where few meet the condition it does so at once, since
        those that are left are far apart. Where that does not help, all that meet it are compared here.
        """
        if not self.num_leaves:
            found = self._search(queries, k, condition, True, with_attributes)
        else:
            is_narrow = bool(condition) and self._count(condition, self._consistency) <= COMPARED
            found = self._search(queries, k, condition, is_narrow, with_attributes)
            short = [] if is_narrow else _shorter(found, k)
            if short:
                again = self._search(queries[short], k, condition, True, with_attributes)
                for place, hits in zip(short, again):
                    found[place] = hits
        short = [] if self._server.is_lite else _shorter(found, k)
        if short:
            short = _shorter(found, min(k, self._count(condition, self._consistency)))
        if short:
            for place, hits in zip(short, self.compared(queries[short], k, condition)):
                found[place] = hits
        return found

    def _search(self, queries, k, condition, is_exhaustive, with_attributes) -> list[list[Hit]]:
        found: list = []
        names = list(self.fields) if with_attributes else []
        options = {
            "anns_field": "embedding",
            "filter": condition,
            "limit": k,
            "output_fields": ["sku", *(self.fields[name] for name in names)],
            "search_params": {"metric_type": "IP", "params": self._search_parameters(k, is_exhaustive)},
            "consistency_level": self._consistency,
        }
        block = max(1, min(1000, 4 * MOST_NEIGHBORS // k))
        while len(found) < len(queries):
            try:
                data = list(queries[len(found) : len(found) + block])
                answers = self._server.call("search", self.name, options={**options, "data": data})
            except MessageTooLargeError:
                if block == 1:  # of this query alone the names are too long for one answer
                    found += self.compared(queries[len(found)][np.newaxis], k, condition)
                block = max(1, block // 2)
                continue
            found += [[self._hit(hit, names) for hit in hits] for hits in answers]
        return found

    def _hit(self, hit, names: list[str]) -> Hit:
        kept = hit["entity"]
        attributes = tuple(_READ[self.kinds[name]](kept[self.fields[name]]) for name in names)
        return Hit(hit.id, kept["sku"], hit["distance"], attributes)

    def _search_parameters(self, k: int, is_exhaustive: bool) -> dict:
        if not self.num_leaves:
            return {}
        share = 1.0 if is_exhaustive else _SHARE_OF_LEAVES
        return {"nprobe": math.ceil(share * self.num_leaves), "reorder_k": max(_CANDIDATES, 2 * k)}

    def compared(self, queries: np.ndarray, k: int, condition: str, by_sku: bool = False) -> list[list[Hit]]:
        """What `search` gives, with attributes, by reading all rows that meet the condition and comparing with each.

        With `by_sku`, the best photo of each of the `k` nearest products.
        """
        found: list[list[Hit]] = [[] for _ in queries]
        for records in self.scan(queries.shape[1], condition):
            scores = queries @ records.embeddings.T
            few = len(records.photos) if by_sku else min(k, len(records.photos))
            for place, row in enumerate(scores):
                best = np.argsort(-row, kind="stable")[:few]
                hits = [Hit(*records.row(one)[:2], float(row[one]), records.row(one).attributes) for one in best]
                hits = sorted(found[place] + hits, key=lambda hit: -hit.score)
                found[place] = (list(best_of_products({}, hits).values()) if by_sku else hits)[:k]
        return found

    def condition(self, conditions: Conditions | None) -> str:
        """The expression of conditions, as `read_conditions` gives them.

        Not every Milvus finds a text within others. So where one is looked for, all texts of that attribute are read,
        and those in which it is found are asked for.
        """
        if conditions is None:
            return ""
        plain = {
            name: [[self._looked_up(name, one) for one in all_of] for all_of in alternatives]
            for name, alternatives in conditions.items()
        }
        return expression(plain, self.fields, self.kinds)

    def _looked_up(self, name: str, comparison: Comparison) -> Comparison:
        if comparison.sign != "contains" or self.kinds[name] != "string":
            return comparison
        field, found = self.fields[name], set()
        for page in self._pages("", ["photo", field]):
            found |= {row[field] for row in page if all(part in row[field] for part in comparison.values)}
        if sum(len(literal(text).encode()) + 2 for text in found) > BYTES_PER_REQUEST:
            raise CatalogIndexError(
                f"`where['{name}']` must be met by fewer texts with Milvus. Received: {shown(comparison.values)}, "
                f"which {len(found)} different ones contain, more than one question holds. Look for a longer text."
            )
        return Comparison("in", tuple(sorted(found)))

    def flush(self, num_rows: int) -> None:
        """Has the server write the `num_rows` that were added to its store and index them, and waits until it has.

        A FLAT collection has no index to be built: what was acknowledged is safe and is found as it is.
        """
        if not self.num_leaves:
            return
        self._server.call("flush", self.name, options={"_async": True})
        wait(
            self.indexed,
            lambda counts: counts[0] == counts[1] >= num_rows,
            f"build the index of the collection '{self.name}'",
            _BUILDING_STANDSTILL,
        )

    def indexed(self) -> tuple[int, int]:
        """Returns how many rows the server's index holds, and how many it is to hold.

        Those of the last minutes, which the server has not written to its store yet, are in neither; they are found all
        the same.
        """
        state = self._server.call("describe_index", self.name, "embedding")
        return int(state["indexed_rows"]), int(state["total_rows"])

    def load(self) -> Collection:
        """Makes it searchable; refuses one that is not there.

        One that is loaded is left as it is: who may only search and query may not load.
        """
        if not self._server.call("has_collection", self.name):
            raise CatalogIndexError(
                f"the Milvus collection '{self.name}' must exist. Received: a server that has none of that name. "
                "Was it dropped? Run `eet index build` again."
            )
        if not self._server.is_lite:
            with contextlib.suppress(NotLoadedError):
                self._count("", "Eventually")
                return self
        return self._load()

    def _load(self) -> Collection:
        if self._server.is_lite:
            self._server.call("load_collection", self.name)
        else:
            wait(self._missing, lambda missing: missing is None, f"load the collection '{self.name}'")
        return self

    def _missing(self) -> str | None:
        """Has the server load it; how far it is, or None if it answers."""
        state = ""
        try:
            self._server.call("load_collection", self.name, options={"_async": True})
            state = self._server.call("get_load_state", self.name)
            self._count("", "Eventually")
            return None
        except NotLoadedError:
            return f"not loaded {state}"

    def drop(self) -> None:
        """Removes the collection and its rows from the server."""
        self._server.call("drop_collection", self.name)

    def dropped_after(self, error: BaseException) -> None:
        """Removes what a failure has left; where that fails too, the error says what is left and where."""
        try:
            self.drop()
        except CatalogIndexError:
            note = f"The server may be left with the collection '{self.name}': drop it with Milvus's own tools."
            error.args = (f"{error} {note}" if error.args else note,)


def _shorter(found: list[list], width: int) -> list[int]:
    return [place for place, hits in enumerate(found) if len(hits) < width]


def _size(row: Mapping) -> int:
    """Returns how many bytes one row takes in an answer."""
    vector = 4 * len(row.get("embedding", ()))
    return vector + sum(num_bytes(value) for name, value in row.items() if name != "embedding")


def both(*conditions: str) -> str:
    """An expression that is met where all of these are; an empty one is met by all."""
    given = [condition for condition in conditions if condition]
    return " and ".join(f"({condition})" for condition in given) if len(given) > 1 else "".join(given)
