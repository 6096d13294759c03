"""From what the folder says to events: differences only."""

from __future__ import annotations

from pathlib import Path

from tests.support.supervisor_objects import job, spec
from trainerd.supervisor.machine.job_events import SpecAccepted, SpecRefused, SpecVanished
from trainerd.supervisor.machine.states import Draining, DrainReason, Queued, Rejected, Running
from trainerd.supervisor.reconcile import spec_events
from trainerd.supervisor.specs.view import Accepted, FolderView, Refused


def events(jobs, specs, *, unsettled=(), found=(0, False)):
    view = FolderView(specs, tuple(Path(path) for path in unsettled))
    return spec_events({one.name: one for one in jobs}, view, newest_attempts=dict.fromkeys(specs, found))


def test_a_new_spec_is_said_with_what_its_run_folder_holds():
    said = events([], {"ant": Accepted(spec())}, found=(7, True))
    assert said == [("ant", SpecAccepted(spec(), 7, is_live=True))]


def test_what_is_as_it_was_is_not_said_again():
    assert events([job(Running())], {"ant": Accepted(spec("v1"))}) == []


def test_a_changed_spec_is_said():
    assert events([job(Running())], {"ant": Accepted(spec("v2"))}) == [("ant", SpecAccepted(spec("v2")))]


def test_a_renamed_spec_is_said_though_it_says_what_it_said():
    renamed = spec("v1", spec_path="/jobs/other.yaml")
    assert events([job(Running())], {"ant": Accepted(renamed)}) == [("ant", SpecAccepted(renamed))]


def test_a_refusal_is_said_once():
    refused = Refused("ant", Path("/jobs/ant.yaml"), "no")
    assert events([job(Running())], {"ant": refused}) == [("ant", SpecRefused("no"))]
    assert events([job(Running(), refusal="no")], {"ant": refused}) == []


def test_a_mended_spec_is_said_even_if_it_says_what_it_said():
    for state in (Running(), Rejected("spec")):
        said = events([job(state, refusal="no")], {"ant": Accepted(spec("v1"))})
        assert said == [("ant", SpecAccepted(spec("v1")))]


def test_a_removed_spec_is_said_until_the_job_is_leaving():
    assert events([job(Running())], {}) == [("ant", SpecVanished())]
    assert events([job(Draining(DrainReason.REMOVED))], {}) == []


def test_a_spec_that_returns_while_its_job_is_leaving_is_said():
    said = events([job(Draining(DrainReason.REMOVED))], {"ant": Accepted(spec("v1"))})
    assert said == [("ant", SpecAccepted(spec("v1")))]


def test_a_file_that_is_changing_is_not_removed():
    """Half-written is not gone."""
    assert events([job(Queued())], {}, unsettled=["/jobs/ant.yaml"]) == []
