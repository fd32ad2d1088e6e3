"""Why a photo cannot be read, in words for the person who has it: told from the bytes of those that were refused.

The decoder of `images` alone decides what is refused; here nothing is decoded.
"""

from __future__ import annotations

import os
import re
import struct
import zlib
from collections.abc import Iterator, Sequence

from eet_tf.data import remote
from eet_tf.data.limits import MAX_BYTES, MAX_CHUNKS, MAX_GIF_BLOCKS, MAX_PIXELS, MAX_SCANS, MAX_SEGMENTS, MAX_TEXTS

CONVERT = "convert it with `eet convert`"
_EXPORT = f"or export the model again with a higher --max_megapixels, {MAX_PIXELS // 10**6} at most"
RAW_ENDINGS = (".dng", ".nef", ".nrw", ".arw", ".cr2", ".cr3", ".orf", ".rw2", ".raf", ".pef", ".srw")
_RAW = "a camera's raw file; export it as a JPEG"
_MOST_LINES = 1000  # of photos that are named
_READ = "JPEG, PNG, BMP, GIF or WebP"

# what is a photo of another kind, or known to stand in a photo's place: where which bytes stand, and what it is
_OTHER_PHOTOS = (
    (0, b"II*\0", "a TIFF photo"),
    (0, b"MM\0*", "a TIFF photo"),
    (0, b"II+\0", "a TIFF photo"),
    (0, b"MM\0+", "a TIFF photo"),
    (0, b"\xff\x0a", "a JPEG XL photo"),
    (4, b"JXL \r\n\x87\n", "a JPEG XL photo"),
    (4, b"jP  \r\n\x87\n", "a JPEG 2000 photo"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 photo"),
    (0, b"8BPS", "a Photoshop file"),
    (0, b"\0\0\1\0", "an icon"),
    (0, b"qoif", "a QOI picture"),
    (0, b"v/1\1", "an OpenEXR picture"),
)
_NO_PHOTOS = (
    (0, b"%PDF", "a PDF"),
    (0, b"PK\3\4", "a ZIP archive"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"Rar!", "a RAR archive"),
    (0, b"7z\xbc\xaf", "a 7z archive"),
    (0, b"\x1aE\xdf\xa3", "a video"),
    (0, b"version https://git-lfs", "a Git LFS pointer, not the photo; fetch it with git lfs pull"),
)
_BRANDS = {"HEIC": (b"hei", b"hev", b"mif", b"msf"), "AVIF": (b"avi",)}  # of a file that begins with a box `ftyp`
_TEXTS = (
    (rb"<svg|<\?xml.*<svg", "an SVG drawing"),
    (rb"<!doctype html|<html|<head|<body", "a web page, which a download left in the place of the photo"),
    (rb"<\?xml|<", "XML, which a download left in the place of the photo"),
    (rb"[{\[]", "JSON, which a download left in the place of the photo"),
)


def of_file(file: str | os.PathLike, max_pixels: int = MAX_PIXELS, photo_cache: str = "") -> str:
    """Why a file cannot be read as a photo.

    Args:
        file: one that was refused; it may be missing, or a URL.
        max_pixels: the limit of what refused it.
        photo_cache: folder in which photos at URLs are kept.

    Example:

    >>> of_file("nowhere.jpg")
    'the file does not exist'
    """
    try:
        if why := of_missing(file):
            return why
        why = of_bytes(_content(file, photo_cache), max_pixels)
        is_raw = os.fspath(file).lower().endswith(RAW_ENDINGS)  # most begin as a TIFF does
        return _RAW if is_raw and CONVERT in why else why
    except remote.UnreadError as error:
        return str(error)
    except OSError as error:
        return f"the file cannot be read: {error.strerror or 'the disk does not give it'}"


def _content(file: str | os.PathLike, photo_cache: str) -> bytes:
    if remote.is_url(os.fspath(file)):
        return remote.RemotePhotos(photo_cache).read(os.fspath(file))
    with open(file, "rb") as opened:
        return opened.read()


def of_missing(file: str | os.PathLike) -> str:
    """Why a file need not be read at all: it does not exist, is empty, or too large. `""` if it must be read.

    So must a URL, if what it takes is installed: only its server knows more.
    """
    if remote.is_url(os.fspath(file)):
        return remote.why_no_reader(remote.protocol_of(os.fspath(file)))
    try:
        size = os.stat(file).st_size
    except (FileNotFoundError, NotADirectoryError):
        return "the file does not exist"
    except (OSError, ValueError):  # a NUL in the name, or a name too long
        return "the file cannot be opened"
    if os.path.isdir(file):
        return "it is a folder"
    if not os.path.isfile(file):
        return "it is no file, but a pipe or a device"
    if not os.access(file, os.R_OK):
        return "you may not read the file"
    return _of_size(size)


def _of_size(size: int) -> str:
    if size == 0:
        return "the file is empty"
    return f"the file has more than {MAX_BYTES // 2**20} MiB" if size > MAX_BYTES else ""


def bytes_of(file: str | os.PathLike, photo_cache: str = "") -> bytes:
    """A photo's bytes; none, which are no photo, if it cannot be read: it is to harm no other.

    Args:
        file: of the photo, or a URL.
        photo_cache: folder in which photos at URLs are kept.

    Example:

    >>> bytes_of("nowhere.jpg")
    b''
    """
    if of_missing(file):
        return b""
    try:
        return _content(file, photo_cache)
    except (OSError, remote.UnreadError):
        return b""


def of_bytes(content: bytes, max_pixels: int = MAX_PIXELS) -> str:
    """Why bytes cannot be read as a photo.

    Args:
        content: of a file that was refused.
        max_pixels: the limit of what refused it: a SavedModel's is `ServedEmbedder.max_pixels`.

    Example:

    >>> of_bytes(b"<html>404</html>")
    'a web page, which a download left in the place of the photo'
    >>> of_bytes(b"\\xff\\xd8\\xff\\xe0")
    'a JPEG that is cut off'
    """
    if why := _of_size(len(content)):
        return why
    for magic, name, reason in _KINDS:
        if content.startswith(magic):
            try:
                return reason(content, max_pixels)
            except (struct.error, IndexError):
                return f"a {name} that is cut off"
    return _of_another_kind(content)


def without_command(why: str) -> str:
    """A reason for someone who has one photo, and neither a catalogue to convert nor a model to export.

    Example:

    >>> without_command("a TIFF photo, which TensorFlow does not read; convert it with `eet convert`")
    'a TIFF photo, which TensorFlow does not read'
    """
    return why.partition(f"; {CONVERT}")[0].partition(f", {_EXPORT}")[0]


def kind_to_convert(start: bytes) -> str:
    """What a file that begins so is a photo of, where `eet convert` may convert it; else `""`.

    Example:

    >>> kind_to_convert(b"II*\\0"), kind_to_convert(b"%PDF")
    ('TIFF', '')
    """
    why = _of_another_kind(start)
    return why.partition(",")[0].split(" ", 1)[1].removesuffix(" photo") if CONVERT in why else ""


def unreadable_message(lines: Sequence[str], num_photos: int) -> str:
    """What is said of photos that cannot be read.

    Args:
        lines: for each of them where it is listed, its file and the reason.
        num_photos: of how many they are.

    Example:

    >>> print(unreadable_message(["list.csv:2: 'p.jpg': the file is empty"], 10))
    1 of 10 photos cannot be read. Replace it, delete its row, or leave it out with --skip_unreadable:
    list.csv:2: 'p.jpg': the file is empty
    """
    left = len(lines) - _MOST_LINES
    more = [f"... and {left:,} more"] if left > 0 else []
    some = f"{len(lines):,} of {num_photos:,} photos" if num_photos > 1 else "The only photo"
    it, its, rows = ("it", "its", "row") if len(lines) == 1 else ("them", "their", "rows")
    mend = f"Replace {it}, delete {its} {rows}, or leave {it} out with --skip_unreadable:"
    return "\n".join([f"{some} cannot be read. {mend}", *lines[:_MOST_LINES], *more])


def has_too_many_pixels(content: bytes, max_pixels: int = MAX_PIXELS) -> bool:
    """Whether bytes declare a picture of more than `max_pixels`; by default of more than anything here decodes.

    Example:

    >>> has_too_many_pixels(b"no photo at all")
    False
    """
    is_photo = any(content.startswith(magic) for magic, *_ in _KINDS)
    return is_photo and of_bytes(content, max_pixels) in (_TOO_MANY_PIXELS, _more_than_served(max_pixels))


# --- what is no photo of a kind that is read


def _of_another_kind(content: bytes) -> str:
    if content[4:8] == b"ftyp":
        return _of_boxes(content)
    for place, magic, what in _OTHER_PHOTOS:
        if content.startswith(magic, place):
            return f"{what}, which TensorFlow does not read; {CONVERT}"
    for place, magic, what in _NO_PHOTOS:
        if content.startswith(magic, place):
            return what
    return _of_text(content) or f"it is no {_READ}"


def _of_boxes(content: bytes) -> str:
    length = int.from_bytes(content[:4], "big")
    brands = [content[place : place + 4] for place in range(8, min(max(length, 12), 256), 4)]
    for kind, starts in reversed(_BRANDS.items()):
        if any(brand.startswith(starts) for brand in brands):
            return f"{'an' if kind == 'AVIF' else 'a'} {kind} photo, which TensorFlow does not read; {CONVERT}"
    return "a video, or a camera's raw file"


def _of_text(content: bytes) -> str:
    if not content.strip(b"\0"):
        return "the file holds zeros alone; copy it again"
    start = content[:4096].removeprefix(b"\xef\xbb\xbf").lstrip()
    for pattern, what in _TEXTS:
        if re.match(pattern, start, re.I | re.S):
            return what
    return "a text, not a photo" if _is_text(start) else ""


def _is_text(start: bytes) -> bool:
    try:
        start[: start.rfind(b" ") if len(start) > 4000 else len(start)].decode("utf-8")
    except UnicodeDecodeError:
        return False
    return not re.search(rb"[\x00-\x08\x0e-\x1f]", start)


# --- what is a photo of a kind that is read, damaged or of a kind within the kind

_TOO_MANY_PIXELS = f"it has more than {MAX_PIXELS // 10**6} million pixels; make it smaller"


def _more_than_served(max_pixels: int) -> str:
    return (
        f"it has more than {max_pixels / 10**6:g} million pixels, the limit of this model; make it smaller, {_EXPORT}"
    )


def _of_pixels(width: int, height: int, max_pixels: int) -> str:
    """The reason that lies in a size alone, or `""`."""
    if width * height > MAX_PIXELS:
        return _TOO_MANY_PIXELS
    if width * height > max_pixels:
        return _more_than_served(max_pixels)
    return "" if width * height else "it says that it has no pixels"


def _of_jpeg(content: bytes, max_pixels: int) -> str:
    frame = _jpeg_frame(content)
    if frame is None:
        return f"a JPEG of more than {MAX_SEGMENTS:,} blocks of metadata"
    marker, place = frame
    bits, height, width = struct.unpack_from(">BHH", content, place + 4)
    kinds = {
        _of_pixels(width, height, max_pixels): True,
        f"a JPEG of {bits} bits a colour; save it with 8": bits != 8,
        "a lossless JPEG, which TensorFlow does not read; save it as an ordinary JPEG or PNG": marker in (0xC3, 0xC7),
        f"a JPEG of more than {MAX_SCANS} scans; save it again": content.count(b"\xff\xda\0") > MAX_SCANS,
        "a JPEG that is cut off": not content.rstrip(b"\0").endswith(b"\xff\xd9"),
    }
    return next((why for why, holds in kinds.items() if why and holds), "a JPEG that is damaged")


def _jpeg_frame(content: bytes) -> tuple[int, int] | None:
    """The marker of a JPEG's frame header and where it stands; None behind too many segments."""
    place, with_marker = 2, re.compile(rb"\xff[\x02-\xcf\xd9-\xfe]")
    for _ in range(MAX_SEGMENTS):
        found = with_marker.search(content, place)
        if found is None:
            raise IndexError
        marker = content[found.start() + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return marker, found.start()
        if marker in (0xD9, 0xDA):
            raise IndexError
        place = found.start() + 2 + struct.unpack_from(">H", content, found.start() + 2)[0]
    return None


def _of_png(content: bytes, max_pixels: int) -> str:
    if content[12:16] == b"CgBI":
        return "a PNG of an iPhone app (CgBI), which only Apple's programs read; save it as an ordinary PNG"
    if content[:8] != b"\x89PNG\r\n\x1a\n" or content[12:16] != b"IHDR":
        return "a PNG that is damaged"
    width, height, bits, color = struct.unpack_from(">IIBB", content, 16)
    if why := _of_pixels(width, height, max_pixels):
        return why
    chunks = list(_png_chunks(content))
    names = [name for name, _ in chunks]
    if names.count("zTXt") + names.count("iTXt") > MAX_TEXTS:
        return f"a PNG of more than {MAX_TEXTS} texts; save it without them"
    if spoilt := [name for name, is_whole in chunks if not is_whole and name[:1].isupper()]:
        return f"a PNG that is damaged: the check sum of its block {spoilt[0]} is wrong"
    if "IEND" not in names:
        return "a PNG that is cut off"
    if color == 3 and "PLTE" not in names:
        return "a PNG without its palette"
    if len(names) > MAX_CHUNKS:
        return f"a PNG of more than {MAX_CHUNKS:,} blocks; save it again"
    unknown = [name for name in names if name[:1].isupper() and name not in ("IHDR", "PLTE", "IDAT", "IEND")]
    return f"a PNG with a block {unknown[0]}, which nobody knows" if unknown else "a PNG that is damaged"


def _png_chunks(content: bytes) -> Iterator[tuple[str, bool]]:
    """The name of each whole chunk and whether its check sum is right."""
    place = 8
    while place + 12 <= len(content):
        size = int.from_bytes(content[place : place + 4], "big")
        end = place + 8 + size
        if end + 4 > len(content):
            return
        name = content[place + 4 : place + 8].decode("latin-1")
        yield (
            name if name.isalpha() and name.isascii() else "?",
            zlib.crc32(content[place + 4 : end]) == int.from_bytes(content[end : end + 4], "big"),
        )
        if name == "IEND":
            return
        place = end + 4


def _of_bmp(content: bytes, max_pixels: int) -> str:
    header, width, height, _, bits, packing = struct.unpack_from("<IiiHHI", content, 14)
    if header < 40:
        return f"a BMP of OS/2; {CONVERT}"
    if why := _of_pixels(abs(width), abs(height), max_pixels):
        return why
    if packing in (1, 2, 4, 5):
        return f"a compressed BMP; {CONVERT}"
    if bits not in (1, 4, 8, 24, 32):
        return f"a BMP of {bits} bits; {CONVERT}"
    if packing:
        return f"a BMP with its colours in an unusual order; {CONVERT}"
    begin, row_bits = int.from_bytes(content[10:14], "little"), abs(width) * bits
    is_cut = begin + (row_bits + 31) // 32 * 4 * (abs(height) - 1) + (row_bits + 7) // 8 > len(content)
    return "a BMP that is cut off" if is_cut else "a BMP that is damaged"


def _of_gif(content: bytes, max_pixels: int) -> str:
    screen_width, screen_height, flags = struct.unpack_from("<HHB", content, 6)
    place = 13 + _table_bytes(flags)
    for _ in range(MAX_GIF_BLOCKS):
        if content[place] != 0x21:
            break
        place = _chain_end(content, place + 2)
    if content[place] != 0x2C:
        return "a GIF that is damaged: it has no frame"
    left, top, width, height, own = struct.unpack_from("<HHHHB", content, place + 1)
    if why := _of_pixels(max(screen_width, left + width), max(screen_height, top + height), max_pixels):
        return why
    if not (flags | own) & 0x80:
        return "a GIF without its palette"
    _chain_end(content, place + 11 + _table_bytes(own))
    return "a GIF that is damaged"


def _table_bytes(flags: int) -> int:
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0


def _chain_end(content: bytes, place: int) -> int:
    """Behind a chain of blocks, each behind a byte with its length; an IndexError if it is cut off."""
    while content[place]:
        place += content[place] + 1
    return place + 1


def _of_webp(content: bytes, max_pixels: int) -> str:
    if content[8:12] != b"WEBP":
        return "a sound or a film (RIFF)" if len(content) >= 12 else "a WebP that is cut off"
    if why := _of_pixels(*_webp_size(content), max_pixels):
        return why
    if len(content) < 8 + int.from_bytes(content[4:8], "little"):
        return "a WebP that is cut off"
    return f"a WebP that is damaged, or for which TensorFlow is too old: it reads WebP from version 2.20 on; {CONVERT}"


def _webp_size(content: bytes) -> tuple[int, int]:
    """Width and height; 1 x 1 where they stand nowhere."""
    kind, data = content[12:16], content[20:30].ljust(10, b"\0")
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[4:7], "little"), 1 + int.from_bytes(data[7:10], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(data[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        return struct.unpack_from("<H", data, 6)[0] & 0x3FFF, struct.unpack_from("<H", data, 8)[0] & 0x3FFF
    return 1, 1


_KINDS = (
    (b"\xff\xd8\xff", "JPEG", _of_jpeg),
    (b"\x89PNG", "PNG", _of_png),
    (b"GIF8", "GIF", _of_gif),
    (b"BM", "BMP", _of_bmp),
    (b"RIFF", "WebP", _of_webp),
)
