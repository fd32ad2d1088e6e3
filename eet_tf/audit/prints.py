"""What is kept of each photo to compare it with all others: two small thumbnails, its size, a digest of its file."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import hashlib
import io
import itertools
import os
import warnings
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

GREY_SIDE = 32
COLOR_SIDE = 8
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP")  # those that training decodes, and no others that Pillow knows
_DRAFT_SIDE = 4 * GREY_SIDE  # a large JPEG is decoded at about this size, which takes an eighth of the time
_AT_ONCE = 4096  # photos handed to the threads at a time
_PNG_END = b"IEND\xaeB`\x82"
_ORIENTATION = 0x0112  # the EXIF tag
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
# what Pillow raises on files that are missing, cut short, no images, or too large to be photos
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError, Image.DecompressionBombWarning)


@dataclasses.dataclass(frozen=True, eq=False)
class PhotoPrints:
    """What is kept of N photos, about 1.3 kB each. Rows of photos that could not be decoded are zeros.

    Args:
        grey: `[N, 32, 32]` uint8, squashed to a square.
        color: `[N, 8, 8, 3]` uint8.
        sizes: `[N, 2]` int64, width and height in pixels, upright.
        digests: `[N]` 32 hexadecimal digits each; equal for files with the same bytes.
        unreadable: why a photo could not be decoded, by row.
    """

    grey: np.ndarray
    color: np.ndarray
    sizes: np.ndarray
    digests: np.ndarray
    unreadable: dict[int, str]

    @property
    def is_readable(self) -> np.ndarray:
        """`[N]` bool."""
        mask = np.ones(len(self.grey), bool)
        mask[list(self.unreadable)] = False
        return mask


def read_prints(
    files: Sequence[str], num_threads: int | None = None, progress: Callable[[int], None] | None = None
) -> PhotoPrints:
    """Decodes every photo once, on threads, holding as many decoded ones as there are threads.

    A JPEG is turned upright by its EXIF orientation and transparent pixels become white, as in training.

    Args:
        files: N photo files.
        num_threads: default the number of CPUs.
        progress: called now and then with the number of photos done.

    Example:

    >>> import os, tempfile
    >>> file = os.path.join(tempfile.mkdtemp(), "photo.png")
    >>> Image.new("RGB", (40, 30), "red").save(file)
    >>> prints = read_prints([file, "missing.jpg"])
    >>> prints.sizes.tolist(), sorted(prints.unreadable)
    ([[40, 30], [0, 0]], [1])
    """
    number = len(files)
    grey = np.zeros([number, GREY_SIDE, GREY_SIDE], np.uint8)
    color = np.zeros([number, COLOR_SIDE, COLOR_SIDE, 3], np.uint8)
    sizes = np.zeros([number, 2], np.int64)
    digests = np.zeros([number], "S32")
    unreadable: dict[int, str] = {}

    def take(row: int) -> int:
        try:
            digests[row], sizes[row], pixels = _read(files[row])
        except _UNREADABLE as error:
            unreadable[row] = _reason(error)
        else:
            grey[row] = pixels @ LUMA + 0.5
            side = GREY_SIDE // COLOR_SIDE
            color[row] = pixels.reshape(COLOR_SIDE, side, COLOR_SIDE, side, 3).mean((1, 3)) + 0.5
        return row

    with warnings.catch_warnings(), concurrent.futures.ThreadPoolExecutor(num_threads or os.cpu_count()) as pool:
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        rows = iter(range(number))
        while portion := list(itertools.islice(rows, _AT_ONCE)):
            for row in pool.map(take, portion):
                if progress is not None and (row % 256 == 255 or row == number - 1):
                    progress(row + 1)
    return PhotoPrints(grey, color, sizes, digests, dict(sorted(unreadable.items())))


def _read(file: str) -> tuple[bytes, tuple[int, int], np.ndarray]:
    """Digest, width and height, and `[32, 32, 3]` float32 of one photo."""
    with open(file, "rb") as opened:
        content = opened.read()
    if not content:
        raise OSError("the file is empty")
    with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
        width, height = image.size
        image.draft("RGB", (_DRAFT_SIDE, _DRAFT_SIDE))
        image.load()
        if image.format == "PNG" and _PNG_END not in content:
            raise OSError("the file is cut off")  # past the last pixel: Pillow does not mind, TensorFlow does
        if image.format in ("JPEG", "MPO"):
            if image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8):
                width, height = height, width
            image = ImageOps.exif_transpose(image)
        small = _opaque(image).resize((GREY_SIDE, GREY_SIDE), Image.Resampling.BILINEAR)
    digest = hashlib.blake2b(content, digest_size=16).hexdigest().encode()
    return digest, (width, height), np.asarray(small, np.float32)


def _opaque(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" or not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    opaque = Image.new("RGB", image.size, "white")
    opaque.paste(image, mask=image)
    return opaque


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "the file does not exist"
    if isinstance(error, UnidentifiedImageError):
        return "it is no JPEG, PNG, BMP, GIF or WebP"
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return f"it has more than {Image.MAX_IMAGE_PIXELS:,} pixels; make it smaller"
    return str(error) or type(error).__name__
