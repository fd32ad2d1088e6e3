"""What the site takes from outside of docs/: pictures of results, examples, and the pages of the repository itself."""

import pathlib
import posixpath
import re

from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).parents[1]
PAGES = {f"{name.lower()}.md": ROOT / f"{name}.md" for name in ("CHANGELOG", "CONTRIBUTING", "SECURITY")}
RESULTS = "benchmarks/results"
EXAMPLES = "examples"
_LINK = re.compile(r"\]\(([^)#\s]+)")


def on_files(files, config):
    """Adds them; pictures under `pictures/`."""
    pictures = {f"pictures/{file.relative_to(ROOT / RESULTS)}": file for file in (ROOT / RESULTS).glob("*/*.png")}
    examples = {f"{EXAMPLES}/{file.name}": file for file in (ROOT / EXAMPLES).glob("*.py")}
    for place, source in {**PAGES, **pictures, **examples}.items():
        files.append(File.generated(config, place, abs_src_path=str(source)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Turns their addresses in the repository into those in the site."""
    source = page.file.src_uri
    folder = posixpath.dirname(source)

    def renamed(match):
        if ":" in match[1]:
            return match[0]
        in_repository = posixpath.normpath(posixpath.join("" if source in PAGES else f"docs/{folder}", match[1]))
        if in_repository.startswith(f"{RESULTS}/"):
            in_site = in_repository.replace(RESULTS, "pictures", 1)
        elif in_repository.startswith(f"{EXAMPLES}/"):
            in_site = in_repository
        elif in_repository.startswith("docs/"):
            in_site = in_repository.removeprefix("docs/")
        elif in_repository.lower() in PAGES:
            in_site = in_repository.lower()
        else:
            return match[0]
        return f"]({posixpath.relpath(in_site, folder or '.')}"

    return _LINK.sub(renamed, markdown)
