"""What a person looks at after an audit: one HTML page that needs nothing but itself."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping

from eet_tf.arguments import check_file
from eet_tf.audit.findings import AuditResult, Finding
from eet_tf.data import reasons
from eet_tf.data.catalog import Catalog
from eet_tf.data.remote import joined
from eet_tf.pages import parts, thumbnails
from eet_tf.pages.parts import text
from eet_tf.wording import counted

_SIDE = 112  # pixels on the longer side; about 4 kB
_MOST_GROUPS = 60  # shown of each finding
_MOST_PHOTOS = 6  # shown of each group
_MOST_CATEGORIES = 60


def write_page(
    path: str | os.PathLike, result: AuditResult, title: str, facts: Mapping[str, str] | None = None
) -> None:
    """Writes what an audit found: findings that block first, with the photos.

    Of each finding 60 groups are shown, of each group 6 photos, so that the page stays below some 10 MB; it says how
    many more there are.

    Args:
        path: the file to write; its folder is created. An old page stays until the new one is complete.
        result: what `audit_catalog` found.
        title: the page's heading.
        facts: what was audited, label to text, to stand above the findings.

    Raises:
        ValueError: if no file can be written at `path`.

    Example:

    >>> import tempfile
    >>> from eet_tf.audit import audit_catalog
    >>> from eet_tf.data import make_synthetic_catalog
    >>> folder = tempfile.mkdtemp()
    >>> result = audit_catalog(make_synthetic_catalog(os.path.join(folder, "photos"), 4, 3, image_size=48))
    >>> write_page(os.path.join(folder, "audit.html"), result, "Mugs")
    >>> with open(os.path.join(folder, "audit.html"), encoding="utf-8") as page:
    ...     "Training may start." in page.read()
    True
    """
    check_file("path", path)
    cache = result.catalog.photo_cache
    thumbnail = functools.cache(lambda file: _thumbnail(file, cache))  # a photo may stand in several findings
    verdict = "Something must be mended before training." if result.blocks else "Training may start."
    sections = (
        f'<p class="verdict {"blocks" if result.blocks else "free"}">{verdict}</p>',
        parts.facts({**_counts(result), **(facts or {})}),
        *(_finding(result.catalog, finding, thumbnail) for finding in result.findings),
        _categories(result.categories),
    )
    parts.write_page(path, "audit.html", title, sections)


def _counts(result: AuditResult) -> dict[str, str]:
    catalog = result.catalog
    counts = {"Photos": f"{len(catalog):,}", "Products": f"{catalog.num_classes:,}"}
    counts["To learn from"] = " of ".join(map(counted, result.num_training, ("photo", "product")))
    if catalog.splits is not None:
        names = sorted(set(catalog.splits.tolist()))
        counts["Splits"] = ", ".join(f"{name or 'none'}: {(catalog.splits == name).sum():,}" for name in names)
    return counts


def _finding(catalog: Catalog, finding: Finding, thumbnail) -> str:
    mark = '<span class="mark blocks">mend</span>' if finding.blocks else '<span class="mark">look</span>'
    shown = zip(finding.groups[:_MOST_GROUPS], finding.notes)
    groups = "\n".join(_group(catalog, rows, note, thumbnail) for rows, note in shown)
    left = len(finding.groups) - _MOST_GROUPS
    more = f'<p class="note">and {left:,} more, which are not shown</p>' if left > 0 else ""
    return (
        f'<section data-kind="{finding.kind}">\n<h2>{mark} {text(finding.title)}</h2>\n'
        f"<p>{text(finding.advice)}</p>\n"
        f'<div class="groups">\n{groups}\n</div>\n{more}</section>'
    )


def _group(catalog: Catalog, rows: tuple[int, ...], note: str, thumbnail) -> str:
    pictures = "".join(_picture(catalog, row, thumbnail) for row in rows[:_MOST_PHOTOS])
    left = len(rows) - _MOST_PHOTOS
    more = f'<p class="note">and {left:,} more</p>' if left > 0 else ""
    caption = f"<figcaption>{text(note)}</figcaption>" if note else ""
    return f'<figure class="card"><div class="photos">{pictures}</div>{more}{caption}</figure>'


def _picture(catalog: Catalog, row: int, thumbnail) -> str:
    path, sku = str(catalog.paths[row]), str(catalog.skus[row])
    split = "" if catalog.splits is None else f" ({catalog.splits[row]})"
    file = joined(catalog.root, path)
    content = thumbnail(file)
    if content is None:
        label = text(f"no picture: photo of {sku}")
        title = text(f"{path}: {reasons.of_file(file, photo_cache=catalog.photo_cache)}")
        picture = f'<div class="picture" role="img" aria-label="{label}" title="{title}">no picture</div>'
    else:
        picture = f'<img class="picture" src="{content}" alt="photo of {text(sku)}" title="{text(path)}">'
    return f'<div>{picture}<span class="sku">{text(sku)}{text(split)}</span></div>'


def _thumbnail(path: str, photo_cache: str) -> str | None:
    """A small picture of a photo as a data URI, or None if it cannot be read."""
    content = thumbnails.thumbnail(path, _SIDE, photo_cache=photo_cache)
    return None if content is None else thumbnails.data_uri("jpeg", content)


def _categories(categories: Mapping[str, tuple[int, int]]) -> str:
    if not categories:
        return ""
    most = max(photos for photos, _ in categories.values())
    shown = list(categories.items())[:_MOST_CATEGORIES]
    rows = "\n".join(
        f'<tr><th scope="row">{text(name or "none")}<span class="bar" aria-hidden="true">'
        f'<span style="width: {100 * photos / most:.1f}%"></span></span></th>'
        f"<td>{photos:,}</td><td>{products:,}</td></tr>"
        for name, (photos, products) in shown
    )
    left = len(categories) - len(shown)
    more = f'<p class="note">and {left:,} smaller ones</p>' if left else ""
    return (
        '<section>\n<h2>Categories</h2>\n<div class="card"><table>\n'
        '<thead><tr><th scope="col">Category</th><th scope="col">Photos</th><th scope="col">Products</th></tr>'
        "</thead>\n"
        f"<tbody>\n{rows}\n</tbody></table></div>\n{more}</section>"
    )
