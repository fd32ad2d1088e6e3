"""How a page shows a photo: small, upright, on white, as a JPEG; and what counts as one that cannot be shown."""

from __future__ import annotations

import base64
import io
import os

from PIL import Image, ImageOps

TOO_MANY_PIXELS = (Image.DecompressionBombError, Image.DecompressionBombWarning)
UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    *TOO_MANY_PIXELS,
)  # what Pillow raises for files that are none


def thumbnail(path: str | os.PathLike, side: int, quality: int = 72) -> bytes | None:
    """Makes a small picture of a photo.

    Args:
        path: of the photo.
        side: pixels of the longer side, at most; a smaller photo keeps its size.
        quality: of the JPEG.

    Returns:
        An encoded JPEG, or None if the photo cannot be read.

    Example:

    >>> thumbnail("nowhere.jpg", side=160) is None
    True
    """
    try:
        with Image.open(path) as opened:
            opened.draft("RGB", (2 * side, 2 * side))  # a JPEG is decoded at about this size
            image = ImageOps.exif_transpose(opened).convert("RGBA")
    except UNREADABLE:
        return None
    image.thumbnail((side, side))
    opaque = Image.new("RGB", image.size, "white")
    opaque.paste(image, mask=image)
    file = io.BytesIO()
    opaque.save(file, "JPEG", quality=quality, optimize=True)
    return file.getvalue()


def data_uri(kind: str, content: bytes) -> str:
    """A picture as an address that holds it, for pages that need nothing but themselves.

    Args:
        kind: `"jpeg"`, `"png"` or another of MIME's images.
        content: the encoded picture.

    Example:

    >>> data_uri("png", b"abc")
    'data:image/png;base64,YWJj'
    """
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
