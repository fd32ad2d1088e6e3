"""The tables of trainings that share seeds: each one's figures with intervals, and its difference from a first."""

import csv
import math
import os
from collections.abc import Mapping, Sequence

from trainings import KS, Runs


def rows_of(runs: Runs, names: Mapping[str, Sequence[str]], baseline: str, in_quarters: bool = False) -> list[dict]:
    """A row for each contender.

    Args:
        runs: where its trainings are.
        names: of its trainings, one for each seed, by the contender's title.
        baseline: the title of the one that the others are compared with.
        in_quarters: whether each training of a contender measured other products, so that they count as one.
    """
    from eet_tf.evaluation.comparison import compare, mean_interval

    def found(ending):
        by_title = {}
        for title, each in names.items():
            is_one = in_quarters and len(each) > 1
            by_title[title] = [runs.found_by_all(each, ending)] if is_one else [runs.found(n, ending) for n in each]
        return by_title

    own, whole = found(".csv"), found("-whole.csv")
    rows = []
    for title, each in names.items():
        row = {"name": title, "runs": len(each)}
        row["whole@1"], row["+-whole@1"] = mean_interval([run.mean("recall@1") for run in whole[title]])
        row["whole_map@r"], row["+-whole_map@r"] = mean_interval([run.mean("map@r") for run in whole[title]])
        for k in KS:
            row[f"recall@{k}"], row[f"+-@{k}"] = mean_interval([run.mean(f"recall@{k}") for run in own[title]])
        if title != baseline and baseline in names:
            comparison = compare(whole[baseline], whole[title])
            row.update(difference=comparison.difference, low=comparison.low, high=comparison.high)
        row["seconds"] = min(runs.seconds(name) for name in each)
        rows.append(row)
    return rows


def write_tables(folder: str, rows: list[dict], introduction: str, baseline: str, more: Mapping[str, Mapping]) -> None:
    """`table.csv`, `table.md` and `table.png`; `more` are further columns, each a text by title."""
    from eet_tf.files import replaced

    rows = [{**row, **{column: texts[row["name"]] for column, texts in more.items()}} for row in rows]
    with replaced(os.path.join(folder, "table.csv")) as aside, open(aside, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(max(rows, key=len)))
        writer.writeheader()
        writer.writerows(rows)
    text = as_markdown(rows, introduction, list(more))
    with replaced(os.path.join(folder, "table.md")) as aside, open(aside, "w", encoding="utf-8") as file:
        file.write(text)
    draw(rows, baseline, os.path.join(folder, "table.png"))
    print(text)


def as_markdown(rows: list[dict], introduction: str, more: list[str]) -> str:
    """The table for a page, in percent; differences that are none by their interval are not bold."""
    columns = ["", "R@1 in the whole catalogue", "difference", "mAP@R there", "R@1 among unseen products", *more]
    lines = [introduction, "", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for row in rows:
        whole, precision, own = (
            share(row[name], row[spread])
            for name, spread in (
                ("whole@1", "+-whole@1"),
                ("whole_map@r", "+-whole_map@r"),
                ("recall@1", "+-@1"),
            )
        )
        cells = [row["name"], whole, difference(row), precision, own, *(row[column] for column in more)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def share(mean: float, interval: float) -> str:
    """A mean in percent with its interval, which one run has not."""
    return f"{100 * mean:.1f}" + ("" if math.isnan(interval) else f" ± {100 * interval:.1f}")


def difference(row: dict) -> str:
    """The difference from the baseline with its interval; bold where 0 is not in it."""
    if "difference" not in row:
        return ""
    text = f"{100 * row['difference']:+.1f} ({100 * row['low']:+.1f} to {100 * row['high']:+.1f})"
    return f"**{text}**" if row["low"] > 0 or row["high"] < 0 else text


def draw(rows: list[dict], baseline: str, file: str) -> None:
    """R@1 in the whole catalogue, best first, with its interval; a line where the baseline is.

    The interval is that over the runs; of one run, that of the difference from the baseline.
    """
    from matplotlib.figure import Figure

    rows = sorted(rows, key=lambda row: row["whole@1"])
    figure = Figure(figsize=(8, 0.6 + 0.34 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    values = [100 * row["whole@1"] for row in rows]
    is_of_runs = not all(math.isnan(row["+-whole@1"]) for row in rows)
    errors = list(zip(*(_error(row, is_of_runs) for row in rows)))
    axes.errorbar(values, range(len(rows)), xerr=errors, fmt="o", color="#1f5f8b", ecolor="#9bbbd0", elinewidth=3)
    for row in rows:
        if row["name"] == baseline:
            axes.axvline(100 * row["whole@1"], color="#b0413e", linewidth=1, linestyle="--")
    axes.set_yticks(range(len(rows)), [row["name"] for row in rows])
    of_what = "over runs" if is_of_runs else f"of the difference from: {baseline}"
    axes.set_xlabel(f"R@1 of unseen products in the whole catalogue, %\n(95 % interval {of_what})")
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=140)


def _error(row: dict, is_of_runs: bool) -> tuple[float, float]:
    """How far the interval reaches to either side, in points; nothing where there is none."""
    if is_of_runs:
        error = 0.0 if math.isnan(row["+-whole@1"]) else 100 * row["+-whole@1"]
        return error, error
    if "difference" not in row:
        return 0.0, 0.0
    return 100 * (row["difference"] - row["low"]), 100 * (row["high"] - row["difference"])
