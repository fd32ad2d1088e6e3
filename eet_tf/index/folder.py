"""How an index lies on disk, and why a crash at any moment leaves either the old index or the new one.

    folder/
        manifest.json               what this is, and which contents are current
        contents-<12 hex digits>/   put nothing else here
            vectors.npy, photos.npy ...     the rows, as NumPy files without pickles, and what the kind adds
            updates.log                     what was added and deleted since; the only file that ever changes

A save writes new contents beside the current ones, flushes them to the disk, and then replaces `manifest.json`. That
one rename is the whole change: before it the old index is loaded, after it the new one, and there is no moment between.
The old contents are removed afterwards; what a killed save left behind is removed by the next. Other files in the
folder are left alone. Paths are relative, so the folder can be copied anywhere. Processes that write take turns, by a
lock on the folder that a killed one lets go.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from eet_tf.files import flush
from eet_tf.index.checks import CatalogIndexError
from eet_tf.index.conditions import KINDS
from eet_tf.terminal import escaped, is_utf8
from eet_tf.wording import said_by

FORMAT = "eet_tf.index"
FORMAT_VERSION = 3  # 2 kept names as NumPy's strings, all as wide as the longest
WITH_SEVERAL_STRINGS = 4  # where an attribute has several strings for a photo, which earlier versions would misread
_READABLE = (2, FORMAT_VERSION, WITH_SEVERAL_STRINGS)
MANIFEST = "manifest.json"
LARGEST_HASHED_FILE = 2**26  # bytes; larger files are compared by size only, so that a server need not wait

_COPY_AGAIN = "Copy the folder again, or run `eet index build` again."
_UNFINISHED_MANIFEST = "manifest.json.unfinished"
_CONTENTS = re.compile(r"contents-[0-9a-f]{12}")


@dataclasses.dataclass(frozen=True)
class Manifest:
    """The fields of `manifest.json`. `files` maps each path in `contents` to its `bytes` and `sha256`."""

    format: str
    format_version: int
    kind: str
    dim: int
    size: int
    fingerprint: str | None
    metadata: dict
    settings: dict
    storage: str
    attributes: list
    contents: str
    files: dict


@contextlib.contextmanager
def locked(folder: str | os.PathLike, patience: float = 60.0) -> Iterator[None]:
    """Keeps other writers out of `folder`; waits up to `patience` seconds until they are done."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        why = f"Received: folder='{folder}': {said_by(error)}."
        raise CatalogIndexError(f"`folder` must be a saved index. {why}") from error
    try:
        deadline = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise CatalogIndexError(
                        f"`folder` must not be in use. Received: folder='{os.fspath(folder)}', to which another "
                        "process is writing. Try again when it is done."
                    ) from error
                time.sleep(0.01)
        yield
    finally:
        os.close(descriptor)  # and with it the lock


def save_contents(
    folder: str | os.PathLike, description: dict, write: Callable[[Path], None], log: str | None = None
) -> Manifest:
    """Makes what `write(path)` writes, with `description`, the index in `folder`: wholly, or not at all.

    The caller has it `locked`.

    Args:
        folder: a folder that is absent, empty or holds an index, which is then replaced.
        description: the manifest's fields but for the format, `contents` and `files`.
        write: writes the files of the index into the empty folder that it is given.
        log: the file of the contents that will grow, and that the manifest therefore does not list.

    Returns:
        The manifest.

    Raises:
        CatalogIndexError: if `folder` holds something that is not an index.
    """
    folder = Path(folder)
    current = check_replaceable(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _remove_contents(folder, keep=current)
    contents = folder / f"contents-{secrets.token_hex(6)}"
    contents.mkdir()
    write(contents)
    files = _list_files(contents, log)
    has_several = any(column["kind"] == "strings" for column in description["attributes"])
    version = WITH_SEVERAL_STRINGS if has_several else FORMAT_VERSION
    manifest = Manifest(FORMAT, version, contents=contents.name, files=files, **description)
    unfinished = folder / _UNFINISHED_MANIFEST
    unfinished.write_text(json.dumps(dataclasses.asdict(manifest), indent=2) + "\n", encoding="utf-8")
    for path in (*sorted(contents.rglob("*")), contents, unfinished, folder, folder.parent):
        flush(path)
    os.replace(unfinished, folder / MANIFEST)  # the commit
    flush(folder)
    _remove_contents(folder, keep=contents.name)
    return manifest


def read_manifest(folder: str | os.PathLike) -> Manifest:
    """Reads `folder/manifest.json`, or says why `folder` is no index that this code can read."""
    fields = _read_fields(folder)
    version = fields.get("format_version")
    if version not in _READABLE:
        problem = f"has format version {version}, and this eet_tf reads {_READABLE[0]} to {_READABLE[-1]}"
        raise refusal(folder, problem, mend="Upgrade eet_tf, or run `eet index build` again.")
    names = {field.name for field in dataclasses.fields(Manifest)}
    if set(fields) != names:
        raise refusal(folder, f"must list {sorted(names)}, but lists {sorted(fields)}")
    if not _CONTENTS.fullmatch(str(fields["contents"])):
        raise refusal(folder, f"names {str(fields['contents'])!r} as its contents, which is no name of such a folder")
    for column in fields["attributes"]:
        if column.get("kind") not in KINDS:
            raise refusal(folder, f"has an attribute of kind {column.get('kind')!r}, and not one of {', '.join(KINDS)}")
    return Manifest(**fields)


def _read_fields(folder: str | os.PathLike) -> dict:
    """What `manifest.json` says, of whatever version."""
    try:
        fields = json.loads((Path(folder) / MANIFEST).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        if not os.path.isdir(folder):
            raise CatalogIndexError(
                f"`folder` must be a saved index. Received: folder='{os.fspath(folder)}', and there is no such folder. "
                "Give the folder of an index, or build one with `eet index build`."
            ) from error
        raise refusal(folder, "is missing: this is no index, or its first save was interrupted") from error
    except ValueError as error:
        raise refusal(folder, f"is not readable as JSON: {error}") from error
    if not isinstance(fields, dict) or fields.get("format") != FORMAT:
        raise refusal(folder, "is not one of an index")
    return fields


def check_files(
    folder: str | os.PathLike, manifest: Manifest, largest_hashed: int | None = LARGEST_HASHED_FILE
) -> Path:
    """Compares every file with the manifest, and returns the folder that holds them.

    Args:
        folder: of the index.
        manifest: its manifest.
        largest_hashed: in bytes; larger files are compared by their size only. None compares all.
    """
    contents = Path(folder) / manifest.contents
    for name, expected in manifest.files.items():
        path = contents / name
        if not path.is_file():
            raise refusal(folder, "is missing", name=f"{manifest.contents}/{name}")
        if path.stat().st_size != expected["bytes"]:
            problem = f"has {path.stat().st_size} bytes, {expected['bytes']} were saved: truncated, or a partial copy"
            raise refusal(folder, problem, name=f"{manifest.contents}/{name}")
        is_hashed = largest_hashed is None or expected["bytes"] <= largest_hashed
        if is_hashed and _sha256(path) != expected["sha256"]:
            raise refusal(folder, "has another checksum than when it was saved", name=f"{manifest.contents}/{name}")
    return contents


def refusal(folder, problem: str, name: str = MANIFEST, mend: str = _COPY_AGAIN) -> CatalogIndexError:
    """What to raise about a file of the index."""
    return CatalogIndexError(
        f"`folder` must be a whole saved index. Received: folder='{os.fspath(folder)}', where {name} {problem}. {mend}"
    )


def check_replaceable(folder: str | os.PathLike) -> str | None:
    """Returns the name of the current contents, None if there are none yet; refuses a folder of somebody else's.

    Call it before the long work whose result goes there.

    Raises:
        CatalogIndexError: if `folder` holds something that is not an index, or its name is not UTF-8.
    """
    if not is_utf8(os.fspath(folder)):
        raise CatalogIndexError(
            f"`folder` must have a name in UTF-8. Received: folder='{escaped(os.fspath(folder))}'. "
            "Choose another folder."
        )
    folder = Path(folder)
    try:
        if _read_fields(folder).get("format_version") in range(1, _READABLE[0]):
            return None  # of an older eet_tf
        return read_manifest(folder).contents
    except CatalogIndexError as error:
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else [folder.name] * folder.exists()
        strangers = sorted(name for name in names if not _is_leftover(name))
        if strangers:
            raise CatalogIndexError(
                f"`folder` must be new, empty or a saved index. Received: folder='{folder}', which holds "
                f"'{strangers[0]}' and no index that this eet_tf reads. Nothing was written. Choose another folder."
            ) from error
    return None


def is_same(folder: Path, other: Path) -> bool:
    """Whether both are there and are one folder."""
    return folder.exists() and other.exists() and folder.samefile(other)


def _is_leftover(name: str) -> bool:
    return name == _UNFINISHED_MANIFEST or _CONTENTS.fullmatch(name) is not None


def _remove_contents(folder: Path, keep: str | None) -> None:
    for path in folder.glob("contents-*"):
        if _CONTENTS.fullmatch(path.name) and path.name != keep:
            shutil.rmtree(path, ignore_errors=True)  # what another process holds open goes with the next save


def _list_files(contents: Path, log: str | None) -> dict:
    paths = sorted(path for path in contents.rglob("*") if path.is_file() and path != contents / str(log))
    return {
        path.relative_to(contents).as_posix(): {"bytes": path.stat().st_size, "sha256": _sha256(path)} for path in paths
    }


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
