"""What a drill says of a job that cannot be measured."""

from __future__ import annotations

import pytest

from trainerd.contract.heartbeat import Heartbeat
from trainerd.contract.rehearsal import RehearsalNotes
from trainerd.drill import conduct
from trainerd.drill.conduct import Drill
from trainerd.drill.drill_attempt import DrillAttempt
from trainerd.drill.drilled_job import job_of_command
from trainerd.drill.drilled_run import RunPlaces
from trainerd.drill.fault_plan import PlannedFault
from trainerd.drill.run_comparison import RunTrace
from trainerd.drill.saving_drill import SavingDrill
from trainerd.errors import UserError


def measured(end, folder, monkeypatch):
    """Return what a drill says of a job whose first attempt ends so."""

    class Watched:
        def __init__(self, *_arguments, **_options):
            pass

        def attempt(self, **_options):
            return end

        def notes(self):
            return RehearsalNotes()

        def events(self):
            return ()

        def trace(self):
            return RunTrace((), (), ())

        def remove(self):
            pass

    monkeypatch.setattr(conduct, "DrilledRun", Watched)
    job = job_of_command(("/bin/true",), folder, {})
    with pytest.raises(UserError) as caught:
        Drill(job, RunPlaces(folder), budget_s=60.0).conduct()
    return str(caught.value)


def test_a_job_that_ends_without_a_step_is_not_told_to_get_a_larger_budget(tmp_path, monkeypatch):
    said = measured(DrillAttempt("finished", 2.0, beat=Heartbeat(step=0)), tmp_path, monkeypatch)
    assert "ended without a step" in said
    assert "budget" not in said


@pytest.mark.parametrize(
    ("step", "made"),
    [
        (None, "no step"),
        (0, "no step"),
        (2, "2 of the 3 steps"),
        (40, "made 40 steps, the first of them too late"),
    ],
    ids=["no-session", "no-step", "two-steps", "forty-steps"],
)
def test_a_job_that_is_too_slow_to_be_measured_is_told_to_get_a_larger_budget(
    tmp_path, monkeypatch, step, made
):
    beat = None if step is None else Heartbeat(step=step)

    message = "it did not end within 24 s\n    loading data"
    said = measured(DrillAttempt("too-slow", 24.0, None, None, beat, message), tmp_path, monkeypatch)
    assert made in said
    assert "within 24 s" in said
    assert "loading data" in said
    assert "larger --budget" in said
    assert "without any fault" not in said


@pytest.mark.parametrize(
    ("step", "is_training", "verdict"),
    [(700, True, "not-run"), (700, False, "refused"), (1000, True, "refused")],
    ids=["slow", "hangs", "does-not-end"],
)
def test_a_run_that_is_slower_than_it_was_measured_is_no_difference(tmp_path, step, is_training, verdict):
    message = "it did not end within 60 s\n    epoch 3"
    end = DrillAttempt("too-slow", 60.0, beat=Heartbeat(step=step), message=message, is_training=is_training)

    class Run:
        steps = 1000

        def attempt(self, *_strikes, **_options):
            return end

    drill = Drill(job_of_command(("/bin/true",), tmp_path, {}), RunPlaces(tmp_path), budget_s=60.0)
    result = drill._strike(Run(), PlannedFault("kill", "SIGKILL", ()), Run())
    assert (result.verdict, result.lacks_budget) == (verdict, verdict == "not-run")
    if verdict == "not-run":
        assert result.message == (
            "it did not end within 60 s, and still trained, at step 700 of 1000: give a larger --budget"
        )


@pytest.mark.parametrize(("is_training", "verdict"), [(True, "not-run"), (False, "refused")])
def test_nor_is_one_without_a_session(tmp_path, is_training, verdict):
    end = DrillAttempt("too-slow", 60.0, message="it did not end within 60 s", is_training=is_training)

    class Run:
        def attempt(self, *_strikes, **_options):
            return end

    drill = SavingDrill(
        job_of_command(("/bin/true",), tmp_path, {}), RunPlaces(tmp_path), budget_s=60.0, began_s=0.0,
        steps=None, ranks=None, only=(), say=print,
    )  # fmt: skip
    result = drill._strike(Run(), PlannedFault("kill", "SIGKILL", ()), Run())
    assert (result.verdict, result.lacks_budget) == (verdict, verdict == "not-run")
    if verdict == "not-run":
        assert result.message == "it did not end within 60 s, and still saved: give a larger --budget"
