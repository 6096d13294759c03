"""Jobs that wait for others to finish, and groups of which only so many run."""

from __future__ import annotations

import dataclasses

import pytest

from tests.support.supervisor_objects import STATE_SAMPLES, job, spec
from trainerd.contract.clock import SystemClock
from trainerd.contract.policy import Group, Resources
from trainerd.contract.resolved import ResolvedJob, decode, encode
from trainerd.supervisor.dependencies import blocked_jobs, is_blocked
from trainerd.supervisor.journal.journal import Journal
from trainerd.supervisor.ledger import Ledger
from trainerd.supervisor.machine.job_events import AttemptEnded, AttemptSeen, SpecAccepted, SpecVanished
from trainerd.supervisor.machine.outcome import Outcome, OutcomeKind, Retry
from trainerd.supervisor.machine.states import Finished, Queued, Starting
from trainerd.supervisor.preemption import Occupant, preemptions
from trainerd.supervisor.scheduler import Capacity, Request, SlotOwner, schedule


def waiting(name: str, *after: str, **fields):
    values = {"attempt": 0, "attempt_digest": ""} | fields
    return job(Queued(), name=name, spec=spec(name=name, after=after), **values)


def by_name(*jobs):
    return {each.name: each for each in jobs}


@pytest.mark.parametrize("state", list(STATE_SAMPLES), ids=lambda state: state.NAME)
def test_only_a_finished_job_lets_others_begin(state):
    jobs = by_name(waiting("b", "a"), job(STATE_SAMPLES[state], name="a"))
    assert is_blocked(jobs, jobs["b"]) == (state is not Finished)
    is_stuck = state.NAME in {"parked", "rejected", "stopped", "faulted"}
    why = blocked_jobs(jobs).get("b", "")
    assert ("never starts" in why) == is_stuck
    assert (state.NAME in why) == (state is not Finished)


def test_a_job_that_is_not_there_is_said_with_the_nearest_name():
    assert (
        "there is no such job (did you mean 'prepare'?)"
        in blocked_jobs(by_name(waiting("b", "prepar"), job(STATE_SAMPLES[Finished], name="prepare")))["b"]
    )


def test_jobs_that_wait_for_each_other_are_named_in_order_and_those_behind_them_are_not():
    jobs = by_name(waiting("a", "c"), waiting("b", "a"), waiting("c", "b"), waiting("d", "a"))
    why = blocked_jobs(jobs)
    assert "(a after c after b after a)" in why["a"]
    assert why["d"] == "waits until these are finished: a (queued)"
    assert blocked_jobs(by_name(waiting("a", "a")))["a"].startswith("never starts")


def test_a_job_that_was_launched_under_its_spec_goes_on_whatever_becomes_of_the_others():
    begun = waiting("b", "a", attempt=2, attempt_digest="v1")
    assert not is_blocked(by_name(begun), begun)
    changed = dataclasses.replace(begun, attempt_digest="v0")
    assert is_blocked(by_name(changed), changed)


def test_the_fields_survive_the_journal():
    one = spec(after=("a", "b"), group=Group("g", 2))
    assert decode(encode(one)) == one


def ledger(tmp_path):
    found = Ledger(Journal(tmp_path / "journal"), Capacity(cpus=8.0), SystemClock())
    found.grants_slots = True
    return found


def accepted(name: str, **fields) -> tuple[str, SpecAccepted]:
    return name, SpecAccepted(ResolvedJob(name, ("x",), "/", "/j", "d", **fields))


def test_the_ledger_launches_what_waited_when_the_other_has_finished(tmp_path):
    jobs = ledger(tmp_path)
    jobs.apply([accepted("second", after=("first",)), accepted("first")])
    assert isinstance(jobs.jobs["second"].state, Queued)
    assert jobs.waits["second"] == "waits until these are finished: first (starting)"
    done = Outcome(OutcomeKind.FINISHED, "it finished", Retry.NOTHING_LEFT)
    jobs.apply([("first", AttemptSeen(1)), ("first", AttemptEnded(1, done))])
    assert isinstance(jobs.jobs["second"].state, Starting)
    assert jobs.waits == {}


def test_a_removed_job_is_noticed_by_those_that_wait_for_it(tmp_path):
    jobs = ledger(tmp_path)
    jobs.apply([accepted("first", after=("zero",)), accepted("second", after=("first",))])
    assert jobs.waits["second"] == "waits until these are finished: first (queued)"
    jobs.apply([("first", SpecVanished())])
    assert "no such job" in jobs.waits["second"]


def test_of_a_group_only_so_many_run_and_the_others_hold_no_room_back():
    group = Group("lr", 2)
    requests = [Request(f"s{n}", Resources(cpus=1), priority=1, group=group) for n in range(4)]
    answer = schedule(
        Capacity(8), [SlotOwner(Resources(), (), "lr")], [*requests, Request("other", Resources(cpus=6))]
    )
    assert [name for name, _ in answer.grants] == ["s0", "other"]
    assert answer.waits["s1"] == "waits for its group lr: 2 run, at most 2 may"


def test_a_full_group_drains_nobody():
    running = [
        Occupant("s0", SlotOwner(Resources(), (), "lr"), priority=9),
        Occupant("low", SlotOwner(Resources())),
    ]
    request = Request("s1", Resources(), priority=5, group=Group("lr", 1))
    assert preemptions(Capacity(2), running, [request]) == ()
    assert preemptions(Capacity(2), running, [request._replace(group=Group("lr", 2))]) == (("low", "s1"),)


def test_the_ledger_counts_a_group_over_its_life(tmp_path):
    jobs = ledger(tmp_path)
    jobs.apply([accepted(f"s{n}", group=Group("lr", 1)) for n in range(3)])
    assert sum(isinstance(each.state, Starting) for each in jobs.jobs.values()) == 1
    done = Outcome(OutcomeKind.FINISHED, "it finished", Retry.NOTHING_LEFT)
    jobs.apply([("s0", AttemptSeen(1)), ("s0", AttemptEnded(1, done))])
    assert isinstance(jobs.jobs["s1"].state, Starting)
    assert isinstance(jobs.jobs["s2"].state, Queued)
