"""A training as a person starts it, on photos it draws."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time

from gpu_parts import device, processes
from gpu_parts.settings import Settings

REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
NAME = "train/main.py --strategy=mirrored"

machine = device.describe


def measurements(settings: Settings) -> dict:
    """The one training; this process only asks which device there is, so that the training has its memory."""
    if device.on_gpu():
        return {NAME: lambda: measure(120, 10, 64, ["--epochs=4", "--steps_per_epoch=100"])}
    flags = ["--epochs=1", "--steps_per_epoch=5", "--classes_per_batch=4", "--embedding_dim=32"]
    return {NAME: lambda: measure(24, 6, 32, flags)}


def measure(num_products: int, photos_per_product: int, image_size: int, flags: list[str]) -> dict:
    """Draws photos, trains, and reads what the training wrote of itself."""
    from eet_tf.data import make_synthetic_catalog

    with tempfile.TemporaryDirectory() as folder:
        photos, run = os.path.join(folder, "photos"), os.path.join(folder, "run")
        make_synthetic_catalog(photos, num_products, photos_per_product, image_size)
        command = [sys.executable, os.path.join(REPOSITORY, "train", "main.py"), "--strategy=mirrored", "--dataset=csv"]
        command += [f"--data_dir={photos}", f"--model_dir={run}", f"--image_size={image_size}", *flags]
        started = time.perf_counter()
        processes.printed_by(command)
        seconds = time.perf_counter() - started
        with open(os.path.join(run, "metrics.json"), encoding="utf-8") as file:
            metrics = json.load(file)
    return {
        "photos": num_products * photos_per_product,
        "flags": " ".join(flags),
        "recall@1 before": metrics["before"]["recall@1"],
        "recall@1 after": metrics["after"]["recall@1"],
        "seconds": seconds,
        "seconds in fit": metrics["seconds"],
    }


def line(row: dict, rows: dict) -> str:
    """The training in words."""
    return (
        f"R@1 {100 * row['recall@1 before']:.1f} % before, {100 * row['recall@1 after']:.1f} % after; "
        f"{row['seconds']:.0f} s, of which {row['seconds in fit']:.0f} s in fit ({row['flags']})"
    )


def table(rows: list[dict]) -> str:
    """The same as a sentence."""
    return "".join(f"`{NAME}` on {row['photos']:,} drawn photos: {line(row, {})}.\n" for row in rows)
