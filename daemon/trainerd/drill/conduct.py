"""Conducts a drill: undisturbed runs, faults, comparisons. What it decides is decided by pure functions.

Invariants:
    Each run has a run folder and a copy of the working folder of its own.
    An attempt that does not end by itself is killed at a limit, with all its processes.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from trainerd.drill.diagnosis import diagnose_fault
from trainerd.drill.drill_budget import LongestRun, attempt_limit_s, only_slow, patience_s, unless_used_up
from trainerd.drill.drill_report import DrillReport, FaultResult, overall
from trainerd.drill.drilled_run import DrilledRun, RunPlaces
from trainerd.drill.fault_plan import Measured, Undisturbed, choose_faults, choose_horizon
from trainerd.drill.run_comparison import compare_runs, differing_names
from trainerd.drill.saving_drill import SavingDrill
from trainerd.drill.saving_plan import SAVES_MIN, saves_of
from trainerd.drill.session_hint import session_hint
from trainerd.drill.state_comparison import checkpoint_difference
from trainerd.drill.traced_runs import trace_causes
from trainerd.errors import UserError
from trainerd.training.engine.row_comparison import Patterns

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from trainerd.contract.heartbeat import Heartbeat
    from trainerd.contract.resolved import ResolvedJob
    from trainerd.contract.save_journal import SaveEvent
    from trainerd.drill.diagnosis import DrillCause
    from trainerd.drill.drill_attempt import DrillAttempt
    from trainerd.drill.fault_plan import FaultPlan, Horizon, PlannedFault
    from trainerd.drill.run_comparison import Boundary, Compared

PROBE_SHARE: Final = 0.05
"""Share of the budget for which the job is watched once it makes steps."""
PROBE_S_MIN: Final = 2.0
PROBE_STEPS_MIN: Final = 3
PROBE_LIMIT_SHARE: Final = 0.4
"""Share of the budget within which the job must have made some steps."""
_LOSSES_MAX: Final = 2000


class Drill:
    """One drill.

    Args:
        job: What is drilled.
        places: Where its runs go.
        budget_s: Time for the whole drill, in seconds.
        steps: Steps of each run, None leaves that to the budget.
        ranks: Another number of ranks to resume on, None rehearses none.
        only: Names of the faults that are asked for; empty is all of them.
        say: Takes what happens, a line each.
    """

    def __init__(
        self,
        job: ResolvedJob,
        places: RunPlaces,
        *,
        budget_s: float,
        steps: int | None = None,
        ranks: int | None = None,
        only: Collection[str] = (),
        say: Callable[[str], None] = lambda _line: None,
    ) -> None:
        self._job = job
        self._places = places
        self._budget_s = budget_s
        self._steps = steps
        self._ranks = ranks
        self._only = only
        self._say = say
        self._began_s = time.monotonic()
        self._limit_s = math.inf
        self._longest = LongestRun()
        self._uncompared = Patterns()

    def conduct(self) -> DrillReport:
        """Conduct the drill.

        Raises:
            UserError: The job does not run, or opens no session.
        """
        measured = self._measure()
        if isinstance(measured, DrillReport):
            return measured
        horizon = choose_horizon(measured, self._budget_s, steps=self._steps)
        expected_s = measured.start_s + measured.step_s * (horizon.stop_step or measured.steps_total or 0)
        self._limit_s = attempt_limit_s(expected_s)
        self._say(f"runs of {horizon.why}; a step takes {measured.step_s * 1000:.1f} ms")
        reference = self._undisturbed("undisturbed", horizon)
        with self._longest.timed():
            second = self._undisturbed("undisturbed-again", horizon)
        self._uncompared = Patterns(reference.notes().uncompared)
        first_result, left_out = self._compare_undisturbed(reference, second, horizon)
        second.remove()
        plan = choose_faults(
            _seen(reference), horizon, nproc=self._job.nproc, ranks=self._ranks, only=self._only
        )
        results = [first_result]
        if first_result.verdict == "exact":
            results += self._struck(plan, reference, horizon)
        else:
            why = "two undisturbed runs differ already"
            results += [FaultResult(each.name, each.title, "not-run", message=why) for each in plan.faults]
        results += [
            FaultResult(each.name, each.title, "not-run", message=each.why, lacks_budget=each.lacks_budget)
            for each in plan.left_out
        ]
        losses = tuple(
            (float(row["step"]), float(row["loss"]))
            for row in reference.trace().rows[:_LOSSES_MAX]
            if isinstance(row.get("loss"), int | float)
        )
        return DrillReport(
            command=self._job.command,
            verdict=overall(tuple(results)),
            faults=tuple(results),
            steps=reference.steps,
            horizon=horizon.why,
            took_s=time.monotonic() - self._began_s,
            wall_s=time.time(),
            left_out=left_out,
            losses=losses,
            spec_digest=self._job.spec_digest if self._job.spec_path else "",
        )

    # ------------------------------------------------------------------ undisturbed

    def _measure(self) -> Measured | DrillReport:
        """Watch the job for a short time; a job without a session is drilled by its saves at once."""
        self._say("watching the job to measure a step")
        run = DrilledRun(self._job, self._places, "probe")
        seconds = max(PROBE_S_MIN, PROBE_SHARE * self._budget_s)

        def is_enough(beat: Heartbeat, since_first_s: float) -> bool:
            return since_first_s >= seconds and beat.step >= PROBE_STEPS_MIN

        def is_saved_enough() -> bool:
            saves = saves_of(run.events())
            return len(saves) >= SAVES_MIN and saves[-1].monotonic_s - saves[0].monotonic_s >= seconds

        limit_s = max(PROBE_LIMIT_SHARE * self._budget_s, seconds)
        began_s = time.monotonic()
        end = run.attempt(limit_s=limit_s, is_enough=is_enough, is_saved_enough=is_saved_enough)
        if end.beat is None and (events := run.events()):
            run.remove()
            return self._drill_saves(events, end, began_s)
        _check_speed(end, limit_s)
        _check_runs(end, self._job)
        rows, epoch_steps = run.trace().rows, run.notes().epoch_steps
        run.remove()
        if not end.step:
            raise UserError(
                "the job ended without a step, so there is nothing to disturb",
                hint="a drill needs a training loop that the session drives: see docs/training-api.md",
            )
        epoch, total = _lengths([(row["epoch"], row["batch"]) for row in rows], end, epoch_steps)
        return Measured(
            start_s=end.first_step_s or end.duration_s,
            step_s=end.step_s or max(end.duration_s - (end.first_step_s or 0.0), 0.0) / end.step,
            steps=end.step,
            steps_per_epoch=epoch,
            steps_total=total,
        )

    def _drill_saves(self, events: tuple[SaveEvent, ...], end: DrillAttempt, began_s: float) -> DrillReport:
        if end.kind == "too-slow" and saves_of(events):
            end = dataclasses.replace(end, kind="left")
        drill = SavingDrill(
            self._job,
            self._places,
            budget_s=self._budget_s,
            began_s=self._began_s,
            steps=self._steps,
            ranks=self._ranks,
            only=self._only,
            say=self._say,
        )
        return drill.conduct(events, end, began_s)

    def _undisturbed(self, name: str, horizon: Horizon, *, traced_step: int | None = None) -> DrilledRun:
        self._say(f"running: {name}")
        run = DrilledRun(
            self._job, self._places, name, every_steps=horizon.every_steps, stop_step=horizon.stop_step
        )
        end = run.attempt(
            limit_s=self._limit_s,
            patience_s=patience_s(self._began_s, self._budget_s),
            traced_step=traced_step,
        )
        _check_runs(end, self._job)
        return run

    def _compare_undisturbed(
        self, reference: DrilledRun, second: DrilledRun, horizon: Horizon
    ) -> tuple[FaultResult, tuple[str, ...]]:
        """Compare the two undisturbed runs.

        Logged numbers that differ though the whole state is equal are measurements: they are left out from
        here on, and named.
        """
        title = "undisturbed, a second time"
        compared = self._compare(reference, second)
        left_out: tuple[str, ...] = ()
        if compared.differences and {each.kind for each in compared.differences} <= {"value", "report"}:
            left_out = differing_names(reference.trace(), second.trace())
            self._uncompared = Patterns((*self._uncompared.patterns, *left_out))
            compared = self._compare(reference, second)
        if compared.is_exact:
            return FaultResult("undisturbed", title, "exact", compared=compared), left_out
        causes = self._trace_nondeterminism(reference, compared, horizon)
        result = FaultResult("undisturbed", title, "different", compared=compared, causes=causes)
        return result, left_out

    def _trace_nondeterminism(
        self, reference: DrilledRun, compared: Compared, horizon: Horizon
    ) -> tuple[DrillCause, ...]:
        """Replay the step in which the runs part, twice, and compare the outputs of all modules."""
        step = min((each.step for each in compared.differences if each.step), default=1)
        short = dataclasses.replace(horizon, stop_step=step + 1) if reference.steps > step else horizon
        return trace_causes(
            compared.differences, lambda name: self._undisturbed(name, short, traced_step=step)
        )

    # ------------------------------------------------------------------ struck

    def _struck(self, plan: FaultPlan, reference: DrilledRun, horizon: Horizon) -> list[FaultResult]:
        results = []
        for fault in plan.faults:
            result = unless_used_up(
                fault, began_s=self._began_s, budget_s=self._budget_s, expected_s=self._longest.seconds
            )
            if result is not None:
                results.append(result)
                continue
            self._say(f"running: {fault.title}")
            with self._longest.timed():
                run = DrilledRun(
                    self._job,
                    self._places,
                    fault.name,
                    every_steps=horizon.every_steps,
                    stop_step=horizon.stop_step,
                )
                results.append(self._strike(run, fault, reference))
                run.remove()
        return results

    def _strike(self, run: DrilledRun, fault: PlannedFault, reference: DrilledRun) -> FaultResult:
        ends: list[DrillAttempt] = []
        for number in range(len(fault.strikes) + 1):
            is_last = number == len(fault.strikes)
            end = run.attempt(
                *fault.strikes[number : number + 1],
                limit_s=self._limit_s,
                patience_s=patience_s(self._began_s, self._budget_s),
                changes_workers=fault.changes_workers and is_last,
                ranks=fault.ranks if is_last else None,
            )
            ends.append(end)
            if end.kind not in {"drained", "killed"} or (end.kind == "drained" and run.is_at_stop()):
                break
        lost, return_s = _costs(ends)
        last = ends[-1]
        if last.is_training and last.step < reference.steps:
            return only_slow(fault, last.message, f"trained, at step {last.step} of {reference.steps}")
        if last.kind not in {"finished", "drained"}:
            message = last.message.strip() or last.kind
            return FaultResult(fault.name, fault.title, "refused", lost, return_s, message=message)
        if len(ends) <= len(fault.strikes):
            message = "the run came to its end before it could be struck"
            return FaultResult(fault.name, fault.title, "not-run", message=message)
        if fault.changes_workers and not run.changed_workers():
            message = "no stock DataLoader was seen whose workers could be changed"
            return FaultResult(fault.name, fault.title, "not-run", message=message)
        compared = self._compare(reference, run)
        if compared.is_exact:
            return FaultResult(fault.name, fault.title, "exact", lost, return_s, compared)
        causes = diagnose_fault(fault.name, compared.differences, run.reasons())
        return FaultResult(fault.name, fault.title, "different", lost, return_s, compared, causes)

    def _compare(self, reference: DrilledRun, other: DrilledRun) -> Compared:
        then, now = reference.checkpoints(), other.checkpoints()

        def difference(boundary: Boundary) -> tuple[str, str] | None:
            return checkpoint_difference(
                then[boundary],
                now[boundary],
                uncompared=self._uncompared,
                folders=(reference.folder, other.folder),
            )

        return compare_runs(reference.trace(), other.trace(), difference, uncompared=self._uncompared)


def _check_speed(end: DrillAttempt, limit_s: float) -> None:
    """Raise UserError if the job was not seen to make some steps in the time for that."""
    if end.kind != "too-slow":
        return
    if not end.step:
        made = "no step"
    elif end.step < PROBE_STEPS_MIN:
        made = f"{end.step} of the {PROBE_STEPS_MIN} steps that measure it"
    else:
        made = f"{end.step} steps, the first of them too late to be measured,"
    _, newline, last_lines = end.message.partition("\n")
    raise UserError(
        f"the job made {made} within {limit_s:.0f} s, and these are {PROBE_LIMIT_SHARE:.0%} of the budget"
        f"{newline}{last_lines}",
        hint="give a larger --budget",
    )


def _check_runs(end: DrillAttempt, job: ResolvedJob) -> None:
    """Raise UserError if an undisturbed attempt did not do what it should."""
    if end.kind == "no-session":
        raise UserError(
            f"the job ended without opening a session{end.message}",
            hint=session_hint(job.command, Path(job.workdir)),
        )
    if end.kind in {"failed", "killed"} or (end.kind == "too-slow" and end.step < 1):
        raise UserError(f"the job fails without any fault: {end.message.strip() or end.kind}")
    if end.kind == "too-slow":
        raise UserError(f"an undisturbed run is much slower than the first one: {end.message}")


def _lengths(
    places: list[tuple[int, int]], end: DrillAttempt, epoch_steps: int | None
) -> tuple[int | None, int | None]:
    """Return the steps of an epoch and of the whole job, as far as an attempt shows them.

    Args:
        places: Epoch and batch of each row of its history.
        end: How it went.
        epoch_steps: Steps of its first epoch, None if that did not end.
    """
    beat, epoch = end.beat, epoch_steps
    if epoch is None and beat is not None and beat.batches > 0 and places:
        # Several batches may make a step.
        epoch = math.ceil(beat.batches * len(places) / (places[-1][1] + 1))
    if end.kind == "finished":
        return epoch, end.step
    if beat is None or beat.epochs <= 0 or epoch is None:
        return epoch, None
    return epoch, beat.epochs * epoch


def _seen(reference: DrilledRun) -> Undisturbed:
    return Undisturbed(
        steps=reference.steps,
        epoch_steps=reference.notes().epoch_steps,
        epochs=reference.epochs,
        evaluates=reference.evaluated,
        is_whole=reference.is_finished,
    )


def _costs(ends: list[DrillAttempt]) -> tuple[int | None, float | None]:
    """Return how many steps were lost, and the longest time that an attempt took to go on, in seconds."""
    lost, returns = 0, []
    for before, after in itertools.pairwise(ends):
        if after.beat is None or after.beat.resumed_step < 0:
            return None, None
        lost += max(before.step - after.beat.resumed_step, 0)
        returns.append(after.first_step_s if after.first_step_s is not None else after.duration_s)
    return lost, max(returns, default=None)
