"""When a job is tried again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trainerd.contract.policy import RestartPolicy
from trainerd.supervisor.machine.restart import failures_after, is_spent, next_delay_s

POLICY = RestartPolicy(budget=5, initial_s=1.0, max_s=300.0)


def test_the_delay_doubles_up_to_the_longest():
    """Less the jitter, which takes at most a fifth."""
    for failures, full_s in [(0, 1), (1, 1), (2, 2), (3, 4), (9, 256), (10, 300), (1000, 300)]:
        delay_s = next_delay_s(failures, POLICY, seed="ant:1")
        assert 0.8 * full_s <= delay_s <= full_s


def test_the_delay_is_repeatable_and_differs_between_jobs():
    """Jobs that died together do not return together."""
    delays = {next_delay_s(3, POLICY, seed=f"job-{n}:1") for n in range(50)}
    assert len(delays) == 50
    assert next_delay_s(3, POLICY, seed="ant:1") == next_delay_s(3, POLICY, seed="ant:1")


def test_no_backoff_means_none():
    assert next_delay_s(4, RestartPolicy(initial_s=0.0), seed="ant:1") == 0.0


@given(
    st.integers(0, 10_000),
    st.floats(0, 1e6),
    st.floats(0, 1e6),
)
def test_the_delay_is_never_longer_than_the_longest(failures, initial_s, max_s):
    delay_s = next_delay_s(failures, RestartPolicy(initial_s=initial_s, max_s=max_s), seed="x")
    assert 0.0 <= delay_s <= max_s


def test_progress_refills_the_budget():
    assert failures_after(4, has_progressed=True) == 0
    assert failures_after(4, has_progressed=False) == 5


def test_a_budget_is_spent_by_attempts_without_progress():
    assert not is_spent(4, POLICY)
    assert is_spent(5, POLICY)
    assert not is_spent(0, RestartPolicy(budget=0))
    assert is_spent(1, RestartPolicy(budget=0))
