"""How often a boundary is copied into memory: a copy costs a small share of the time since the one before."""

import pytest

from trainerd.training.schedule.memory_budget import BACKGROUND_WEIGHT, FIRST_COST_S, MemoryBudget


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


def copied(budget, clock, *, stall_s, background_s):
    budget.begin()
    clock.now_s += stall_s
    budget.copied()
    clock.now_s += background_s
    budget.written(background_s)


def test_the_first_copy_waits_until_a_small_one_would_be_cheap(clock):
    budget = MemoryBudget(0.02, now=clock)
    clock.now_s += FIRST_COST_S / 0.02 - 0.001
    assert not budget.is_due()
    clock.now_s += 0.002
    assert budget.is_due()


def test_the_agreement_of_several_ranks_is_a_part_of_the_cost(clock):
    budget = MemoryBudget(0.02, agreement_cost_s=0.02, now=clock)
    began_s = clock.now_s
    copied(budget, clock, stall_s=0.01, background_s=0.0)
    clock.now_s = began_s + 0.03 / 0.02 - 0.001
    assert not budget.is_due()
    clock.now_s += 0.002
    assert budget.is_due()


def test_no_copy_begins_while_one_is_written(clock):
    budget = MemoryBudget(1e9, now=clock)
    budget.begin()
    budget.copied()
    clock.now_s += 1e6
    assert not budget.is_due()
    budget.written(1.0)
    assert budget.is_due()


@pytest.mark.parametrize(("stall_s", "background_s"), [(0.01, 0.0), (0.0, 0.4), (0.03, 2.0)])
def test_the_next_copy_is_due_when_the_last_one_cost_its_share_of_the_time_since(
    clock, stall_s, background_s
):
    budget = MemoryBudget(0.02, now=clock)
    began_s = clock.now_s
    copied(budget, clock, stall_s=stall_s, background_s=background_s)
    due_s = began_s + (stall_s + BACKGROUND_WEIGHT * background_s) / 0.02
    clock.now_s = due_s - 0.001
    assert not budget.is_due()
    clock.now_s = due_s + 0.001
    assert budget.is_due()


def test_steps_that_are_long_beside_a_copy_are_all_copied(clock):
    budget, copies = MemoryBudget(0.02, now=clock), 0
    for _ in range(20):
        clock.now_s += 1.0
        if budget.is_due():
            copied(budget, clock, stall_s=0.005, background_s=0.04)
            copies += 1
    assert copies == 20


def test_over_any_time_copies_cost_no_more_than_the_share(clock):
    budget, cost_s, began_s = MemoryBudget(0.02, now=clock), 0.0, clock.now_s
    for step in range(5000):
        clock.now_s += 0.01
        if budget.is_due():
            stall_s = 0.001 + 0.004 * (step % 7 == 0)
            copied(budget, clock, stall_s=stall_s, background_s=0.02)
            cost_s += stall_s + BACKGROUND_WEIGHT * 0.02
    assert 0 < cost_s <= 0.03 * (clock.now_s - began_s)  # each is judged by the cost of the one before


def test_a_boundary_that_was_not_copied_after_all_does_not_stop_the_next(clock):
    budget = MemoryBudget(0.02, now=clock)
    budget.begin()
    clock.now_s += 10.0
    assert budget.is_due()
