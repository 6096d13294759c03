"""When a checkpoint is due: by the step, by the clock, at the end of an epoch."""

from __future__ import annotations

import pytest

from trainerd.contract.policy import Cadence
from trainerd.training.schedule.cadence import LastSave, due_reason, epoch_due_reason, moved

LAST = LastSave(step=100, monotonic_s=50.0)


@pytest.mark.parametrize(
    ("cadence", "step", "now_s", "reason"),
    [
        (Cadence(steps=10), 109, 50.0, None),
        (Cadence(steps=10), 110, 50.0, "every 10 steps"),
        (Cadence(steps=10), 113, 50.0, "every 10 steps"),
        (Cadence(steps=None, seconds=30.0), 101, 79.9, None),
        (Cadence(steps=None, seconds=30.0), 101, 80.0, "every 30 seconds"),
        (Cadence(steps=10, seconds=30.0), 105, 80.0, "every 30 seconds"),
        (Cadence(steps=None, seconds=None), 10_000, 1e9, None),
    ],
)
def test_a_save_is_due_once_a_multiple_of_the_steps_or_the_time_has_passed(cadence, step, now_s, reason):
    """Also where the multiple itself was passed between two boundaries."""
    assert due_reason(cadence, LAST, step=step, now_s=now_s) == reason


@pytest.mark.parametrize("step", [99, 100])
def test_a_step_that_was_saved_is_not_saved_again(step):
    """An attempt that went back may be behind its last save."""
    assert due_reason(Cadence(steps=1, seconds=1.0), LAST, step=step, now_s=1e6) is None


@pytest.mark.parametrize(
    ("epochs", "epochs_done", "has_score", "reason"),
    [
        (1, 3, False, "end of epoch"),
        (2, 3, False, None),
        (2, 4, False, "every 2 epochs"),
        (None, 4, False, None),
        (None, 3, True, "scored"),
        (2, 3, True, "scored"),
    ],
)
def test_the_end_of_an_epoch_is_saved_on_its_multiples_and_where_it_has_a_score(
    epochs, epochs_done, has_score, reason
):
    cadence = Cadence(epochs=epochs)
    assert epoch_due_reason(cadence, epochs_done=epochs_done, has_score=has_score) == reason


def test_after_a_save_the_count_begins_there():
    last = moved(LAST, step=110, now_s=60.0)
    assert due_reason(Cadence(steps=10, seconds=30.0), last, step=119, now_s=89.0) is None
    assert due_reason(Cadence(steps=10, seconds=30.0), last, step=120, now_s=61.0) == "every 10 steps"
