"""Every failpoint is in `docs/formats.md`, with what a crash there leaves."""

from __future__ import annotations

import pytest

from tests.support import failpoint_table
from trainerd.checkpoint import store  # noqa: F401 - its failpoints are registered
from trainerd.contract import failpoints


def test_the_table_in_the_documentation_is_that_of_the_code():
    """If this fails: `python -m tests.support.failpoint_table`."""
    assert failpoint_table.PAGE.read_text() == failpoint_table.page_with(failpoint_table.table())


def test_each_name_is_declared_once():
    names = [one.name for one in failpoint_table.declared_failpoints()]
    assert sorted(names) == sorted(set(names))


def test_the_sources_say_what_the_registry_holds():
    listed = {one.name: one.leaves for one in failpoint_table.declared_failpoints()}
    assert {
        name: point.leaves for name, point in failpoints.REGISTRY.items() if name in listed
    }.items() <= listed.items()
    assert "checkpoint.renamed" in failpoints.REGISTRY


@pytest.mark.parametrize("one", failpoint_table.declared_failpoints(), ids=lambda one: one.name)
def test_each_says_what_it_leaves_in_a_row_of_its_own(one):
    assert one.leaves.strip()
    assert "|" not in one.leaves
    assert "\n" not in one.leaves
