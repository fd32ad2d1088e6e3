"""What the package costs on a GPU: losses, training steps, a training, serving and evaluation, in at most 6 minutes.

    python benchmarks/gpu.py --output_dir=runs/gpu
    python benchmarks/gpu.py --parts=losses,steps --minutes=15

Each part runs in a process of its own with a time limit. Every result is printed and kept as JSON as soon as it is
there, so the same command goes on with what is missing, and tries again what failed. It measures one GPU, the first
that CUDA_VISIBLE_DEVICES names; without a GPU it runs small on the CPU. The exit status is 1 if something failed, or if
a part ran out of its time without a single figure.
"""

import importlib
import json
import os
import signal
import subprocess
import sys
import time

from absl import app, flags
from gpu_parts.processes import last_error, message_of
from gpu_parts.record import FAILED, FINISHED, NOT_RUN, TIMED_OUT, Record
from gpu_parts.settings import CannotMeasureError, Settings
from tables import write_table

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

FLAGS = flags.FLAGS
# name: (what it is in the table, weight of its share of the time)
PARTS = {
    "losses": ("Losses", 8),
    "torch_losses": ("pytorch-metric-learning", 2),
    "evaluation": ("Evaluation", 3),
    "serving": ("Serving", 4),
    "train": ("A training", 4),
    "steps": ("Training steps", 8),  # last, with all that the others did not need
}
SHORTEST_LIMIT = 5  # seconds in which no process gets further than its imports

flags.DEFINE_list("parts", list(PARTS), "Which, with commas between.")
flags.DEFINE_float("minutes", 6, "Minutes that all parts together may take.", lower_bound=0)
flags.DEFINE_list("limits", [], "PART=SECONDS with commas between: limits other than a part's share of what is left.")
flags.DEFINE_list("losses", [], "Part losses: which, with commas between; by default all.")
flags.DEFINE_list("sizes", [], "Batch sizes of the losses; by default 256, 1024, 4096 and 8192, on a CPU 64 and 256.")
flags.DEFINE_list("ways", [], "Part steps: which ways to train, with commas between; by default all.")
flags.DEFINE_integer("photos", None, "Part evaluation: photos; by default 60,502, on a CPU 2,000.", lower_bound=100)
flags.DEFINE_string("output_dir", "runs/gpu", "Where measurements and tables go.")
flags.DEFINE_string("only", None, "PART, for this tool's own use: measures it in this process.")


def settings() -> Settings:
    """What the flags ask the parts for."""
    sizes = tuple(int(size) for size in FLAGS.sizes)
    return Settings(FLAGS.output_dir, tuple(FLAGS.losses), sizes, tuple(FLAGS.ways), FLAGS.photos)


def asked() -> str:
    """The same as text: a part that finished something else is not finished."""
    return json.dumps(settings()._replace(output_dir=""))


def say(text: str) -> None:
    """Prints a line that a file shows at once too."""
    print(text, flush=True)


def module_of(part: str):
    """The module that measures a part."""
    return importlib.import_module(f"gpu_parts.{part}")


def measure_here(part: str) -> None:
    """Measures what is missing of a part; an error is kept as the row's result, and the rest goes on."""
    module, record = module_of(part), Record(FLAGS.output_dir, part)
    try:
        measurements = module.measurements(settings())
    except CannotMeasureError as reason:
        record.end(NOT_RUN, str(reason))
        return
    record.begin(module.machine(), list(measurements), asked())
    for name in record.missing:
        record.start_row(name)
        try:
            row = measurements[name]()
        except Exception as error:  # what fails here is a finding
            row = {"error": message_of(error)}
        record.keep(name, row)
        said = f"failed: {row['error']}" if "error" in row else module.line(row, record.figures)
        say(f"  {name}: {said}")
        if "CUDA" in row.get("error", ""):
            sys.exit(1)  # after such errors a process gets nothing more from its GPU; a new one goes on
    record.end(FINISHED)


def ended(part: str, limit: float, log) -> int | None:
    """Runs a part's process; returns its exit status, or None where it was killed at its limit."""
    command = [sys.executable, *sys.argv, f"--only={part}"]
    process = subprocess.Popen(command, stderr=log, env=environment(), start_new_session=True)
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # with all that it started
            process.wait()


def environment() -> dict[str, str]:
    """The variables of a part's process, in which the first GPU is the only one."""
    devices = os.environ.get("CUDA_VISIBLE_DEVICES", "0")
    return {**os.environ, "CUDA_VISIBLE_DEVICES": devices.split(",")[0], "PYTHONUNBUFFERED": "1"}


def measure_apart(part: str, limit: float) -> None:
    """Runs a part within its limit; a process that dies takes one measurement along, and the next one goes on."""
    path = os.path.join(FLAGS.output_dir, f"{part}.log")
    deadline = time.monotonic() + limit
    Record(FLAGS.output_dir, part).forget_errors()
    with open(path, "w", encoding="utf-8") as log:
        while True:
            before = Record(FLAGS.output_dir, part).rows
            status = ended(part, max(deadline - time.monotonic(), 0), log)
            record = Record(FLAGS.output_dir, part)
            if status == 0:
                return
            if status is None:
                record.end(TIMED_OUT, f"after {limit:.0f} s")
                return
            with open(path, encoding="utf-8", errors="replace") as written:
                name, error = record.content["measuring"], last_error(written.read(), status)
            if record.blame(error):
                say(f"  {name}: failed: {error}")
            if len(record.rows) == len(before):
                record.end(FAILED, error)
                return


def given_limits() -> dict[str, float]:
    """The limits that flags give, in seconds."""
    return {part: float(seconds) for part, seconds in (limit.split("=") for limit in FLAGS.limits)}


def limits_of(parts: list[str]):
    """Yields each part with its limit: its share of the time that is left, so that what one saves others get."""
    deadline, given = time.monotonic() + 60 * FLAGS.minutes, given_limits()
    for place, part in enumerate(parts):
        left = max(deadline - time.monotonic(), 0)
        share = PARTS[part][1] / sum(PARTS[other][1] for other in parts[place:])
        yield part, min(left, given.get(part, left * share))


def measure_all(parts: list[str]) -> None:
    """Measures the parts that are not complete, one after another."""
    complete = [part for part in parts if Record(FLAGS.output_dir, part).is_complete(asked())]
    for part in complete:
        say(f"{part}: measured before.")
    for part, limit in limits_of([part for part in parts if part not in complete]):
        if limit < SHORTEST_LIMIT and part not in given_limits():
            Record(FLAGS.output_dir, part).end(NOT_RUN, "no time was left")
        else:
            say(f"{part}, at most {limit:.0f} s")
            measure_apart(part, limit)
        say(f"{part}: {outcome_of(Record(FLAGS.output_dir, part))}.")
        write_results()


def outcome_of(record: Record) -> str:
    """How a part ended, in words."""
    content = record.content
    between = " " if content["outcome"] == TIMED_OUT else ": "
    text = between.join(filter(None, [content["outcome"], content["reason"]]))
    return text + (f", {record.progress}" if content["wanted"] else "")


def write_results() -> str:
    """Writes `table.json` and `table.md` of all parts that were ever run; returns the latter's text."""
    from eet_tf.files import replaced

    records = {part: Record(FLAGS.output_dir, part) for part in PARTS}
    known = {part: record for part, record in records.items() if record.content["reason"] or record.rows}
    with replaced(os.path.join(FLAGS.output_dir, "table.json")) as aside, open(aside, "w", encoding="utf-8") as file:
        json.dump({part: record.content for part, record in known.items()}, file, indent=1)
    return "\n".join(section(part, record) for part, record in known.items())


def section(part: str, record: Record) -> str:
    """A part's table, the machine it is from, and what it lacks."""
    told = ", ".join(f"{name} {value}" for name, value in record.content["machine"].items())
    outcome = outcome_of(record)
    text = f"## {PARTS[part][0]}\n\n{outcome[0].upper()}{outcome[1:]}.{' On ' + told + '.' if told else ''}\n"
    if record.figures:
        text += f"\n{module_of(part).table(list(record.figures.values()))}"
    text += "".join(f"\nFailed: {name}: {error}\n" for name, error in record.errors.items())
    text += f"\nNot measured: {'; '.join(record.missing)}.\n" if record.missing else ""
    return text


def has_failed(record: Record) -> bool:
    """Whether something went wrong; a part that ran out of time after its first figure did not."""
    outcome = record.content["outcome"]
    return outcome == FAILED or bool(record.errors) or (outcome == TIMED_OUT and not record.figures)


def check_flags() -> None:
    """Refuses names that are none."""
    unknown = [part for part in FLAGS.parts if part not in PARTS]
    if unknown:
        sys.exit(f"error: --parts must be of {', '.join(PARTS)}. Received: {', '.join(unknown)}.")
    for limit in FLAGS.limits:
        part, _, seconds = limit.partition("=")
        if part not in PARTS or not seconds.replace(".", "", 1).isdigit():
            sys.exit(f"error: --limits must be PART=SECONDS with a part of {', '.join(PARTS)}. Received: {limit}.")
    if not all(size.isdigit() and int(size) >= 16 for size in FLAGS.sizes):
        sys.exit(f"error: --sizes must be numbers of at least 16. Received: {', '.join(FLAGS.sizes)}.")


def main(argv):
    """Measures one part, or starts all and writes the tables."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown argument {argv[1]!r}; flags begin with --")
    check_flags()
    if FLAGS.only == "references":
        module_of("losses").write_references(settings())
    elif FLAGS.only == "figures":
        evaluation = module_of("evaluation")
        print(json.dumps(evaluation.figures(*evaluation.COMPARED)))
    elif FLAGS.only:
        measure_here(FLAGS.only)
    else:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what runs is ended too
        os.makedirs(FLAGS.output_dir, exist_ok=True)
        measure_all(FLAGS.parts)
        write_table(FLAGS.output_dir, write_results())
        return int(any(has_failed(Record(FLAGS.output_dir, part)) for part in FLAGS.parts))
    return 0


if __name__ == "__main__":
    app.run(main)
