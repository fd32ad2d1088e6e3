"""Which files of a catalogue the page may show, and how: small JPEGs made here, never the files themselves."""

from __future__ import annotations

import functools
import io
import os

from PIL import Image

from eet_tf.pages import thumbnails

_SIDE = 384  # pixels of the longer side; a tile is at most 190 CSS pixels wide, on a screen of 2 pixels to one
_KEPT = 2048  # thumbnails of about 15 kB each


class DemoError(ValueError):
    """Tells that a page cannot be made; the message says why and how to repair it."""


class Thumbnails:
    """The photos below a folder as small JPEGs.

    A photo whose path leaves the folder, by `..`, as an absolute path or through a symbolic link, is not shown.

    Args:
        root: the folder.

    Raises:
        DemoError: if there is no such folder.

    Example:

    >>> import tempfile
    >>> Thumbnails(tempfile.gettempdir()).jpeg("../etc/passwd") is None
    True
    """

    def __init__(self, root: str | os.PathLike):
        if not os.path.isdir(root):
            raise DemoError(
                f"`photo_root` must be the folder of the catalogue's photos. Received: '{os.fspath(root)}', which is "
                "no folder. Name it with --photo_root."
            )
        self.root = os.path.realpath(root)
        self._made = functools.lru_cache(_KEPT)(_thumbnail)

    def path(self, photo: str) -> str | None:
        """The file of a photo; None if there is none in the folder."""
        try:
            path = os.path.realpath(os.path.join(self.root, photo))
            is_inside = os.path.commonpath([self.root, path]) == self.root
        except ValueError:  # a NUL in it
            return None
        return path if is_inside and os.path.isfile(path) else None

    def jpeg(self, photo: str) -> bytes | None:
        """A photo of the catalogue, upright, 384 pixels on the longer side; None if it cannot be shown.

        Args:
            photo: its path below the folder. Take it from the index, not from a request.
        """
        path = self.path(photo)
        return None if path is None else self._made(path, os.stat(path).st_mtime_ns)


def _thumbnail(path: str, changed: int) -> bytes | None:
    """`changed` only tells apart what was made before the file was replaced."""
    return thumbnails.thumbnail(path, _SIDE, quality=80)


def blank_photo() -> bytes:
    """A grey square, to try an embedder with."""
    file = io.BytesIO()
    Image.new("RGB", (64, 64), "grey").save(file, "PNG")
    return file.getvalue()
