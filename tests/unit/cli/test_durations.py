"""Durations of the command line: one way to write them for every option."""

from __future__ import annotations

import click
import pytest

from trainerd.cli.drill_first import seconds_of
from trainerd.cli.durations import duration_s, option_s
from trainerd.cli.wait import read_time


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("1.5", 1.5),
        ("90s", 90),
        ("5m", 300),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("2d", 172800),
        (" 5 m ", 300),
        ("500ms", 0.5),
        ("0", 0),
    ],
)
def test_a_duration_is_read(text, seconds):
    assert duration_s(text) == seconds
    assert read_time(None, None, text) == seconds
    assert read_time(None, None, None) is None


@pytest.mark.parametrize(
    "text",
    ["", " ", "soon", "-5", "-5s", "1e3", "inf", "nan", "5x", "s", "1m1h", "9" * 400, "9" * 40, "٣s", "²"],
)
def test_what_is_none_is_a_usage_error_that_names_the_option(text):
    for read in (lambda: option_s("--timeout", text), lambda: seconds_of(text)):
        with pytest.raises(click.UsageError, match=r"--(timeout|budget) .* is not a duration") as refused:
            read()
        assert len(str(refused.value)) < 160


def test_a_budget_is_a_second_or_more():
    assert seconds_of("1s") == 1
    with pytest.raises(click.UsageError, match="of 1 s or more"):
        seconds_of("500ms")
