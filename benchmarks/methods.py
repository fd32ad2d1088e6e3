"""Which method for which catalogue: trains each with the same embedder, batches, steps and seeds, and writes tables.

    python benchmarks/methods.py --recipe=fashion --data_dir=DATA/fashion --weights=MOBILENET_V2.h5
    python benchmarks/methods.py --recipe=grocery --data_dir=DATA/grocery --weights=MOBILENET_V2.h5 \
        --methods=batch_hard,eet --seeds=5 --jobs=2

Where the recipe is a tuned one, each method first gets the same search of its own: nine trials on a quarter of the
training products, kept aside, three learning rates times three values of its most important argument
(`contenders.py`). The one with the best mAP@R among all training photos is then trained from each seed and measured on
the test products.

Every finished run is a file there, and is not trained again: killed at any moment, the same command goes on. With
`--measure_on=held_out` the products kept aside are measured in place of the test products. Any setting of the recipe
can be changed, and any number among a loss's arguments, several with commas between:

    python benchmarks/methods.py --recipe=fashion ... --measure_on=held_out --notuned --set=crop=0.6,loss.margin=0.5 \
        --output_dir=runs/c
"""

import os
import sys
import time

from absl import app, flags
from compared import rows_of, write_tables
from contenders import BASELINE_NAMES, DEFAULTS, EVERY, LEARNING_RATES, METHODS, RECIPES, TRIALS
from trainings import Runs

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

FLAGS = flags.FLAGS

flags.DEFINE_enum("recipe", "fashion", list(RECIPES), "What the methods share: data, embedder, batches, steps.")
flags.DEFINE_string("data_dir", None, "Where the photos are.")
flags.DEFINE_string("weights", None, "Path of the backbone's weights; the recipes of mobilenet_v2 need ImageNet's.")
flags.DEFINE_string("output_dir", None, "Where runs and tables go; runs/methods/<recipe> by default.")
flags.DEFINE_list("methods", None, "Which to train, with commas between; by default the recipe's, or all.")
flags.DEFINE_integer("seeds", None, "Trainings of each; by default the recipe's number.", lower_bound=1)
flags.DEFINE_integer("jobs", 1, "Trainings at once; the processor's threads are shared among them.", lower_bound=1)
flags.DEFINE_float("minutes", None, "Minutes after which no training is begun. By default no limit.", lower_bound=0)
flags.DEFINE_list("set", [], "Settings of the recipe to change, name=value with commas between.")
flags.DEFINE_enum("measure_on", "test", ["test", "held_out"], "Test products, or a quarter of the training products.")
flags.DEFINE_bool("tuned", None, "Search the settings of each method on held-out products first; the recipe says.")
flags.DEFINE_bool("keep_embeddings", False, "Keep each run's embeddings, which benchmarks/postprocessing.py reads.")


def recipe() -> dict:
    """What the methods of a table share, with the changes asked for.

    Raises:
        ValueError: if a change names no setting, or gives a value of another kind.
    """
    shared = {**DEFAULTS, **RECIPES[FLAGS.recipe]}
    kinds = {name: str if value is None else type(value) for name, value in shared.items()} | {"photo_crop": float}
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


def is_tuned() -> bool:
    """Whether each method has a search of its own."""
    return RECIPES[FLAGS.recipe]["tuned"] if FLAGS.tuned is None else FLAGS.tuned


def baseline() -> str:
    """The method that the others of a table are compared with."""
    return RECIPES[FLAGS.recipe].get("baseline", "batch_hard")


def settings_of(method: str, seed: int) -> dict:
    """All that decides what a training gives."""
    _, loss, arguments, needs = METHODS[method]
    shared = {name: value for name, value in recipe().items() if name not in ("seeds", "methods", "baseline", "tuned")}
    changed = {name: shared.pop(name) for name in list(shared) if name.startswith("loss.")}
    return {
        **shared,
        "measure_on": FLAGS.measure_on,
        "loss": loss,
        "arguments": {**arguments, **{name.removeprefix("loss."): value for name, value in changed.items()}},
        "needs": list(needs),
        "seed": seed,
    }


def with_found(settings: dict, found: dict) -> dict:
    """The settings of a training, with what a trial tries."""
    arguments = {**settings["arguments"], **found["arguments"]}
    return {**settings, "learning_rate": found["learning_rate"], "arguments": arguments}


def trials(method: str) -> dict[str, dict]:
    """What is tried of a method, by the name of the run."""
    tried = [{"learning_rate": rate, "arguments": arguments} for rate in LEARNING_RATES for arguments in TRIALS[method]]
    return {f"{method}-trial-{number}": each for number, each in enumerate(tried)}


def chosen(runs: Runs, method: str) -> dict:
    """What was best on held-out products, by mAP@R in the whole of the training photos."""
    tried = trials(method)
    best = max(tried, key=lambda name: runs.mean(name, "map@r"))
    return tried[best]


def described(found: dict) -> str:
    """Settings that were searched for, in a few words."""
    values = {"learning_rate": found["learning_rate"], **found["arguments"]}
    return ", ".join(f"{name} {value:g}" for name, value in values.items())


def make_tables(runs: Runs, methods: list[str], seeds: int) -> None:
    """`table.csv`, `table.md` and `table.png` of all methods."""
    titles = {method: METHODS[method][0] for method in methods}
    names = {titles[method]: [f"{method}-{seed}" for seed in range(seeds)] for method in methods}
    first = METHODS[baseline()][0]
    long, _ = BASELINE_NAMES.get(baseline(), [first] * 2)
    tuning = f", with the best of {len(trials(baseline()))} settings on held-out products" if is_tuned() else ""
    introduction = (
        f"{seeds} runs each{tuning}; mean and 95 % interval over the runs; difference from {long} in R@1 in the whole "
        "catalogue, with its 95 % interval by a paired bootstrap over products."
    )
    if is_tuned():
        more = {"settings": {titles[method]: described(chosen(runs, method)) for method in methods}}
    else:
        more = {"s": {titles[method]: f"{_seconds(runs, names[titles[method]]):.0f}" for method in methods}}
    write_tables(runs.folder, rows_of(runs, names, first), introduction, first, more)


def _seconds(runs: Runs, names: list[str]) -> float:
    return min(runs.seconds(name) for name in names)


def checked_methods(shared: dict) -> list[str]:
    """The methods that are asked for; ends with what is wrong."""
    methods = FLAGS.methods or list(shared.get("methods", TRIALS if is_tuned() else EVERY))
    known = TRIALS if is_tuned() else METHODS
    unknown = [method for method in methods if method not in known]
    if unknown:
        with_flag = " with --tuned" if is_tuned() else ""
        sys.exit(f"error: --methods must be of {', '.join(known)}{with_flag}. Received: {', '.join(unknown)}.")
    return methods


def check_tuned(methods: list[str]) -> None:
    """Ends where a search of settings would be measured on what chose them, or would overwrite what was given."""
    if not is_tuned():
        return
    if FLAGS.measure_on == "held_out":
        sys.exit("error: --measure_on=held_out needs --notuned: those products choose the settings of each method.")
    searched = {"learning_rate", *(f"loss.{name}" for method in methods for each in TRIALS[method] for name in each)}
    given = sorted(searched.intersection(change.partition("=")[0] for change in FLAGS.set))
    if given:
        sys.exit(f"error: --set={given[0]} needs --notuned: it is searched for each method.")


def main(argv):
    """Trains what is missing, and writes the tables."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown argument {argv[1]!r}; flags begin with --")
    try:
        shared = recipe()
    except ValueError as error:
        sys.exit(f"error: {error}")
    methods, seeds = checked_methods(shared), FLAGS.seeds or shared["seeds"]
    check_tuned(methods)
    folder = FLAGS.output_dir or os.path.join("runs", "methods", FLAGS.recipe)
    runs = Runs(folder, FLAGS.data_dir, FLAGS.weights, FLAGS.keep_embeddings)
    until = float("inf") if FLAGS.minutes is None else time.time() + 60 * FLAGS.minutes
    found: dict = {method: None for method in methods}
    if is_tuned():
        tried = {
            name: {**with_found(settings_of(method, 0), each), "measure_on": "held_out"}
            for method in methods
            for name, each in trials(method).items()
        }
        runs.train(tried, FLAGS.jobs, until)
        found = {method: chosen(runs, method) for method in methods}
    # seed by seed, so that every method has a figure early
    wanted = {}
    for seed in range(seeds):
        for method in methods:
            settings = settings_of(method, seed)
            wanted[f"{method}-{seed}"] = settings if found[method] is None else with_found(settings, found[method])
    runs.train(wanted, FLAGS.jobs, until)
    make_tables(runs, methods, seeds)
    return 0


if __name__ == "__main__":
    app.run(main)
