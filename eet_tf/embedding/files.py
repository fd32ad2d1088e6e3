"""The folder of embedding files: which photo is in which file, when a file is done, and how an index gets them back.

A catalogue too large for one machine is embedded in shards. Each shard is one file that appears whole or not at all.
A photo's shard follows from its path alone, so that adding or deleting a photo changes one file. Photos are known by
their paths: one that is replaced under the same name is not noticed. Delete its file, or the folder, to have it
embedded again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from eet_tf.files import replaced
from eet_tf.wording import counted, said_by

FORMAT = 1
MANIFEST = "embeddings.json"
PHOTOS_PER_SHARD = 5_000  # with 512 numbers for each photo a file of 10 MB

_AGAIN = "Run `eet embed` again; it embeds only what is not done."
_LEFTOVER = re.compile(rf"\.[0-9a-f.]+\.({re.escape(MANIFEST)}|embeddings-\d+-of-\d+\.npz)")


class EmbeddingFilesError(ValueError):
    """A folder of embeddings that cannot be written or read; the message names what is wrong in it and the mend."""


class Shard(NamedTuple):
    """One file: `photos` `[n]` paths, `embeddings` `[n, D]` float32, `ok` `[n]` bool, and whose embeddings they are."""

    photos: np.ndarray
    embeddings: np.ndarray
    ok: np.ndarray
    fingerprint: str


@dataclasses.dataclass(frozen=True)
class EmbeddingFolder:
    """A folder of embeddings, one file per shard, and what its `embeddings.json` says.

    Args:
        folder: where the files are.
        fingerprint: of the embedder.
        embedding_dim: D.
        num_shards: how many files the photos are dealt to.
        saved_model: the embedder's SavedModel, relative to `folder`.

    Example:

    >>> import tempfile
    >>> files = EmbeddingFolder(tempfile.mkdtemp(), "f00d", embedding_dim=2, num_shards=1, saved_model="../serving/1")
    >>> files.save()
    >>> files.write(0, ["a.jpg", "b.jpg"], np.float32([[1, 0], [0, 1]]), np.array([True, True]))
    >>> open_folder(files.folder).read(["b.jpg", "a.jpg"])
    array([[0., 1.],
           [1., 0.]], dtype=float32)
    """

    folder: str
    fingerprint: str
    embedding_dim: int
    num_shards: int
    saved_model: str

    def save(self) -> None:
        """Writes `embeddings.json` and removes what a killed run left half-written."""
        facts = {name: value for name, value in dataclasses.asdict(self).items() if name != "folder"}
        with replaced(os.path.join(self.folder, MANIFEST)) as aside, open(aside, "w", encoding="utf-8") as file:
            json.dump({"format": FORMAT, **facts}, file, indent=2)
            file.write("\n")
        for name in filter(_LEFTOVER.fullmatch, os.listdir(self.folder)):
            with contextlib.suppress(FileNotFoundError):  # its writer may have ended just now
                os.remove(os.path.join(self.folder, name))

    def file(self, shard: int) -> str:
        """The file of a shard."""
        return os.path.join(self.folder, f"embeddings-{shard:05d}-of-{self.num_shards:05d}.npz")

    def deal(self, photos: Sequence[str]) -> list[np.ndarray]:
        """Which of `photos` (`[N]` paths) are in each shard: `num_shards` arrays of ascending row numbers."""
        shards = np.array([_shard_of(photo, self.num_shards) for photo in photos], dtype=np.int64)
        order = np.argsort(shards, kind="stable")
        return np.split(order, np.searchsorted(shards[order], np.arange(1, self.num_shards)))

    def write(self, shard: int, photos: Sequence[str], embeddings: np.ndarray, ok: np.ndarray) -> None:
        """Makes a shard's file: whole, or not at all.

        Args:
            shard: its number.
            photos: `[n]` paths, as the catalogue has them.
            embeddings: `[n, D]` float32.
            ok: `[n]` bool, false for a photo that is no image; its row means nothing.
        """
        names = np.asarray(photos, dtype=np.str_)
        content = Shard(names, embeddings, ok, self.fingerprint)
        self._check_shapes(shard, content)
        with replaced(self.file(shard)) as aside:
            np.savez(aside, **content._asdict())

    def is_done(self, shard: int, photos: Sequence[str]) -> bool:
        """Whether a shard's file is whole, of this embedder, and has exactly `photos`, all of them images.

        A shard of no photos needs no file.
        """
        if len(photos) == 0:
            return True
        try:
            found = self._load(shard)
        except EmbeddingFilesError:
            return False
        return bool(found.ok.all()) and sorted(found.photos.tolist()) == sorted(map(str, photos))

    def read(self, photos: Sequence[str]) -> np.ndarray:
        """The embeddings of `photos` (`[N]` paths): `[N, D]` float32, in their order.

        The files may have other photos too. One file at a time is in memory besides the result.

        Raises:
            EmbeddingFilesError: if a file is missing, damaged or of another embedder, or a photo is in none or is no
                image.
        """
        vectors, unreadable = np.empty([len(photos), self.embedding_dim], np.float32), []
        for rows, places, found in self._located(photos):
            unreadable.extend(rows[~found.ok[places]])
            vectors[rows] = found.embeddings[places]
        mend = f"Replace them or delete their rows. {_AGAIN}"
        self._refuse(photos, unreadable, ("is no image", "are no images"), mend)
        return vectors

    def unreadable(self, photos: Sequence[str]) -> list[int]:
        """Which rows of `photos` (`[N]` paths) are no images.

        Raises:
            EmbeddingFilesError: if a file is missing, damaged or of another embedder, or a photo is in none.
        """
        unreadable = []
        for rows, places, found in self._located(photos):
            unreadable.extend(rows[~found.ok[places]].tolist())
        return sorted(unreadable)

    def _located(self, photos: Sequence[str]) -> Iterator[tuple[np.ndarray, np.ndarray, Shard]]:
        """For each file the rows of `photos` that are in it, their places there, and the file; refuses the rest."""
        absent: list[str] = []
        for shard, rows in self._shards_with_rows(photos):
            found = self._load(shard)
            place_of = {photo: place for place, photo in enumerate(found.photos.tolist())}
            places = np.array([place_of.get(str(photos[row]), -1) for row in rows])
            absent.extend(rows[places < 0])
            yield rows[places >= 0], places[places >= 0], found
        self._refuse(photos, absent, ("is not in it", "are not in it"), _AGAIN)

    def _shards_with_rows(self, photos: Sequence[str]) -> list[tuple[int, np.ndarray]]:
        """The shards that `photos` are in, with their rows; refuses if a file of them is missing."""
        shards = [(shard, rows) for shard, rows in enumerate(self.deal(photos)) if len(rows)]
        missing = [self.file(shard) for shard, _ in shards if not os.path.isfile(self.file(shard))]
        if missing:
            first = os.path.basename(missing[0])
            verb = "is" if len(missing) == 1 else "are"
            raise self._refusal(f"{len(missing)} of {counted(len(shards), 'file')} {verb} missing, first {first}")
        return shards

    def _load(self, shard: int) -> Shard:
        name = os.path.basename(self.file(shard))
        try:
            with open(self.file(shard), "rb") as file, np.load(file, allow_pickle=False) as stored:
                found = Shard(*(stored[field] for field in Shard._fields))
        except Exception as error:  # a damaged file can fail in any way
            why = said_by(error) if isinstance(error, OSError) else "it is not a NumPy file of embeddings"
            raise self._refusal(f"{name} is damaged: {why}") from error
        self._check_shapes(shard, found)
        if str(found.fingerprint) != self.fingerprint:
            raise self._refusal(
                f"{name} is of the embedder '{found.fingerprint}', and {MANIFEST} of '{self.fingerprint}'"
            )
        return found

    def _check_shapes(self, shard: int, found: Shard) -> None:
        size = len(found.photos) if found.photos.ndim == 1 else -1
        expected = (size, self.embedding_dim), np.float32, (size,), np.bool_
        received = found.embeddings.shape, found.embeddings.dtype, found.ok.shape, found.ok.dtype
        if received != expected or found.photos.dtype.kind != "U":
            name = os.path.basename(self.file(shard))
            raise self._refusal(
                f"the arrays of {name} do not fit each other or the embedder's {self.embedding_dim} dimensions"
            )

    def _refuse(self, photos: Sequence[str], rows: list, what: tuple[str, str], mend: str) -> None:
        if rows:
            shown = ", ".join(repr(str(photos[row])) for row in sorted(rows)[:5])
            share = f"{len(rows)} of {counted(len(photos), 'photo')}"
            raise self._refusal(f"{share} {what[len(rows) > 1]}, first {shown}", mend)

    def _refusal(self, problem: str, mend: str = _AGAIN) -> EmbeddingFilesError:
        return _refusal(self.folder, problem, mend)


def open_folder(folder: str | os.PathLike) -> EmbeddingFolder:
    """The folder of embeddings that `eet embed` made.

    Raises:
        EmbeddingFilesError: if it is none, or one of a newer eet_tf.
    """
    folder = os.fspath(folder)
    try:
        with open(os.path.join(folder, MANIFEST), encoding="utf-8") as file:
            facts = json.load(file)
        if facts.pop("format") == FORMAT:
            return EmbeddingFolder(folder, **facts)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _refusal(folder, f"{MANIFEST} is missing", "Make it with `eet embed`.") from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        mend = "Run `eet embed` again with another output_dir."
        raise _refusal(folder, f"{MANIFEST} cannot be read: {error}", mend) from error
    raise _refusal(folder, f"{MANIFEST} is of another format than {FORMAT}", "Upgrade eet_tf.")


def find_folder(folder: str | os.PathLike) -> EmbeddingFolder | None:
    """What `open_folder` gives, None if `folder` is new or empty; call it before the long work whose result goes there.

    Raises:
        EmbeddingFilesError: if `folder` holds anything else, or is a file.
    """
    folder = os.fspath(folder)
    if os.path.isfile(os.path.join(folder, MANIFEST)):
        return open_folder(folder)
    names = os.listdir(folder) if os.path.isdir(folder) else [os.path.basename(folder)] * os.path.exists(folder)
    strangers = sorted(name for name in names if not _LEFTOVER.fullmatch(name))
    if strangers:
        raise EmbeddingFilesError(
            f"`folder` must be new, empty or a folder of embeddings. Received: folder={folder!r}, which holds "
            f"{strangers[0]!r} and no {MANIFEST}. Nothing was written. Choose another folder."
        )
    return None


def choose_num_shards(num_shards: int | None, existing: EmbeddingFolder | None, num_photos: int) -> int:
    """How many shards: as asked, as the folder has, or one for each `PHOTOS_PER_SHARD` photos.

    Raises:
        EmbeddingFilesError: if another number is asked for than the folder has.

    Example:

    >>> choose_num_shards(None, None, num_photos=12_000)
    3
    """
    if existing is None:
        return num_shards or max(1, -(-num_photos // PHOTOS_PER_SHARD))
    if num_shards not in (None, existing.num_shards):
        raise EmbeddingFilesError(
            f"`num_shards` must be the folder's {existing.num_shards}. Received: num_shards={num_shards}. "
            "Leave it out, or choose another folder."
        )
    return existing.num_shards


def _shard_of(photo: str, num_shards: int) -> int:
    digest = hashlib.sha256(str(photo).encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") % num_shards


def _refusal(folder: str, problem: str, mend: str) -> EmbeddingFilesError:
    return EmbeddingFilesError(
        f"`folder` must be a whole folder of embeddings. Received: folder={folder!r}, where {problem}. {mend}"
    )
