"""Tests that run side by side: all of them do, and the longest files begin."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from tests.conftest import pytest_collection_modifyitems


def item(file: str, name: str, *, limit_s: float | None = None, is_slow: bool = True) -> SimpleNamespace:
    """Return as much of a test as the hook looks at."""
    marks = {"slow": SimpleNamespace(args=())} if is_slow else {}
    if limit_s is not None:
        marks["timeout"] = SimpleNamespace(args=(limit_s,))
    return SimpleNamespace(path=Path(file), name=name, nodeid=f"{file}::{name}", get_closest_marker=marks.get)


def order(*items: SimpleNamespace) -> list[str]:
    ordered = list(items)
    pytest_collection_modifyitems(SimpleNamespace(getini={"timeout": "120"}.get), ordered)
    return [each.name for each in ordered]


def test_the_file_whose_tests_may_take_longest_in_all_comes_first():
    short, long = item("short.py", "short"), item("long.py", "long", limit_s=300)
    many = [item("many.py", f"many {number}") for number in range(3)]
    longer = item("longer.py", "longer", limit_s=400)
    assert order(short, long, *many, longer) == ["longer", "many 0", "many 1", "many 2", "long", "short"]


def test_tests_of_a_file_stay_together_in_their_order():
    first, second = item("a.py", "first"), item("a.py", "second", limit_s=900)
    assert order(item("b.py", "other", limit_s=950), first, second) == ["first", "second", "other"]


def test_what_is_not_slow_stays_where_it_is():
    one, two = (item(f"{limit_s}.py", f"{limit_s}", limit_s=limit_s, is_slow=False) for limit_s in (1, 9))
    assert order(one, two) == ["1", "9"]


def test_tests_of_one_id_are_told_apart_or_workers_would_run_one_of_them():
    same, other = [item("a.py", "test_an_operation") for _ in range(3)], item("a.py", "test_another")
    items = [*same, other]
    pytest_collection_modifyitems(SimpleNamespace(getini={"timeout": "120"}.get), items)
    ids = [getattr(each, "_nodeid", each.nodeid) for each in items]
    assert ids == [
        "a.py::test_an_operation",
        "a.py::test_an_operation[2]",
        "a.py::test_an_operation[3]",
        "a.py::test_another",
    ]
