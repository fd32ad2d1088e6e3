"""The pages: each is in the site, links lead somewhere, every public name is described, the rooms are as drawn."""

import importlib
import pathlib
import re

import pytest
import yaml

from tests.test_architecture import ROOMS

ROOT = pathlib.Path(__file__).parents[1]
DOCS = ROOT / "docs"
NAV = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
PAGES = sorted(DOCS.rglob("*.md"))
READ = [*sorted(ROOT.glob("*.md")), *PAGES]
# docs/hooks.py makes these pages from files of the repository
MADE = {"changelog.md", "contributing.md", "security.md"}
PUBLIC_PACKAGES = ["eet_tf", "eet_tf.client", "eet_tf.data", "eet_tf.service", "eet_tf.index", "eet_tf.serving"]


def in_nav(entries):
    """The pages that a list of the navigation names, however deep."""
    for entry in entries:
        target = entry if isinstance(entry, str) else next(iter(entry.values()))
        yield from [target] if isinstance(target, str) else in_nav(target)


def text_of(page):
    """A page without its blocks of code, in which nothing is a link or a heading."""
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)


def anchors(page):
    """What its headings are linked by, as GitHub and MkDocs make it: `## R@1, and why` -> `r1-and-why`."""
    headings = re.findall(r"^#+ (.+?)\s*$", text_of(page), re.M)
    return {re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", heading.lower()).strip()) for heading in headings}


def test_every_page_is_in_the_site():
    named = list(in_nav(NAV))
    missing = {str(page.relative_to(DOCS)) for page in PAGES} - set(named)
    assert not missing, f"add {sorted(missing)} to `nav` in mkdocs.yml"
    assert len(named) == len(set(named))


def test_every_page_of_the_site_is_there():
    absent = {name for name in in_nav(NAV) if not (DOCS / name).is_file()} - MADE
    assert not absent, f"`nav` in mkdocs.yml names {sorted(absent)}, which docs/ has not"


@pytest.mark.parametrize("page", READ, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page):
    found = re.findall(r"\]\(([^)\s]+)\)", text_of(page)) + re.findall(r"^\[[^\]]+\]: (\S+)", text_of(page), re.M)
    for address in found:
        file, _, anchor = address.partition("#")
        if re.match(r"\w+:", address):
            continue
        target = (page.parent / file).resolve() if file else page
        assert target.is_file(), f"{address}: there is no {target}"
        assert not anchor or anchor in anchors(target), f"{address}: {target.name} has only {sorted(anchors(target))}"


def test_anchors_are_those_of_headings(tmp_path):
    (tmp_path / "page.md").write_text("# The index\n\n```\n# a comment\n```\n\n## R@1, and `why`\n")
    assert anchors(tmp_path / "page.md") == {"the-index", "r1-and-why"}


def test_the_reference_describes_every_public_name_once():
    described = [
        name
        for page in sorted((DOCS / "api").glob("*.md"))
        for name in re.findall(r"^::: (\S+)", page.read_text(encoding="utf-8"), re.M)
    ]
    public = {}  # the thing itself -> the names it can be imported by
    for package in PUBLIC_PACKAGES:
        pytest.importorskip("flask") if package == "eet_tf.service" else None
        module = importlib.import_module(package)
        for name in module.__all__:
            public.setdefault(getattr(module, name), []).append(f"{package}.{name}")
    for names in public.values():
        assert sum(name in described for name in names) == 1, f"add one of {names} to a page in docs/api"
    assert set(described) <= {name for names in public.values() for name in names}


def rooms_table():
    """The rooms of tests/test_architecture.py with what they import, as a table in Markdown, the lowest first."""
    lines = ["| floor | room | imports from | needs |", "|---|---|---|---|"]
    for name, (floor, rooms, packages) in ROOMS.items():
        shown = [", ".join(f"`{part}`" for part in sorted(parts)) for parts in (rooms, packages)]
        lines.append(f"| {floor} | `{name}` | {shown[0]} | {shown[1]} |")
    return "\n".join(lines)


def test_the_rooms_are_as_drawn():
    drawn = re.search(r"<!-- rooms -->\n(.*)\n<!-- /rooms -->", (DOCS / "design.md").read_text(encoding="utf-8"), re.S)
    assert drawn[1].strip() == rooms_table(), f"docs/design.md must have this table:\n{rooms_table()}"
