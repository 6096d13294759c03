"""Which faults a drill rehearses, and for how many steps. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from trainerd.contract.counted import all_of, counted
from trainerd.contract.rehearsal import Strike

if TYPE_CHECKING:
    from collections.abc import Collection

STEPS_MIN: Final = 2
"""A run of fewer steps has no boundary at which it could be disturbed."""
STEPS_WANTED_MAX: Final = 2000
"""More steps than this, beyond the first epoch, show nothing new."""
SAVES: Final = 6
"""Checkpoints that a run of a drill makes by its cadence, about."""
RUNS_EXPECTED: Final = 9
"""Runs of a drill: two undisturbed ones and the faults."""
ATTEMPTS_EXPECTED: Final = 17
SHARE_USED: Final = 0.8
"""Share of the budget that is planned; the rest is for comparisons and for what was measured too low."""


@dataclass(frozen=True)
class Measured:
    """What was measured in the first seconds of the job.

    Attributes:
        start_s: From the start of the command to its first finished step, in seconds.
        step_s: A step, in seconds, evaluation and saves included.
        steps: Steps that were seen.
        steps_per_epoch: Steps of an epoch, None if that is not known.
        steps_total: Steps of the whole job, None if that is not known.
    """

    start_s: float
    step_s: float
    steps: int
    steps_per_epoch: int | None = None
    steps_total: int | None = None


@dataclass(frozen=True)
class Horizon:
    """How far the runs of a drill go.

    Attributes:
        stop_step: Step after which they stop, None if they run to their end.
        every_steps: They make a checkpoint every so many steps.
        why: What decided, in words.
        lacks_budget: Whether a larger budget would let an epoch end that does not end now.
    """

    stop_step: int | None
    every_steps: int
    why: str
    lacks_budget: bool = False


@dataclass(frozen=True)
class Undisturbed:
    """What the undisturbed run shows of the job.

    Attributes:
        steps: Steps that it made.
        epoch_steps: Steps of its first epoch, None if no epoch ended.
        epochs: Epochs that ended.
        evaluates: Whether it has an evaluation that the session drives.
        is_whole: Whether it ran to its end.
    """

    steps: int
    epoch_steps: int | None = None
    epochs: int = 0
    evaluates: bool = False
    is_whole: bool = True


@dataclass(frozen=True)
class PlannedFault:
    """A fault that a run is struck by.

    Attributes:
        name: Short name, in lower case with hyphens.
        title: What happens, in words.
        strikes: One an attempt, in this order.
        changes_workers: Whether the attempt after the last strike has another number of loader workers.
        ranks: How many ranks the attempt after the last strike has; None as many as before.
    """

    name: str
    title: str
    strikes: tuple[Strike, ...]
    changes_workers: bool = False
    ranks: int | None = None


@dataclass(frozen=True)
class LeftOut:
    """A fault that is not rehearsed.

    Attributes:
        name: Short name.
        title: What would happen.
        why: Why not.
        lacks_budget: Whether a larger budget would change that.
    """

    name: str
    title: str
    why: str
    lacks_budget: bool = False


@dataclass(frozen=True)
class FaultPlan:
    """The faults of a drill."""

    faults: tuple[PlannedFault, ...]
    left_out: tuple[LeftOut, ...] = ()


TITLES: Final = {
    "drain": "drain (SIGTERM) in the middle of an epoch",
    "kill": "SIGKILL in the middle of an epoch",
    "evaluation": "drain in evaluation",
    "after-loop": "grace period over in the code after a loop",
    "epoch-end": "drain at the end of an epoch",
    "twice": "SIGKILL, then a drain in the same epoch",
    "workers": "drain, then another number of loader workers",
    "ranks": "drain, then another number of ranks",
}


def choose_horizon(measured: Measured, budget_s: float, *, steps: int | None = None) -> Horizon:
    """Return how far the runs go, so that all of them fit into the budget.

    Args:
        measured: What the first seconds showed.
        budget_s: Time for the whole drill, in seconds.
        steps: Number of steps that the user asks for; None leaves it to the budget.
    """
    total, epoch = measured.steps_total, measured.steps_per_epoch
    left_s = budget_s * SHARE_USED - ATTEMPTS_EXPECTED * measured.start_s
    step_s = max(measured.step_s, 1e-6)
    affordable = max(int(left_s / (RUNS_EXPECTED * step_s)), 0)
    # Where the starts alone cost most of the budget, steps that take as long as a start are worth it.
    limit = steps if steps is not None else max(affordable, int(measured.start_s / step_s), STEPS_MIN + 2)
    if total is not None and total <= limit:
        return Horizon(None, _cadence(total), f"{all_of(total, 'step')} of the job")
    if steps is not None:
        return Horizon(steps, _cadence(steps), f"{steps} steps, as asked for")
    wanted = STEPS_WANTED_MAX if epoch is None else epoch + max(3, min(epoch, 50))
    if wanted <= limit:
        said = "the first epoch and a part of the second one" if epoch is not None else "enough to compare"
        return Horizon(wanted, _cadence(wanted), f"{wanted} steps: {said}")
    why = f"{limit} steps: as many as the budget of {budget_s:g} s allows"
    if epoch is not None:
        why += f"; an epoch has {epoch}"
    return Horizon(limit, _cadence(limit), why, lacks_budget=epoch is not None and limit < epoch)


def _cadence(steps: int) -> int:
    return max(1, steps // SAVES)


def choose_faults(
    seen: Undisturbed,
    horizon: Horizon,
    *,
    nproc: int = 1,
    ranks: int | None = None,
    only: Collection[str] = (),
) -> FaultPlan:
    """Return the faults, and at which step each strikes.

    Args:
        seen: What the undisturbed run shows.
        horizon: How far the runs go.
        nproc: Ranks of the job.
        ranks: Another number of ranks to resume on, None rehearses none.
        only: Names of the faults that are asked for; empty is all of them.
    """
    faults: list[PlannedFault] = []
    left_out: list[LeftOut] = []
    advice = ": give a larger --budget" if horizon.lacks_budget else ""
    no_epoch = "" if seen.epochs else f"no epoch ended within {counted(seen.steps, 'step')}{advice}"

    def add(
        name: str, *strikes: Strike, unless: str = "", workers: bool = False, on: int | None = None
    ) -> None:
        if only and name not in only:
            return
        if unless:
            left_out.append(LeftOut(name, TITLES[name], unless, horizon.lacks_budget and unless == no_epoch))
        else:
            faults.append(PlannedFault(name, TITLES[name], strikes, workers, on))

    last = seen.steps - 1
    first_epoch = min(seen.epoch_steps or seen.steps, seen.steps)
    middle = max(1, min(first_epoch // 3, last))
    later = max(middle + 1, min((2 * first_epoch) // 3, first_epoch - 1))
    # Not at a checkpoint: steps are lost.
    killed = min(horizon.every_steps + max(1, horizon.every_steps // 2), last)
    too_short = "" if last >= 1 else "the run has a single step"
    # After the last epoch a session leaves no more: it finishes.
    goes_on = seen.epochs > 1 or (seen.epochs == 1 and not seen.is_whole)
    add("drain", Strike("drain", "step", middle), unless=too_short)
    add("kill", Strike("kill", "step", killed), unless=too_short)
    several = f"with {nproc} ranks the end of a grace period after a loop is not rehearsed"
    add("after-loop", Strike("flush", "after-loop", 1), unless=several if nproc > 1 else no_epoch)
    no_evaluation = (
        ""
        if seen.evaluates
        else "no evaluation that the session drives was seen, such as session.batches(…, train=False)"
    )
    add("evaluation", Strike("drain", "evaluation", 1), unless=no_evaluation)
    add(
        "epoch-end",
        Strike("drain", "epoch", 1),
        unless=no_epoch or ("" if goes_on else "the job has a single epoch"),
    )
    is_long = later > middle and later <= last and later < first_epoch
    add(
        "twice",
        Strike("kill", "step", middle),
        Strike("drain", "step", later),
        unless="" if is_long else f"an epoch of {counted(first_epoch, 'step')} is too short",
    )
    add("workers", Strike("drain", "step", middle), unless=too_short, workers=True)
    if ranks is not None:
        add("ranks", Strike("drain", "step", middle), unless=too_short, on=ranks)
    return FaultPlan(tuple(faults), tuple(left_out))
