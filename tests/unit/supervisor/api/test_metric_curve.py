"""Curves of any history: few points, lost rows apart, and never more memory than is bounded."""

import math

import pytest

from tests.support.watched_run import BACK_TO, LOST_TO, STEPS, leave_run
from trainerd.contract.metric_history import HEADER, encode_line, encode_row, read_history
from trainerd.contract.paths import StatePaths
from trainerd.supervisor.api import metric_curve
from trainerd.supervisor.api.metric_curve import Curves, read_curves, thinned


def test_lost_rows_are_apart_and_restarts_are_marked(tmp_path):
    curves = read_curves(leave_run(StatePaths(tmp_path), "ant").metrics)
    assert [step for step, _ in curves.kept["loss"]] == list(range(1, STEPS + 1))
    assert [step for step, _ in curves.lost["loss"]] == list(range(BACK_TO + 1, LOST_TO + 1))
    assert all(value < 2 for _, value in curves.kept["loss"])
    assert [(mark.attempt, mark.step) for mark in curves.restarts] == [(2, BACK_TO)]
    assert not curves.is_partial


def test_rows_count_again_when_a_rollback_is_undone(tmp_path):
    lines = [encode_row(step, 0, step, {"loss": 1.0}) for step in (1, 2, 3)]
    long = HEADER + b"".join(lines)
    short = HEADER + lines[0]
    back = {"resume": {"attempt": 2, "checkpoint": None, "step": 1, "keep_bytes": len(short)}}
    forth = {"resume": {"attempt": 3, "checkpoint": None, "step": 3, "keep_bytes": len(long)}}
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(long + encode_line(back) + encode_row(2, 0, 2, {"loss": 7.0}) + encode_line(forth))
    curves = read_curves(path)
    assert (curves.kept["loss"], curves.lost["loss"]) == ([(1, 1.0), (2, 1.0), (3, 1.0)], [(2, 7.0)])
    assert [row["step"] for row in read_history(path).rows] == [1, 2, 3], "as `trainerd metrics` reads it"


def test_a_large_history_is_sampled_over_its_whole_length_with_every_marker(tmp_path, monkeypatch):
    monkeypatch.setattr(metric_curve, "DECODED_BYTES_MAX", 20_000)
    monkeypatch.setattr(metric_curve, "_PART_BYTES", 1000)
    rows = [encode_row(step, 0, step, {"loss": step / 7}) for step in range(1, 5001)]
    marker = encode_line({"resume": {"attempt": 2, "checkpoint": None, "step": 4000, "keep_bytes": 10**9}})
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(HEADER + b"".join([*rows[:3001], marker, *rows[3001:]]))
    curves = read_curves(path, points_max=100)
    steps = [step for step, _ in curves.kept["loss"]]
    assert curves.is_partial
    assert 50 <= len(steps) <= 100
    assert (steps[0] < 200, steps[-1] > 4800, len(curves.restarts)) == (True, True, 1)
    assert all(value == step / 7 for step, value in curves.kept["loss"])


def test_of_a_very_large_history_the_end_is_read(tmp_path):
    rows = [encode_row(step, 0, step, {"loss": 1.0}) for step in range(1, 101)]
    marker = encode_line({"resume": {"attempt": 2, "checkpoint": None, "step": 50, "keep_bytes": 10**9}})
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(HEADER + b"".join([*rows[:50], marker, *rows[50:]]))
    curves = read_curves(path, read_bytes_max=len(b"".join(rows[79:])))
    assert (curves.is_partial, curves.restarts) == (True, ())
    assert [step for step, _ in curves.kept["loss"]] == list(range(81, 101)), "without the line that is cut"


def test_spikes_survive_thinning():
    points = [(step, 0.0) for step in range(10_000)]
    points[7777] = (7777, 50.0)
    assert (7777, 50.0) in thinned(points, 100)
    assert len(thinned(points, 100)) <= 100


@pytest.mark.parametrize(
    "line",
    [
        b"\xff\xfe\n",
        b"[" * 100_000 + b"\n",
        b'{"step": "x", "loss": 1}\n',
        b'{"step": 1, "loss": "nan"}\n',
        b'{"step": 1, "loss": true}\n',
        b'{"step": 1, "loss": NaN}\n',
        b'{"step": 1e400, "loss": 1}\n',
        b'{"step": ' + b"9" * 400 + b', "loss": 1}\n',
        b'{"step": 1, "loss": ' + b"9" * 400 + b"}\n",
        b'{"resume": {"attempt": 2}}\n',
        b'{"resume": {"attempt": "2", "step": [], "keep_bytes": null}}\n',
        b"x" * 3_000_000 + b"\n",
    ],
    ids=range(12),
)
def test_a_line_that_no_session_wrote_is_left_out(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(HEADER + line + encode_line({"step": 2, "epoch": 0, "batch": 0, "loss": 0.5}))
    assert read_curves(path).kept == {"loss": [(2, 0.5)]}


def test_no_history_and_one_that_is_no_file_have_no_curves(tmp_path):
    assert read_curves(tmp_path / "none") == Curves()
    assert read_curves(tmp_path) == Curves()


def test_the_number_of_curves_is_bounded(tmp_path):
    path = tmp_path / "metrics.jsonl"
    row = {"step": 1, "epoch": 0, "batch": 0} | {f"m{number}": math.pi for number in range(500)}
    path.write_bytes(HEADER + encode_line(row))
    assert len(read_curves(path).kept) == metric_curve.NAMES_MAX
