"""The goodput ledger: every second is in one bucket, and it is the right one."""

import math
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trainerd.contract.heartbeat import Heartbeat, Phase
from trainerd.supervisor.goodput.attempt_split import BUCKETS, AttemptTimes
from trainerd.supervisor.goodput.goodput_buckets import StateChange, goodput_of
from trainerd.supervisor.machine.states import STATES

T0 = 1_800_000_000.0
KINDS = ("finished", "drained", "stopped", "crashed", "killed", "stalled", "lost", None)

seconds = st.floats(min_value=-1e4, max_value=1e6)
durations = st.floats(min_value=0, max_value=1e5)


@st.composite
def beats(draw):
    return Heartbeat(
        phase=draw(st.sampled_from(Phase)),
        step=draw(st.integers(0, 50)),
        resumed_step=draw(st.integers(-1, 50)),
        furthest_step=draw(st.integers(0, 50)),
        spent_s=tuple(draw(st.lists(durations, min_size=6, max_size=6))),
        repeated_s=draw(durations),
        opened_wall_s=draw(st.one_of(st.just(0.0), seconds.map(lambda at: T0 + at))),
    )


@st.composite
def histories(draw):
    """Histories that no clock and no supervisor would write are among them."""
    attempts = [
        AttemptTimes(
            number,
            T0 + draw(seconds),
            draw(st.one_of(st.none(), seconds.map(lambda at: T0 + at))),
            draw(st.sampled_from(KINDS)),
            draw(st.one_of(st.none(), beats())),
        )
        for number in range(1, draw(st.integers(0, 6)) + 1)
    ]
    states = st.sampled_from([state.NAME for state in STATES])
    changes = draw(st.lists(st.tuples(seconds, states, st.sampled_from(["ShutdownAsked", "x"])), max_size=10))
    return (
        sorted(attempts, key=lambda each: each.started_wall_s),
        [StateChange(T0 + at, state, event) for at, state, event in sorted(changes)],
        T0 + draw(seconds),
    )


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(histories())
def test_buckets_are_never_negative_and_add_up(history):
    attempts, changes, now = history
    goodput = goodput_of(attempts, changes, now_wall_s=now)
    assert tuple(goodput.buckets) == BUCKETS
    assert all(0 <= spent < math.inf for spent in goodput.buckets.values())
    assert sum(goodput.buckets.values()) == pytest.approx(goodput.wall_s, rel=1e-3)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(histories())
def test_the_wall_time_is_that_from_beginning_to_end_where_nothing_was_finished(history):
    """The invariant is against the clock, not only against the ledger's own sum."""
    attempts, changes, now = history
    attempts = [
        replace(each, ending="crashed" if each.ending == "finished" else each.ending) for each in attempts
    ]
    changes = [replace(each, state="parked" if each.state == "finished" else each.state) for each in changes]
    begins = [each.started_wall_s for each in attempts[:1]] + [each.wall_s for each in changes[:1]]
    if not begins:
        return
    now = max(now, max(each.started_wall_s for each in attempts) if attempts else now, min(begins))
    if any(each.ended_wall_s is None for each in attempts[:-1]):
        attempts = [
            *(replace(each, ended_wall_s=each.started_wall_s) for each in attempts[:-1]),
            attempts[-1],
        ]
    goodput = goodput_of(attempts, changes, now_wall_s=now)
    assert goodput.wall_s == pytest.approx(now - min(begins), rel=1e-3, abs=1e-3)


def told(**fields):
    values = {"phase": Phase.STEP, "resumed_step": 0, "opened_wall_s": T0 + 2}
    spent = [0.0] * len(Phase)
    for phase, spent_s in fields.pop("spent", {}).items():
        spent[phase] = spent_s
    return Heartbeat(**values | {"spent_s": tuple(spent)} | fields)


def rounded(goodput):
    return {bucket: round(spent, 3) for bucket, spent in goodput.buckets.items() if spent}


CRASHED = AttemptTimes(
    1,
    T0,
    T0 + 100,
    "crashed",
    told(step=40, spent={Phase.START: 10, Phase.STEP: 60, Phase.EVALUATION: 5, Phase.CHECKPOINT: 3}),
)


def test_each_second_of_a_run_that_died_and_came_back_is_where_it_belongs():
    """Queued 5 s, dies 20 s after its last beat, 8 s of backoff, and repeats 10 steps."""
    again = AttemptTimes(
        2,
        T0 + 108,
        None,
        None,
        told(
            step=60,
            resumed_step=30,
            furthest_step=40,
            opened_wall_s=T0 + 111,
            spent={Phase.START: 4, Phase.STEP: 30, Phase.CHECKPOINT: 1},
            repeated_s=9,
        ),
    )
    changes = [
        StateChange(T0 - 5, "queued"),
        StateChange(T0, "starting"),
        StateChange(T0 + 3, "running"),
        StateChange(T0 + 101, "backing-off", "AttemptEnded"),
        StateChange(T0 + 108, "starting"),
    ]
    goodput = goodput_of([CRASHED, again], changes, now_wall_s=T0 + 148)
    assert rounded(goodput) == {
        "starting": 5,
        "loading": 14,
        "useful": 88,
        "repeated": 9,
        "saving": 4,
        "waiting": 5,
        "down": 28,
    }
    assert goodput.wall_s == 153
    assert goodput.lost_steps == 10
    assert goodput.return_s == 15, "8 s of backoff, 3 s until the session, 4 s until the first step"
    assert goodput.step_s == pytest.approx(30 / 29)
    assert goodput.share == pytest.approx(88 / 153)


def test_time_in_which_a_run_is_finished_is_not_counted():
    finished = replace(CRASHED, ending="finished")
    changes = [StateChange(T0, "starting"), StateChange(T0 + 100, "finished", "AttemptEnded")]
    assert goodput_of([finished], changes, now_wall_s=T0 + 9999).wall_s == 100
    assert goodput_of([finished], [], now_wall_s=T0 + 9999).wall_s == 100, "without a journal likewise"


@pytest.mark.parametrize(
    ("state", "bucket"),
    [
        ("queued", "waiting"),
        ("stopped", "waiting"),
        ("paused", "waiting"),
        ("backing-off", "down"),
        ("parked", "down"),
        ("rejected", "down"),
        ("faulted", "down"),
        ("running", "down"),
    ],
)
def test_time_without_an_attempt_is_told_from_the_state(state, bucket):
    drained = replace(CRASHED, ending="drained")
    changes = [StateChange(T0, "starting"), StateChange(T0 + 100, state)]
    goodput = goodput_of([drained], changes, now_wall_s=T0 + 150)
    assert goodput.buckets[bucket] == 50


def test_time_after_a_supervisor_has_left_is_lost_until_the_next_one_speaks():
    drained = replace(CRASHED, ending="drained")
    changes = [
        StateChange(T0, "running"),
        StateChange(T0 + 90, "draining", "ShutdownAsked"),
        StateChange(T0 + 100, "queued", "AttemptEnded"),
        StateChange(T0 + 700, "queued", "SpecAccepted"),
    ]
    goodput = goodput_of([drained], changes, now_wall_s=T0 + 710)
    assert (goodput.buckets["down"], goodput.buckets["waiting"]) == (600, 10)


def test_an_attempt_without_times_is_named_and_judged_as_a_whole():
    plain = AttemptTimes(1, T0, T0 + 10, "crashed")
    assert rounded(goodput_of([plain], [], now_wall_s=T0 + 10)) == {"down": 10}
    well = goodput_of([replace(plain, ending="finished")], [], now_wall_s=T0 + 10)
    assert (rounded(well), well.silent_attempts) == ({"useful": 10}, (1,))
    imports = goodput_of(
        [plain, replace(CRASHED, started_wall_s=T0 + 10, ended_wall_s=T0 + 110)], [], now_wall_s=T0
    )
    assert imports.silent_attempts == (1,)
    dies = replace(CRASHED, attempt=2, started_wall_s=T0 + 10, ended_wall_s=T0 + 110)
    assert rounded(goodput_of([plain, dies], [], now_wall_s=T0 + 110))["starting"] == 10


def test_a_page_that_says_more_than_the_time_there_was_keeps_its_proportions():
    jumped = replace(CRASHED, ended_wall_s=T0 + 40)
    goodput = goodput_of([jumped], [], now_wall_s=T0 + 40)
    assert goodput.wall_s == 40
    assert rounded(goodput) == {"starting": 1, "loading": 5, "useful": 32.5, "saving": 1.5}


def test_a_step_that_is_run_again_now_is_repeated_and_one_that_hangs_is_lost_in_the_end():
    live = AttemptTimes(2, T0, None, None, told(step=10, furthest_step=40, spent={Phase.STEP: 3}))
    assert goodput_of([live], [], now_wall_s=T0 + 65).buckets["repeated"] == 60
    stalled = replace(live, ended_wall_s=T0 + 65, ending="stalled")
    assert goodput_of([stalled], [], now_wall_s=T0 + 65).buckets["down"] == 60
