"""The bytes signature of an exported embedder: encoded photos in, embeddings out."""

from __future__ import annotations

import functools
import itertools
import statistics
import tempfile
import time

from gpu_parts import device
from gpu_parts.settings import Settings

WIDTH, HEIGHT, DIFFERENT_PHOTOS = 400, 300, 16
BATCH_SIZES = (1, 16, 256)

machine = device.describe


def measurements(settings: Settings) -> dict:
    """One measurement for each number of photos."""
    backbone, image_size = ("resnet50", 224) if device.on_gpu() else ("small_cnn", 64)
    return {
        f"serving_default, {backbone}, {image_size} px, photos at once: {number}": (
            lambda number=number: measure(backbone, image_size, number)
        )
        for number in BATCH_SIZES
    }


@functools.cache
def signature_of(backbone: str, image_size: int):
    """Exports an embedder with random weights and loads it; the files are not needed after that."""
    import tensorflow as tf

    import eet_tf

    embedder = eet_tf.build_embedder(backbone, 512, image_size)
    with tempfile.TemporaryDirectory() as folder:
        loaded = tf.saved_model.load(eet_tf.export_embedder(embedder, folder))
    return loaded, loaded.signatures["serving_default"]  # which goes with the model if that is not kept


@functools.cache
def encoded_photos() -> list[bytes]:
    """Some different JPEGs."""
    from photos import draw_photos

    return draw_photos(DIFFERENT_PHOTOS, WIDTH, HEIGHT)


def measure(backbone: str, image_size: int, number: int) -> dict:
    """Takes the median time of a call; each waits for its embeddings, as a request does."""
    import tensorflow as tf

    _, signature = signature_of(backbone, image_size)
    batch = tf.constant(list(itertools.islice(itertools.cycle(encoded_photos()), number)))
    times = []
    started = time.perf_counter()
    while len(times) < 5 or (time.perf_counter() - started < 1.0 and len(times) < 50):
        call_started = time.perf_counter()
        signature(image_bytes=batch)["embedding"].numpy()
        times.append(time.perf_counter() - call_started)
    seconds = statistics.median(times[2:])
    names = {"backbone": backbone, "image_size": image_size, "photos": number}
    return {**names, "ms": 1000 * seconds, "photos_per_s": number / seconds}


def line(row: dict, rows: dict) -> str:
    """One row in words."""
    return f"{row['ms']:.1f} ms, {row['photos_per_s']:,.0f} photos/s"


def table(rows: list[dict]) -> str:
    """Milliseconds and photos per second."""
    text = f"`serving_default`, JPEG of {WIDTH} x {HEIGHT} px; decoding runs on the CPU.\n\n"
    text += "| embedder | photos at once | ms | photos/s |\n|---|---|---|---|\n"
    for row in rows:
        text += f"| {row['backbone']}, {row['image_size']} px | {row['photos']} "
        text += f"| {row['ms']:.1f} | {row['photos_per_s']:,.0f} |\n"
    return text
