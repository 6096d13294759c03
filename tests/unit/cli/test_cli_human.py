"""Numbers as people read them."""

from __future__ import annotations

import math

import pytest

from trainerd.cli import human


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0s"),
        (0.9, "0s"),
        (59.9, "59s"),
        (60, "1m00s"),
        (3599, "59m59s"),
        (3600, "1h00m"),
        (86399, "23h59m"),
        (90000, "1d01h"),
    ],
)
def test_durations_show_their_two_largest_units(seconds, text):
    assert human.duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536 * 1024, "1.5 MiB"), (2**70, "1048576.0 PiB")],
)
def test_sizes_have_binary_units(count, text):
    assert human.size(count) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0.123456789, "0.123457"), (12, "12"), (math.nan, "nan"), (1e-12, "1e-12"), ("x", "x")],
)
def test_measured_values_have_six_digits(value, text):
    assert human.number(value) == text


@pytest.mark.parametrize(
    ("position", "text"),
    [
        ((None, None, None, None), "-"),
        ((None, 10, None, None), "-"),
        ((0, 10, 0, 100), "0.00/10"),
        ((1, 10, 30, 100), "1.30/10"),
        ((1, None, 30, 100), "1.30"),
        ((1, 10, 30, None), "1/10"),
        ((1, 10, 0, 0), "1/10"),
    ],
)
def test_epochs_count_what_is_done(position, text):
    assert human.epochs_done(*position) == text
