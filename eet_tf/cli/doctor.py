"""`eet doctor`: says what is installed, what of it works, and how the rest is mended."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence

from eet_tf.doctor.diagnosis import PACKAGES, Facts, Problem, diagnose, matching_row
from eet_tf.doctor.facts import gather
from eet_tf.terminal import open_door

_HELP = """\
Says which versions are installed and whether they go together, what of them does not import and why, what the processor
lacks, and how each is mended. It ends with 0 if all that is needed works, and with 1 otherwise; hints are about
optional parts.

examples:
  eet doctor
  eet doctor --json"""
_CPU_FEATURES = {"AVX": ("avx",), "AVX2": ("avx2",), "AVX512": ("avx512f",), "FMA": ("fma",)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Gathers, diagnoses, prints; returns the exit status. It runs where nothing at all is installed, absl included."""
    parser = argparse.ArgumentParser(
        "eet doctor", description=_HELP, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--json", action="store_true", help="print what was found as JSON, for programs")
    wanted = parser.parse_args(arguments)
    open_door()
    if sys.stderr.isatty():
        print("Importing every package in a process of its own: half a minute.", file=sys.stderr)
    facts = gather()
    problems = diagnose(facts)
    works = not any(problem.blocks for problem in problems)
    print(as_json(facts, problems, works) if wanted.json else as_text(facts, problems, works))
    return 0 if works else 1


def as_json(facts: Facts, problems: list[Problem], works: bool) -> str:
    """What was found, for programs."""
    row = matching_row(facts)
    features = None if facts.cpu_features is None else _features(facts)
    told = {
        "works": works,
        "versions": row.name if row else None,
        "facts": {**dataclasses.asdict(facts), "cpu_features": features},
        "problems": [dataclasses.asdict(problem) for problem in problems],
    }
    return json.dumps(told, indent=2)


def as_text(facts: Facts, problems: list[Problem], works: bool) -> str:
    """What was found, as a table and what is wrong below it."""
    row = matching_row(facts)
    memory = "unknown" if facts.memory is None else f"{facts.memory / 2**30:.1f} GiB"
    features = "unknown" if facts.cpu_features is None else ", ".join(_features(facts)) or "none of them"
    table = [
        ("eet-tf", facts.source_version, _installed(facts)),
        ("Python", ".".join(map(str, facts.python)), sys.executable or ""),
        *(_package(name, facts) for name in PACKAGES),
        ("CPUs", str(facts.num_cpus), f"{facts.machine}; of {', '.join(_CPU_FEATURES)}: {features}"),
        ("memory", memory, ""),
        ("GPUs", str(len(facts.gpus)), ", ".join(facts.gpus)),
    ]
    widths = [max(len(line[column]) for line in table) for column in range(2)]
    lines = [f"{name:{widths[0]}}  {value:{widths[1]}}  {more}".rstrip() for name, value, more in table]
    lines += ["", f"Versions: {row.name if row else 'of no set that is supported'}."]
    for problem in problems:
        lines += ["", f"{'MEND' if problem.blocks else 'hint'}: {problem.what}", f"      {problem.mend}"]
    return "\n".join([*lines, "", "All that is needed works." if works else "It does not work yet: see MEND above."])


def _installed(facts: Facts) -> str:
    return "not installed, on the path" if facts.installed_version is None else f"installed: {facts.installed_version}"


def _package(name: str, facts: Facts) -> tuple[str, str, str]:
    package = facts.packages.get(name)
    if package is None:
        return name, "-", "not installed"
    return name, package.version, "does not import" if package.error else "imports"


def _features(facts: Facts) -> list[str]:
    return [name for name, words in _CPU_FEATURES.items() if (facts.cpu_features or frozenset()).issuperset(words)]
