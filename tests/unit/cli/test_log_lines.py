"""Lines of `trainerd logs` with their times, and the one zone in which times are shown."""

from __future__ import annotations

import json
import time

import pytest
from click.testing import CliRunner

from tests.support.supervisor_objects import exit_record
from trainerd.cli.main import group
from trainerd.contract import records
from trainerd.contract.clock import SystemClock
from trainerd.contract.paths import StatePaths
from trainerd.contract.records import RankExit

START_S = 1796040000  # 2026-11-30T12:00:00Z
LOG = b"--- attempt 1 started 2026-11-30T12:00:00.000Z ---\none\n10%\r20%\ntwo\n"


@pytest.fixture
def zone(monkeypatch):
    monkeypatch.setenv("TZ", "UTC-2")  # two hours ahead
    time.tzset()
    yield
    monkeypatch.delenv("TZ")
    time.tzset()


@pytest.fixture
def state(tmp_path):
    paths = StatePaths(tmp_path / "state")
    run = paths.run("mnist")
    run.attempt(1).root.mkdir(parents=True)
    run.rank_log(0).parent.mkdir()
    run.rank_log(0).write_bytes(LOG)
    ends = [LOG.index(word) + len(word) for word in (b"---\n", b"one\n", b"20%\n", b"two\n")]
    noted = (f"{START_S + 60 * number}.500 {end}\n" for number, end in enumerate(ends))
    run.rank_log_times(0).write_text("".join(noted))
    return paths


def shown(state, *words, code=0):
    result = CliRunner().invoke(group, [*words, "--state-dir", str(state.root)])
    assert result.exit_code == code, result.output
    return result.stdout.split("\n")[:-1]


def test_each_line_has_its_time(state):
    assert shown(state, "logs", "mnist", "-t", "--utc") == [
        "2026-11-30T12:00:00.500Z --- attempt 1 started 2026-11-30T12:00:00.000Z ---",
        "2026-11-30T12:01:00.500Z one",
        "2026-11-30T12:02:00.500Z 10%\r20%",
        "2026-11-30T12:03:00.500Z two",
    ]
    assert shown(state, "logs", "mnist", "-t", "-n", "1", "--utc") == ["2026-11-30T12:03:00.500Z two"]


def test_a_line_without_a_note_has_no_time(state):
    state.run("mnist").rank_log_times(0).unlink()
    assert shown(state, "logs", "mnist", "-t")[1] == "- one"


def test_json_has_seconds(state):
    lines = [json.loads(line) for line in shown(state, "logs", "mnist", "-t", "--json")]
    assert lines[1] == {"rank": 0, "wall_s": START_S + 60.5, "line": "one"}
    assert "wall_s" not in json.loads(shown(state, "logs", "mnist", "--json")[0])


def test_since_leaves_out_earlier_lines_of_an_attempt(state, monkeypatch):
    monkeypatch.setattr(SystemClock, "wall_s", lambda _: START_S + 190.0)
    assert shown(state, "logs", "mnist", "--since", "2m") == ["10%\r20%", "two"]
    assert shown(state, "logs", "mnist", "--since", "2026-11-30T12:03", "--utc") == ["two"]


def test_ranks_that_are_mixed_keep_their_times(state):
    run = state.run("mnist")
    run.rank_log(1).write_bytes(b"other\n")
    run.rank_log_times(1).write_text(f"{START_S}.000 6\n")
    assert "[1] 2026-11-30T12:00:00.000Z other" in shown(state, "logs", "mnist", "-t", "--utc")


def test_an_attempts_end_has_the_time_at_which_it_ended(state):
    run = state.run("mnist")
    ended = exit_record(RankExit(0, exit_code=0))
    records.write(run.attempt(1).exit, ended)
    last = shown(state, "logs", "mnist", "-t", "--utc")[-1].split()
    assert last[1:4] == ["---", "attempt", "1"]
    assert last[0] == last[5].removesuffix(":")


@pytest.mark.usefixtures("zone")
def test_all_times_are_in_the_zone_of_this_machine_or_in_utc(state):
    assert shown(state, "logs", "mnist", "-t")[:2] == [
        "2026-11-30T14:00:00.500+02:00 --- attempt 1 started 2026-11-30T14:00:00.000+02:00 ---",
        "2026-11-30T14:01:00.500+02:00 one",
    ]
    state.log.parent.mkdir()
    state.log.write_text('{"ts": "2026-11-30T12:00:00.000Z", "level": "info", "event": "x"}\n')
    assert shown(state, "logs", "--daemon")[0].startswith("2026-11-30 14:00:00 info")
    assert shown(state, "logs", "--daemon", "--utc")[0].startswith("2026-11-30 12:00:00Z info")
    assert shown(state, "logs", "mnist", "--since", "2026-11-30T14:03") == ["two"]
    assert shown(state, "logs", "mnist", "--since", "2026-11-30T12:03", "--utc") == ["two"]


@pytest.mark.usefixtures("zone")
def test_a_setting_chooses_utc_for_every_verb(state, monkeypatch):
    run = state.run("mnist").root
    assert run.is_dir()
    local = next(line for line in shown(state, "status", "mnist", code=17) if "since" in line)
    monkeypatch.setenv("TRAINERD_UTC", "1")
    utc = next(line for line in shown(state, "status", "mnist", code=17) if "since" in line)
    assert "Z (" in utc
    assert "Z (" not in local
    assert local.split()[2][:2] != utc.split()[2][:2]


@pytest.mark.parametrize("verb", ["ps", "status", "explain", "events", "logs"])
def test_every_verb_that_shows_times_has_the_option(verb):
    assert "--utc" in CliRunner().invoke(group, [verb, "--help"]).output
