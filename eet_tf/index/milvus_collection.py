"""Rows in Milvus: one collection of a server, which is a cluster, or milvus-lite in this process over a folder."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Mapping
from concurrent import futures
from pathlib import Path
from typing import NamedTuple

import numpy as np

from eet_tf.index.checks import CatalogIndexError
from eet_tf.index.columns import Column, to_json
from eet_tf.index.milvus_filters import expression, finite, is_one_of

MOST_NEIGHBORS = 16_384  # Milvus's limit on one answer
LONGEST_STRING = 65_535  # bytes; Milvus's limit on a VARCHAR
TOKEN = "MILVUS_TOKEN"  # the environment variable
LOCAL_COLLECTION = "photos"
_BYTES_PER_REQUEST = 2**24  # a cluster takes 64 MB
_LOCAL_MESSAGE = 2**28
_PHOTOS_PER_FILTER = 1000
_FETCHED_PER_PRODUCT = 4
_SHARE_OF_LEAVES = 0.1  # searched of SCANN's; as ScannConfiguration does
_CANDIDATES = 200


class Records(NamedTuple):
    """Photos as Milvus takes and gives them.

    Args:
        photos: `[N]` unique strings.
        skus: `[N]` strings.
        attributes: `{name: [N] values}`; a missing number is None.
        embeddings: `[N, D]` float32.
    """

    photos: list[str]
    skus: list[str]
    attributes: dict[str, list]
    embeddings: np.ndarray


class Collection:
    """One collection: its fields are `photo` (the key), `sku`, `embedding`, and `attribute_0`, `attribute_1`, ...

    Args:
        client: a `pymilvus.MilvusClient`.
        name: of the collection.
        columns: the attributes, `{name: kind}`, in their order.
        num_leaves: of SCANN; 0 is FLAT.
        server: what must live as long as the collection is used; for milvus-lite.
    """

    def __init__(self, client, name: str, columns: Mapping[str, str], num_leaves: int = 0, server=None):
        self._client = client
        self.name = name
        self.fields = {attribute: f"attribute_{place}" for place, attribute in enumerate(columns)}
        self.num_leaves = num_leaves
        self._server = server
        self._is_lite = server is not None or _is_lite(client)

    @classmethod
    def create(cls, client, name: str, columns: Mapping[str, str], dim: int, num_rows: int, server=None) -> Collection:
        """Makes an empty one: with SCANN, or FLAT where the server is milvus-lite or refuses SCANN."""
        import pymilvus

        with _refusals():
            # milvus-lite takes any name of an index, and later does without
            choices = [0] if server is not None or _is_lite(client) else [max(1, round(math.sqrt(num_rows))), 0]
            for num_leaves in choices:
                try:
                    client.create_collection(name, schema=_schema(columns, dim), consistency_level="Strong")
                    client.create_index(name, _index_parameters(num_leaves), sync=False)  # of no rows yet
                    client.load_collection(name)
                    break
                except pymilvus.MilvusException:
                    if client.has_collection(name):
                        client.drop_collection(name)
                    if not num_leaves:
                        raise
        return cls(client, name, columns, num_leaves, server)

    def insert(self, records: Records, replace: bool = False) -> None:
        """Adds photos, in requests of some MB; `replace` those that may be there already."""
        with _refusals():
            for batch in self._batches(records):
                if replace:
                    self._client.upsert(self.name, batch)
                else:
                    self._client.insert(self.name, batch)

    def _batches(self, records: Records) -> Iterator[list[dict]]:
        names = ["photo", "sku", *self.fields.values(), "embedding"]
        columns: list = [records.photos, records.skus]
        for attribute in self.fields:
            values = records.attributes[attribute]
            columns.append([finite(value) if isinstance(value, float) else value for value in values])
        rows = (dict(zip(names, row)) for row in zip(*columns, records.embeddings))
        size = 4 * records.embeddings.shape[1]
        size += sum(len(max(map(str, column), key=len, default="")) for column in columns)
        while batch := list(itertools.islice(rows, max(1, _BYTES_PER_REQUEST // size))):
            yield batch

    def delete(self, photos: list[str]) -> None:
        """Deletes photos; one that is not there is no error."""
        with _refusals():
            for some in _blocks(photos, _PHOTOS_PER_FILTER):
                self._client.delete(self.name, filter=is_one_of("photo", some))

    def count(self) -> int:
        """How many photos there are."""
        with _refusals():
            return int(self._client.query(self.name, filter="", output_fields=["count(*)"])[0]["count(*)"])

    def photos_where(self, field: str, values: list[str]) -> list[tuple[str, str]]:
        """The photo and sku of each row whose `photo` or `sku` is one of the values."""
        found = []
        for some in _blocks(values, _PHOTOS_PER_FILTER):
            for page in self._pages(is_one_of(field, some), ["photo", "sku"], MOST_NEIGHBORS):
                found += [(row["photo"], row["sku"]) for row in page]
        return found

    def scan(self, dim: int) -> Iterator[Records]:
        """All rows, in the server's order, some MB at a time."""
        names = ["photo", "sku", *self.fields.values(), "embedding"]
        for page in self._pages("", names, min(MOST_NEIGHBORS, max(1, _BYTES_PER_REQUEST // (4 * dim)))):
            attributes = {attribute: [row[field] for row in page] for attribute, field in self.fields.items()}
            embeddings = np.asarray([row["embedding"] for row in page], np.float32)
            yield Records([row["photo"] for row in page], [row["sku"] for row in page], attributes, embeddings)

    def _pages(self, condition: str, fields: list[str], size: int) -> Iterator[list[dict]]:
        with _refusals():
            if self._is_lite:  # its iterator reads all rows for each page
                rows = self._client.query(self.name, filter=condition, output_fields=["photo"], limit=_LOCAL_MESSAGE)
                for some in _blocks([row["photo"] for row in rows], size):
                    yield self._client.query(self.name, filter=is_one_of("photo", some), output_fields=fields)
                return
            iterator = self._client.query_iterator(
                self.name, batch_size=size, filter=condition, output_fields=fields, consistency_level="Strong"
            )
            try:
                while page := iterator.next():
                    yield page
            finally:
                iterator.close()

    def search(self, queries: np.ndarray, k: int, condition: str) -> list[list[tuple[str, str, float]]]:
        """The nearest photos that meet the condition, `(photo, sku, score)`, best first, for each query.

        There are fewer than `k`, at most `MOST_NEIGHBORS`, only if no more meet it: where SCANN finds fewer in the
        leaves it looks at, it looks at all.
        """
        found = self._search(queries, k, condition, is_exhaustive=False)
        short = [place for place, hits in enumerate(found) if len(hits) < k]
        if short and self.num_leaves:
            for place, hits in zip(short, self._search(queries[short], k, condition, is_exhaustive=True)):
                found[place] = hits
        return found

    def _search(self, queries, k, condition, is_exhaustive) -> list[list[tuple[str, str, float]]]:
        found = []
        with _refusals():
            parameters = self._search_parameters(k, is_exhaustive)
            for some in _blocks(queries, max(1, min(1000, 4 * MOST_NEIGHBORS // k))):
                answers = self._client.search(
                    self.name,
                    data=list(some),
                    anns_field="embedding",
                    filter=condition,
                    limit=k,
                    output_fields=["sku"],
                    search_params={"metric_type": "IP", "params": parameters},
                    consistency_level="Strong",
                )
                found += [[(hit["photo"], hit["entity"]["sku"], hit["distance"]) for hit in hits] for hits in answers]
        return found

    def _search_parameters(self, k: int, is_exhaustive: bool) -> dict:
        if not self.num_leaves:
            return {}
        share = 1.0 if is_exhaustive else _SHARE_OF_LEAVES
        return {"nprobe": math.ceil(share * self.num_leaves), "reorder_k": max(_CANDIDATES, 2 * k)}

    def conditions(self, where: Mapping | None) -> str:
        """The expression of a `where` that has been checked."""
        return expression(where, self.fields) if where else ""

    def without_skus(self, condition: str, skus: Iterable[str]) -> str:
        """The same condition, and none of these products."""
        return f"{condition} and " * bool(condition) + f"not ({is_one_of('sku', skus)})"

    def flush(self) -> None:
        """Has the server index what was added."""
        with _refusals():
            self._client.flush(self.name)

    def load(self) -> Collection:
        """Makes it searchable; refuses one that is not there."""
        with _refusals():
            if not self._client.has_collection(self.name):
                raise CatalogIndexError(
                    f"the Milvus collection '{self.name}' must exist. Received: a server that has none of that name. "
                    "Was it dropped? Run build_index again."
                )
            self._client.load_collection(self.name)
        return self

    def drop(self) -> None:
        """Removes the collection and its rows from the server."""
        with _refusals():
            self._client.drop_collection(self.name)


def checked_records(
    photos, skus, columns: dict[str, Column], kept: dict[str, np.ndarray], vectors: np.ndarray
) -> Records:
    """Rows that have been checked, as Milvus takes them; refuses strings that it does not take."""
    attributes = {name: to_json(column, kept[name]) for name, column in columns.items()}
    strings = {f"attributes['{name}']": attributes[name] for name, column in columns.items() if column.kind == "string"}
    strings = {"photos": photos.tolist(), "skus": skus.tolist(), **strings}
    for argument, values in strings.items():
        for row, value in enumerate(values):
            try:
                is_fine = len(value.encode()) <= LONGEST_STRING
            except UnicodeEncodeError:
                is_fine = False
            if not is_fine:
                raise CatalogIndexError(
                    f"`{argument}` must be at most {LONGEST_STRING} bytes of UTF-8 each. Received: {value[:40]!r}... "
                    f"in row {row}. Milvus takes no others."
                )
    return Records(strings["photos"], strings["skus"], attributes, vectors)


def products_nearest(collection: Collection, queries: np.ndarray, k: int, condition: str) -> list[list]:
    """The best photo of each of the `k` nearest products, for each query.

    Milvus's own grouping looks at a few photos more than `k` only. So after the first round each next one leaves out
    the products found, and looks at more, until there are enough or no other is left.
    """
    fetch = min(_FETCHED_PER_PRODUCT * k, MOST_NEIGHBORS)
    found = []
    for query, hits in zip(queries, collection.search(queries, fetch, condition)):
        products, asked = _best({}, hits), fetch
        while len(products) < k and len(hits) == asked:
            asked = min(_FETCHED_PER_PRODUCT * asked, MOST_NEIGHBORS)
            hits = collection.search(query[np.newaxis], asked, collection.without_skus(condition, products))[0]
            products = _best(products, hits)
        found.append(sorted(products.values(), key=lambda hit: -hit[2])[:k])
    return found


def _best(products: dict[str, tuple], hits: list[tuple]) -> dict[str, tuple]:
    for hit in hits:
        products.setdefault(hit[1], hit)
    return products


def connect(uri: str):
    """A client of the cluster at `uri`, which is signed in by the environment variable MILVUS_TOKEN, if that is set."""
    pymilvus = _import_pymilvus()
    with _refusals():
        return pymilvus.MilvusClient(uri=uri, token=os.environ.get(TOKEN, ""))


def check_server(uri: str | None) -> None:
    """Refuses a cluster that does not answer, or a package that is missing."""
    if uri is None:
        _import_pymilvus()
    else:
        _is_lite(connect(uri))


class LocalServer:
    """milvus-lite in threads of this process, over a folder that nobody else uses.

    Its client reaches it by a socket in a folder of its own that only this user may enter, not by a port.

    Args:
        folder: the database; made if it is missing.
        scratch: a folder to be removed when the server ends; None for none.
    """

    def __init__(self, folder: Path, scratch: Path | None = None):
        pymilvus = _import_pymilvus()
        import grpc
        from milvus_lite.adapter.grpc.servicer import MilvusServicer
        from milvus_lite.db import MilvusLite
        from pymilvus.grpc_gen import milvus_pb2_grpc

        database = MilvusLite(os.fspath(folder))
        sizes = [(f"grpc.max_{way}_message_length", _LOCAL_MESSAGE) for way in ("receive", "send")]
        server = grpc.server(futures.ThreadPoolExecutor(max_workers=4), options=sizes)
        milvus_pb2_grpc.add_MilvusServiceServicer_to_server(MilvusServicer(database), server)
        # the system takes about 100 bytes as the name of a socket
        base = tempfile.gettempdir()
        place = tempfile.mkdtemp(prefix="eet_tf-", dir=base if len(os.fsencode(base)) < 80 else "/tmp")
        server.add_insecure_port(f"unix:{place}/socket")
        server.start()
        self.client = pymilvus.MilvusClient(uri=f"unix:{place}/socket")
        remove = [place] if scratch is None else [place, os.fspath(scratch)]
        self.close = weakref.finalize(self, _close, self.client, server, database, remove)


def _close(client, server, database, remove: list[str]) -> None:
    client.close()
    server.stop(grace=1).wait()
    with contextlib.suppress(RuntimeError):  # at the end of the interpreter no thread starts any more
        database.close()
    for folder in remove:
        shutil.rmtree(folder, ignore_errors=True)


def _schema(columns: Mapping[str, str], dim: int):
    import pymilvus

    kind = pymilvus.DataType
    schema = pymilvus.MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("photo", kind.VARCHAR, is_primary=True, max_length=LONGEST_STRING)
    schema.add_field("sku", kind.VARCHAR, max_length=LONGEST_STRING)
    for place, of in enumerate(columns.values()):
        options = {
            "string": {"datatype": kind.VARCHAR, "max_length": LONGEST_STRING},
            "number": {"datatype": kind.DOUBLE, "nullable": True},
            "bool": {"datatype": kind.BOOL},
        }[of]
        schema.add_field(f"attribute_{place}", **options)
    schema.add_field("embedding", kind.FLOAT_VECTOR, dim=dim)
    return schema


def _index_parameters(num_leaves: int):
    import pymilvus

    parameters = pymilvus.MilvusClient.prepare_index_params()
    kind, options = ("SCANN", {"nlist": num_leaves, "with_raw_data": True}) if num_leaves else ("FLAT", {})
    # the product of unit vectors, as all our indexes have it: COSINE would divide by lengths once more
    parameters.add_index(field_name="embedding", index_type=kind, metric_type="IP", params=options)
    return parameters


def _is_lite(client) -> bool:
    return str(client.get_server_version()).startswith("milvus_lite")


def _blocks(values, size: int) -> Iterator:
    for start in range(0, len(values), size):
        yield values[start : start + size]


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    import pymilvus

    try:
        yield
    except pymilvus.MilvusException as error:
        raise CatalogIndexError(
            f"Milvus must do what it is asked. Received from it: {error.message}. Is the server up, and does the "
            f"environment variable {TOKEN} hold a token that may do this?"
        ) from error


def _import_pymilvus():
    """Imported here and not above: it takes seconds, and pulls in pandas."""
    try:
        import milvus_lite  # noqa: F401
        import pymilvus
    except ImportError as error:
        raise CatalogIndexError(
            "MilvusIndex needs the packages pymilvus and milvus-lite. Received: neither, or not both. "
            "pip install 'eet-tf[milvus]'. ExactIndex and ScannIndex have the same methods without them."
        ) from error
    return pymilvus
