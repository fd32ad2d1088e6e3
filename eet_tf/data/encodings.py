"""Which encoding a text file has: its first bytes say so, or else all of them decide."""

from __future__ import annotations

import codecs
import re
from typing import NamedTuple

from eet_tf.data.catalog import CatalogError

_READ_AT_ONCE = 2**20
_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_NO_TEXT = {
    b"PK\x03\x04": "an Excel workbook or an archive. If it is the former, read it with --dataset=xlsx or load_xlsx.",
    b"PAR1": "a Parquet file. Read it with --dataset=parquet or load_parquet.",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook. Save it as .xlsx or CSV.",
}
_UTF_32 = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)
# What Western texts have side by side: quotes, dashes and blanks. Three other characters in a row that are not ASCII
# are a word of another alphabet, whose bytes Windows-1252 reads as something else.
_TYPOGRAPHY = (
    "\u00a0\u00a1\u00a9\u00ab\u00ae\u00b0\u00b7\u00bb\u00bf\u2013\u2014\u2018-\u201e\u2026\u2039\u203a\u20ac\u2122"
)
_OTHER_ALPHABET = re.compile(rf"[^\x00-\x7f{_TYPOGRAPHY}]{{3,}}")
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
_UNDECODED = re.compile(r"[\udc80-\udcff]")
_LATIN = re.compile(r"[\x80-\xff]")  # what UTF-8 writes as an A with a circumflex or tilde and a sign behind it
_OTHER = re.compile(r"[\u0100-\ud7ff\ue000-\U0010ffff]")
_AROUND = 20  # characters shown before the one that is meant


class Encoding(NamedTuple):
    """How the text of a file is written.

    Attributes:
        name: of Python's codec.
        note: what a user must know about it, in a sentence; empty if there is nothing.
    """

    name: str
    note: str = ""


def encoding_of(file: str) -> Encoding:
    """Tells UTF-8, UTF-16 and Windows-1252 apart.

    A byte order mark decides. Without one the file is UTF-8 if all of it is. Otherwise it is Windows-1252, which the
    note says, unless that makes no sense: other bytes are UTF-8, some stand for nothing in Windows-1252, or it would
    read words of another alphabet.

    Args:
        file: a text file that exists.

    Raises:
        CatalogError: if the encoding is none of these or cannot be told; names the file and the line.

    Example:

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile(delete=False) as file:
    ...     count = file.write("path,sku".encode("utf-16"))
    >>> encoding_of(file.name)
    Encoding(name='utf-16', note='')
    """
    with open(file, "rb") as opened:
        start = opened.read(4)
    if start in _NO_TEXT:
        raise CatalogError(f"{file} is no CSV, but {_NO_TEXT[start]}")
    if start in _UTF_32:
        raise CatalogError(f"{file} is encoded as UTF-32. Save it as UTF-8.")
    name = next((name for mark, name in _MARKS.items() if start.startswith(mark)), "utf-8")
    if _decodes(file, name):
        return Encoding(name)
    with open(file, "rb") as opened:
        content = opened.read()
    if name == "utf-16":
        raise CatalogError(f"{file} begins like UTF-16 and is damaged further on. Save it again, as UTF-8.")
    _refuse_no_text(file, content)
    return _windows_1252(file, content, has_mark=name != "utf-8")


def _decodes(file: str, name: str) -> bool:
    """Whether a file is text in that encoding, without a NUL: UTF-16 that does not say so is full of them."""
    decoder = codecs.getincrementaldecoder(name)()
    with open(file, "rb") as opened:
        try:
            while content := opened.read(_READ_AT_ONCE):
                if "\0" in decoder.decode(content):
                    return False
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return False
    return True


def _refuse_no_text(file: str, content: bytes) -> None:
    if b"\0" in content:
        line = content[: content.index(b"\0")].count(b"\n") + 1
        raise CatalogError(
            f"{file}:{line}: the row holds a NUL character, so the file is no text or is UTF-16 without a byte order "
            "mark. Save the list as text in UTF-8."
        )


def _windows_1252(file: str, content: bytes, has_mark: bool) -> Encoding:
    line, shown, start = _first_wrong(content)
    place = f"{file}:{line}: the file is not encoded as UTF-8: ...{ascii(shown)[2:-1]}"
    if has_mark or _is_mixed(content):
        raise CatalogError(f"{place}, although other parts of it are. Save all of it as UTF-8.")
    try:
        text = content.decode("cp1252")
    except UnicodeDecodeError as error:
        raise CatalogError(f"{place}. Windows-1252 has no such text either. Save it as UTF-8.") from error
    odd = _OTHER_ALPHABET.search(text) or _CONTROL.search(text)
    if odd:
        raise CatalogError(
            f"{place}. Its encoding cannot be told: as Windows-1252 it would have the word {odd[0][:_AROUND]!r}. Save "
            "it as UTF-8."
        )
    sample = (shown[:-1] + start).decode("cp1252")
    note = (
        f"{file} is not encoded as UTF-8 and is read as Windows-1252: line {line} has the text {sample!r}. If that is "
        "wrong, save the file as UTF-8."
    )
    return Encoding("cp1252", note)


def _is_mixed(content: bytes) -> bool:
    """Whether some of a text is UTF-8. By chance a few Western letters and signs side by side are a character of it."""
    text = content.decode("utf-8", "surrogateescape")
    return bool(_LATIN.search(text)) or len(_OTHER.findall(text)) > len(_UNDECODED.findall(text))


def _first_wrong(content: bytes) -> tuple[int, bytes, bytes]:
    """The line of the first byte that is not UTF-8, what stands before it up to it, and it with what follows."""
    for number, line in enumerate(content.splitlines(), start=1):
        try:
            line.decode("utf-8")
        except UnicodeDecodeError as error:
            before = line[max(error.start - _AROUND, 0) : error.start + 1]
            return number, before, line[error.start : error.start + _AROUND]
    return 1, content[:1], content[:_AROUND]
