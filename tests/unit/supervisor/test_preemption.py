"""Who makes room for a job of higher priority."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trainerd.contract.clock import SystemClock
from trainerd.contract.policy import Resources
from trainerd.contract.resolved import ResolvedJob
from trainerd.supervisor.journal.journal import Journal
from trainerd.supervisor.ledger import Ledger
from trainerd.supervisor.machine.job_events import AttemptEnded, AttemptSeen, SpecAccepted
from trainerd.supervisor.machine.outcome import Outcome, OutcomeKind, Retry
from trainerd.supervisor.machine.states import Draining, DrainReason, Finished, Queued, Running, Starting
from trainerd.supervisor.preemption import Occupant, preemptions
from trainerd.supervisor.scheduler import Capacity, Request, SlotOwner


def occupant(name, cpus=1.0, priority=0, since=0.0, gpus=(), **more):
    owner = SlotOwner(Resources(len(gpus), cpus), gpus)
    return Occupant(name, owner, priority=priority, since_wall_s=since, **more)


def request(name, cpus=1.0, priority=0, gpus=0):
    return Request(name, Resources(gpus, cpus), priority)


def test_the_youngest_of_the_lowest_makes_room_and_no_more_than_that():
    running = [occupant("old", since=1), occupant("young", since=2), occupant("mid", priority=1)]
    assert preemptions(Capacity(3), running, [request("urgent", priority=5)]) == (("young", "urgent"),)
    two = preemptions(Capacity(3), running, [request("urgent", cpus=2, priority=5)])
    assert sorted(two) == [("old", "urgent"), ("young", "urgent")]


def test_equal_priority_never_drains_and_too_little_room_neither():
    running = [occupant("a"), occupant("b", priority=9)]
    assert preemptions(Capacity(2), running, [request("c")]) == ()
    assert preemptions(Capacity(2), running, [request("c", cpus=2, priority=5)]) == ()


def test_what_drains_already_counts_as_free():
    running = [occupant("a", is_leaving=True), occupant("b")]
    assert preemptions(Capacity(2), running, [request("c", priority=5)]) == ()
    assert preemptions(Capacity(2), running, [request("c", cpus=2, priority=5)]) == (("b", "c"),)


def test_what_is_not_watched_cannot_be_asked_to_leave():
    assert preemptions(Capacity(1), [occupant("a", can_leave=False)], [request("c", priority=5)]) == ()


def test_only_the_one_with_the_gpu_makes_room_for_one_that_needs_a_gpu():
    running = [occupant("cpu", since=9), occupant("gpu", gpus=(0,))]
    found = preemptions(Capacity(4, gpus=1), running, [request("c", priority=5, gpus=1)])
    assert found == (("gpu", "c"),)


@given(
    st.lists(st.tuples(st.sampled_from([0.5, 1.0, 2.0]), st.integers(0, 3), st.booleans()), max_size=5),
    st.lists(st.tuples(st.sampled_from([0.5, 1.0, 2.0, 9.0]), st.integers(0, 3)), max_size=4),
)
def test_each_victim_has_a_lower_priority_and_is_asked_once(running, waiting):
    occupants = [
        occupant(f"r{i}", cpus, priority, is_leaving=leaves)
        for i, (cpus, priority, leaves) in enumerate(running)
    ]
    requests = [request(f"w{i}", cpus, priority) for i, (cpus, priority) in enumerate(waiting)]
    found = preemptions(Capacity(4), occupants, requests)
    by_name = {each.name: each for each in (*occupants, *requests)}
    assert len({victim for victim, _ in found}) == len(found)
    assert all(by_name[victim].priority < by_name[by].priority for victim, by in found)
    assert not any(by_name[victim].is_leaving for victim, _ in found)


def accepted(name, priority):
    return SpecAccepted(ResolvedJob(name, ("true",), "/", f"/{name}.yaml", "v1", priority=priority))


def test_a_job_that_made_room_goes_on_when_there_is_room_again():
    ledger = Ledger(Journal(":memory:"), Capacity(1), SystemClock())
    ledger.grants_slots = True
    ledger.apply([("low", accepted("low", 0))])
    ledger.apply([("low", AttemptSeen(1))])
    ledger.apply([("high", accepted("high", 1))])
    state = ledger.jobs["low"].state
    assert isinstance(state, Draining)
    assert state.why is DrainReason.PREEMPTED
    assert "high has a higher priority" in ledger.jobs["low"].reason
    drained = Outcome(OutcomeKind.DRAINED, "drained", Retry.AT_ONCE_IF_MOVED, step=5)
    ledger.apply([("low", AttemptEnded(1, drained))])
    assert isinstance(ledger.jobs["low"].state, Queued)
    assert isinstance(ledger.jobs["high"].state, Starting)
    ledger.apply([("high", AttemptSeen(1))])
    assert isinstance(ledger.jobs["high"].state, Running)
    finished = Outcome(OutcomeKind.FINISHED, "complete", Retry.NOTHING_LEFT, step=5)
    ledger.apply([("high", AttemptEnded(1, finished))])
    assert isinstance(ledger.jobs["high"].state, Finished)
    assert isinstance(ledger.jobs["low"].state, Starting)
