"""Recipes: what each part of the kit gives, a search for the best on held-out products, and what that reaches.

    python benchmarks/recipes.py --recipe=fashion --data_dir=DATA/fashion --weights=MOBILENET_V2.h5 --do=parts
    python benchmarks/recipes.py --recipe=fashion ... --do=search --minutes=60
    python benchmarks/recipes.py --recipe=fashion ... --do=best

- `parts` changes one part of the recipe of `methods.py` at a time. Each is trained four times, on three quarters of the
  training products, and measured on the fourth, so that all of them are measured; with `--quarters=1` once, on one.
- `search` trains on three quarters of the training products, and measures on the others. It draws recipes at random
  first; then it changes one to three settings of one of the five best (as in "Regularized Evolution for Image
  Classifier Architecture Search", arXiv 1802.01548). No recipe costs more than the recipe of the table may on 2 cores.
- `best` trains the recipe with the highest mAP@R in the whole catalogue of held-out products from several seeds, and
  measures it on the test products.

Every finished run is a file in --output_dir, and is not trained again: the same command goes on.
"""

import concurrent.futures
import glob
import json
import os
import sys
import time

import numpy as np
from absl import app, flags
from compared import rows_of, write_tables
from contenders import DEFAULTS, KITS, LARGEST_COSTS, METHODS, PARTS, RECIPES, SPACES, TRIALS
from trainings import QUARTER, Runs

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

FLAGS = flags.FLAGS
_BASE = "as it is"
_NUM_DRAWN = 24  # before the best are changed

flags.DEFINE_enum("recipe", "fashion", list(SPACES), "Whose catalogue and network.")
flags.DEFINE_enum("do", "parts", ["parts", "search", "best"], "What to train.")
flags.DEFINE_string("data_dir", None, "Where the photos are.")
flags.DEFINE_string("weights", None, "Path of the backbone's weights, ImageNet's.")
flags.DEFINE_string("output_dir", None, "Where runs and tables go; runs/recipes/<recipe> by default.")
flags.DEFINE_integer("seeds", 3, "best: trainings from different seeds.", lower_bound=1)
flags.DEFINE_integer(
    "quarters", 4, "parts: how many quarters of the products are measured.", lower_bound=1, upper_bound=4
)
flags.DEFINE_integer("jobs", 1, "Trainings at once; the processor's threads are shared among them.", lower_bound=1)
flags.DEFINE_float("minutes", 60, "search: minutes after which no training is begun.", lower_bound=0)
flags.DEFINE_integer(
    "steps", None, "Steps of every training, to try this tool out; by default the recipe's.", lower_bound=1
)
flags.DEFINE_integer("trainings", 10**6, "search: how many trainings there are in all.", lower_bound=1)


def settings_of(changes: dict, seed: int, measure_on: str) -> dict:
    """The settings of one training: those of the recipe, with changes, of which `method` brings its loss."""
    changes = {**KITS[FLAGS.recipe], **changes}
    _, loss, arguments, needs = METHODS[changes.pop("method")]
    own = changes.pop("arguments")
    shared = {name: value for name, value in RECIPES[FLAGS.recipe].items() if name not in ("seeds", "tuned", "methods")}
    return {
        **DEFAULTS,
        **shared,
        **changes,
        **({} if FLAGS.steps is None else {"steps": FLAGS.steps}),
        "measure_on": measure_on,
        "loss": loss,
        "arguments": {**arguments, **own},
        "needs": list(needs),
        "seed": seed,
    }


def draw(rng) -> dict:
    """Changes of the recipe at random; what they leave out is as it is."""
    space = SPACES[FLAGS.recipe]
    drawn = {name: _one(rng, values) for name, values in space.items()}
    drawn["arguments"] = _one(rng, TRIALS[drawn["method"]])
    return drawn


def change(best: dict, rng) -> dict:
    """One of the best with one to three settings changed."""
    space = SPACES[FLAGS.recipe]
    changed = dict(best)
    for name in rng.permutation([*space, "arguments"])[: rng.integers(1, 4)]:
        values = TRIALS[changed["method"]] if name == "arguments" else space[name]
        changed[name] = _one(rng, [value for value in values if value != changed[name]] or values)
        if name == "method":
            changed["arguments"] = _one(rng, TRIALS[changed["method"]])
    return changed


def _one(rng, values):
    return values[rng.integers(len(values))]


def cost(changes: dict) -> float:
    """What a training costs in all, as a share of the training of the table: photos times pixels times layers."""
    shared = RECIPES[FLAGS.recipe]
    new, old = (
        each["steps"] * each["classes_per_batch"] * each["examples_per_class"] * each["image_size"] ** 2
        for each in ({**shared, **changes}, shared)
    )
    return new / old * (1.0 if changes.get("fixed_until") or not shared["fixed_until"] else 1.6)


def search(runs: Runs) -> None:
    """Trains until the time is over; prints each recipe that is better than all before."""
    runs.check_weights(RECIPES[FLAGS.recipe]["is_pretrained"])
    known = found_in(runs)
    tried = [changes for *_, changes in known]
    rng = np.random.default_rng(len(known))
    until = time.time() + 60 * FLAGS.minutes
    begun: dict = {}
    with runs.pool(FLAGS.jobs) as pool:
        while begun or (time.time() < until and len(known) < FLAGS.trainings):
            is_open = time.time() < until and len(known) + len(begun) < FLAGS.trainings
            if is_open and len(begun) < FLAGS.jobs:
                changes = proposal(known, tried, rng)
                tried.append(changes)
                name = f"search-{len(glob.glob(runs.file('search-*.changes'))):04d}"
                with open(runs.file(name) + ".changes", "w", encoding="utf-8") as file:
                    json.dump(changes, file)
                begun[runs.submit(pool, name, settings_of(changes, 0, "held_out"))] = (name, changes)
                continue
            done, _ = concurrent.futures.wait(begun, return_when=concurrent.futures.FIRST_COMPLETED)
            for future in done:
                name, changes = begun.pop(future)
                if said := future.result():
                    print(said, file=sys.stderr, flush=True)
                    if not known:
                        sys.exit(f"error: {name} failed before any was trained; what was said stands above.")
                    continue
                value = runs.mean(name, "map@r")
                if value > max([each for each, _, _ in known], default=0.0):
                    print(f"{name}: mAP@R {100 * value:.2f} % with {json.dumps(changes)}", flush=True)
                known.append((value, name, changes))


def proposal(known: list[tuple], tried: list[dict], rng) -> dict:
    """What to try next, which was not tried, within what it may cost."""
    best = sorted(known, key=lambda each: -each[0])[:5]
    while True:
        changes = draw(rng) if len(known) < _NUM_DRAWN else change(_one(rng, best)[2], rng)
        if cost(changes) <= LARGEST_COSTS[FLAGS.recipe] and changes not in tried:
            return changes


def found_in(runs: Runs) -> list[tuple]:
    """(mAP@R in the whole catalogue, name, changes) of the finished runs of a search."""
    found = []
    for path in sorted(glob.glob(runs.file("search-*.changes"))):
        name = os.path.basename(path).removesuffix(".changes")
        with open(path, encoding="utf-8") as file:
            changes = json.load(file)
        if runs.is_finished(name, settings_of(changes, 0, "held_out")):
            found.append((runs.mean(name, "map@r"), name, changes))
    return found


def train_parts(runs: Runs) -> None:
    """The table of the kit."""
    parts = {_BASE: {}, **PARTS[FLAGS.recipe]}
    names = {title: [f"{_short(title)}-{quarter}" for quarter in range(FLAGS.quarters)] for title in parts}
    wanted = {}
    for quarter in range(FLAGS.quarters):
        for title, changes in parts.items():
            wanted[names[title][quarter]] = settings_of(changes, 0, f"{QUARTER}{quarter}")
    runs.train(wanted, FLAGS.jobs)
    method = METHODS[KITS[FLAGS.recipe]["method"]][0]
    measured = "all training products" if FLAGS.quarters == 4 else f"{FLAGS.quarters} of 4 quarters of them"
    introduction = (
        f"{method}; trained on three quarters of the training products and measured on the others: {measured}; "
        "difference in R@1 in the whole catalogue from the recipe as it is, with its 95 % interval by a paired "
        "bootstrap over products, which does not cover chance in training."
    )
    more = {"s": {title: f"{min(runs.seconds(name) for name in each):.0f}" for title, each in names.items()}}
    write_tables(runs.folder, rows_of(runs, names, _BASE, in_quarters=True), introduction, _BASE, more)


def _short(title: str) -> str:
    return "part-" + "".join(letter if letter.isalnum() else "_" for letter in title.lower())


def train_best(runs: Runs) -> None:
    """What the best recipe reaches on the test products."""
    found = found_in(runs)
    if not found:
        sys.exit(f"error: {runs.folder} must hold a search. Received: none. Run --do=search first.")
    _, name, changes = max(found, key=lambda each: each[0])
    names = {"the best found": [f"best-{name}-{seed}" for seed in range(FLAGS.seeds)]}
    names[_BASE] = [f"best-as_it_is-{seed}" for seed in range(FLAGS.seeds)]
    wanted = {run: settings_of(changes, seed, "test") for seed, run in enumerate(names["the best found"])}
    wanted |= {run: settings_of({}, seed, "test") for seed, run in enumerate(names[_BASE])}
    runs.train(wanted, FLAGS.jobs)
    for row in rows_of(runs, names, _BASE):
        print(
            f"{row['name']}: R@1 {100 * row['recall@1']:.1f} % among unseen products, {100 * row['whole@1']:.1f} % in "
            f"the whole catalogue."
        )
    print(json.dumps(changes, indent=1))


def main(argv):
    """Does what is asked for."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown argument {argv[1]!r}; flags begin with --")
    folder = FLAGS.output_dir or os.path.join("runs", "recipes", FLAGS.recipe)
    runs = Runs(folder, FLAGS.data_dir, FLAGS.weights)
    os.makedirs(folder, exist_ok=True)
    {"parts": train_parts, "search": search, "best": train_best}[FLAGS.do](runs)
    return 0


if __name__ == "__main__":
    app.run(main)
