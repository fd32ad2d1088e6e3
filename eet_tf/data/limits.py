"""How much a photo may ask for. What asks for more is refused: in audit, training, serving and pages alike.

A file of a few hundred bytes can declare a picture of gigabytes, or thousands of passes over it; decoders do as told.
"""

from __future__ import annotations

# a quarter GiB of 3 bytes a pixel: where Pillow, too, begins to warn of a decompression bomb (Image.MAX_IMAGE_PIXELS).
# At that size decoding takes 0.3 GB for a plain JPEG, and 2.4 GB for the worst, transparent or turned upright.
MAX_PIXELS = 1024**3 // 4 // 3
SERVED_MAX_PIXELS = 40_000_000  # of a photo that a server is asked for; it decodes many at once
# of a JPEG: each is a pass over all of its pixels, at 12 million pixels of 9 ms. Progressive photos have 10 or so.
MAX_SCANS = 100
MAX_SEGMENTS = 1000  # of a JPEG before its frame header, of 64 kB at most; a photo has 5 to 50
MAX_TEXTS = 16  # compressed texts of a PNG, each of which unpacks to 8 MB in 40 ms at most; an editor writes 1 to 5
MAX_CHUNKS = 10_000  # of a PNG, where a thousand of one length, of its pixels, count as one; a photo has 5 to 20
MAX_GIF_BLOCKS = 4000  # of 255 bytes at most, before the first frame of a GIF; a photo has 2 to 50
MAX_BYTES = 2**29  # of a file, which is read whole: more than a BMP of MAX_PIXELS pixels has
