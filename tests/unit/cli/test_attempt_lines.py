"""Attempts in a rank's log, and how each ended."""

from __future__ import annotations

import dataclasses

import pytest
from click.testing import CliRunner

from tests.support.supervisor_objects import NOW, exit_record
from trainerd.cli.attempt_lines import AttemptLines, ending_of
from trainerd.cli.main import group
from trainerd.cli.moments import moment_of
from trainerd.contract import records
from trainerd.contract.clock import SystemClock
from trainerd.contract.paths import RunPaths, StatePaths
from trainerd.contract.records import RankExit
from trainerd.errors import UserError

LOG = b"--- attempt 1 started T ---\none\n--- attempt 2 started T ---\ntwo\nhalf"


@pytest.fixture
def run(tmp_path):
    found = RunPaths(tmp_path / "mnist")
    for attempt, ended in ((1, RankExit(0, signal=9)), (2, RankExit(0, exit_code=85))):
        found.attempt(attempt).root.mkdir(parents=True)
        records.write(found.attempt(attempt).exit, exit_record(ended))
    return found


def lines(run, *pieces: bytes, shows=lambda _: True) -> list[str]:
    part = AttemptLines(run, 0, shows=shows, newest=2)
    return (b"".join(map(part.take, pieces)) + part.rest() + part.rest()).decode().splitlines()


def test_each_attempt_ends_with_a_line_that_says_how(run):
    shown = lines(run, LOG)
    assert [line.partition(" T")[0] for line in shown if "ended" not in line] == [
        "--- attempt 1 started",
        "one",
        "--- attempt 2 started",
        "two",
        "half",
    ]
    first, second = (shown.index(line) for line in shown if "ended" in line)
    assert shown[first].startswith("--- attempt 1 ended 20")
    assert shown[first].endswith("Z: SIGKILL ---")
    assert (first, second) == (2, 6)
    assert shown[second].endswith("Z: exit code 85 ---")


def test_pieces_make_no_difference(run):
    cut = LOG.index(b"--- attempt 2")
    assert lines(run, LOG[:cut], LOG[cut : cut + 40], LOG[cut + 40 :]) == lines(run, LOG)


def test_one_attempt_is_shown_with_its_ending(run):
    assert lines(run, LOG, shows=lambda number: number == 1)[:2] == ["--- attempt 1 started T ---", "one"]
    assert "two" not in lines(run, LOG, shows=lambda number: number == 1)
    assert lines(run, LOG, shows=lambda number: number == 2)[1:3] == ["two", "half"]


def test_what_comes_before_a_marker_belongs_to_the_attempt_before_it(run):
    assert "late" in lines(run, b"late\n--- attempt 2 started T ---\n", shows=lambda number: number == 1)
    assert "new" in lines(run, b"new\n", shows=lambda number: number == 2)


def test_a_line_of_the_program_in_the_middle_of_a_line_is_no_marker(run):
    assert lines(run, b"x", b"--- attempt 2 started T ---\n")[0] == "x--- attempt 2 started T ---"


@pytest.mark.parametrize(
    ("ended", "said"),
    [
        (RankExit(0, signal=9, killed_by_shim="grace"), "SIGKILL, past its grace period"),
        (RankExit(0, spawn_error="no"), "not started"),
        (RankExit(0, exit_code=0), "exit code 0"),
    ],
)
def test_an_ending_says_what_ended_it(run, ended, said):
    records.write(run.attempt(2).exit, exit_record(ended))
    assert f"Z: {said} ---" in (ending_of(run, 2, 0) or "")


def test_an_attempt_without_a_readable_record_has_no_such_line(run):
    run.attempt(2).exit.write_text("{")
    assert ending_of(run, 2, 0) is None
    assert ending_of(run, 7, 0) is None
    assert ending_of(run, 1, 5) is None


@pytest.mark.usefixtures("run")
def test_attempts_are_chosen_by_number_and_by_when_they_ended(tmp_path, monkeypatch):
    state = StatePaths(tmp_path / "state")
    log = state.run("mnist").rank_log(0)
    state.runs.mkdir(parents=True)
    (tmp_path / "mnist").rename(state.run("mnist").root)
    log.parent.mkdir(exist_ok=True)
    log.write_bytes(LOG)
    late = dataclasses.replace(exit_record(RankExit(0, exit_code=85)), ended_wall_s=NOW + 7200)
    records.write(state.run("mnist").attempt(2).exit, late)
    monkeypatch.setattr(SystemClock, "wall_s", lambda _: NOW + 7200)

    def shown(*words: str) -> list[str]:
        result = CliRunner().invoke(group, ["logs", "mnist", "--state-dir", str(state.root), *words])
        assert result.exit_code == ("--attempt=9" in words), result.output
        return [line for line in result.output.splitlines() if " ended " not in line]

    first, second = LOG.decode().splitlines()[:2], LOG.decode().splitlines()[2:]
    assert shown() == [*first, *second]
    assert shown("--attempt=1") == first
    assert shown("--attempt=1", "-n", "2") == ["one"]  # the other one says how it ended
    assert shown("--since=1h") == second
    assert shown("--since=3h") == [*first, *second]
    assert shown("--attempt=1", "--since=1h") == []
    assert shown("--attempt=9") == ["error: no attempt 9 of mnist", "  its attempts are 1 to 2"]


def test_moments_are_durations_back_or_dates(monkeypatch):
    monkeypatch.setattr(SystemClock, "wall_s", lambda _: NOW)
    assert moment_of("2h") == NOW - 7200
    assert moment_of("90") == NOW - 90
    assert moment_of("2026-11-30T12:00:00+00:00") == 1796040000.0
    for text in ("soon", "", "2026-13-01", "-5s"):
        with pytest.raises(UserError, match="is no time"):
            moment_of(text)
