"""Measuring retrieval on the device: every photo of a catalogue among all the others."""

from __future__ import annotations

import json
import os
import sys
import time

from gpu_parts import device, processes
from gpu_parts.settings import Settings

PHOTOS_PER_PRODUCT, BLOCK_ROWS = 5, 4096
ON_GPU, ON_CPU, COMPARED = (60_502, 512), (2_000, 64), (5_000, 512)

machine = device.describe


def measurements(settings: Settings) -> dict:
    """The bare product, the evaluation, and on a GPU whether its figures are those of the CPU."""
    photos, dim = ON_GPU if device.on_gpu() else ON_CPU
    photos = settings.photos or photos
    size = f"{photos:,} x {dim}"
    found = {
        f"bare product, {size}": lambda: measure_product(photos, dim),
        f"evaluate_retrieval, {size}": lambda: measure(photos, dim),
    }
    if device.on_gpu():
        found[f"figures against the CPU's, {COMPARED[0]:,} x {COMPARED[1]}"] = compare
    return found


def figures(photos: int, dim: int) -> dict[str, float]:
    """R@K, R-precision and mAP@R of drawn embeddings."""
    from eet_tf import evaluate_retrieval

    labels, embeddings = device.draw_batch(photos, dim, PHOTOS_PER_PRODUCT)
    return evaluate_retrieval(embeddings, labels, ks=(1, 10, 100))


def measure(photos: int, dim: int) -> dict:
    """Takes the seconds of one evaluation, after one of a smaller catalogue that lets everything start."""
    from eet_tf import evaluate_retrieval

    figures(min(photos, 500), dim)
    labels, embeddings = device.draw_batch(photos, dim, PHOTOS_PER_PRODUCT)
    started = time.perf_counter()
    found = evaluate_retrieval(embeddings, labels, ks=(1, 10, 100))
    return {"what": "evaluate_retrieval", "photos": photos, "dim": dim, "seconds": time.perf_counter() - started} | {
        name: found[name] for name in ("recall@1", "map@r")
    }


def measure_product(photos: int, dim: int) -> dict:
    """Takes the seconds of all products, block by block, on the device, nothing looked at."""
    import tensorflow as tf

    embeddings = tf.constant(device.draw_batch(photos, dim, PHOTOS_PER_PRODUCT)[1])
    product = tf.function(
        lambda block, others: tf.matmul(block, others, transpose_b=True), reduce_retracing=True, autograph=False
    )

    def all_blocks():
        for start in range(0, photos, BLOCK_ROWS):
            scores = product(embeddings[start : start + BLOCK_ROWS], embeddings)
        scores[0, 0].numpy()

    all_blocks()
    started = time.perf_counter()
    all_blocks()
    return {"what": "bare product", "photos": photos, "dim": dim, "seconds": time.perf_counter() - started}


def compare() -> dict:
    """Compares the figures of a smaller catalogue with those of a process that sees no GPU."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}
    printed = processes.printed_by([sys.executable, *sys.argv, "--only=figures"], environment)
    expected, found = json.loads(printed.splitlines()[-1]), figures(*COMPARED)
    return {"what": "difference", "largest": max(abs(found[name] - expected[name]) for name in expected)}


def line(row: dict, rows: dict) -> str:
    """One row in words."""
    if row["what"] == "difference":
        return "equal" if row["largest"] == 0 else f"THEY DIFFER by up to {row['largest']:.1e}"
    text = f"{row['seconds']:.3f} s"
    return text + (f", R@1 {100 * row['recall@1']:.2f} %" if "recall@1" in row else "")


def table(rows: list[dict]) -> str:
    """Seconds, and whether figures are the CPU's."""
    text = "| | s |\n|---|---|\n"
    for row in rows:
        if row["what"] != "difference":
            text += f"| {row['what']}, {row['photos']:,} x {row['dim']} | {row['seconds']:.3f} |\n"
    shown = [line(row, {}) for row in rows if row["what"] == "difference"]
    return text + "".join(f"\nFigures of {COMPARED[0]:,} photos, GPU against CPU: {each}.\n" for each in shown)
