"""How a page shows a photo: small, upright, on white, as a JPEG; and what counts as one that cannot be shown."""

from __future__ import annotations

import base64
import io
import os

from PIL import Image

from eet_tf.data import reasons


def thumbnail(path: str | os.PathLike, side: int, quality: int = 72, photo_cache: str = "") -> bytes | None:
    """Makes a small picture of a photo.

    Args:
        path: of the photo, or a URL.
        side: pixels of the longer side, at most; a smaller photo keeps its size.
        quality: of the JPEG.
        photo_cache: folder in which photos at URLs are kept; `""` for none.

    Returns:
        An encoded JPEG, or None if the photo cannot be read, as training or serving could not.

    Example:

    >>> thumbnail("nowhere.jpg", side=160) is None
    True
    """
    from eet_tf.data.reading import shrunk  # the one decoder, which loads TensorFlow

    pixels = shrunk(path, side, photo_cache)
    if pixels is None:
        return None
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality, optimize=True)
    return file.getvalue()


def without_picture(path: str | os.PathLike, photo_cache: str = "") -> str:
    """What is said of a photo that cannot be shown: its path and the reason.

    Args:
        path: of the photo, or a URL.
        photo_cache: folder in which photos at URLs are kept; `""` for none.

    Example:

    >>> without_picture("nowhere.jpg")
    'nowhere.jpg: the file does not exist'
    """
    return f"{os.fspath(path)}: {reasons.of_file(path, photo_cache=photo_cache)}"


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
