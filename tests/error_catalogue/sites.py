"""Where the package, its commands and their libraries refuse something: every `raise`, complaint and `sys.exit`."""

import ast
import dataclasses
import functools
import pathlib

ROOT = pathlib.Path(__file__).parents[2]
FOLDERS = ("eet_tf", "train", "export")
GAP = "{}"  # what is filled in when it is said
_FEWEST_LETTERS = 12  # of words that are known by themselves


@dataclasses.dataclass(frozen=True)
class Site:
    """One place: the file, its lines, and the words that it says, with a `{}` for each value."""

    file: str
    first: int
    last: int
    words: str
    is_raise: bool

    def is_said_in(self, message):
        """Whether its words are in a message, one after another."""
        place = 0
        for part in self.words.split(GAP):
            place = message.find(part, place)
            if place < 0:
                return False
            place += len(part)
        return True


@functools.cache
def all_sites():
    """Every site of the repository, in the order of files and lines."""
    files = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
    return [site for file in files for site in sites_of(file.read_text(encoding="utf-8"), str(file.relative_to(ROOT)))]


def sites_of(source, file):
    """The sites of one file."""
    found = []
    for node in ast.walk(ast.parse(source)):
        said = _said(node)
        if said is not None:
            is_raise = isinstance(node, ast.Raise)
            found.append(Site(file, node.lineno, node.end_lineno, _known(said), is_raise))
    return sorted(found, key=lambda site: site.first)


def _said(node):
    """The expression that a site says; None if the node is none."""
    if isinstance(node, ast.Raise):
        return node.exc if isinstance(node.exc, ast.Call) else None  # else it was made elsewhere, or is raised again
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and isinstance(node.value.func, ast.Attribute):
        owner, name = ast.unparse(node.value.func.value), node.value.func.attr
        is_complaint = name in ("add", "append") and owner.split(".")[-1].strip("_") == "complaints"
        is_door = bool(node.value.args) and ast.unparse(node.value.args[0]).startswith("main([")
        if is_complaint or (owner, name) == ("self", "add") or ((owner, name) == ("sys", "exit") and not is_door):
            return node.value
    return None


def _known(node):
    """Its words; where there are hardly any, the code that makes them."""
    said = words(node)
    return said if sum(map(str.isalpha, said)) >= _FEWEST_LETTERS else f"<{ast.unparse(node)}>"


def words(node):
    """The literal words of an expression, with a gap for each part that is not literal.

    Example:

    >>> words(ast.parse('ValueError(f"`k` must be {low} or more. Received: k={k!r}.")', mode="eval").body)
    '`k` must be {} or more. Received: k={}.'
    """
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else GAP
    if isinstance(node, ast.JoinedStr):
        return "".join(words(value) for value in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return words(node.left) + words(node.right)
    if isinstance(node, ast.Call):
        arguments = [*node.args, *(keyword.value for keyword in node.keywords)]
        return GAP.join(filter(None, (words(argument) for argument in arguments))) or GAP
    return GAP
