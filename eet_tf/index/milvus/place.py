"""Where the rows of a MilvusIndex lie: in milvus-lite's files in its folder, or in a collection of a cluster."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import secrets
import shutil
import tempfile
import urllib.parse
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from eet_tf.index.checks import CatalogIndexError, plain, shown
from eet_tf.index.columns import Column, described
from eet_tf.index.conditions import read_conditions
from eet_tf.index.folder import Manifest, check_files, refusal, save_contents
from eet_tf.index.log import DamagedLogError, Record, append_record, read_records
from eet_tf.index.milvus.collection import COMPARED, CONSISTENCIES, Collection
from eet_tf.index.milvus.local import LOCAL_COLLECTION, LocalServer
from eet_tf.index.milvus.records import Records
from eet_tf.index.milvus.server import TIMEOUT, connect
from eet_tf.wording import said_by

KIND = "milvus"
LOG = "updates.log"
DATABASE = "milvus"  # in the contents; milvus-lite's own files
_COLLECTION = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,200}")


@dataclasses.dataclass(frozen=True, eq=False)
class State:
    """All that a search or an update needs, at one moment.

    Args:
        collection: the rows.
        columns: the attributes, in their order.
        dim: of the embeddings.
        fingerprint: of the embedder.
        metadata: as given to `build`.
        settings: `"uri"`, None for milvus-lite; `"collection"`; `"num_leaves"`, 0 where all rows are compared; and of a
            cluster `"consistency"` and `"timeout"`.
        contents: where the log is, and milvus-lite's files as they were built; None if there is no log.
        manifest: of the folder, if it was saved.
        log_end: how much of the log is in the collection. Of a cluster always 0: its log holds only what is being done.
    """

    collection: Collection
    columns: dict[str, Column]
    dim: int
    fingerprint: str | None
    metadata: dict
    settings: dict
    contents: Path | None
    manifest: Manifest | None = None
    log_end: int = 0

    @property
    def is_local(self) -> bool:
        """Whether the rows are in milvus-lite."""
        return self.settings["uri"] is None

    # --- the log

    def updated(self, payload: bytes) -> State:
        """Writes an update to the log, and then makes it."""
        end = 0
        if self.contents is not None:
            try:
                end = append_record(self.contents / LOG, payload, self.log_end)
            except OSError as error:
                raise CatalogIndexError(
                    f"the update could not be written to '{self.contents}': {said_by(error)}. Nothing has changed."
                ) from error
        self._applied(payload)
        if self.is_local:
            return dataclasses.replace(self, log_end=end)
        if self.contents is not None:
            os.truncate(self.contents / LOG, 0)
        return self

    def upserted(self, records: Records) -> State:
        """Adds photos, or replaces them."""
        if not records.photos:
            return self
        facts = {"photos": records.photos, "skus": records.skus, "attributes": records.attributes}
        return self.updated(json.dumps(facts).encode() + b"\n" + records.embeddings.astype("<f4").tobytes())

    def deleted(self, photos: list[str]) -> State:
        """Deletes photos."""
        return self.updated(json.dumps({"deleted": photos}).encode() + b"\n") if photos else self

    def replayed(self) -> State:
        """milvus-lite: with all that the log holds by now."""
        end = self.log_end
        for record in self._logged() if self.is_local else ():
            self._apply(record.payload)
            end = record.end
        return dataclasses.replace(self, log_end=end)

    @property
    def is_pending(self) -> bool:
        """A cluster: whether an update was begun and has not ended."""
        return not self.is_local and self.contents is not None and any(True for _ in self._logged())

    def finish(self) -> None:
        """A cluster: ends the update that a killed writer began. The folder is locked."""
        if self.is_pending:
            for record in list(self._logged()):
                self._applied(record.payload)
            os.truncate(self.contents / LOG, 0)

    def torn_bytes(self) -> int:
        """At the end of the log, of an update that was never acknowledged."""
        log = None if self.contents is None else self.contents / LOG
        return log.stat().st_size - self.log_end if log is not None and log.exists() else 0

    def _logged(self) -> Iterator[Record]:
        try:
            yield from read_records(self.contents / LOG, self.log_end)
        except DamagedLogError as error:
            mend = "Copy the folder again; to give up that update and all after it, cut the file there."
            raise refusal(self.contents.parent, f"{error}", name=self.contents.name, mend=mend) from error

    def _applied(self, payload: bytes) -> None:
        """As `_apply`, of what is in the log if there is one."""
        try:
            self._apply(payload)
        except CatalogIndexError as error:
            if self.contents is None:
                raise
            raise CatalogIndexError(
                f"{error} An update is in '{self.contents / LOG}' and is made by the next update or load. To give it "
                "up, build the index anew in another folder."
            ) from error

    def _apply(self, payload: bytes) -> None:
        """Makes one update in Milvus; to make it twice is no harm."""
        line, _, vectors = payload.partition(b"\n")
        facts = json.loads(line)
        if "deleted" in facts:
            self.collection.delete(facts["deleted"])
            return
        embeddings = np.frombuffer(vectors, "<f4").reshape(-1, self.dim).astype(np.float32)
        records = Records(facts["photos"], facts["skus"], facts["attributes"], embeddings)
        self.collection.insert(records, replace=True)

    # --- the folder

    def saved(self, folder: Path) -> State:
        """Makes `folder`, which is locked, the place of this state."""
        log_end = self.log_end

        def write(contents: Path) -> None:
            nonlocal log_end
            if not self.is_local:
                return
            try:
                _copy_files(self.contents / DATABASE, contents / DATABASE)
                if self.log_end:
                    with open(self.contents / LOG, "rb") as log:
                        (contents / LOG).write_bytes(log.read(self.log_end))
            except FileNotFoundError:  # others have replaced what this was loaded from; the rows are here still
                shutil.rmtree(contents / DATABASE, ignore_errors=True)
                log_end = 0
                built = self.rebuilt()
                _copy_files(built.contents / DATABASE, contents / DATABASE)

        description = {
            "kind": KIND,
            "dim": self.dim,
            "size": self.collection.count(),
            "fingerprint": self.fingerprint,
            "metadata": self.metadata,
            "settings": self.settings,
            "storage": "float32",
            "attributes": described(list(self.columns.values())),
        }
        manifest = save_contents(folder, description, write, log=LOG)
        place = folder.absolute() / manifest.contents
        return dataclasses.replace(self, contents=place, manifest=manifest, log_end=log_end)

    def rebuilt(self) -> State:
        """milvus-lite: the same rows in a new database, with nothing in its log."""
        rows = self.collection.scan(self.dim)
        return built_locally(rows, self.columns, self.dim, self.fingerprint, self.metadata)

    def settled(self, old: State) -> State:
        """This state, now that what `old` kept in the temporary folder is not needed any more."""
        if old.contents is not None and old.manifest is None:
            shutil.rmtree(old.contents, ignore_errors=True)
        return self


class Place(NamedTuple):
    """Where a cluster is and how it is asked.

    Args:
        uri: its address.
        prefix: what the collection's name begins with.
        consistency: of searches, one of `CONSISTENCIES`.
        timeout: seconds that it may take to answer a call.
    """

    uri: str
    prefix: str
    consistency: str
    timeout: float


def checked_place(uri, collection, consistency=None, timeout=None) -> Place | None:
    """Returns the place, None for milvus-lite, or refuses what cannot be one."""
    options = {"collection": collection, "consistency": consistency, "timeout": timeout}
    if uri is None:
        for name, value in options.items():
            if value is not None:
                raise CatalogIndexError(f"`{name}` must come with `uri`. Received: {name}={shown(value)}, uri=None.")
        return None
    try:
        parts = urllib.parse.urlsplit(uri if isinstance(uri, str) else "")
        _ = parts.port
    except ValueError:  # brackets that hold no address, or a port that is no number
        parts = urllib.parse.urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password:
        received = parts.hostname if parts.username or parts.password else uri
        raise CatalogIndexError(
            f"`uri` must be http://host:port or https://..., without a name or password. Received: uri={received!r}. "
            "Put the token into the environment variable MILVUS_TOKEN; leave `uri` out for milvus-lite."
        )
    prefix = "eet_tf" if collection is None else collection
    if not isinstance(prefix, str) or not _COLLECTION.fullmatch(prefix):
        raise CatalogIndexError(
            f"`collection` must be letters, digits and _, no digit first. Received: collection={collection!r}."
        )
    consistency = CONSISTENCIES[0] if consistency is None else consistency
    if consistency not in CONSISTENCIES:
        raise CatalogIndexError(
            f"`consistency` must be {' or '.join(CONSISTENCIES)}. Received: consistency={shown(consistency)}."
        )
    timeout = TIMEOUT if timeout is None else plain(timeout)
    if not isinstance(timeout, (int, float)) or isinstance(timeout, bool) or not 0 < timeout < math.inf:
        raise CatalogIndexError(f"`timeout` must be seconds, more than 0. Received: timeout={shown(timeout)}.")
    return Place(uri, prefix, consistency, float(timeout))


def try_cluster(place: Place) -> None:
    """Does once, with a collection of two photos that is dropped again, all that an index will ask of the cluster.

    Raises:
        CatalogIndexError: if it does not answer, is too old, or does not let us.
    """
    records = Records(["a", "b"], ["a", "b"], {"bool": [True, False], "number": [1.0, None]}, np.eye(2, dtype="f4"))
    columns = {name: Column(name, name) for name in records.attributes}
    # by SCANN, which asks for most
    state = built_remotely(place, [records], 2, columns, 2, None, {}, planned=COMPARED + 1)
    collection = state.collection
    try:
        collection.insert(records, replace=True)
        collection.search(
            records.embeddings, 1, collection.condition(read_conditions({"bool": True}, collection.kinds))
        )
        collection.delete(["a"])
    except BaseException as error:
        collection.dropped_after(error)
        raise
    collection.drop()


def built_remotely(
    place: Place,
    batches: Iterable[Records],
    num_rows: int,
    columns,
    dim: int,
    fingerprint,
    metadata,
    planned: int | None = None,
) -> State:
    """A new collection of a cluster with these rows; nothing is left of it if that fails.

    It must have `num_rows` rows at the end: the client sends again what was not answered, which may then be there
    twice. Its index is laid out for `planned` rows, by default as many.
    """
    name = f"{place.prefix}_{secrets.token_hex(6)}"
    server = connect(place.uri, place.timeout)
    made = Collection.create(server, name, _kinds(columns), dim, planned or num_rows, place.consistency)
    try:
        for records in batches:
            made.insert(records)
        made.flush(num_rows)
        made.load()
        if (found := made.count()) != num_rows:  # the client sends again what was not answered
            raise CatalogIndexError(
                f"the Milvus server at {place.uri} must keep each photo once. Received: {found} rows of {num_rows}. "
                "Was the connection interrupted, or somebody writing? Try again."
            )
    except BaseException as error:
        made.dropped_after(error)
        raise
    settings = {
        "uri": place.uri,
        "collection": made.name,
        "num_leaves": made.num_leaves,
        "consistency": place.consistency,
        "timeout": place.timeout,
    }
    return State(made, columns, dim, fingerprint, metadata, settings, contents=None)


def built_locally(
    batches: Iterable[Records], columns: dict[str, Column], dim: int, fingerprint: str | None, metadata: dict
) -> State:
    """A new database in the temporary folder, and a copy of it that is open."""
    scratch = Path(tempfile.mkdtemp(prefix="eet_tf-milvus-"))
    try:
        contents = scratch / "contents"
        contents.mkdir()
        server = LocalServer(contents / DATABASE)
        try:
            made = Collection.create(server, LOCAL_COLLECTION, _kinds(columns), dim, 0)
            for records in batches:
                made.insert(records)
        finally:
            server.close()
        opened = _opened(contents, columns, scratch)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    settings = {"uri": None, "collection": LOCAL_COLLECTION, "num_leaves": 0}
    return State(opened, columns, dim, fingerprint, metadata, settings, contents)


def _opened(contents: Path, columns: dict[str, Column], scratch: Path) -> Collection:
    """The database in `contents`, opened as a copy in `scratch`, which goes with it."""
    _copy_files(contents / DATABASE, scratch / DATABASE)
    server = LocalServer(scratch / DATABASE, scratch)
    try:
        return Collection(server, LOCAL_COLLECTION, _kinds(columns)).load()
    except BaseException:
        server.close()
        raise


def _copy_files(source: Path, target: Path) -> None:
    """As new files: those of a read-only folder would stay read-only."""
    if not source.is_dir():
        raise FileNotFoundError(source)
    target.mkdir()
    for path in sorted(source.rglob("*")):
        if path.is_dir():
            (target / path.relative_to(source)).mkdir()
        else:
            shutil.copyfile(path, target / path.relative_to(source))


def read(folder: Path, manifest: Manifest) -> State:
    """What `manifest` says, without its log."""
    if manifest.kind != KIND:
        raise refusal(folder, f"is now one of kind '{manifest.kind}', not 'milvus'", mend="Load it again.")
    contents, settings = check_files(folder, manifest), manifest.settings
    columns = {column["name"]: Column(column["name"], column["kind"]) for column in manifest.attributes}
    if settings["uri"] is None:
        scratch = Path(tempfile.mkdtemp(prefix="eet_tf-milvus-"))
        try:
            collection = _opened(contents, columns, scratch)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise
    else:
        place = _place_of(settings)
        server, name = connect(place.uri, place.timeout), settings["collection"]
        collection = Collection(server, name, _kinds(columns), settings["num_leaves"], place.consistency).load()
    facts = (manifest.dim, manifest.fingerprint, manifest.metadata, settings)
    return State(collection, columns, *facts, contents, manifest)


def copied(state: State) -> State:
    """The same rows for another folder: of a cluster, in a collection of their own."""
    if state.is_local:
        return state
    facts = (state.columns, state.dim, state.fingerprint, state.metadata)
    rows = state.collection.scan(state.dim)
    return built_remotely(_place_of(state.settings), rows, state.collection.count(), *facts)


def _place_of(settings: dict) -> Place:
    """Where a collection is, and how it is asked; indexes of earlier versions do not say how."""
    prefix = settings["collection"].rpartition("_")[0]
    return Place(
        settings["uri"], prefix, settings.get("consistency", CONSISTENCIES[0]), settings.get("timeout", TIMEOUT)
    )


def _kinds(columns: dict[str, Column]) -> dict[str, str]:
    return {name: column.kind for name, column in columns.items()}
