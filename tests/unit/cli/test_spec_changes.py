"""What is said beforehand about a change of a spec, held beside what the machine then decides."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.fake_control import job as view
from trainerd.cli.changes import after_placing, after_removing, field_changes
from trainerd.contract.resolved import ResolvedJob
from trainerd.supervisor.machine import decide
from trainerd.supervisor.machine.job_events import SpecAccepted
from trainerd.supervisor.machine.states import (
    BackingOff,
    Draining,
    Finished,
    Job,
    Parked,
    Paused,
    Queued,
    Rejected,
    Running,
    Starting,
    Stopped,
)
from trainerd.supervisor.specs.load import parse_spec

NOW = 1000.0


def parsed(text: str):
    return parse_spec(Path("/jobs/ant.yaml"), text.encode()).spec


def test_only_fields_that_say_something_else_are_shown_with_both_values():
    before = parsed("command: [a]\ngrace: 30s\nenv: {A: '1', B: '2'}\npriority: 3")
    after = parsed("command: [a]\ngrace: 1m\nenv: {A: '1', C: '3'}\npriority: 3 # as before")
    assert field_changes(before, after) == (
        '- env.B: "2"',
        '+ env.C: "3"',
        "~ grace: 30.0 -> 60.0",
    )
    assert field_changes(before, before) == ()
    assert field_changes(None, after) == ()


@pytest.mark.parametrize(
    ("state", "word", "becomes"),
    [
        (Queued(), "keeps its place", Queued),
        (Starting(), "drains", Draining),
        (Running(), "drains", Draining),
        (Draining(), "draining", Draining),
        (BackingOff(1.0, NOW), "at once", Queued),
        (Paused(1.0, NOW), "at once", Queued),
        (Parked(), "tried again", Queued),
        (Rejected("program"), "tried again", Queued),
        (Stopped(), "stays stopped", Stopped),
        (Finished("v1"), "goes on", Queued),
    ],
    ids=lambda value: getattr(value, "NAME", None),
)
def test_what_is_said_of_a_change_is_what_the_machine_decides(state, word, becomes):
    spec = ResolvedJob("ant", ("train",), "/", "/jobs/ant.yaml", "v1")
    job = Job("ant", state, "because", NOW, spec=spec, attempt=1, attempt_digest="v1")
    assert word in after_placing(view("ant", state.NAME, spec_digest="v1"), digest="v2")
    changed = ResolvedJob("ant", ("train",), "/", "/jobs/ant.yaml", "v2")
    assert isinstance(decide("ant", job, SpecAccepted(changed), NOW).job.state, becomes)


def test_a_spec_that_is_in_force_changes_nothing_and_an_unknown_one_is_a_new_job():
    assert after_placing(view("ant", spec_digest="v1"), digest="v1").startswith("nothing")
    assert after_placing(None, digest="v1").startswith("a new job")
    assert "it is held" in after_placing(view("ant", "finished", is_held=True), digest="v2")


def test_a_removed_job_drains_if_it_runs():
    assert after_removing(view("ant", "running")) == "it drains, and is then forgotten"
    assert after_removing(view("ant", "parked")) == "it is forgotten"
