"""Which method for which catalogue: trains each with the same embedder, batches, steps and seeds, and writes tables.

    python benchmarks/methods.py --recipe=fashion --data_dir=DATA/fashion --weights=MOBILENET_V2.h5
    python benchmarks/methods.py --recipe=grocery --data_dir=DATA/grocery --weights=MOBILENET_V2.h5 \
        --methods=batch_hard,eet --seeds=5 --jobs=2

Every finished run is a file there, and is not trained again: killed at any moment, the same command goes on. With
`--measure_on=held_out` a quarter of the training products is kept aside and measured in place of the test products:
that is where settings are to be chosen. Any setting of the recipe can be changed there, and any number among a loss's
arguments, several with commas between:

    python benchmarks/methods.py --recipe=fashion ... --measure_on=held_out --set=crop=0.6,loss.margin=0.5 \
        --output_dir=runs/c

With `--tuned` each method first gets the same search of its own: nine trials on held-out products, three learning rates
times three values of its most important argument (`contenders.py`), of which the one with the best mAP@R among all
training photos is then trained from each seed. Its table leads with R@1 in the whole catalogue:

    python benchmarks/methods.py --recipe=grocery ... --tuned --output_dir=runs/tuned
"""

import concurrent.futures
import csv
import dataclasses
import json
import os
import subprocess
import sys
import time

from absl import app, flags
from contenders import BASELINE_NAMES, CLASS_VECTORS_RATE, EVERY, LEARNING_RATES, METHODS, RECIPES, TRIALS

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

FLAGS = flags.FLAGS
_KS = (1, 10, 100)
_TRIAL = "trial-"

flags.DEFINE_enum("recipe", "fashion", list(RECIPES), "What the methods share: data, embedder, batches, steps.")
flags.DEFINE_string("data_dir", None, "Where the photos are.")
flags.DEFINE_string("weights", None, "Path of the backbone's weights; the recipes of mobilenet_v2 need ImageNet's.")
flags.DEFINE_string("output_dir", None, "Where runs and tables go; runs/methods/<recipe> by default.")
flags.DEFINE_list("methods", None, "Which to train, with commas between; by default the recipe's, or all.")
flags.DEFINE_integer("seeds", None, "Trainings of each; by default the recipe's number.", lower_bound=1)
flags.DEFINE_integer("jobs", 1, "Trainings at once; the processor's threads are shared among them.", lower_bound=1)
flags.DEFINE_list("set", [], "Settings of the recipe to change, name=value with commas between.")
flags.DEFINE_enum("measure_on", "test", ["test", "held_out"], "Test products, or a quarter of the training products.")
flags.DEFINE_bool("tuned", False, "Search the settings of each method on held-out products first, and use the best.")
flags.DEFINE_bool("keep_embeddings", False, "Keep each run's embeddings, which benchmarks/postprocessing.py reads.")
flags.DEFINE_string("only", None, "METHOD:SEED or METHOD:trial-N, for this tool's own use: trains one and ends.")


def recipe() -> dict:
    """What the methods of a table share, with the changes asked for.

    Raises:
        ValueError: if a change names no setting, or gives a value of another kind.
    """
    shared = dict(RECIPES[FLAGS.recipe])
    kinds = {name: str if value is None else type(value) for name, value in shared.items()}
    changeable = [name for name, kind in kinds.items() if kind in (str, int, float)]
    for change in FLAGS.set:
        name, _, text = change.partition("=")
        if name not in changeable and not name.startswith("loss."):
            names = ", ".join([*changeable, "loss.ARGUMENT"])
            raise ValueError(f"--set must be name=value with a name of {names}. Received: {change!r}.")
        kind = kinds.get(name, float)
        try:
            shared[name] = kind(text)
        except ValueError:
            raise ValueError(f"--set={name} must be {kind.__name__}. Received: {text!r}.") from None
    return shared


def baseline() -> str:
    """The method that the others of a table are compared with."""
    return RECIPES[FLAGS.recipe].get("baseline", "batch_hard")


def settings_of(method: str, run: int | str) -> dict:
    """All that decides what a training gives: of a seed, or of a trial, which has the seed 0."""
    _, loss, arguments, needs = METHODS[method]
    shared = {name: value for name, value in recipe().items() if name not in ("seeds", "methods", "baseline")}
    changed = {name: shared.pop(name) for name in list(shared) if name.startswith("loss.")}
    settings = {
        **shared,
        "measure_on": FLAGS.measure_on,
        "loss": loss,
        "arguments": {**arguments, **{name.removeprefix("loss."): value for name, value in changed.items()}},
        "needs": list(needs),
        "seed": 0 if is_trial(run) else run,
    }
    if not FLAGS.tuned:
        return settings
    found = trial(method, int(run.removeprefix(_TRIAL))) if is_trial(run) else chosen(method)
    measure_on = "held_out" if is_trial(run) else "test"
    arguments = {**settings["arguments"], **found["arguments"]}
    return {**settings, "learning_rate": found["learning_rate"], "arguments": arguments, "measure_on": measure_on}


def is_trial(run: int | str) -> bool:
    """Whether a run is one of the search for settings, by its name, and no seed."""
    return isinstance(run, str)


def trials(method: str) -> list[str]:
    """The names of the runs that search the settings of a method."""
    return [f"{_TRIAL}{number}" for number in range(len(LEARNING_RATES) * len(TRIALS[method]))]


def trial(method: str, number: int) -> dict:
    """What one of them tries."""
    rate, values = divmod(number, len(TRIALS[method]))
    return {"learning_rate": LEARNING_RATES[rate], "arguments": TRIALS[method][values]}


def chosen(method: str) -> dict:
    """What was best on held-out products, by mAP@R in the whole of the training photos."""
    from eet_tf.evaluation.comparison import ClassResults

    names = trials(method)
    values = [ClassResults.read(run_file(method, name) + "-whole.csv").mean("map@r") for name in names]
    best = max(range(len(values)), key=values.__getitem__)
    return {**trial(method, best), "held_out_map@r": values[best]}


def load_catalogs(settings: dict):
    """What to learn from, and what to measure on."""
    from eet_tf import data

    catalog = data.load_dataset(settings["dataset"], FLAGS.data_dir)
    if settings["category_column"]:
        catalog = catalog.categorized_by(settings["category_column"])
    train = catalog.split("train").check_trainable()
    return train.hold_out(0.25, seed=0) if settings["measure_on"] == "held_out" else (train, catalog.split("test"))


def pixels_of(catalog, image_size: int):
    """All photos, decoded once: `[N, S, S, 3]` uint8."""
    import numpy as np

    from eet_tf import data

    return np.concatenate([np.rint(batch).astype(np.uint8) for batch in data.gallery_dataset(catalog, image_size)])


def batches_of(train, pixels, settings: dict, attributes):
    """The same batches for every method with the same needs and seed."""
    import tensorflow as tf

    from eet_tf import data

    sampler = data.PKSampler(
        train.labels,
        settings["classes_per_batch"],
        settings["examples_per_class"],
        settings["seed"],
        train.categories,
        settings["category_probability"] if "categories" in settings["needs"] else 0.0,
    )
    augment = data.augmentation(settings["image_size"], settings["crop"], color=0, cutout=0, seed=settings["seed"])

    def batches():
        for rows in sampler.batches(epoch=0):
            label = train.labels[rows]
            target = label if attributes is None else {"label": label, "attributes": attributes.values[rows]}
            yield pixels[rows], target

    first = next(batches())
    signature = tf.nest.map_structure(lambda array: tf.TensorSpec(array.shape, array.dtype), first)
    dataset = tf.data.Dataset.from_generator(batches, output_signature=signature)
    dataset = dataset.enumerate().map(lambda number, batch: (augment(batch[0], number), batch[1]), os.cpu_count())
    dataset = dataset.prefetch(2)
    options = tf.data.Options()
    options.autotune.enabled = False  # its thread may take a minute to end
    return dataset.with_options(options)


def make_model(embedder, settings: dict, num_classes: int):
    """The embedder with the method around it, compiled."""
    import keras
    import rivals

    import eet_tf

    warmup = settings["steps"] // 10
    rate = keras.optimizers.schedules.CosineDecay(
        0.0,
        settings["steps"] - warmup,
        alpha=0.01,
        warmup_target=settings["learning_rate"],
        warmup_steps=warmup,
    )
    optimizer = keras.optimizers.Adam(rate)
    name, arguments = settings["loss"], dict(settings["arguments"])
    if name == "NormalizedLogits":
        model = keras.Model(embedder.input, rivals.NormalizedLogits(num_classes, **arguments)(embedder.output))
        model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        return model
    room = keras.losses if name == "Circle" else eet_tf
    memory = (settings["memory_size"], settings["memory_start"]) if "memory" in settings["needs"] else ()
    model = eet_tf.MetricLearner(embedder, *memory)
    attribute_loss = eet_tf.AttributeLoss() if "attributes" in settings["needs"] else None
    if "classes" not in settings["needs"]:
        model.compile(optimizer, getattr(room, name)(**arguments), attribute_loss)
        return model
    weight = arguments.pop("softmax_weight", None)
    if weight is None:
        loss = getattr(eet_tf, name)(num_classes=num_classes, **arguments)
    else:
        second = eet_tf.NormalizedSoftmaxLoss(num_classes)
        loss = eet_tf.CombinedLoss([getattr(eet_tf, name)(**arguments), second], [1.0, weight])
    model.compile(optimizer, loss, class_vectors_rate=CLASS_VECTORS_RATE)
    return model


def train_one(method: str, run: int | str) -> None:
    """Trains one method from one seed, or for one trial, and writes its figures."""
    import keras
    import numpy as np
    import tensorflow as tf

    import eet_tf
    from eet_tf import data
    from eet_tf.evaluation.callback import is_query, rank_catalog
    from eet_tf.evaluation.comparison import ClassResults
    from eet_tf.files import replaced

    threads = max(1, os.cpu_count() // FLAGS.jobs)
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    settings = settings_of(method, run)
    tf.get_logger().setLevel("ERROR")
    keras.utils.set_random_seed(settings["seed"])
    for policy in {"mixed_bfloat16", "mixed_float16"}.intersection(settings["needs"]):
        keras.mixed_precision.set_global_policy(policy)
    train, measured = load_catalogs(settings)
    attributes = data.encode_attributes(train, settings["attributes"]) if "attributes" in settings["needs"] else None
    embedder = eet_tf.build_embedder(
        settings["backbone"],
        settings["embedding_dim"],
        settings["image_size"],
        FLAGS.weights if settings["is_pretrained"] else None,
        settings["pooling"],
        freeze_batch_norm=settings["is_pretrained"],
        attribute_names=attributes.names if attributes else (),
        freeze_until=settings["fixed_until"],
    )
    model = make_model(embedder, settings, train.num_classes)
    dataset = batches_of(train, pixels_of(train, settings["image_size"]), settings, attributes)
    started = time.monotonic()
    history = model.fit(dataset, steps_per_epoch=settings["steps"], verbose=0, shuffle=False).history
    seconds = time.monotonic() - started

    def embeddings_of(catalog):
        outputs = embedder.predict(pixels_of(catalog, settings["image_size"]).astype("float32"), 256, verbose=0)
        return outputs["embedding"] if attributes else outputs

    embeddings = embeddings_of(measured)
    results = ClassResults.of(rank_catalog(embeddings, measured.labels, measured.roles), _KS, measured.label_skus)
    file = run_file(method, run)
    learned = embeddings_of(train)
    whole = rank_catalog(embeddings, measured.skus, measured.roles, other_embeddings=learned, other_labels=train.skus)
    whole = dataclasses.replace(whole, labels=measured.labels[is_query(len(measured), measured.roles)])
    ClassResults.of(whole, _KS, measured.label_skus).write(file + "-whole.csv")
    if FLAGS.keep_embeddings:
        kept = {"learned": learned, "embeddings": embeddings, "skus": np.asarray(measured.skus)}
        with replaced(file + ".npz") as aside, open(aside, "wb") as opened:
            np.savez(opened, **kept)
    with replaced(file + ".json") as aside, open(aside, "w", encoding="utf-8") as opened:
        json.dump({"settings": settings, "seconds": seconds, "loss": history["loss"][-1]}, opened, indent=1)
        opened.write("\n")
    results.write(file + ".csv")


def output_dir() -> str:
    """Where everything goes."""
    return FLAGS.output_dir or os.path.join("runs", "methods", FLAGS.recipe)


def run_file(method: str, run: int | str) -> str:
    """Where one run's figures are, without the ending."""
    return os.path.join(output_dir(), f"{method}-{run}")


def is_finished(method: str, run: int | str) -> bool:
    """Whether a run is there; refuses one that other settings made."""
    file = run_file(method, run)
    if not os.path.isfile(file + ".csv") or (FLAGS.keep_embeddings and not os.path.isfile(file + ".npz")):
        return False
    with open(file + ".json", encoding="utf-8") as opened:
        known = json.load(opened)["settings"]
    wanted = json.loads(json.dumps(settings_of(method, run)))
    different = [name for name in wanted if known.get(name) != wanted[name]]
    if different:
        sys.exit(f"error: {file}.json was made with another {', '.join(different)}. Give another --output_dir.")
    return True


def train_all(missing: list[tuple[str, int | str]]) -> None:
    """Trains these runs, each in a process of its own."""
    os.makedirs(output_dir(), exist_ok=True)
    with concurrent.futures.ThreadPoolExecutor(FLAGS.jobs) as pool:
        for number, run in enumerate(pool.map(train_apart, missing), start=1):
            name = run[1] if is_trial(run[1]) else f"seed {run[1]}"
            print(f"{number} of {len(missing)}: {run[0]}, {name}.", flush=True)


def train_apart(run: tuple[str, int | str]) -> tuple[str, int | str]:
    """Trains one run in a process of its own, which leaves nothing behind."""
    subprocess.run([sys.executable, *sys.argv, f"--only={run[0]}:{run[1]}"], check=True)
    return run


def write_tables(methods: list[str], seeds: int) -> None:
    """`table.csv`, `table.md` and `table.png` of all that is finished."""
    from eet_tf.evaluation.comparison import compare, mean_interval
    from eet_tf.files import replaced

    results = read_results(methods, seeds, ".csv")
    in_whole = read_results(methods, seeds, "-whole.csv") if FLAGS.tuned else results
    rows = []
    for method, runs in results.items():
        row = {"method": METHODS[method][0], "runs": len(runs)}
        for k in _KS:
            row[f"recall@{k}"], row[f"+-@{k}"] = mean_interval([run.mean(f"recall@{k}") for run in runs])
        if FLAGS.tuned:
            row["whole@1"], row["+-whole@1"] = mean_interval([run.mean("recall@1") for run in in_whole[method]])
            row["settings"] = described(chosen(method))
        if baseline() in results and method != baseline():
            comparison = compare(in_whole[baseline()], in_whole[method])
            row.update(difference=comparison.difference, low=comparison.low, high=comparison.high)
        row["seconds"] = min(seconds_of(method, seed) for seed in range(seeds))
        rows.append(row)
    folder = output_dir()
    with replaced(os.path.join(folder, "table.csv")) as aside, open(aside, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(max(rows, key=len)))
        writer.writeheader()
        writer.writerows(rows)
    with replaced(os.path.join(folder, "table.md")) as aside, open(aside, "w", encoding="utf-8") as file:
        file.write(as_markdown(rows))
    draw(rows, os.path.join(folder, "table.png"))
    print(as_markdown(rows))


def read_results(methods: list[str], seeds: int, ending: str) -> dict[str, list]:
    """What each run of each method found, product by product."""
    from eet_tf.evaluation.comparison import ClassResults

    return {method: [ClassResults.read(run_file(method, seed) + ending) for seed in range(seeds)] for method in methods}


def described(settings: dict) -> str:
    """Settings that were searched for, in a few words."""
    values = {"learning_rate": settings["learning_rate"], **settings["arguments"]}
    return ", ".join(f"{name} {value:g}" for name, value in values.items())


def seconds_of(method: str, seed: int) -> float:
    """How long a training took."""
    with open(run_file(method, seed) + ".json", encoding="utf-8") as file:
        return json.load(file)["seconds"]


def as_markdown(rows: list[dict]) -> str:
    """The table for a page, in percent."""
    return as_markdown_of_tuned(rows) if FLAGS.tuned else as_markdown_of_shared(rows)


def as_markdown_of_tuned(rows: list[dict]) -> str:
    """The table of methods that had a search of their own."""
    name, short = BASELINE_NAMES.get(baseline(), [METHODS[baseline()][0]] * 2)
    lines = [
        f"{rows[0]['runs']} runs each, with the best of {len(trials(baseline()))} settings on held-out products; mean "
        f"and 95 % interval over the runs; difference from {name} in R@1 in the whole catalogue, with its "
        "95 % interval by a paired bootstrap over products.",
        "",
        f"| method | R@1 in the whole catalogue | against {short} | R@1 among unseen products | settings |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        whole = f"{100 * row['whole@1']:.1f} ± {100 * row['+-whole@1']:.1f}"
        own = f"{100 * row['recall@1']:.1f} ± {100 * row['+-@1']:.1f}"
        lines.append(f"| {row['method']} | {whole} | {against_baseline(row)} | {own} | {row['settings']} |")
    return "\n".join(lines) + "\n"


def against_baseline(row: dict) -> str:
    """The difference from the baseline with its interval; bold where 0 is not in it."""
    if "difference" not in row:
        return ""
    text = f"{100 * row['difference']:+.1f} ({100 * row['low']:+.1f} to {100 * row['high']:+.1f})"
    return f"**{text}**" if row["low"] > 0 or row["high"] < 0 else text


def as_markdown_of_shared(rows: list[dict]) -> str:
    """The table of methods that share all settings."""
    name, short = BASELINE_NAMES.get(baseline(), [METHODS[baseline()][0]] * 2)
    lines = [
        f"{rows[0]['runs']} runs each; mean and 95 % interval over the runs; difference in R@1 from {name} "
        f"with the 95 % interval of a paired bootstrap over products.",
        "",
        f"| method | R@1 | R@10 | R@100 | R@1 against {short} | s |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        shares = [f"{100 * row[f'recall@{k}']:.1f} ± {100 * row[f'+-@{k}']:.1f}" for k in _KS]
        lines.append(f"| {row['method']} | {' | '.join(shares)} | {against_baseline(row)} | {row['seconds']:.0f} |")
    return "\n".join(lines) + "\n"


def draw(rows: list[dict], file: str) -> None:
    """R@1 of each method with its interval over the runs, best first; the line is what the others are compared with."""
    from matplotlib.figure import Figure

    rows = sorted(rows, key=lambda row: row["recall@1"])
    figure = Figure(figsize=(8, 0.6 + 0.34 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    values = [100 * row["recall@1"] for row in rows]
    errors = [100 * row["+-@1"] if row["runs"] > 1 else 0 for row in rows]
    axes.errorbar(values, range(len(rows)), xerr=errors, fmt="o", color="#1f5f8b", ecolor="#9bbbd0", elinewidth=3)
    for row in rows:
        if row["method"] == METHODS[baseline()][0]:
            axes.axvline(100 * row["recall@1"], color="#b0413e", linewidth=1, linestyle="--")
    axes.set_yticks(range(len(rows)), [row["method"] for row in rows])
    axes.set_xlabel("R@1 on unseen products, % (95 % interval over runs)")
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=140)


def main(argv):
    """Trains one run, or all that are missing, and then writes the tables."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown argument {argv[1]!r}; flags begin with --")
    if FLAGS.only:
        method, run = FLAGS.only.split(":")
        return train_one(method, run if run.startswith(_TRIAL) else int(run))
    try:
        shared = recipe()
    except ValueError as error:
        sys.exit(f"error: {error}")
    methods = FLAGS.methods or list(TRIALS if FLAGS.tuned else shared.get("methods", EVERY))
    unknown = [method for method in methods if method not in METHODS]
    if unknown:
        sys.exit(f"error: --methods must be of {', '.join(METHODS)}. Received: {', '.join(unknown)}.")
    seeds = FLAGS.seeds or shared["seeds"]
    if FLAGS.tuned:
        untried = [method for method in methods if method not in TRIALS]
        if untried:
            sys.exit(f"error: --methods must be of {', '.join(TRIALS)} with --tuned. Received: {', '.join(untried)}.")
        train_missing([(method, name) for method in methods for name in trials(method)], shared)
    # seed by seed, so that every method has a figure early
    train_missing([(method, seed) for seed in range(seeds) for method in methods], shared)
    write_tables(methods, seeds)
    return 0


def train_missing(runs: list[tuple[str, int | str]], shared: dict) -> None:
    """Trains those that are not there yet, or ends with what is wrong."""
    missing = [(method, run) for method, run in runs if not is_finished(method, run)]
    if missing and shared["is_pretrained"] and not (FLAGS.weights and os.path.isfile(FLAGS.weights)):
        sys.exit(f"error: --recipe={FLAGS.recipe} needs --weights, a file. Received: --weights={FLAGS.weights}.")
    try:
        train_all(missing)
    except subprocess.CalledProcessError:
        sys.exit("error: a training failed; what it said stands above. Those that finished are kept.")


if __name__ == "__main__":
    app.run(main)
