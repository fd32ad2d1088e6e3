"""What a person looks at: one HTML page that needs nothing but itself, and the curves as a picture.

The page is for finding out why a search is wrong, so the worst queries stand first, and every neighbour says in colour,
sign and words whether it is right. It is to be mailed and kept: photos are inlined as thumbnails, no network is used.
"""

import dataclasses
import functools
import io
import math
import os
import re
from collections.abc import Mapping, Sequence

from eet_tf import files
from eet_tf.arguments import check_file
from eet_tf.pages import parts, thumbnails
from eet_tf.pages.parts import text

_THUMBNAIL_SIDE = 160  # pixels on the longer side; a tile is about 120 CSS pixels wide
_SHARE_NAMES = ("recall", "map", "precision", "accuracy")
_PACE_NAMES = {"lr", "rate", "second", "seconds", "time"}
_INK = {"light": "#1b2330", "dark": "#e8ebef"}
# Colors that the color-blind can tell apart, on white and on black (after Okabe and Ito).
_CURVE_COLORS = ("#3b7ddd", "#d9651a", "#12a07a", "#c76ba4", "#d39a00", "#45b5e6", "#8f8f8f")


@dataclasses.dataclass(frozen=True)
class Neighbor:
    """One photo that the search found.

    Args:
        photo: Path of the photo; a file that cannot be read is shown as a tile "no picture".
        sku: The product on it.
        score: Cosine similarity to the query; larger is closer.
    """

    photo: str
    sku: str
    score: float


@dataclasses.dataclass(frozen=True)
class SearchResult:
    """One query photo and what was found for it.

    Args:
        query: Path of the query photo.
        sku: The right answer, or `None` where nobody knows it; neighbours are then not marked.
        neighbors: What was found, best first.
        split: The part of the catalogue that the query is from, such as `"train"` or `"test"`; empty if nobody knows.
    """

    query: str
    sku: str | None
    neighbors: Sequence[Neighbor]
    split: str = ""


def plot_curves(history: Sequence[Mapping], path: str | os.PathLike) -> None:
    """Draws the course of training into a PNG: losses, shares in percent, and the learning rate where it is recorded.

    Args:
        history: One mapping per epoch, such as `{"epoch": 1, "loss": 0.7, "val_recall@1": 0.4}`. Every key other than
            "epoch" is a curve; a key may be missing (or be `None` or "") in epochs that did not measure it.
        path: The file to write; its folder is created.

    Raises:
        ValueError: If `history` holds no curve, or something that is no number.

    Example:

    >>> import os, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     plot_curves([{"epoch": 1, "loss": 0.7}, {"epoch": 2, "loss": 0.5}], os.path.join(folder, "curves.png"))
    ...     os.listdir(folder)
    ['curves.png']
    """
    panels = _panels(history)
    if not panels:
        raise ValueError(
            "`history` must hold at least one epoch with a number beside its epoch, such as {'epoch': 1, 'loss': 0.7}. "
            f"Received: history={history!r:.200}."
        )
    check_file("path", path)
    picture = _draw(panels, _INK["light"], "#ffffff", dpi=150)
    with files.replaced(path) as aside, open(aside, "wb") as file:
        file.write(picture)


def write_report(
    path: str | os.PathLike,
    title: str,
    *,
    results: Sequence[SearchResult] = (),
    history: Sequence[Mapping] = (),
    before: Mapping | None = None,
    after: Mapping | None = None,
    facts: Mapping | None = None,
    meanings: Mapping[str, str] | None = None,
    attributes: Mapping[str, Mapping] | None = None,
    whole_catalogue: Mapping | None = None,
    before_model: str | None = None,
    prefixes: Mapping[str, Mapping] | None = None,
) -> None:
    """Writes one self-contained HTML page; what is not given is left out of it.

    Args:
        path: The file to write; its folder is created. An old page stays until the new one is complete.
        title: The page's heading.
        results: Queries to show, in any order: those whose right product came latest, or not at all, are shown first,
            and those without a known answer last.
        history: One mapping per epoch, as in `plot_curves`.
        before: Measurements before training, such as `{"recall@1": 0.12, "num_queries": 600}`: shares in [0, 1].
        after: The same measurements after training.
        facts: What was done with what, label to text: data set, command, date.
        meanings: What each measurement means, name to a sentence; shown below the table.
        attributes: How often the attribute head is right, as `attribute_accuracy` returns it.
        whole_catalogue: The same queries searched in all photos, those of trained products too: `{"num_photos": N,
            "before": ..., "after": ...}`. It is shown first, since that is what a shop searches.
        before_model: What was measured before training, such as `"pretrained features"`; it is named above the figures.
        prefixes: The measurements with a prefix of the embeddings alone, by its length: `{"32": {"recall@1": 0.1}}`;
            `whole_catalogue` may have `"prefixes"` too.

    Raises:
        ValueError: If `history`, `before` or `after` holds something that is no number, or no file can be written at
            `path`.

    Example:

    >>> import os, tempfile
    >>> result = SearchResult("query.jpg", "mug", [Neighbor("a.jpg", "cup", 0.9), Neighbor("b.jpg", "mug", 0.8)])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "report.html")
    ...     write_report(path, "Mugs", results=[result], after={"recall@1": 0.0})
    ...     with open(path, encoding="utf-8") as page:
    ...         "0 of 1 shown query has the right product in first place" in page.read()
    True
    """
    check_file("path", path)
    sections = (
        parts.facts(facts),
        *_measured(before, after, whole_catalogue, meanings or {}, before_model),
        *_of_prefixes(prefixes or {}, whole_catalogue or {}),
        _attributes(attributes or {}),
        _curves(_panels(history)),
        _gallery(results),
    )
    parts.write_page(path, "report.html", title, sections)


def _number(argument, name, value):
    """Returns `value` as a float, NaN if it is missing; `argument` is where the caller passed it."""
    try:
        return math.nan if value is None else float(value)
    except (TypeError, ValueError):
        raise ValueError(
            f"`{argument}` must hold numbers only; leave other entries out. Received: {name}={value!r:.200}."
        ) from None


def _section(heading, *lines):
    return "\n".join((f"<section>\n<h2>{heading}</h2>", *filter(None, lines), "</section>"))


# Before and after: one row per measurement.


def _measured(before, after, whole, meanings, before_model):
    """A table for each gallery, the whole catalogue first."""
    if not whole:
        return [_measures(before, after, meanings, None, before_model)]
    heading = f"In the whole catalogue of {whole['num_photos']:,} photos"
    return [
        _measures(whole.get("before"), whole.get("after"), {}, heading, before_model),
        _measures(before, after, meanings, "Among the products measured on alone", before_model),
    ]


def _measures(before, after, meanings, heading=None, before_model=None):
    columns = {"before": before, "after": after}
    columns = {name: values for name, values in columns.items() if values}
    if not columns:
        return ""
    both = len(columns) == 2
    names = dict.fromkeys(name for values in columns.values() for name in values)
    shown = {"before": f"Before: {before_model}" if before_model else "Before", "after": "After"}
    heads = "".join(
        f'<th scope="col"><span class="key {column}"></span>{text(shown[column])}</th>' for column in columns
    )
    change = '<th scope="col">Change</th>' if both else ""
    rows = "\n".join(_measure(name, columns) for name in names)
    return _section(
        text(heading or ("Before and after" if both else "Measured")),
        '<div class="card"><table class="measures">',
        f'<thead><tr><th scope="col">Measure</th>{heads}{change}</tr></thead>',
        f"<tbody>\n{rows}\n</tbody></table></div>",
        '<p class="note">Change in percentage points (pp).</p>' if both else "",
        _meanings({name: meanings[name] for name in names if name in meanings}),
    )


def _meanings(meanings):
    rows = "".join(f"<dt>{text(name)}</dt><dd>{text(meaning)}</dd>" for name, meaning in meanings.items())
    return (
        f'<details class="meanings"><summary>What the measures mean</summary><dl>{rows}</dl></details>' if rows else ""
    )


def _measure(name, columns):
    values = {column: _number(column, name, measured.get(name)) for column, measured in columns.items()}
    bars = "".join(_bar(column, value) for column, value in values.items()) if _is_share(name) else ""
    cells = "".join(f"<td>{_amount(name, value)}</td>" for value in values.values())
    change = _change(name, values["before"], values["after"]) if len(values) == 2 else ""
    return f'<tr><th scope="row">{text(name)}{bars}</th>{cells}{change}</tr>'


def _bar(column, share):
    width = 0.0 if math.isnan(share) else 100 * min(max(share, 0.0), 1.0)
    return f'<span class="bar {column}" aria-hidden="true"><span style="width: {width:.1f}%"></span></span>'


def _change(name, before, after):
    difference = after - before
    if math.isnan(difference) or not difference:
        return "<td></td>" if math.isnan(difference) else "<td>0</td>"
    if not _is_share(name):
        return f"<td>{_signed(f'{difference:+,.4g}')}</td>"
    judgement = "better" if difference > 0 else "worse"
    return f'<td class="{judgement}">{_signed(f"{100 * difference:+.1f}")} pp</td>'


def _signed(number):
    return number.replace("-", "\N{MINUS SIGN}")


def _is_share(name):
    return "loss" not in name.lower() and any(share in name.lower() for share in _SHARE_NAMES)


def _amount(name, value):
    """Formats a measurement: 0.613 as 61.3 % if it is a share, 2000 as 2,000 if it is a count."""
    if math.isnan(value):
        return "\N{EN DASH}"
    if _is_share(name):
        return f"{100 * value:.1f}%"
    return f"{value:,.0f}" if value.is_integer() else f"{value:.4g}"


def _of_prefixes(prefixes, whole):
    """A table for each gallery, the whole catalogue first."""
    if not (in_whole := whole.get("prefixes")):
        return [_prefixes(prefixes, "With the first dimensions alone")]
    return [
        _prefixes(
            in_whole, f"With the first dimensions alone, in the whole catalogue of {whole['num_photos']:,} photos"
        ),
        _prefixes(prefixes, "With the first dimensions alone, among the products measured on"),
    ]


def _prefixes(prefixes, heading):
    """A row for each prefix of the embeddings, and a column for each share."""
    if not prefixes:
        return ""
    names = [name for name in next(iter(prefixes.values())) if _is_share(name)]
    heads = "".join(f'<th scope="col">{text(name)}</th>' for name in ("Dimensions", *names))
    rows = "\n".join(
        f'<tr><th scope="row">{text(length)}</th>'
        + "".join(f"<td>{_amount(name, _number('prefixes', name, each[name]))}</td>" for name in names)
        + "</tr>"
        for length, each in prefixes.items()
    )
    return _section(
        text(heading),
        '<div class="card"><table class="measures">',
        f"<thead><tr>{heads}</tr></thead>",
        f"<tbody>\n{rows}\n</tbody></table></div>",
    )


# Attributes: how often the head is right, the least useful last.


def _attributes(attributes):
    if not attributes:
        return ""
    gains = sorted(attributes.items(), key=lambda item: item[1]["majority"] - item[1]["accuracy"])
    rows = "\n".join(
        f'<tr><th scope="row">{text(name)}{_bar("after", each["accuracy"])}</th><td>{100 * each["accuracy"]:.1f}%</td>'
        f"<td>{100 * each['majority']:.1f}%</td><td>{each['num_known']:,}</td></tr>"
        for name, each in gains
    )
    heads = "".join(f'<th scope="col">{head}</th>' for head in ("Attribute", "Right", "Most frequent", "Photos"))
    return _section(
        "Attributes",
        '<div class="card"><table class="measures">',
        f"<thead><tr>{heads}</tr></thead>",
        f"<tbody>\n{rows}\n</tbody></table></div>",
        '<p class="note">Share of photos of which the attribute head is right, where the truth is known, and the share '
        "that always saying the more frequent answer would reach.</p>",
    )


# Curves: which belong together, and how they are drawn.


def _panels(history):
    """Sorts the curves into panels: {heading: {name: [(epoch, value), ...]}}; losses and their terms stand first."""
    panels: dict[str, dict] = {"Loss": {}, "Retrieval": {}}
    for place, row in enumerate(history, start=1):
        epoch = _number("history", "epoch", row.get("epoch", place))
        for name, value in row.items():
            if name != "epoch" and value not in (None, ""):  # a CSV file has "" where nothing was measured
                point = (epoch, _number("history", name, value))
                panels.setdefault(_panel_of(name), {}).setdefault(name, []).append(point)
    return {heading: curves for heading, curves in panels.items() if curves}


def _panel_of(name):
    if _is_share(name):
        return "Retrieval"
    is_pace = _PACE_NAMES & set(re.split("[^a-z]+", name.lower()))
    return name.replace("_", " ").capitalize() if is_pace else "Loss"  # a scale of its own, hence a panel of its own


def _curves(panels):
    figures = "\n".join(_curve_figure(heading, curves) for heading, curves in panels.items())
    return _section("Curves", f'<div class="curves">\n{figures}\n</div>') if panels else ""


def _curve_figure(heading, curves):
    light, dark = (thumbnails.data_uri("png", _draw({heading: curves}, ink, "none", dpi=160)) for ink in _INK.values())
    names = ", ".join(curves)
    last = ", ".join(f"{name} {_amount(name, points[-1][1])}" for name, points in curves.items())
    return (
        f'<figure class="card"><picture><source media="(prefers-color-scheme: dark)" srcset="{dark}">'
        f'<img src="{light}" alt="{text(heading)} by epoch: {text(names)}"></picture>'
        f"<figcaption>Last: {text(last)}</figcaption></figure>"
    )


def _draw(panels, ink, ground, dpi):
    """Draws panels side by side; returns the bytes of a PNG."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    num_legend_rows = max(math.ceil(len(curves) / 2) for curves in panels.values())
    size = (4.0 * len(panels), 2.8 + 0.22 * num_legend_rows)
    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.06)
    figure = Figure(figsize=size, dpi=dpi, facecolor=ground, layout=layout)
    subfigures = figure.subfigures(1, len(panels), squeeze=False)[0]
    for subfigure, (heading, curves) in zip(subfigures, panels.items(), strict=True):
        subfigure.set_facecolor(ground)
        _draw_panel(subfigure, heading, curves, ink)
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def _draw_panel(figure, heading, curves, ink):
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    axes = figure.subplots()
    axes.set_facecolor("none")
    for place, (name, points) in enumerate(curves.items()):
        epochs, values = zip(*points, strict=True)
        color = _CURVE_COLORS[place % len(_CURVE_COLORS)]
        style = ("-", "--", ":")[place // len(_CURVE_COLORS) % 3]
        marker = "o" if len(points) <= 30 else None
        axes.plot(epochs, values, style, label=name, color=color, linewidth=2, marker=marker, markersize=3.5)
    if heading == "Retrieval":
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title(heading, loc="left", color=ink, fontsize=12, fontweight="bold")
    axes.set_xlabel("epoch", color=ink)
    axes.tick_params(colors=ink)
    axes.grid(color=ink, alpha=0.15)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(ink)
    figure.legend(loc="outside lower left", ncols=2, frameon=False, labelcolor=ink)


# The gallery: queries and what was found for them, worst first.


def _gallery(results):
    if not results:
        return ""
    thumbnail = functools.cache(_thumbnail)  # a photo that many queries find is read once
    rows = "\n".join(_result(result, thumbnail) for result in sorted(results, key=_worst_first))
    return _section("Search results", f"<p>{_tally(results)}</p>", _filters(results), rows)


def _first_right(result):
    """Returns the rank (from 1) and score of the first right neighbour, or (inf, 0.0) if there is none."""
    found = ((rank, it.score) for rank, it in enumerate(result.neighbors, start=1) if it.sku == result.sku)
    return next(found, (math.inf, 0.0))


def _worst_first(result):
    rank, score = _first_right(result)
    return (result.sku is None, -rank, score)


def _place_of_right(result):
    """Returns the word the filter buttons use: is the first place right, wrong or unknown?"""
    if result.sku is None:
        return "unknown"
    return "right" if _first_right(result)[0] == 1 else "wrong"


def _tally(results):
    """How many queries are answered rightly; of those that were trained on apart, which are easy."""
    learned = [result for result in results if _is_learned(result)]
    others = [result for result in results if not _is_learned(result)]
    sentences = [_tally_of(others, "of unseen products" if learned else ""), _tally_of(learned, "of trained products")]
    num_unknown = sum(result.sku is None for result in results)
    if num_unknown:
        sentences.append(f"The product of {_queries(num_unknown)} is not known.")
    return " ".join([*filter(None, sentences), "Worst first." if num_unknown < len(results) else ""]).strip()


def _tally_of(results, which):
    known = [_place_of_right(result) for result in results if result.sku is not None]
    if not known:
        return ""
    right, shown = known.count("right"), f"{len(known)} shown quer{'y' if len(known) == 1 else 'ies'}"
    verb = "has" if len(known) == 1 else "have"
    return f"{right} of {shown}{f' {which}' if which else ''} {verb} the right product in first place."


def _queries(count):
    return f"{count} shown quer{'y' if count == 1 else 'ies'}"


def _is_learned(result):
    """Whether the embedder was trained on the query's product."""
    return result.split in ("train", "validation")


def _filters(results):
    """Buttons that the script unhides; without a script all results are shown and no dead button is."""
    if len({_place_of_right(result) for result in results}) == 1:
        return ""
    choices = {"all": "All", "wrong": "First place wrong", "right": "First place right"}
    buttons = "".join(
        f'<button type="button" value="{value}" aria-pressed="{str(value == "all").lower()}">{label}</button>'
        for value, label in choices.items()
    )
    return f'<div class="filters" role="group" aria-label="Show" hidden>{buttons}</div>'


def _result(result, thumbnail):
    name = "unnamed product" if result.sku is None else result.sku
    picture = _picture(thumbnail(result.query), f"query photo of {name}", result.query)
    neighbors = "\n".join(
        _neighbor(rank, neighbor, result.sku, thumbnail) for rank, neighbor in enumerate(result.neighbors, start=1)
    )
    return (
        f'<article class="result card" data-first="{_place_of_right(result)}">\n<div class="query">{picture}'
        f'<div><h3>{text(name)}</h3>{_mark_of_split(result)}<p class="note">{_verdict(result)}</p></div></div>\n'
        f'<ol class="neighbors" role="list" tabindex="0" aria-label="Found for {text(name)}, best first">\n'
        f"{neighbors}\n</ol>\n</article>"
    )


def _mark_of_split(result):
    if not result.split:
        return ""
    kind = "trained" if _is_learned(result) else "unseen product"
    return f'<p class="split" title="split: {text(result.split)}">{kind}</p>'


def _verdict(result):
    rank = _first_right(result)[0]
    if result.sku is None:
        return "the product of this photo is not known"
    if math.isinf(rank):
        return f"not among the first {len(result.neighbors)}" if result.neighbors else "nothing found"
    return "found in first place" if rank == 1 else f"first found at rank {rank}"


def _neighbor(rank, neighbor, right_sku, thumbnail):
    picture = _picture(thumbnail(neighbor.photo), f"photo of {neighbor.sku}", neighbor.photo)
    judgement, sign = ("right", "\N{CHECK MARK}") if neighbor.sku == right_sku else ("wrong", "\N{BALLOT X}")
    mark = f'<span class="mark"><span aria-hidden="true">{sign}</span><span class="unseen">{judgement}</span></span>'
    opening, mark = ("<li>", "") if right_sku is None else (f'<li class="{judgement}">', mark)
    return (
        f'{opening}{picture}{mark}<p class="place"><span>#{rank}</span><span>{neighbor.score:.3f}</span></p>'
        f'<span class="sku">{text(neighbor.sku)}</span></li>'
    )


def _picture(thumbnail, description, path):
    if thumbnail is None:
        label = text(f"no picture: {description}")
        title = text(thumbnails.without_picture(path))
        return f'<div class="picture" role="img" aria-label="{label}" title="{title}">no picture</div>'
    return f'<img class="picture" src="{thumbnail}" alt="{text(description)}" title="{text(path)}">'


def _thumbnail(path):
    """A small picture of a photo as a data URI, or `None` if it cannot be read."""
    content = thumbnails.thumbnail(path, _THUMBNAIL_SIDE)
    return None if content is None else thumbnails.data_uri("jpeg", content)
