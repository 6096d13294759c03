"""What a drill says of a job that is too slow for its budget."""

from __future__ import annotations

import pytest

from trainerd.contract.heartbeat import Heartbeat
from trainerd.drill import conduct
from trainerd.drill.conduct import Drill
from trainerd.drill.drill_attempt import DrillAttempt
from trainerd.drill.drilled_job import job_of_command
from trainerd.drill.drilled_run import RunPlaces
from trainerd.errors import UserError


@pytest.mark.parametrize("step", [None, 0, 2], ids=["no-session", "no-step", "two-steps"])
def test_a_job_that_is_too_slow_to_be_measured_is_told_to_get_a_larger_budget(tmp_path, monkeypatch, step):
    beat = None if step is None else Heartbeat(step=step)

    class Slow:
        def __init__(self, *_arguments, **_options):
            pass

        def attempt(self, **_options):
            message = "it did not end within 24 s\n    loading data"
            return DrillAttempt("too-slow", 24.0, None, None, beat, message)

    monkeypatch.setattr(conduct, "DrilledRun", Slow)
    job = job_of_command(("/bin/true",), tmp_path, {})
    with pytest.raises(UserError) as caught:
        Drill(job, RunPlaces(tmp_path), budget_s=60.0).conduct()
    assert ("2 of the 3 steps" if step else "no step") in str(caught.value)
    assert "within 24 s" in str(caught.value)
    assert "loading data" in str(caught.value)
    assert "larger --budget" in str(caught.value)
    assert "without any fault" not in str(caught.value)
