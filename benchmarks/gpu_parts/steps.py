"""Training steps on the device: `fit` with EET, under each way to run it, against the bare network."""

from __future__ import annotations

import gc
import statistics
from typing import NamedTuple

from gpu_parts import device
from gpu_parts.settings import CannotMeasureError, Settings

MIN_STEPS, REPEATS = 10, 3
PRECISIONS = {"float32": "float32", "bfloat16": "mixed_bfloat16"}
WAYS = {
    "bare_compiled": "bare network, compiled",
    "mirrored": "EET, mirrored",
    "plain": "EET, plain",
    "microbatched": "EET, mirrored, in pieces of a quarter",
    "mirrored_without_jit": "EET, mirrored, jit off",
    "bare": "bare network, not compiled",
}

machine = device.describe


class Network(NamedTuple):
    """A network, its photos and the precision it calculates in."""

    backbone: str
    image_size: int
    batch_size: int
    precision: str


def measurements(settings: Settings) -> dict:
    """All measurements by name: both networks in the precision they are used in, way by way, then in the other."""
    ways = settings.ways or tuple(WAYS)
    unknown = [way for way in ways if way not in WAYS]
    if unknown:
        raise CannotMeasureError(f"--ways must be of {', '.join(WAYS)}; there is no {', '.join(unknown)}")
    small, large = ("small_cnn", 64, 64), ("resnet50", 224, 128)
    groups = [[("small_cnn", 32, 16, precision)] for precision in PRECISIONS]
    if device.on_gpu():
        groups = [[(*small, "float32"), (*large, "bfloat16")], [(*small, "bfloat16"), (*large, "float32")]]
    cells = [(Network(*network), way) for group in groups for way in ways for network in group]
    return {
        f"{title_of(network)}: {WAYS[way]}": lambda network=network, way=way: measure(network, way)
        for network, way in cells
    }


def title_of(network: Network) -> str:
    """A network in words."""
    return f"{network.backbone}, {network.image_size} px, B = {network.batch_size}, {network.precision}"


def measure(network: Network, way: str) -> dict:
    """Takes the time of a step, photos per second, and the most memory on the GPU."""
    import keras

    from eet_tf import make_strategy

    keras.backend.clear_session()
    gc.collect()
    device.reset_peak()
    before = device.peak_megabytes()
    keras.mixed_precision.set_global_policy(PRECISIONS[network.precision])
    is_mirrored = way in ("mirrored", "mirrored_without_jit", "microbatched")
    strategy = make_strategy("mirrored" if is_mirrored else "default")
    try:
        with strategy.scope():
            times = step_times(build(network, way), network)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    times["megabytes"] = None if before is None else device.peak_megabytes() - before
    return {**network._asdict(), "way": way, "photos_per_s": 1000 * network.batch_size / times["ms"], **times}


def build(network: Network, way: str):
    """Builds and compiles what is trained."""
    from networks import make_bare, make_learner

    shape = (network.backbone, network.image_size)
    if way in ("bare", "bare_compiled"):
        return make_bare(*shape, jit_compile=way == "bare_compiled")
    return make_learner(
        *shape,
        microbatch=network.batch_size // 4 if way == "microbatched" else None,
        jit_compile=False if way == "mirrored_without_jit" else None,
    )


def step_times(model, network: Network) -> dict:
    """Times steps after two calls of `fit` that trace, compile and settle."""
    from networks import batches, seconds_per_step

    dataset = batches(network.batch_size, network.image_size)
    first = seconds_per_step(model, dataset, 1)
    estimate = seconds_per_step(model, dataset, 3)
    device.reset_peak()  # what compilation tried out is not what a step takes
    steps = max(MIN_STEPS, min(100, int((1.0 if device.on_gpu() else 0.2) / estimate)))
    times = [seconds_per_step(model, dataset, steps) for _ in range(REPEATS)]
    return {"ms": 1000 * statistics.median(times), "steps": steps, "first_step_s": first}


def share_of_bare(row: dict, rows: dict) -> float | None:
    """A step's photos per second over those of the bare compiled network in the same precision, if that is known."""
    same = ("backbone", "image_size", "batch_size", "precision")
    for other in rows.values():
        if other.get("way") == "bare_compiled" and all(other[name] == row[name] for name in same):
            return row["photos_per_s"] / other["photos_per_s"]
    return None


def line(row: dict, rows: dict) -> str:
    """One row in words."""
    text = f"{row['ms']:.1f} ms a step, {row['photos_per_s']:,.0f} photos/s"
    share = share_of_bare(row, rows)
    text += "" if share is None or row["way"] == "bare_compiled" else f", {share:.2f} of the bare compiled network"
    text += "" if row["megabytes"] is None else f", {row['megabytes']:,.0f} MB"
    return text + f", first step {row['first_step_s']:.0f} s"


def table(rows: list[dict]) -> str:
    """A line for each network and way."""
    numbered = dict(enumerate(rows))
    text = "| network | way | ms a step | photos/s | of the bare compiled network | MB | first step, s |\n"
    text += "|---|---|---|---|---|---|---|\n"
    for row in sorted(rows, key=lambda row: (row["batch_size"], row["precision"])):
        share = share_of_bare(row, numbered)
        cells = [title_of(Network(*(row[name] for name in Network._fields))), WAYS[row["way"]]]
        cells += [f"{row['ms']:.1f}", f"{row['photos_per_s']:,.0f}", "" if share is None else f"{share:.2f}"]
        cells += ["" if row["megabytes"] is None else f"{row['megabytes']:,.0f}", f"{row['first_step_s']:.0f}"]
        text += f"| {' | '.join(cells)} |\n"
    return text
