"""Which faults a drill rehearses of a script with Checkpointers alone, and how far its runs go. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from trainerd.contract.counted import all_of, counted
from trainerd.contract.rehearsal import Strike
from trainerd.drill.fault_plan import FaultPlan, LeftOut, PlannedFault

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from trainerd.contract.save_journal import SaveEvent

SAVES_MIN: Final = 3
"""Saves within which something can be struck between two, and compared after it."""
SAVES_WANTED: Final = 6
"""More of them show nothing new."""
_RUNS: Final = 7
"""Runs of a drill: two undisturbed ones and the faults."""
_ATTEMPTS: Final = 12
_SHARE_USED: Final = 0.8

TITLES: Final = {
    "drain": "SIGTERM between two saves",
    "kill": "SIGKILL between two saves",
    "epoch-end": "SIGTERM right after a save",
    "twice": "SIGKILL, then SIGTERM before the next save",
    "ranks": "SIGTERM, then another number of ranks",
}

_ONLY_SESSIONS: Final = {
    "evaluation": ("drain in evaluation", "a Checkpointer does not know when the script evaluates"),
    "after-loop": (
        "grace period over in the code after a loop",
        "a Checkpointer does not know when a loop ends",
    ),
    "workers": (
        "drain, then another number of loader workers",
        "the loaders of a script without a session are its own",
    ),
}

UNSEEN: Final = (
    "samples and losses of single steps: a Checkpointer does not see them",
    "what the script keeps outside of the objects that it saves, and what it does after its last save",
)
"""What is not compared, in words."""


@dataclass(frozen=True)
class SavingHorizon:
    """How far the runs go.

    Attributes:
        stop_step: They are ended at the first save of at least this step, None if they run to their end.
        why: What decided, in words.
        lacks_budget: Whether a larger budget would let them go to the end that is wanted.
    """

    stop_step: int | None
    why: str
    lacks_budget: bool = False


def saves_of(events: Sequence[SaveEvent]) -> list[SaveEvent]:
    """Return the saves among events, of the Checkpointer that saves most often."""
    folders = [each.folder for each in events if each.kind == "save"]
    most = max(sorted(set(folders)), key=folders.count, default="")
    return [each for each in events if each.kind == "save" and each.folder == most]


def choose_saving_horizon(
    saves: Sequence[SaveEvent],
    *,
    start_s: float,
    interval_s: float,
    is_whole: bool,
    budget_s: float,
    steps: int | None = None,
) -> SavingHorizon:
    """Return how far the runs go, so that all of them fit into the budget.

    Args:
        saves: Those that the first seconds showed, at least one.
        start_s: From the start of the command to its first save, in seconds.
        interval_s: Between two saves, in seconds.
        is_whole: Whether the job ended by itself after these.
        budget_s: Time for the whole drill, in seconds.
        steps: At which step, as the script counts, the user wants to end; None leaves it to the budget.
    """
    if steps is not None:
        if is_whole and saves[-1].step <= steps:
            return SavingHorizon(None, f"{all_of(len(saves), 'save')} of the job")
        return SavingHorizon(steps, f"the saves up to step {steps}, as asked for")
    if is_whole and len(saves) <= SAVES_WANTED:
        return SavingHorizon(None, f"{all_of(len(saves), 'save')} of the job")
    left_s = budget_s * _SHARE_USED - _ATTEMPTS * start_s
    affordable = 1 + max(int(left_s / (_RUNS * max(interval_s, 1e-6))), 0)
    wanted = max(min(SAVES_WANTED, affordable), SAVES_MIN)
    if wanted <= len(saves):
        stop = saves[wanted - 1].step
    else:
        stride = max((saves[-1].step - saves[0].step) // max(len(saves) - 1, 1), 1)
        stop = saves[-1].step + stride * (wanted - len(saves))
    return SavingHorizon(
        stop, f"the saves up to step {stop}, about {wanted} of them", lacks_budget=affordable < SAVES_MIN
    )


def choose_saving_faults(
    events: Sequence[SaveEvent],
    *,
    ranks: int | None = None,
    only: Collection[str] = (),
) -> FaultPlan:
    """Return the faults, and where each strikes: so many steps of the optimizer after a save.

    Args:
        events: What the undisturbed run did.
        ranks: Another number of ranks to resume on, None rehearses none.
        only: Names of the faults that are asked for; empty is all of them.
    """
    saves = saves_of(events)
    first = saves[0]
    # From the beginning to the only save, otherwise between the first two.
    step, gap = (0, first.updates) if len(saves) == 1 else (first.step, saves[1].updates - first.updates)
    middle, later = max(gap // 2, 1), max((2 * gap) // 3, gap // 2 + 1)
    no_gap = "" if gap >= 2 else f"optimizers make {counted(gap, 'step')} between two saves"
    faults: list[PlannedFault] = []
    left_out: list[LeftOut] = []

    def add(name: str, *strikes: Strike, unless: str = "", on: int | None = None) -> None:
        if only and name not in only:
            return
        if unless:
            left_out.append(LeftOut(name, TITLES[name], unless))
        else:
            faults.append(PlannedFault(name, TITLES[name], strikes, ranks=on))

    add("drain", Strike("drain", "save", step, middle), unless=no_gap)
    add("kill", Strike("kill", "save", step, middle), unless=no_gap)
    add(
        "epoch-end",
        Strike("drain", "save", first.step),
        unless="" if len(saves) > 1 else "the job saves only once",
    )
    is_long = later > middle and later < gap
    add(
        "twice",
        Strike("kill", "save", step, middle),
        Strike("drain", "save", step, later),
        unless="" if is_long else f"optimizers make {counted(gap, 'step')} between two saves: too few",
    )
    if ranks is not None:
        add("ranks", Strike("drain", "save", step, middle), unless=no_gap, on=ranks)
    left_out += [
        LeftOut(name, title, why) for name, (title, why) in _ONLY_SESSIONS.items() if not only or name in only
    ]
    return FaultPlan(tuple(faults), tuple(left_out))


def steps_lost(events: Sequence[SaveEvent], attempt: int) -> int | None:
    """Return how many steps of optimizers an attempt had made that the next one had to make again.

    Args:
        events: What the attempts of a run did.
        attempt: Number of the attempt that was struck.

    Returns:
        None if it is not known how far the attempt was.
    """
    of_it = [each for each in events if each.attempt == attempt]
    struck = next((each for each in of_it if each.kind == "strike"), None)
    if struck is None:
        return None
    back = next((each for each in events if each.attempt == attempt + 1 and each.kind == "resume"), None)
    if back is None:
        return struck.updates
    # The handler of a SIGTERM may have saved after the strike.
    saved = [each for each in of_it if each.kind in {"save", "resume"} and each.step == back.step]
    return max(struck.updates - saved[-1].updates, 0) if saved else struck.updates
