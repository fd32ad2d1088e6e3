"""The log of an index's updates: appended to, never changed, and read back after any crash.

A record is one whole update: magic, length and CRC-32 of its payload, then the payload. A record is on the disk before
its update is acknowledged, so that only the last one can be torn, and that one was never acknowledged.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from eet_tf.files import flush
from eet_tf.wording import said_by

MAGIC = b"EETUPDT1"
_HEADER = struct.Struct("<8sQI")


class DamagedLogError(ValueError):
    """A record that was acknowledged cannot be read; the message says where."""


class Record(NamedTuple):
    """One update: its payload and where in the file it ends."""

    payload: bytes
    end: int


def read_records(path: str | os.PathLike, start: int = 0) -> Iterator[Record]:
    """Yields the whole records from byte `start` on, and stops before a torn tail. A missing file has none.

    Raises:
        DamagedLogError: if something else than the last record is broken.
    """
    try:
        file = open(path, "rb")  # noqa: SIM115 (closed below)
    except FileNotFoundError:
        return
    except OSError as error:
        raise DamagedLogError(f"{os.path.basename(path)} cannot be read: {said_by(error)}") from error
    with file:
        while True:
            file.seek(start)
            while record := _read_record(file, start):
                yield record
                start = record.end
            file.seek(start)
            if not _holds_record(file.read()):
                return
            file.seek(start)
            if not _read_record(file, start):  # else a writer has gone on since we looked
                raise DamagedLogError(f"{os.path.basename(path)} is damaged at byte {start}, before its end")


def _read_record(file, start: int) -> Record | None:
    header = file.read(_HEADER.size)
    if len(header) < _HEADER.size:
        return None
    magic, length, checksum = _HEADER.unpack(header)
    if magic != MAGIC or length > os.fstat(file.fileno()).st_size - start - _HEADER.size:
        return None
    payload = file.read(length)
    if len(payload) < length or zlib.crc32(payload) != checksum:
        return None
    return Record(payload, start + _HEADER.size + length)


def _holds_record(tail: bytes) -> bool:
    """A torn record is the last thing in a file; a whole one behind it says that the file was damaged later."""
    position = tail.find(MAGIC, 1)
    while position >= 0:
        header, payload = tail[position : position + _HEADER.size], tail[position + _HEADER.size :]
        if len(header) == _HEADER.size:
            _, length, checksum = _HEADER.unpack(header)
            if length <= len(payload) and zlib.crc32(payload[:length]) == checksum:
                return True
        position = tail.find(MAGIC, position + 1)
    return False


def append_record(path: str | os.PathLike, payload: bytes, end: int) -> int:
    """Writes a record at byte `end`, cutting off what a killed writer left there; returns the new end.

    It is on the disk when this returns. If it cannot be written whole, e.g. on a full disk, the file is as before.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        os.ftruncate(descriptor, end)
        os.lseek(descriptor, end, os.SEEK_SET)
        record = memoryview(_HEADER.pack(MAGIC, len(payload), zlib.crc32(payload)) + payload)
        try:
            while record:
                record = record[os.write(descriptor, record) :]
            os.fsync(descriptor)
            if end == 0:
                flush(os.path.dirname(path))  # the name of a new file
        except BaseException:
            os.ftruncate(descriptor, end)
            raise
        return os.lseek(descriptor, 0, os.SEEK_CUR)
    finally:
        os.close(descriptor)
