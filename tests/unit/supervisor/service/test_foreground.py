"""What the foreground exits with."""

from __future__ import annotations

import pytest

from tests.support.supervisor_objects import NOW, job
from trainerd.supervisor.api.control import OutcomeView
from trainerd.supervisor.machine.states import Draining, Finished, Parked, Paused, Queued, Rejected, Stopped
from trainerd.supervisor.service.foreground import judge_end

SAVED = OutcomeView(3, "killed", "it did", checkpoint="step-000000100")
DRAINED = OutcomeView(3, "drained", "it did")
NOTHING = OutcomeView(3, "stopped", "it did")
CRASHED = OutcomeView(3, "crashed", "it did")


@pytest.mark.parametrize(
    ("state", "outcome", "code"),
    [
        (Finished("v1"), None, 0),
        (Rejected("program"), NOTHING, 93),
        (Rejected("spec"), None, 93),
        (Parked(), SAVED, 1),
        (Draining(), SAVED, 1),
        (Queued(), SAVED, 85),
        (Queued(), DRAINED, 85),
        (Stopped(), SAVED, 85),
        (Paused(1.0, NOW), SAVED, 85),
        (Queued(), NOTHING, 85),
        (Queued(), CRASHED, 1),
        (Queued(), None, 85),
    ],
    ids=lambda value: getattr(value, "NAME", None) or getattr(value, "kind", None) or str(value),
)
def test_the_exit_code_says_whether_to_run_it_again(state, outcome, code):
    """85 where there is something to go on from, or where it was asked to leave before there was."""
    assert judge_end(job(state), outcome, was_asked=True).code == code


def test_a_job_that_is_gone_is_a_failure():
    assert judge_end(None, None, was_asked=False).code == 1
