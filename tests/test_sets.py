"""The lists that say which target runs a test."""

import pytest

from tests import conftest

LISTS = ("LONG", "COMPILED", "SLOW", "BOTH", "ONCE")


@pytest.mark.parametrize("name", LISTS)
def test_every_entry_names_what_there_is(name):
    """A renamed test would come back to `make test` unseen."""
    for entry in getattr(conftest, name):
        place, _, test = entry.partition("::")
        assert (conftest.TESTS / place).exists(), entry
        assert not test or f"def {test}(" in (conftest.TESTS / place).read_text(encoding="utf-8"), entry


def test_no_test_is_in_both_sets_for_two_reasons():
    assert not set(conftest.BOTH) & set(conftest.ONCE)
    assert set(conftest.BOTH) <= {*conftest.SLOW, *conftest.COMPILED}
