"""The table of mutants fits the code as it is. `python -m tests.mutants` runs them; this only looks."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutants.mutant import Mutant, StaleMutantError
from tests.mutants.run import TestRun, judged
from tests.mutants.table import AREAS, MUTANTS
from tests.mutants.tree import COPIED

REPOSITORY = Path(__file__).parents[3]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.what)
def test_a_mutant_can_be_applied_and_compiles(mutant):
    """Whoever changes such a line changes the mutant with it."""
    broken = mutant.applied_to((REPOSITORY / mutant.path).read_text())
    compile(broken, mutant.path, "exec")
    assert (REPOSITORY / mutant.caught_by).is_file()


def test_there_are_mutants_of_every_area():
    assert len(MUTANTS) >= 40
    assert set(AREAS) == {
        "retention",
        "commit",
        "outcome",
        "restart",
        "data order",
        "agreement",
        "copies in memory",
    }
    assert min(len(mutants) for mutants in AREAS.values()) >= 5


def test_no_mutant_is_in_the_table_twice():
    assert len({(mutant.file, mutant.old, mutant.new) for mutant in MUTANTS}) == len(MUTANTS)
    assert len({mutant.what for mutant in MUTANTS}) == len(MUTANTS)


@pytest.mark.parametrize("text", ["nothing of it", "x = 1; x = 1"])
def test_a_mutant_whose_text_is_not_there_exactly_once_is_stale(text):
    mutant = Mutant("x is 2", "version.py", "x = 1", "x = 2", "tests/unit/package/test_mutants.py")
    with pytest.raises(StaleMutantError):
        mutant.applied_to(text)


def test_what_is_copied_is_there():
    assert [name for name in COPIED if not (REPOSITORY / name).exists()] == []


MUTANT = Mutant("x is 2", "version.py", "x = 1", "x = 2", "tests/unit/package/test_mutants.py")


@pytest.mark.parametrize(
    ("code", "output", "verdict"),
    [
        (1, "1 failed, 23 passed in 7.12s", "caught"),
        (0, "24 passed in 7.12s", "SURVIVED"),
        (-6, "1 failed, 23 passed in 7.12s\nterminate called without an active exception", "caught"),
        (-6, "24 passed in 7.12s\nterminate called without an active exception", "no test"),
        (-9, "", "no test"),
        (2, "1 error in 0.10s", "no test"),
    ],
)
def test_a_mutant_is_caught_if_a_test_failed(code, output, verdict):
    untouched = TestRun(0, 1.0, "24 passed in 1.00s")
    assert judged(1, MUTANT, untouched, TestRun(code, 8.0, output)).verdict == verdict


def test_a_test_file_that_fails_without_the_mutant_catches_nothing():
    failed = TestRun(1, 1.0, "1 failed in 1.00s")
    assert judged(1, MUTANT, failed, failed).verdict == "no test"
