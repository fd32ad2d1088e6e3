"""Losses of pytorch-metric-learning on the same batches, where it and PyTorch with CUDA are installed."""

from __future__ import annotations

from gpu_parts import device, timing
from gpu_parts.losses import DIM, PHOTOS_PER_CLASS
from gpu_parts.settings import CannotMeasureError, Settings

LOSSES = {
    "batch_hard": "TripletMarginLoss, BatchHardMiner",
    "multi_similarity": "MultiSimilarityLoss",
    "sup_con": "SupConLoss",
}


def machine() -> dict:
    """Names the device and the versions that figures depend on."""
    import pytorch_metric_learning
    import torch

    return {
        "device": torch.cuda.get_device_name(0),
        "driver": device.driver_version(),
        "CUDA": str(torch.version.cuda),
        "precision of float32 products": torch.get_float32_matmul_precision(),
        "PyTorch": str(torch.__version__),
        "pytorch-metric-learning": pytorch_metric_learning.__version__,
    }


def measurements(settings: Settings) -> dict:
    """All measurements by name."""
    try:
        import pytorch_metric_learning  # noqa: F401
        import torch
    except ImportError as error:
        raise CannotMeasureError(f"it needs PyTorch and itself ({error})") from error
    if not torch.cuda.is_available():
        raise CannotMeasureError("PyTorch sees no GPU")
    sizes = settings.sizes or (256, 1024, 4096, 8192)
    return {
        f"{title}, B = {size:,}": lambda name=name, size=size: measure(name, size)
        for name, title in LOSSES.items()
        for size in sizes
    }


def make(name: str):
    """Returns a loss as a function of embeddings and labels."""
    from pytorch_metric_learning import losses, miners

    if name == "batch_hard":
        loss, miner = losses.TripletMarginLoss(), miners.BatchHardMiner()
        return lambda embeddings, labels: loss(embeddings, labels, miner(embeddings, labels))
    return {"multi_similarity": losses.MultiSimilarityLoss, "sup_con": losses.SupConLoss}[name]()


def measure(name: str, size: int) -> dict:
    """Times a loss with its gradient and takes its memory."""
    import torch

    loss = make(name)
    labels, embeddings = (torch.from_numpy(each).cuda() for each in device.draw_batch(size, DIM, PHOTOS_PER_CLASS))
    embeddings.requires_grad_(True)

    def call():
        (gradient,) = torch.autograd.grad(loss(embeddings, labels), [embeddings])
        return gradient

    def wait(result):
        result[0, 0].item()

    row = {"name": name, "size": size, "first_call_s": timing.first_call(call, wait)}
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    wait(call())
    row["megabytes"] = (torch.cuda.max_memory_allocated() - before) / 2**20
    return row | {"ms": timing.milliseconds(call, wait)}


def line(row: dict, rows: dict) -> str:
    """One row in words."""
    return f"{row['ms']:.2f} ms, {row['megabytes']:,.0f} MB"


def table(rows: list[dict]) -> str:
    """Milliseconds and megabytes."""
    sizes = sorted({row["size"] for row in rows})
    cells = {(row["name"], row["size"]): f"{row['ms']:.2f}, {row['megabytes']:,.0f} MB" for row in rows}
    text = "Milliseconds, forward and backward, and memory over the inputs, at B =\n\n"
    text += f"| | {' | '.join(f'{size:,}' for size in sizes)} |\n|---|{'---|' * len(sizes)}\n"
    for name, title in LOSSES.items():
        text += f"| {title} | {' | '.join(cells.get((name, size), '') for size in sizes)} |\n"
    return text
