"""The metric history: one value a step, whatever was lost in between."""

import math

import pytest

from chaos import second_history
from trainerd.contract.metric_history import HEADER, encode_line, encode_row, lost_parts, read_history
from trainerd.errors import CorruptError


def row(step, **values):
    return encode_line({"step": step, "epoch": 0, "batch": step - 1, **values})


def marker(checkpoint, step, keep_bytes, attempt=2):
    return encode_line(
        {"resume": {"attempt": attempt, "checkpoint": checkpoint, "step": step, "keep_bytes": keep_bytes}}
    )


def steps(history):
    return [(record["step"], record["loss"]) for record in history.rows]


def test_a_missing_file_is_an_empty_history(tmp_path):
    assert read_history(tmp_path / "metrics.jsonl").rows == ()


def test_rows_beyond_the_checkpoint_resumed_from_are_superseded(tmp_path):
    kept = HEADER + row(1, loss=0.5) + row(2, loss=0.25)
    lost = row(3, loss=99.0) + row(4, loss=98.0)
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(kept + lost + marker("step-000000002", 2, len(kept)) + row(3, loss=0.125))
    history = read_history(path)
    assert steps(history) == [(1, 0.5), (2, 0.25), (3, 0.125)]
    assert [record["step"] for record in history.superseded] == [3, 4]
    assert history.resumes[0].checkpoint == "step-000000002"


def test_a_second_resume_from_the_same_checkpoint_supersedes_the_first(tmp_path):
    kept = HEADER + row(1, loss=0.5)
    data = kept + row(2, loss=9.0) + marker("c", 1, len(kept)) + row(2, loss=8.0)
    data += marker("c", 1, len(kept), attempt=3) + row(2, loss=0.25)
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(data)
    assert steps(read_history(path)) == [(1, 0.5), (2, 0.25)]


def test_a_torn_last_line_is_ignored_and_one_torn_earlier_too(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(HEADER + row(1, loss=0.5) + row(2, loss=1.0)[:-9])
    assert steps(read_history(path)) == [(1, 0.5)]
    with path.open("ab") as file:
        file.write(b"\n" + row(2, loss=0.25))
    assert steps(read_history(path)) == [(1, 0.5), (2, 0.25)]


@pytest.mark.parametrize("value", [0.1, 1e-300, 5e-324, -0.0, 2**60, math.inf, -math.inf])
def test_numbers_round_trip_exactly(tmp_path, value):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(HEADER + row(1, loss=value))
    found = read_history(path).rows[0]["loss"]
    assert (found, math.copysign(1, found)) == (value, math.copysign(1, value))


def test_nan_round_trips(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(HEADER + row(1, loss=math.nan))
    assert math.isnan(read_history(path).rows[0]["loss"])


def test_another_file_is_refused_by_name(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n')
    with pytest.raises(CorruptError, match=r"metrics\.jsonl"):
        read_history(path)


@pytest.mark.parametrize(
    "measured",
    [
        {"loss": 0.1, "lr": 1e-17, "count": 3, "zero": -0.0},
        {"loss": math.nan, "a": math.inf, "b": -math.inf},
        {'na"me': 1.5, "größe": 2},
        {"batch": 7, "loss": 1.0},
        {"digest": 5.0},
        {},
    ],
    ids=str,
)
def test_a_row_is_the_line_that_any_record_would_be(measured):
    ours = {"step": 3, "epoch": 1, "batch": 2}
    assert encode_row(3, 1, 2, measured) == encode_line(ours | measured)
    assert encode_row(3, 1, 2, measured, "00ff") == encode_line(ours | {"digest": "00ff"} | measured)


def test_a_rollback_that_is_undone_brings_its_rows_back_and_supersedes_the_others(tmp_path):
    """A marker keeps the rows that the history had at that size, also those that a later marker dropped."""
    first = HEADER + row(1, loss=0.5)
    long = first + row(2, loss=0.25) + row(3, loss=0.2)
    back = long + marker("step-000000001", 1, len(first)) + row(2, loss=7.0)
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(back + marker("step-000000003", 3, len(long), attempt=3) + row(4, loss=0.1))
    history = read_history(path)
    assert steps(history) == [(1, 0.5), (2, 0.25), (3, 0.2), (4, 0.1)]
    assert [record["loss"] for record in history.superseded] == [7.0]
    assert second_history.read_history(path).lines == history.rows + history.reports


def test_what_was_lost_before_a_checkpoint_was_saved_stays_lost_when_a_rollback_to_before_it_is_undone():
    """Back to 10, saved at 60, back to 20 (which was lost at 50), and forth to 60 again."""
    assert lost_parts([(50, 10)]) == [(10, 50)]
    assert lost_parts([(50, 10), (70, 20)]) == [(20, 70)]
    assert lost_parts([(50, 10), (70, 20), (90, 60)]) == [(10, 50), (60, 90)]
