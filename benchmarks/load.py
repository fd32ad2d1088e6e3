"""How many photos a second a served embedder takes, and how long a caller waits: what a server is sized by.

    python benchmarks/load.py --saved_model=runs/mine/serving/embedder
    python benchmarks/load.py --backbone=mobilenet_v2 --image_size=224

In a process of its own for each number of cores: callers that ask again as soon as they are answered, for a fixed time,
each with one request of so many photos (drawn, JPEG of 640 x 480). It is the SavedModel without the server around it:
no network, and no batching of several callers' photos, which a server does between.
"""

import json
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
    """Each load in turn."""
    import tensorflow as tf

    from eet_tf.serving import newest_version

    serve = tf.saved_model.load(newest_version(FLAGS.saved_model)).signatures["serving_default"]
    photos, rows = draw_photos(32), []
    for size, callers in LOADS:
        requests = [tf.constant([photos[(start + row) % 32] for row in range(size)]) for start in range(8)]
        serve(image_bytes=requests[0])
        rows.append({"cores": FLAGS.only, "size": size, "callers": callers, **_load(serve, requests, callers)})
    return rows


def _load(serve, requests, callers: int) -> dict:
    """Callers that ask again as soon as they are answered."""
    import numpy as np

    waits, stop = [[] for _ in range(callers)], time.perf_counter() + FLAGS.seconds

    def call(caller: int) -> None:
        number = caller
        while time.perf_counter() < stop:
            start = time.perf_counter()
            serve(image_bytes=requests[number % len(requests)])["embedding"].numpy()
            waits[caller].append(time.perf_counter() - start)
            number += 1

    threads, start = [threading.Thread(target=call, args=[caller]) for caller in range(callers)], time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds, every = time.perf_counter() - start, np.concatenate(waits)
    p50, p99 = 1000 * np.percentile(every, [50, 99])
    return {"photos_per_second": len(every) * requests[0].shape[0] / seconds, "p50": p50, "p99": p99}


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
    with tempfile.TemporaryDirectory() as folder:
        saved_model = FLAGS.saved_model
        if saved_model is None:
            import eet_tf

            embedder = eet_tf.build_embedder(FLAGS.backbone, 512, FLAGS.image_size)
            saved_model = eet_tf.export_embedder(embedder, folder)
        rows = [row for cores in CORES if cores <= os.cpu_count() for row in measured(cores, saved_model)]
    what = FLAGS.saved_model or f"{FLAGS.backbone}, {FLAGS.image_size} px"
    lines = [f"{what}; JPEG of 640 x 480.", "", "| cores | photos a request | callers | photos/s | p50 ms | p99 ms |"]
    lines.append("|---|---|---|---|---|---|")
    for row in rows:
        lines.append(
            f"| {row['cores']} | {row['size']} | {row['callers']} | {row['photos_per_second']:.0f} | "
            f"{row['p50']:.1f} | {row['p99']:.1f} |"
        )
    write_table(FLAGS.output_dir, "\n".join(lines) + "\n")


if __name__ == "__main__":
    app.run(main)
