"""Conducts a drill of a script without a session: it saves and resumes by `trainerd.Checkpointer` alone."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Final

from trainerd.contract.counted import counted
from trainerd.drill.diagnosis import diagnose_saving
from trainerd.drill.drill_budget import LongestRun, attempt_limit_s, only_slow, patience_s, unless_used_up
from trainerd.drill.drill_report import DrillReport, FaultResult, overall
from trainerd.drill.drilled_run import DrilledRun
from trainerd.drill.saved_comparison import compare_saved, differing_scores
from trainerd.drill.saving_plan import (
    SAVES_MIN,
    UNSEEN,
    SavingHorizon,
    choose_saving_faults,
    choose_saving_horizon,
    saves_of,
    steps_lost,
)
from trainerd.drill.traced_runs import trace_causes
from trainerd.errors import UserError
from trainerd.training.engine.row_comparison import Patterns

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from trainerd.contract.resolved import ResolvedJob
    from trainerd.contract.save_journal import SaveEvent
    from trainerd.drill.drill_attempt import DrillAttempt
    from trainerd.drill.drilled_run import RunPlaces
    from trainerd.drill.fault_plan import PlannedFault

_FIRST_SAVE: Final = SavingHorizon(1, "the first save")


class SavingDrill:
    """One drill of a script with Checkpointers alone.

    Args:
        job: What is drilled.
        places: Where its runs go.
        budget_s: Time for the whole drill, in seconds.
        began_s: When it began, by the monotonic clock.
        steps: Step at which the runs end, as the script counts; None leaves that to the budget.
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
        began_s: float,
        steps: int | None,
        ranks: int | None,
        only: Collection[str],
        say: Callable[[str], None],
    ) -> None:
        self._job = job
        self._places = places
        self._budget_s = budget_s
        self._began_s = began_s
        self._steps = steps
        self._ranks = ranks
        self._only = only
        self._say = say
        self._limit_s = math.inf
        self._longest = LongestRun()
        self._uncompared = Patterns()

    def conduct(self, probe: tuple[SaveEvent, ...], end: DrillAttempt, probe_began_s: float) -> DrillReport:
        """Conduct the drill.

        Args:
            probe: What the first attempt did, which was watched for some seconds.
            end: How it ended.
            probe_began_s: When it began.

        Raises:
            UserError: The job does not run, or does not save.
        """
        horizon = self._choose_horizon(probe, end, probe_began_s)
        self._say(f"the script opens no session: its Checkpointer is drilled, over {horizon.why}")
        reference = self._undisturbed("undisturbed", horizon)
        with self._longest.timed():
            second = self._undisturbed("undisturbed-again", horizon)
        first_result, left_out = self._compare_undisturbed(reference, second)
        second.remove()
        saves = saves_of(reference.events())
        plan = choose_saving_faults(reference.events(), ranks=self._ranks, only=self._only)
        results = [first_result]
        if first_result.verdict == "exact":
            results += [self._struck(each, reference, horizon) for each in plan.faults]
        else:
            why = "two undisturbed runs differ already"
            results += [FaultResult(each.name, each.title, "not-run", message=why) for each in plan.faults]
        results += [FaultResult(each.name, each.title, "not-run", message=each.why) for each in plan.left_out]
        return DrillReport(
            command=self._job.command,
            verdict=overall(tuple(results)),
            faults=tuple(results),
            steps=saves[-1].step,
            horizon=horizon.why,
            took_s=time.monotonic() - self._began_s,
            wall_s=time.time(),
            left_out=left_out,
            unseen=UNSEEN,
            spec_digest=self._job.spec_digest if self._job.spec_path else "",
        )

    def _choose_horizon(
        self, probe: tuple[SaveEvent, ...], end: DrillAttempt, probe_began_s: float
    ) -> SavingHorizon:
        _check_runs(end)
        saves = saves_of(probe)
        if not saves:
            what = "ended without a save" if end.kind == "finished" else "did not save in the time for that"
            raise UserError(
                f"the job opens no session, and its Checkpointer {what}",
                hint="give a larger --budget, or fewer steps between two saves",
            )
        is_whole = end.kind == "finished"
        if len(saves) < SAVES_MIN - 1 and not is_whole:
            raise UserError(
                f"the job saved {counted(len(saves), 'time')} in the time for that; a drill needs "
                f"{SAVES_MIN - 1} saves",
                hint="give a larger --budget",
            )
        start_s = saves[0].monotonic_s - probe_began_s
        interval_s = (saves[-1].monotonic_s - saves[0].monotonic_s) / max(len(saves) - 1, 1)
        horizon = choose_saving_horizon(
            saves,
            start_s=start_s,
            interval_s=interval_s,
            is_whole=is_whole,
            budget_s=self._budget_s,
            steps=self._steps,
        )
        expected_s = start_s + interval_s * max(len(saves), SAVES_MIN * 2)
        self._limit_s = attempt_limit_s(expected_s)
        return horizon

    def _run(self, name: str, horizon: SavingHorizon) -> DrilledRun:
        return DrilledRun(self._job, self._places, name, stop_step=horizon.stop_step, saves_alone=True)

    def _undisturbed(
        self, name: str, horizon: SavingHorizon, *, traced_step: int | None = None
    ) -> DrilledRun:
        self._say(f"running: {name}")
        run = self._run(name, horizon)
        patience = patience_s(self._began_s, self._budget_s)
        _check_runs(run.attempt(limit_s=self._limit_s, patience_s=patience, traced_step=traced_step))
        return run

    def _compare_undisturbed(
        self, reference: DrilledRun, second: DrilledRun
    ) -> tuple[FaultResult, tuple[str, ...]]:
        title = "undisturbed, a second time"
        compared = compare_saved(reference, second)
        left_out: tuple[str, ...] = ()
        if compared.differences and {each.kind for each in compared.differences} == {"report"}:
            left_out = differing_scores(reference, second)
            self._uncompared = Patterns(left_out)
            compared = compare_saved(reference, second, uncompared=self._uncompared)
        if compared.is_exact:
            return FaultResult("undisturbed", title, "exact", compared=compared), left_out
        # Step 1 of the optimizers, not of the script: it shows how the run begins.
        causes = trace_causes(
            compared.differences, lambda name: self._undisturbed(name, _FIRST_SAVE, traced_step=1)
        )
        return FaultResult("undisturbed", title, "different", compared=compared, causes=causes), left_out

    def _struck(self, fault: PlannedFault, reference: DrilledRun, horizon: SavingHorizon) -> FaultResult:
        result = unless_used_up(
            fault, began_s=self._began_s, budget_s=self._budget_s, expected_s=self._longest.seconds
        )
        if result is not None:
            return result
        self._say(f"running: {fault.title}")
        with self._longest.timed():
            run = self._run(fault.name, horizon)
            result = self._strike(run, fault, reference)
            run.remove()
        return result

    def _strike(self, run: DrilledRun, fault: PlannedFault, reference: DrilledRun) -> FaultResult:
        lost, returns = 0, []
        end: DrillAttempt | None = None
        number = 0
        for number in range(1, len(fault.strikes) + 2):
            is_last = number > len(fault.strikes)
            began_s = time.monotonic()
            end = run.attempt(
                *fault.strikes[number - 1 : number],
                limit_s=self._limit_s,
                patience_s=patience_s(self._began_s, self._budget_s),
                ranks=fault.ranks if is_last else None,
            )
            if number > 1:
                lost += steps_lost(run.events(), number - 1) or 0
                returns.append(_return_s(run.events(number), began_s) or end.duration_s)
            if end.kind not in {"drained", "killed"}:
                break
        assert end is not None
        return_s = max(returns, default=None)
        if end.is_training:
            return only_slow(fault, end.message, "saved")
        if end.kind not in {"finished", "stopped"}:
            message = end.message.strip() or end.kind
            return FaultResult(fault.name, fault.title, "refused", lost, return_s, message=message)
        if number <= len(fault.strikes):
            message = "the run came to its end before it could be struck"
            return FaultResult(fault.name, fault.title, "not-run", message=message)
        compared = compare_saved(reference, run, uncompared=self._uncompared)
        if compared.is_exact:
            return FaultResult(fault.name, fault.title, "exact", lost, return_s, compared)
        causes = diagnose_saving(fault.name, compared.differences)
        return FaultResult(fault.name, fault.title, "different", lost, return_s, compared, causes)


def _return_s(events: tuple[SaveEvent, ...], began_s: float) -> float | None:
    """Return how long an attempt took to its first step or save, in seconds; None if it made none."""
    first = next((each for each in events if each.kind in {"update", "save"}), None)
    return first.monotonic_s - began_s if first is not None else None


def _check_runs(end: DrillAttempt) -> None:
    """Raise UserError if an undisturbed attempt did not do what it should."""
    if end.kind in {"failed", "killed", "no-session"}:
        raise UserError(f"the job fails without any fault: {end.message.strip() or end.kind}")
    if end.kind == "too-slow":
        raise UserError(
            f"the job saves too rarely for this budget: {end.message}", hint="give a larger --budget"
        )
