"""Every order of signals, endings and deadlines has one answer, without a process in sight."""

from __future__ import annotations

import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainerd.shim.stop_policy import (
    COMMAND_SETTLE_S,
    PEER_LIMIT_S,
    EndCommand,
    Forward,
    Kill,
    StopPolicy,
    after_command_ended,
    after_rank_ended,
    after_sessions,
    after_signal,
    after_time,
)

BOTH = frozenset({0, 1})


def two_ranks(grace_s: float = 30.0) -> StopPolicy:
    return StopPolicy(grace_s, BOTH)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_request_to_stop_is_forwarded_as_it_came_and_starts_the_grace_period(signum):
    policy, commands = after_signal(two_ranks(), signum, 5.0)
    assert commands == (Forward(signum, BOTH),)
    assert (policy.stop_requested_s, policy.kill_at_s, policy.kill_reason) == (5.0, 35.0, "grace")


def test_a_second_request_is_forwarded_and_does_not_move_the_deadline():
    policy, _ = after_signal(two_ranks(), signal.SIGTERM, 5.0)
    later, commands = after_signal(policy, signal.SIGTERM, 20.0)
    assert commands == (Forward(signal.SIGTERM, BOTH),)
    assert later == policy


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_the_same_request_sent_to_everybody_at_once_is_forwarded_once(signum):
    policy, _ = after_signal(two_ranks(), signal.SIGTERM, 5.0)
    assert after_signal(policy, signum, 6.9) == (policy, ())
    assert after_signal(policy, signum, 7.0)[1] == (Forward(signum, BOTH),)


def test_quit_kills_at_once_and_is_no_request_to_stop():
    policy, commands = after_signal(two_ranks(), signal.SIGQUIT, 5.0)
    assert commands == (Kill("asked", BOTH),)
    assert policy.stop_requested_s is None


def test_nobody_is_killed_before_the_deadline_and_the_living_are_at_it():
    policy, _ = after_signal(two_ranks(), signal.SIGTERM, 5.0)
    assert after_time(policy, 34.9) == (policy, ())
    policy, _ = after_rank_ended(policy, 0, 34.9, exit_code=85)
    policy, commands = after_time(policy, 35.0)
    assert commands == (Kill("grace", frozenset({1})),)
    assert after_time(policy, 99.0)[1] == (), "once"


@pytest.mark.parametrize("exit_code", [0, 85])
def test_the_peers_of_a_rank_that_ended_well_go_on_without_limit(exit_code):
    policy, commands = after_rank_ended(two_ranks(), 0, 5.0, exit_code=exit_code)
    assert commands == ()
    assert policy.kill_at_s is None


@pytest.mark.parametrize("exit_code", [1, 93, 127, None])
def test_the_peers_of_a_rank_that_ended_badly_are_told_and_soon_killed(exit_code):
    policy, commands = after_rank_ended(two_ranks(), 0, 5.0, exit_code=exit_code)
    assert commands == (Forward(signal.SIGTERM, frozenset({1})),)
    assert (policy.kill_at_s, policy.kill_reason) == (5.0 + PEER_LIMIT_S, "peer")


def test_the_peer_limit_is_never_longer_than_the_grace_period():
    policy, _ = after_rank_ended(two_ranks(grace_s=2.0), 0, 5.0, exit_code=1)
    assert policy.kill_at_s == 7.0


def test_peers_already_told_to_stop_are_not_told_again_since_twice_means_now():
    policy, _ = after_signal(two_ranks(), signal.SIGTERM, 5.0)
    policy, commands = after_rank_ended(policy, 0, 6.0, exit_code=1)
    assert commands == ()
    assert (policy.kill_at_s, policy.kill_reason) == (6.0 + PEER_LIMIT_S, "peer")


def test_a_first_request_after_a_peer_ended_badly_is_noted_and_not_sent_twice():
    policy, _ = after_rank_ended(two_ranks(), 0, 5.0, exit_code=1)
    policy, commands = after_signal(policy, signal.SIGTERM, 6.0)
    assert commands == ()
    assert policy.stop_requested_s == 6.0
    assert after_signal(policy, signal.SIGTERM, 8.0)[1] == (Forward(signal.SIGTERM, frozenset({1})),)


def test_the_last_rank_to_end_leaves_nothing_to_do():
    policy, commands = after_rank_ended(StopPolicy(30.0, frozenset({0})), 0, 5.0, exit_code=1)
    assert commands == ()
    assert after_signal(policy, signal.SIGTERM, 6.0)[1] == ()


def test_a_command_is_ended_a_while_after_its_last_session_and_once():
    policy, _ = after_signal(two_ranks(), signal.SIGTERM, 5.0)
    policy, _ = after_sessions(policy, frozenset({0}), 5.1)
    policy, _ = after_sessions(policy, frozenset({0}), 9.0)
    assert after_time(policy, 9.0)[1] == (), "its session trains"
    policy, _ = after_sessions(policy, frozenset(), 10.0)
    assert policy.next_moment_s == 10.0 + COMMAND_SETTLE_S
    assert after_time(policy, 10.0 + COMMAND_SETTLE_S - 0.01)[1] == ()
    policy, commands = after_time(policy, 10.0 + COMMAND_SETTLE_S)
    assert commands == (EndCommand(frozenset({0})),), "rank 1 had no session"
    policy, _ = after_sessions(policy, frozenset(), 12.0)
    assert after_time(policy, 20.0)[1] == ()
    assert policy.next_moment_s == 35.0, "the end of the grace period"


def test_a_command_that_opens_another_session_in_time_is_left_alone():
    policy, _ = after_signal(two_ranks(), signal.SIGTERM, 5.0)
    policy, _ = after_sessions(policy, frozenset({0}), 5.1)
    policy, _ = after_sessions(policy, frozenset(), 6.0)
    policy, _ = after_sessions(policy, frozenset({0}), 6.1)
    assert after_time(policy, 20.0)[1] == ()


def test_a_command_that_ended_with_its_session_is_not_signalled():
    policy, _ = after_signal(two_ranks(), signal.SIGTERM, 5.0)
    policy, _ = after_sessions(policy, BOTH, 5.1)
    policy, _ = after_sessions(policy, frozenset({1}), 6.0)
    policy, _ = after_rank_ended(policy, 0, 6.1, exit_code=85)
    assert after_time(policy, 20.0)[1] == ()


def test_sessions_that_end_unasked_end_no_command():
    policy, _ = after_sessions(two_ranks(), BOTH, 5.0)
    policy, _ = after_sessions(policy, frozenset(), 6.0)
    assert (policy, policy.next_moment_s) == (two_ranks(), None)


@pytest.mark.parametrize("exit_code", [0, 85])
def test_a_session_whose_command_ended_well_trains_on(exit_code):
    assert after_command_ended(two_ranks(), 5.0, exit_code=exit_code) == (two_ranks(), ())


@pytest.mark.parametrize("exit_code", [1, None])
def test_a_session_whose_command_ended_badly_has_the_grace_period_to_save(exit_code):
    policy, commands = after_command_ended(two_ranks(), 5.0, exit_code=exit_code)
    assert commands == (Forward(signal.SIGTERM, BOTH),)
    assert (policy.kill_at_s, policy.kill_reason, policy.stop_requested_s) == (35.0, "grace", None)
    assert after_command_ended(policy, 6.0, exit_code=exit_code)[1] == (), "once"


EVENT = st.one_of(
    st.sampled_from([signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGQUIT]),
    st.tuples(st.integers(0, 2), st.sampled_from([0, 85, 1, 93, None])),
    st.none(),
)


@given(st.lists(st.tuples(st.floats(0, 20), EVENT), max_size=30), st.floats(0, 60))
def test_in_any_order_only_the_living_are_signalled_and_a_stop_always_ends_them(events, grace_s):
    """Deadlines only come nearer; after a stop or a bad ending, everybody is killed by the deadline."""
    policy = StopPolicy(grace_s, frozenset({0, 1, 2}))
    now_s = 0.0
    must_end = False
    for wait_s, event in events:
        now_s += wait_s
        before = policy
        if event is None:
            policy, commands = after_time(policy, now_s)
        elif isinstance(event, tuple):
            if event[0] not in policy.living:
                continue
            policy, commands = after_rank_ended(policy, event[0], now_s, exit_code=event[1])
            must_end |= event[1] not in {0, 85}
        else:
            policy, commands = after_signal(policy, event, now_s)
            must_end |= event != signal.SIGQUIT
        assert all(command.ranks and command.ranks <= before.living for command in commands)
        assert policy.living <= before.living
        if before.kill_at_s is not None and policy.kill_at_s is not None:
            assert policy.kill_at_s <= before.kill_at_s
        if any(isinstance(command, Kill) for command in commands):
            return
        if must_end and policy.living:
            assert policy.kill_at_s is not None
            assert policy.kill_at_s <= now_s + grace_s
