"""Every message that refuses something is in the catalogue of errors, with an example that a user can bring about.

The catalogue is `tests/error_catalogue/`: files of examples with what they say, to be read aloud, and a list of the
messages whose example is elsewhere. A new `raise` fails the walk below until there is an example of it.
"""

import collections
import pathlib
import re

import pytest

from eet_tf import compat
from tests.error_catalogue import catalogue, elsewhere, sites

ROOT = pathlib.Path(__file__).parents[1]
COMMAND = "python -m tests.error_catalogue.catalogue"
ALL_EXAMPLES = [(file, example) for file in catalogue.FILES for example in catalogue.read(file)[1]]
FOREIGN = re.compile(
    r"Traceback|np\.(?!unique)|array\(|\{\{|node |Op type|object at 0x|<class|tf\.Tensor|InvalidArgument|unexpected "
    r"keyword|not supported between|unsupported operand|cannot be interpreted|invalid literal|could not convert"
)

pytestmark = pytest.mark.skipif(compat.KERAS_2, reason="the messages are stored for the default set of versions")


@pytest.fixture(scope="module")
def said():
    """`{example: (what it says, the sites behind it)}`."""
    pytest.importorskip("scann")
    pytest.importorskip("tensorflow_serving")
    for reader in ("openpyxl", "pandas", "pyarrow", "fsspec"):
        pytest.importorskip(reader)
    return {example: catalogue.refused(example.code) for _, example in ALL_EXAMPLES}


def test_examples_say_what_is_stored(said):
    changed = [f">>> {example.code}\n{now}" for example, (now, _) in said.items() if now != example.message]
    assert not changed, "\n".join(["on purpose? Then " + COMMAND, *changed])


def test_every_example_is_refused_by_a_site_of_ours(said):
    assert [example.code for example, (now, found) in said.items() if now == catalogue.TAKEN or not found] == []


def test_no_message_is_in_words_of_others(said):
    foreign = {example.code: now for example, (now, _) in said.items() if FOREIGN.search(now)}
    assert foreign == {}


def test_no_message_is_empty_or_without_an_end(said):
    assert [example.code for example, (now, _) in said.items() if len(now) < 15] == []


def listed():
    """The words of messages that have no example here."""
    seen_in = (words for each in elsewhere.SEEN_IN.values() for words in each)
    return [*seen_in, *elsewhere.OWED, *elsewhere.SAID_ON, *elsewhere.NO_EXAMPLE]


def test_every_message_is_in_the_catalogue(said):
    shown = {site.words for _, found in said.values() for site in found}
    missing = [site for site in sites.all_sites() if site.words not in shown | set(listed())]
    assert not missing, (
        "add an example to tests/error_catalogue/*.txt, then "
        + COMMAND
        + ":\n"
        + "\n".join(f"{site.file}:{site.first}: {site.words}" for site in missing)
    )


def test_the_list_of_messages_elsewhere_is_not_stale(said):
    """None is gone, and none has an example here."""
    known = {site.words for site in sites.all_sites()}
    shown = {site.words for _, found in said.values() for site in found}
    assert [words for words in listed() if words not in known] == []
    assert [words for words in listed() if words in shown] == []


def test_what_is_named_elsewhere_is_there():
    assert [file for file in elsewhere.SEEN_IN if not (ROOT / file).is_file()] == []
    assert all(len(reason) > 20 for reason in elsewhere.NO_EXAMPLE.values())


def test_no_example_is_there_twice():
    count = collections.Counter(example.code for _, example in ALL_EXAMPLES)
    assert [code for code, number in count.items() if number > 1] == []


@pytest.mark.parametrize(
    "source, words",
    [
        ("raise ValueError(f'`k` must be {low} or more. Received: {k!r}.')", "`k` must be {} or more. Received: {}."),
        ("raise refusal(folder, 'is not there today', mend='Copy it.')", "{}{}is not there today{}Copy it."),
        ("raise ValueError(str(error))", "<ValueError(str(error))>"),
        ("complaints.add('--k must be a whole number.')", "--k must be a whole number."),
        ("sys.exit(f'error: {error} at the very end')", "error: {} at the very end"),
    ],
)
def test_a_site_is_known_by_its_words(source, words):
    (site,) = sites.sites_of(source, "a.py")
    assert site.words == words


def test_what_raises_again_is_no_site():
    assert sites.sites_of("try:\n    f()\nexcept ValueError as error:\n    raise\n", "a.py") == []
    assert sites.sites_of("raise error\n", "a.py") == []
