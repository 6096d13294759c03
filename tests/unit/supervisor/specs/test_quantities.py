"""Durations and sizes as people write them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainerd.supervisor.specs.quantities import (
    DURATION_PATTERN,
    DURATION_S_MAX,
    SIZE_BYTES_MAX,
    SIZE_PATTERN,
    format_duration,
    format_size,
    parse_duration_s,
    parse_size_bytes,
)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        (90, 90.0),
        (0.5, 0.5),
        ("30s", 30.0),
        ("5m", 300.0),
        ("1h30m", 5400.0),
        ("1d2h3m4s", 93784.0),
        ("1.5h", 5400.0),
        ("250ms", 0.25),
        ("1s500ms", 1.5),
        ("0s", 0.0),
    ],
)
def test_a_duration_is_read_as_seconds(written, seconds):
    assert parse_duration_s(written) == seconds


@pytest.mark.parametrize(
    "written",
    [
        "",
        "90",
        "5 m",
        "30m1h",
        "-5s",
        "1x",
        "s",
        "1h1h",
        "٣s",
        "5m\n",
        -1,
        1e12,
        True,
        None,
        [5],
        "nan",
        float("nan"),
        float("inf"),
    ],
)
def test_what_is_no_duration_is_refused(written):
    with pytest.raises(ValueError, match="duration"):
        parse_duration_s(written)


@pytest.mark.parametrize(
    ("written", "size_bytes"),
    [
        ("2GiB", 2 * 2**30),
        ("512MB", 512 * 10**6),
        ("1.5KiB", 1536),
        ("1 TiB", 2**40),
        ("7B", 7),
        ("2gib", 2 * 2**30),
        ("0.3kB", 300),
    ],
)
def test_a_size_is_read_as_bytes(written, size_bytes):
    assert parse_size_bytes(written) == size_bytes


@pytest.mark.parametrize(
    "written", [2, 2.5, "2", "2G", "2Gi", "iB", "0B", "-1MB", "2 GiB ", "9999999TiB", True, None]
)
def test_what_is_no_size_is_refused(written):
    with pytest.raises(ValueError, match="size"):
        parse_size_bytes(written)


@given(st.floats(0, DURATION_S_MAX) | st.integers(0, int(DURATION_S_MAX)).map(float))
def test_a_duration_survives_being_written_and_read(seconds):
    written = format_duration(seconds)
    assert re.search(DURATION_PATTERN, written)
    assert parse_duration_s(written) == seconds


@given(st.integers(1, SIZE_BYTES_MAX))
def test_a_size_survives_being_written_and_read(size_bytes):
    written = format_size(size_bytes)
    assert re.search(SIZE_PATTERN, written)
    assert parse_size_bytes(written) == size_bytes


@given(st.text(max_size=12))
def test_any_text_is_either_a_quantity_or_refused_with_a_value_error(text):
    for parse in (parse_duration_s, parse_size_bytes):
        try:
            parse(text)
        except ValueError as error:
            assert "write" in str(error) or "range" in str(error)  # noqa: PT017 (both endings are right)
