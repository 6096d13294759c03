"""How long before the end of the grace period a flush begins."""

import pytest

from trainerd.training.interruption.deadline import margin_s


@pytest.mark.parametrize(
    ("grace_s", "longest_save_s", "expected_s"),
    [
        (30.0, None, 6.0),
        (3.0, 0.01, 0.5),
        (30.0, 2.0, 4.0),
        (30.0, 60.0, 15.0),
        (0.6, 0.01, 0.3),
    ],
    ids=["unknown", "at-least", "twice-the-save", "at-most-half", "short-grace"],
)
def test_a_flush_gets_twice_the_longest_save_within_bounds(grace_s, longest_save_s, expected_s):
    assert margin_s(grace_s, longest_save_s) == pytest.approx(expected_s)
