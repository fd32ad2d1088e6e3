"""Losses on the device: forward and backward, as a plain graph and compiled, against the values of the CPU."""

from __future__ import annotations

import os
import sys

import numpy as np
from gpu_parts import device, processes, timing
from gpu_parts.settings import CannotMeasureError, Settings

DIM, PHOTOS_PER_CLASS, NUM_ATTRIBUTES = 512, 8, 64
COMPARED_UP_TO = 1024
DIFFERS = 0.1  # of the largest entry of the gradient; rounding to TensorFloat-32 stays below
# name in --losses: what it is in the table, what matters most first
LOSSES = {
    "eet": "EETLoss",
    "batch_hard": "TripletLoss",
    "full_eet": "EET, full matrix",
    "full_batch_hard": "batch-hard, full matrix",
    "binomial_deviance": "BinomialDevianceLoss",
    "full_binomial_deviance": "binomial deviance, full matrix",
    "eet_without_classes": "EETLoss, no class terms",
    "soft_binomial_deviance": "SoftBinomialDevianceLoss",
    "semi_hard": "TripletLoss, semi-hard",
    "batch_all": "TripletLoss, batch-all",
    "online_sampling": "TripletLoss, online sampling",
}
WAYS = {"graph": False, "compiled": True}

machine = device.describe


def make(name: str):
    """Returns a loss as a function of `(labels, embeddings, attributes)` to a scalar."""
    import naive
    import tensorflow as tf

    import eet_tf

    if name == "soft_binomial_deviance":
        soft = eet_tf.SoftBinomialDevianceLoss()
        return lambda labels, embeddings, attributes: soft(
            {"label": labels, "attributes": attributes}, {"embedding": embeddings, "attributes": attributes}
        )
    of_labels = {
        "eet": eet_tf.EETLoss,
        "eet_without_classes": lambda: eet_tf.EETLoss(equidistributed_weight=0.0),
        "batch_hard": eet_tf.TripletLoss,
        "semi_hard": lambda: eet_tf.TripletLoss(0.2, positives="all", negatives="semi_hard", distance="squared"),
        "batch_all": lambda: eet_tf.TripletLoss(positives="all", negatives="all"),
        "online_sampling": lambda: eet_tf.TripletLoss(0.1, positives="partner", distance="cosine"),
        "binomial_deviance": eet_tf.BinomialDevianceLoss,
        "full_eet": lambda: naive.eet,
        "full_batch_hard": lambda: naive.batch_hard,
        "full_binomial_deviance": lambda: naive.binomial_deviance,
    }[name]()
    return lambda labels, embeddings, attributes: tf.reduce_mean(of_labels(labels, embeddings))


def draw(size: int):
    """Draws labels, embeddings and attributes, the same on every device."""
    labels, embeddings = device.draw_batch(size, DIM, PHOTOS_PER_CLASS)
    rng = np.random.default_rng(1)
    return labels, embeddings, (rng.random([size, NUM_ATTRIBUTES]) < 0.2).astype(np.float32)


def value_and_gradient(name: str):
    """Returns a function of a drawn batch to the loss and its gradient by the embeddings."""
    import tensorflow as tf

    loss = make(name)

    def both(labels, embeddings, attributes):
        with tf.GradientTape() as tape:
            tape.watch(embeddings)
            value = loss(labels, embeddings, attributes)
        return value, tape.gradient(value, embeddings)

    return both


def measurements(settings: Settings) -> dict:
    """All measurements by name, the most important first."""
    names = settings.losses or tuple(LOSSES)
    unknown = [name for name in names if name not in LOSSES]
    if unknown:
        raise CannotMeasureError(f"--losses must be of {', '.join(LOSSES)}; there is no {', '.join(unknown)}")
    sizes = settings.sizes or ((256, 1024, 4096, 8192) if device.on_gpu() else (64, 256))
    compared = tuple(size for size in sizes if size <= COMPARED_UP_TO)
    found = {}
    if compared:
        of_losses = ", ".join(settings.losses) or "all losses"
        title = f"the CPU's values at B = {', '.join(f'{size:,}' for size in compared)} of {of_losses}"
        found[title] = lambda: measure_reference(settings.output_dir, compared)
    found |= {f"product, B = {size:,}": lambda size=size: measure_product(size) for size in sizes}
    for name, way, size in in_order(names, sizes):
        call = {"name": name, "way": way, "size": size, "folder": settings.output_dir}
        found[f"{LOSSES[name]}, {way}, B = {size:,}"] = lambda call=call: measure(**call)
    return found


def in_order(names, sizes) -> list[tuple[str, str, int]]:
    """EET first, then all losses at the middle sizes, compiled before not."""
    distance_to_middle = {size: abs(2 * place - len(sizes) + 1) for place, size in enumerate(sizes)}
    cells = [(name, way, size) for name in names for way in reversed(WAYS) for size in sizes]
    return sorted(cells, key=lambda cell: (0, 0) if cell[0] == "eet" else (1, distance_to_middle[cell[2]]))


def measure_product(size: int) -> dict:
    """Times one matrix product of the batch with itself, which no exact loss over all pairs can do without."""
    import tensorflow as tf

    x = tf.constant(draw(size)[1])
    product = tf.function(lambda: tf.matmul(x, x, transpose_b=True))
    first = timing.first_call(product, _wait)
    return {"name": "product", "size": size, "ms": timing.milliseconds(product, _wait), "first_call_s": first}


def measure(name: str, way: str, size: int, folder: str) -> dict:
    """Times a loss with its gradient, takes its memory, and compares it with the CPU's."""
    import tensorflow as tf

    both = tf.function(value_and_gradient(name), jit_compile=True if WAYS[way] else None)
    batch = [tf.constant(array) for array in draw(size)]

    def call():
        return both(*batch)[1]

    row = {"name": name, "way": way, "size": size, "first_call_s": timing.first_call(call, _wait)}
    with device.PeakMemory() as memory:
        _wait(call())
    row |= {"ms": timing.milliseconds(call, _wait), "megabytes": memory.megabytes}
    return row | differences(both(*batch), os.path.join(folder, "references.npz"), name, size)


def _wait(result) -> None:
    """Reads one number, which is there once all that was queued before it is done."""
    result[0, 0].numpy()


def differences(found, path: str, name: str, size: int) -> dict:
    """How far value and gradient are from the CPU's, as a share of its largest entry; empty if that is not known."""
    if size > COMPARED_UP_TO or not os.path.exists(path):
        return {}
    with np.load(path) as references:
        if f"{name}:{size}:value" not in references:
            return {}
        expected = [references[f"{name}:{size}:{what}"] for what in ("value", "gradient")]
    off = [
        np.max(np.abs(one.numpy() - other)) / max(np.max(np.abs(other)), 1e-30) for one, other in zip(found, expected)
    ]
    off = np.nan_to_num(off, nan=1e9, posinf=1e9)  # JSON knows neither
    return {"value_off": float(off[0]), "gradient_off": float(off[1])}


def measure_reference(folder: str, sizes: tuple[int, ...]) -> dict:
    """Has a process that sees no GPU calculate values and gradients, as nothing in it can depend on one."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}
    arguments = ["--only=references", f"--sizes={','.join(map(str, sizes))}"]
    processes.printed_by([sys.executable, *sys.argv, *arguments], environment)
    return {"megabytes_on_disk": os.path.getsize(os.path.join(folder, "references.npz")) / 2**20}


def write_references(settings: Settings) -> None:
    """Writes values and gradients of the losses, calculated eagerly."""
    import tensorflow as tf

    from eet_tf.files import replaced

    arrays = {}
    for size in settings.sizes:
        batch = [tf.constant(array) for array in draw(size)]
        for name in settings.losses or LOSSES:
            value, gradient = value_and_gradient(name)(*batch)
            arrays |= {f"{name}:{size}:value": value.numpy(), f"{name}:{size}:gradient": gradient.numpy()}
    with replaced(os.path.join(settings.output_dir, "references.npz")) as aside:
        np.savez(aside, **arrays)


def line(row: dict, rows: dict) -> str:
    """One row in words."""
    if "ms" not in row:
        return f"{row['megabytes_on_disk']:.1f} MB on disk"
    text = f"{row['ms']:.2f} ms"
    if "megabytes" in row:
        text += f", {row['megabytes']:,.0f} MB"
    text += f", first call {row['first_call_s']:.1f} s"
    if "gradient_off" in row:
        text += f"; value off by {row['value_off']:.0e}, gradient by {row['gradient_off']:.0e} of the CPU's"
        text += ", WHICH IS NO ROUNDING" if row["gradient_off"] > DIFFERS else ""
    return text


def table(rows: list[dict]) -> str:
    """Tables of times, memory, first calls and differences."""
    rows = [row for row in rows if "ms" in row]
    head = f"Embeddings `[B, {DIM}]`, {PHOTOS_PER_CLASS} photos of each product; plain graph / compiled by XLA.\n"
    shown = {
        "Milliseconds, forward and backward": lambda row: f"{row['ms']:.2f}",
        "Memory over the inputs, MB": lambda row: f"{row['megabytes']:,.0f}" if "megabytes" in row else "",
        "First call with tracing and compilation, s": lambda row: f"{row['first_call_s']:.1f}",
        "Largest difference of the gradient from the CPU's, over its largest entry": lambda row: (
            f"{row['gradient_off']:.0e}" if "gradient_off" in row else ""
        ),
    }
    return head + "".join(_one_table(title, show, rows) for title, show in shown.items())


def _one_table(title: str, show, rows: list[dict]) -> str:
    sizes = sorted({row["size"] for row in rows})
    cells = {(row["name"], row.get("way"), row["size"]): show(row) for row in rows}
    text = f"\n{title}, at B =\n\n| | {' | '.join(f'{size:,}' for size in sizes)} |\n|---|{'---|' * len(sizes)}\n"
    for name, title_of_row in {"product": "one matrix product", **LOSSES}.items():
        ways = (None,) if name == "product" else tuple(WAYS)
        values = [[cells.get((name, way, size), "") for way in ways] for size in sizes]
        shown = [" / ".join(value or "-" for value in pair) if any(pair) else "" for pair in values]
        if any(shown):
            text += f"| {title_of_row} | {' | '.join(shown)} |\n"
    return text
