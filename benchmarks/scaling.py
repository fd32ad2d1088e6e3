"""What a step needs on many GPUs, by arithmetic: nothing is measured here, and no GPU is needed.

    python benchmarks/scaling.py --photos_per_gpu=64 --embedding_dim=512 --examples_per_class=4

For the embeddings, labels and sums of classes that EET sends around, as `eet_tf/replicas.py` and
`eet_tf/pairs/class_runs.py` do it, against what training costs with any loss: the network's own work and the exchange
of its gradients. Of the loss only matrix multiplications are counted; the rest takes longer
(docs/performance.md).
"""

import sys

from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_integer("photos_per_gpu", 64, "Photos of a batch on each GPU.", lower_bound=1)
flags.DEFINE_integer("examples_per_class", 4, "Photos of each product in a batch.", lower_bound=1)
flags.DEFINE_integer("embedding_dim", 512, "Length of the embedding.", lower_bound=1)
flags.DEFINE_integer("memory_size", 0, "Photos of past batches, --memory_size of train/main.py.", lower_bound=0)
flags.DEFINE_float("parameters", 25.6e6, "Weights of the network; ResNet-50.", lower_bound=1)
flags.DEFINE_float("network_gflops", 24.6, "Work of a photo, forward and backward; ResNet-50 at 224 px: 3 x 8.2.")
flags.DEFINE_float(
    "half_tflops",
    75,
    "What a GPU reaches in half precision on the network; an NVIDIA H200 measured: 3,034 photos/s of ResNet-50.",
    lower_bound=0.001,
)
flags.DEFINE_float(
    "single_tflops", 15, "TFLOP/s of a GPU in float32, for the matrix multiplications of the loss.", lower_bound=0.001
)
flags.DEFINE_float("inside_gb", 150, "GB/s of a GPU to the others of its machine.", lower_bound=0.001)
flags.DEFINE_float("between_gb", 25, "GB/s from a machine to the next one of the ring: 200 Gbit/s.", lower_bound=0.001)
flags.DEFINE_float("hop_us", 15, "Microseconds from one GPU of a ring to the next.", lower_bound=0)
flags.DEFINE_integer("gpus_per_machine", 8, "GPUs of a machine.", lower_bound=1)

_FLOAT = 4
_GATHERS = 2 * 3  # embeddings, labels, sizes; TensorFlow gathers the shape of each first
_WAY_BACK = 2  # the gradient of what was gathered asks for sizes again
_SUMS = 3  # the nearest pairs of classes; their decays; the gradient of these
_NUMBERS = 3 + 1 + 1  # in these, for each photo
_PRODUCTS = 4  # triplets, class distances, these again for the gradient, and the gradient
_MATRICES = 3  # squared distances, and their minima along one axis and along both
_MEMORY_GATHERS = 2 * 2


def step(num_gpus: int) -> dict[str, float]:
    """Bytes that each GPU receives, floating point operations, and the time of both, of one step on some GPUs."""
    photos = num_gpus * FLAGS.photos_per_gpu
    classes = photos / FLAGS.examples_per_class
    others = (num_gpus - 1) / num_gpus
    rows = photos * FLAGS.embedding_dim * _FLOAT
    gathered = others * rows * (2 if FLAGS.memory_size else 1)  # the memory takes them a second time
    given_back = 2 * others * rows  # the gradient of what was gathered is summed over all
    sums = 2 * others * _NUMBERS * photos * _FLOAT  # as many numbers as photos, however many classes there are
    weights = 2 * others * FLAGS.parameters * _FLOAT
    flops = _PRODUCTS * 2 * FLAGS.photos_per_gpu * photos * FLAGS.embedding_dim
    if FLAGS.memory_size:  # triplets are looked for once more, in batch and memory
        flops += 2 * FLAGS.photos_per_gpu * (photos + FLAGS.memory_size) * FLAGS.embedding_dim
    speed = 1e9 * (FLAGS.inside_gb if num_gpus <= FLAGS.gpus_per_machine else FLAGS.between_gb)
    messages = _GATHERS + _WAY_BACK + 2 * _SUMS + (_MEMORY_GATHERS if FLAGS.memory_size else 0)
    hops = messages * (num_gpus - 1) * FLAGS.hop_us / 1000
    return {
        "photos in the batch": photos,
        "products in the batch": classes,
        "embeddings gathered, MB": gathered / 1e6,
        "their gradient, MB": given_back / 1e6,
        "sums of classes, MB": sums / 1e6,
        "gradients of the network, MB": weights / 1e6,
        "matrices per GPU, MB": _MATRICES * FLAGS.photos_per_gpu * photos * _FLOAT / 1e6,
        "matrix multiplications of EET, GFLOP": flops / 1e9,
        "network, GFLOP": FLAGS.photos_per_gpu * FLAGS.network_gflops,
        "network, ms": FLAGS.photos_per_gpu * FLAGS.network_gflops / FLAGS.half_tflops,
        "its gradients sent, ms": 1000 * weights / speed,
        "matrix multiplications of EET, ms": flops / 1e9 / FLAGS.single_tflops,
        "embeddings sent, ms": 1000 * (gathered + given_back) / speed,
        "sums of classes sent, ms": 1000 * sums / speed,
        "latency of EET's messages, ms": hops,
    }


def table(counts: tuple[int, ...] = (1, 8, 64)) -> str:
    """A column for each number of GPUs."""
    columns = [step(count) for count in counts]
    lines = [
        f"{FLAGS.photos_per_gpu} photos per GPU, {FLAGS.examples_per_class} of each product, embeddings of "
        f"{FLAGS.embedding_dim}" + (f", a memory of {FLAGS.memory_size:,}" if FLAGS.memory_size else "") + ":",
        "",
        "| GPUs | " + " | ".join(map(str, counts)) + " |",
        "|---|" + "---|" * len(counts),
    ]
    lines += [f"| {name} | {' | '.join(_rounded(column[name]) for column in columns)} |" for name in columns[0]]
    return "\n".join(lines) + "\n"


def _rounded(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def main(argv):
    """Prints the table."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown argument {argv[1]!r}; flags begin with --")
    sys.stdout.write(table())


if __name__ == "__main__":
    app.run(main)
