"""What all pages share: escaped text, the table of facts, and a template that is filled and written whole."""

from __future__ import annotations

import html
import importlib.resources
import os
import string
from collections.abc import Iterable, Mapping

from eet_tf import files


def text(value) -> str:
    """Escapes a value for HTML text and quoted attributes."""
    return html.escape(str(value), quote=True)


def facts(rows: Mapping | None) -> str:
    """A list of labels with their texts; long texts take a whole line. Empty without rows."""
    lines = "\n".join(_fact(label, value) for label, value in (rows or {}).items())
    return f'<dl class="facts card">\n{lines}\n</dl>' if lines else ""


def _fact(label, value) -> str:
    width = ' class="long"' if len(str(value)) > 48 else ""
    return f"<div{width}><dt>{text(label)}</dt><dd>{text(value)}</dd></div>"


def _template(name: str) -> str:
    return importlib.resources.files("eet_tf.pages").joinpath(f"templates/{name}").read_text(encoding="utf-8")


def write_page(path: str | os.PathLike, template: str, title: str, sections: Iterable[str]) -> None:
    """Fills a template and writes the page; an old page stays until the new one is complete.

    Args:
        path: the file to write; its folder is created.
        template: the name of a file in `templates`.
        title: the page's heading, not yet escaped.
        sections: pieces of HTML; empty ones are left out.
    """
    source = string.Template(_template(template))
    page = source.substitute(title=text(title), base=_template("base.css"), sections="\n".join(filter(None, sections)))
    with files.replaced(path) as aside, open(aside, "wb") as file:
        file.write(page.encode("utf-8", "replace"))  # a file name may hold bytes that are no text
