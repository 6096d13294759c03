"""The time after which a foreground leaves by itself."""

from __future__ import annotations

import pytest

from trainerd.contract.heartbeat import Heartbeat
from trainerd.supervisor.service.leave_timer import LeaveTimer

TIMER = LeaveTimer(period_s=60.0, started_s=100.0)
TRAINED = Heartbeat(resumed_step=7, step=8)


@pytest.mark.parametrize(("now_s", "is_due"), [(159.9, False), (160.0, True), (500.0, True)])
def test_a_job_that_trains_leaves_when_its_time_is_over(now_s, is_due):
    assert TIMER.is_due(now_s, TRAINED, is_running=True) is is_due


@pytest.mark.parametrize(
    "beat", [Heartbeat(), Heartbeat(resumed_step=7, step=7), Heartbeat(resumed_step=0, step=0)]
)
def test_a_session_without_a_new_step_stays_since_it_would_be_run_again_without_progress(beat):
    assert not TIMER.is_due(1000.0, beat, is_running=True)


def test_a_command_that_reports_no_steps_leaves_by_the_clock():
    assert TIMER.is_due(160.0, None, is_running=True)


def test_between_two_attempts_it_waits_for_the_next_one():
    assert not TIMER.is_due(1000.0, TRAINED, is_running=False)
