"""How many photos a second a served embedder takes, and how long a caller waits: what a server is sized by.

    python benchmarks/load.py --saved_model=runs/mine/serving/embedder
    python benchmarks/load.py --backbone=mobilenet_v2 --image_size=224
    python benchmarks/load.py --saved_model=runs/mine/served/embedder --server=localhost:8500 --server_pid=4711

In a process of its own for each number of cores: callers that ask again as soon as they are answered, for a fixed time,
each with one request of so many photos (drawn, JPEG of 640 x 480). It is the SavedModel without the server around it:
no network, and no batching of several callers' photos, which a server does between.

With --server a running one is asked the same, by gRPC or REST, beside the SavedModel if that is named too. Its CPU
seconds are those of the process --server_pid, which must run on this machine.
"""

import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time

from absl import app, flags
from tables import write_table

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

FLAGS = flags.FLAGS
CORES, LOADS = (1, 2), ((1, 1), (1, 2), (1, 4), (1, 8), (4, 2), (16, 2))  # photos of a request, callers
flags.DEFINE_string("saved_model", None, "A SavedModel of export/main.py; by default one of --backbone, untrained.")
flags.DEFINE_string("backbone", "mobilenet_v2", "Of the embedder, if no --saved_model is given.")
flags.DEFINE_integer("image_size", 224, "Its side, if no --saved_model is given.")
flags.DEFINE_string("server", None, "Also ask a server: host:8500 (gRPC) or http://host:8501 (REST).")
flags.DEFINE_string("server_model", "embedder", "The embedder's name on --server.")
flags.DEFINE_integer("server_pid", None, "Its process, if it runs on this machine: for its CPU seconds.")
flags.DEFINE_integer("seconds", 10, "Of each measurement.", lower_bound=1)
flags.DEFINE_string("output_dir", "runs/load", "Where the table goes.")
flags.DEFINE_integer("only", None, "Number of cores, for this tool's own use: measures on so many and prints.")


def draw_photos(count: int) -> list[bytes]:
    """Smooth pictures with some noise, which compress about as photos do (0.1 MB each)."""
    import numpy as np
    import tensorflow as tf

    rng = np.random.default_rng(0)
    photos = []
    for _ in range(count):
        smooth = tf.image.resize(rng.integers(0, 256, [12, 16, 3]).astype("f4"), [480, 640], "bicubic").numpy()
        pixels = np.clip(smooth + rng.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8)
        photos.append(tf.io.encode_jpeg(pixels, quality=90).numpy())
    return photos


def measure() -> list[dict]:
    """The SavedModel in this process under each load in turn."""
    import tensorflow as tf

    from eet_tf.serving import newest_version

    serve = tf.saved_model.load(newest_version(FLAGS.saved_model)).signatures["serving_default"]
    ask = lambda photos: serve(image_bytes=tf.constant(photos))["embedding"].numpy()  # noqa: E731
    return [{"where": f"{FLAGS.only}", **row} for row in _loads(lambda callers, size: ask, time.process_time)]


def measure_server() -> list[dict]:
    """A running server under each load in turn."""
    from eet_tf.client import EmbeddingClient

    clients = []

    def connected(callers: int, size: int):
        client = EmbeddingClient(FLAGS.server, FLAGS.server_model, batch_size=size, max_in_flight=callers)
        clients.append(client)
        return client.embed

    try:
        return [{"where": "server", **row} for row in _loads(connected, _cpu_seconds_of_server)]
    finally:
        for client in clients:
            client.close()


def _cpu_seconds_of_server() -> float:
    """User and system time of all threads of the server so far; not a number if it is not known."""
    if FLAGS.server_pid is None:
        return float("nan")
    with open(f"/proc/{FLAGS.server_pid}/stat", encoding="utf-8") as file:
        fields = file.read().rpartition(")")[2].split()  # the name before may have spaces
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _loads(connected, cpu_seconds) -> list[dict]:
    """Each load in turn: `connected(callers, photos of a request)` is a function that embeds a list of photos."""
    photos, rows = draw_photos(32), []
    for size, callers in LOADS:
        requests = [[photos[(start + row) % 32] for row in range(size)] for start in range(8)]
        ask = connected(callers, size)
        ask(requests[0])
        rows.append({"size": size, "callers": callers, **_load(ask, requests, callers, cpu_seconds)})
    return rows


def _load(ask, requests, callers: int, cpu_seconds) -> dict:
    """Callers that ask again as soon as they are answered."""
    import numpy as np

    waits, stop = [[] for _ in range(callers)], time.perf_counter() + FLAGS.seconds

    def call(caller: int) -> None:
        number = caller
        while time.perf_counter() < stop:
            start = time.perf_counter()
            ask(requests[number % len(requests)])
            waits[caller].append(time.perf_counter() - start)
            number += 1

    threads, start = [threading.Thread(target=call, args=[caller]) for caller in range(callers)], time.perf_counter()
    cpu = cpu_seconds()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds, cpu, every = time.perf_counter() - start, cpu_seconds() - cpu, np.concatenate(waits)
    photos = len(every) * len(requests[0])
    p50, p99 = 1000 * np.percentile(every, [50, 99])
    return {"photos_per_second": photos / seconds, "p50": p50, "p99": p99, "cpu": 1000 * cpu / photos}


def measured(cores: int, saved_model: str) -> list[dict]:
    """On so many cores, in a process that never sees more."""
    command = [sys.executable, *sys.argv, f"--only={cores}", f"--saved_model={saved_model}"]
    available = sorted(os.sched_getaffinity(0))[:cores]
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        preexec_fn=lambda: os.sched_setaffinity(0, available),
    )
    if done.returncode:
        sys.exit(done.returncode)
    return json.loads(done.stdout.splitlines()[-1])


def main(argv):
    """Measures on each number of cores, writes the table."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown argument {argv[1]!r}; flags begin with --")
    if FLAGS.only:
        print(json.dumps(measure()))
        return
    from eet_tf.client import ServingError

    if FLAGS.server_pid is not None and not os.path.exists(f"/proc/{FLAGS.server_pid}/stat"):
        sys.exit(
            f"error: --server_pid must be a process of this machine. Received: --server_pid={FLAGS.server_pid}, which "
            "is none. Leave it out if the server runs elsewhere."
        )
    rows = [] if FLAGS.server and not FLAGS.saved_model else measure_saved_model()
    if FLAGS.server:
        try:
            rows += measure_server()
        except ServingError as error:
            sys.exit(f"error: {error}")
    what = FLAGS.saved_model or FLAGS.server or f"{FLAGS.backbone}, {FLAGS.image_size} px"
    lines = [f"{what}; JPEG of 640 x 480.", ""]
    lines.append("| cores | photos a request | callers | photos/s | p50 ms | p99 ms | CPU ms a photo |")
    lines.append("|---|---|---|---|---|---|---|")
    for row in rows:
        cpu = "not known" if math.isnan(row["cpu"]) else f"{row['cpu']:.1f}"
        lines.append(
            f"| {row['where']} | {row['size']} | {row['callers']} | {row['photos_per_second']:.0f} | "
            f"{row['p50']:.1f} | {row['p99']:.1f} | {cpu} |"
        )
    write_table(FLAGS.output_dir, "\n".join(lines) + "\n")


def measure_saved_model() -> list[dict]:
    """The SavedModel on each number of cores; without --saved_model one of --backbone."""
    with tempfile.TemporaryDirectory() as folder:
        saved_model = FLAGS.saved_model
        if saved_model is None:
            import eet_tf

            embedder = eet_tf.build_embedder(FLAGS.backbone, 512, FLAGS.image_size)
            saved_model = eet_tf.export_embedder(embedder, folder)
        return [row for cores in CORES if cores <= os.cpu_count() for row in measured(cores, saved_model)]


if __name__ == "__main__":
    app.run(main)
