"""A count and its noun agree."""

from __future__ import annotations

import pytest

from trainerd.contract.counted import all_of, counted


@pytest.mark.parametrize(
    ("count", "words", "said"),
    [
        (0, ("step",), "0 steps"),
        (1, ("step",), "1 step"),
        (2, ("step",), "2 steps"),
        (1, ("batch", "batches"), "1 batch"),
        (3, ("batch", "batches"), "3 batches"),
        (1, ("job goes", "jobs go"), "1 job goes"),
        (2, ("job goes", "jobs go"), "2 jobs go"),
    ],
)
def test_only_after_one_the_noun_is_singular(count, words, said):
    assert counted(count, *words) == said


def test_all_of_one_is_the_only_one():
    assert (all_of(1, "step"), all_of(3, "step")) == ("the only step", "all 3 steps")
