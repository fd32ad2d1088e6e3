"""Photos drawn in memory, for what is timed from encoded bytes on."""

import io


def draw_photos(number: int, width: int = 640, height: int = 480) -> list[bytes]:
    """Draws JPEGs that are about as large as those of a camera: soft colours under a little noise."""
    import numpy as np
    from PIL import Image

    encoded = []
    for seed in range(number):
        rng = np.random.default_rng(seed)
        blocks = Image.fromarray(rng.integers(0, 256, [12, 16, 3]).astype(np.uint8))
        pixels = np.asarray(blocks.resize((width, height), Image.Resampling.BICUBIC))
        pixels = pixels + rng.integers(-12, 13, [height, width, 3])
        buffer = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=85)
        encoded.append(buffer.getvalue())
    return encoded
