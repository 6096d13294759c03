"""Views that go on see supervisors come and go, and end with an error for neither."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json

import pytest
from click.testing import CliRunner

from tests.support.fake_control import job as shown_job
from tests.support.supervisor_objects import NOW, job
from trainerd.cli import client as client_module
from trainerd.cli import events, ps
from trainerd.cli.followed_reader import FollowedReader
from trainerd.cli.main import group
from trainerd.contract.paths import StatePaths
from trainerd.supervisor.api.control import DaemonView, EventView
from trainerd.supervisor.journal.journal import Entry, Journal
from trainerd.supervisor.machine.states import Finished, Parked


class Supervisor:
    """Stands in for the connection to a supervisor that may come and go."""

    runs = False
    found = (EventView(7, NOW + 50, "mnist", "job.running", "seen by a supervisor"),)

    def __init__(self, state):
        self._state = state
        self.daemon()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass

    def daemon(self):
        if not Supervisor.runs:
            raise client_module.not_running(self._state)
        return DaemonView("1", 1, "s", "j", NOW, is_stopping=False)

    def list_jobs(self):
        self.daemon()
        return (shown_job("mnist", "running"),)

    def list_events(self, *, job=None, after=0, limit=200):
        self.daemon()
        return tuple(each for each in self.found if each.sequence > after)


def write(state, name, kind, wall_s):
    subject = dataclasses.replace(job(kind), name=name, reason="why", attempt=1)
    with contextlib.closing(Journal(state.journal)) as journal:
        journal.commit([Entry(name, subject, f"job.{kind.NAME}", f"{name} {kind.NAME}")], wall_s=wall_s)


@pytest.fixture
def state(tmp_path, monkeypatch):
    monkeypatch.setattr(client_module, "Client", Supervisor)
    monkeypatch.setattr(Supervisor, "runs", False)
    paths = StatePaths(tmp_path / "state")
    paths.root.mkdir()
    write(paths, "mnist", Finished("v1"), NOW)
    return paths


def follow(monkeypatch, module, state, words, *ticks):
    """Run a verb that goes on, with something that happens before each look; return what it printed."""
    todo = itertools.chain(ticks, [None])

    def pause(_):
        tick = next(todo)
        if tick is None:
            raise KeyboardInterrupt
        tick()

    monkeypatch.setattr(module, "pause", pause)
    result = CliRunner().invoke(group, [*words, "--state-dir", str(state.root)])
    assert result.exit_code == 0, result.output
    return result


def test_events_are_followed_with_no_supervisor_and_over_its_coming(state, monkeypatch):
    result = follow(
        monkeypatch,
        events,
        state,
        ["events", "-f", "--json"],
        lambda: write(state, "cifar", Parked(), NOW + 10),
        lambda: setattr(Supervisor, "runs", True),
        lambda: None,
        lambda: setattr(Supervisor, "runs", False),
    )
    messages = [json.loads(line)["message"] for line in result.stdout.splitlines()]
    assert messages == ["mnist finished", "cifar parked", "seen by a supervisor"]
    assert result.stderr.count("no supervisor is running") == 2  # at first, and when it went


def test_jobs_are_watched_with_no_supervisor_and_over_its_coming(state, monkeypatch):
    words = ["ps", "--watch", "--format", "{name} {state}"]
    result = follow(
        monkeypatch,
        ps,
        state,
        words,
        lambda: write(state, "mnist", Parked(), NOW + 10),
        lambda: setattr(Supervisor, "runs", True),
        lambda: setattr(Supervisor, "runs", False),
    )
    assert result.stdout.splitlines() == ["mnist finished", "mnist parked", "mnist running", "mnist parked"]


def test_the_journal_is_not_copied_again_while_it_does_not_change(state, monkeypatch):
    copies = []
    real = Journal.__init__
    monkeypatch.setattr(Journal, "__init__", lambda *given: copies.append(1) or real(*given))
    with FollowedReader(state, says=False) as source:
        for _ in range(3):
            assert [each.state for each in source.list_jobs()] == ["finished"]
        assert len(copies) == 1


def test_a_folder_with_nothing_in_it_is_still_an_error(state, tmp_path):
    (tmp_path / "empty").mkdir()
    for words in (["events", "-f"], ["ps", "--watch"]):
        result = CliRunner().invoke(group, [*words, "--state-dir", str(tmp_path / "empty")])
        assert result.exit_code == 1
        assert "no supervisor is running" in result.stderr


def test_the_view_on_a_terminal_says_what_goes_on_alone():
    jobs = [shown_job("a", "running"), shown_job("b", "finished")]
    assert ps.left_headline(jobs) == "no supervisor is running · 1 job goes on · Ctrl-C ends the view"
    assert "no job runs" in ps.left_headline(jobs[1:])
