"""What must hold of a run that was disturbed, checked by readers of our own.

Each check is a function of what is on the disk and of what the harness did, and says what it found: a check
that held says by how much.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from chaos import second_reader
from chaos.faults import REGISTRY
from chaos.harness import processes_of
from chaos.second_history import History, Samples, read_history, read_samples
from trainerd.contract.heartbeat import read_heartbeat

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from chaos.workloads import Workload
    from trainerd.contract.paths import RunPaths

_ENDINGS_OUTSIDE_A_SESSION: Final = {"killed", "crashed", "stopped", "drained"}
"""A program that has not opened its session yet, or is done with it and leaves, cannot drain: a signal ends
it as it ends any other. (What a script does after its session may not have been done, so such an attempt has
not finished.)"""


@dataclass(frozen=True)
class Check:
    """One invariant of one run."""

    name: str
    is_held: bool
    found: str


@dataclass(frozen=True)
class Strike:
    """A fault that has struck.

    Attributes:
        fault: Its name.
        job: Which job.
        attempt: The attempt that was live then.
        step: Its last finished step then; -1 if its session had not begun.
        detail: What exactly was done.
        monotonic_s: When.
    """

    fault: str
    job: str
    attempt: int
    step: int
    detail: str
    monotonic_s: float


@dataclass(frozen=True)
class Recovery:
    """What an interruption cost.

    Attributes:
        attempt: The attempt that ended.
        next_attempt: The next one that made a step; those between made none.
        lost_steps: Steps that were run again.
        at_stake_steps: Those of them during which no save was in flight.
        resumed_s: When the next attempt had finished its first step, by CLOCK_MONOTONIC.
    """

    attempt: int
    next_attempt: int
    lost_steps: int
    at_stake_steps: int
    resumed_s: float


@dataclass(frozen=True)
class Disturbed:
    """A run that was disturbed, with all that is known of it."""

    run: RunPaths
    reference: Path
    workload: Workload
    strikes: Sequence[Strike]
    outcomes: Sequence[dict[str, Any]]
    checkpoints_seen_max: int = 0
    lost_steps_max: int | None = None
    history: History = field(init=False)
    samples: Samples = field(init=False)

    def __post_init__(self) -> None:
        ledgers = sorted(self.run.root.glob("samples-*.jsonl"))
        object.__setattr__(self, "history", read_history(self.run.metrics))
        object.__setattr__(self, "samples", read_samples(ledgers))


def check_all(disturbed: Disturbed) -> list[Check]:
    """Check everything that must hold of a finished run."""
    return [
        _weights(disturbed),
        _history(disturbed),
        _samples(disturbed),
        _nothing_committed_is_lost(disturbed),
        _lost_work(disturbed),
        _restarts(disturbed),
        _verdicts(disturbed),
        _disk(disturbed),
        _nobody_survives(disturbed),
    ]


def check_some(disturbed: Disturbed) -> list[Check]:
    """Check what must hold of a run that was not meant to finish, or not to come out equal."""
    return [
        _nothing_committed_is_lost(disturbed),
        _lost_work(disturbed),
        _disk(disturbed),
        _nobody_survives(disturbed),
    ]


def recoveries(disturbed: Disturbed) -> list[Recovery]:
    """Say what each interruption cost, by the ledger of samples."""
    found = []
    stretches = disturbed.samples.stretches
    for before, after in itertools.pairwise(stretches):
        resumed = after.first_step - 1
        at_stake = disturbed.samples.steps_at_stake(before.attempt, before.last_step, resumed)
        lost = before.last_step - resumed
        found.append(Recovery(before.attempt, after.attempt, lost, len(at_stake), after.first_s))
    return found


def final_checkpoint(run: Path) -> second_reader.Content:
    """Read the final checkpoint of a finished run.

    Raises:
        UnsoundError: It is not what its manifest says.
    """
    name = json.loads((run / "finished.json").read_text())["checkpoint"]
    return second_reader.read(run / "checkpoints" / name)


def _weights(disturbed: Disturbed) -> Check:
    name = "final weights equal"
    theirs = final_checkpoint(disturbed.reference)
    try:
        ours = final_checkpoint(disturbed.run.root)
    except (OSError, ValueError, second_reader.UnsoundError) as error:
        return Check(name, is_held=False, found=f"it cannot be read: {error}")
    if (ours.tensors, ours.trees) == (theirs.tensors, theirs.trees):
        digests = [
            entry["digest"] for entry in ours.manifest["files"] if entry["name"].endswith(".safetensors")
        ]
        return Check(name, is_held=True, found=digests[0])
    differing = sorted(
        tensor
        for table, other in zip(ours.tensors, theirs.tensors, strict=True)
        for tensor in table.keys() | other.keys()
        if table.get(tensor) != other.get(tensor)
    )
    return Check(
        name, is_held=False, found=f"differing tensors: {differing or 'none, but the rest of the state'}"
    )


def _history(disturbed: Disturbed) -> Check:
    ours, theirs = disturbed.history.lines, read_history(disturbed.reference / "metrics.jsonl").lines
    if ours == theirs:
        return Check("metric history equal", is_held=True, found=f"{len(disturbed.history.rows)} steps")
    first = next(
        (number for number, pair in enumerate(zip(ours, theirs, strict=False)) if pair[0] != pair[1]),
        min(len(ours), len(theirs)),
    )
    found = f"line {first}: {ours[first : first + 1]} instead of {theirs[first : first + 1]}"
    return Check("metric history equal", is_held=False, found=found)


def _samples(disturbed: Disturbed) -> Check:
    name = "every sample once an epoch"
    size, by_epoch = disturbed.workload.samples, disturbed.samples.by_epoch
    wrong = {
        epoch: sum((counts - Counter(range(size))).values()) + sum((Counter(range(size)) - counts).values())
        for epoch, counts in by_epoch.items()
        if counts != Counter(range(size))
    }
    is_complete = sorted(by_epoch) == list(range(disturbed.workload.epochs))
    if wrong or not is_complete:
        return Check(name, is_held=False, found=f"wrong uses by epoch: {wrong}, epochs {sorted(by_epoch)}")
    return Check(name, is_held=True, found=f"{size} samples in each of {len(by_epoch)} epochs")


def _nothing_committed_is_lost(disturbed: Disturbed) -> Check:
    """What a rank had seen committed is what the next attempt resumes, unless it was damaged on purpose."""
    name = "what was committed is resumed"
    damaged = [strike.attempt for strike in disturbed.strikes if REGISTRY[strike.fault].costs_checkpoints]
    resumed = {marker["attempt"]: marker["step"] for marker in disturbed.history.resumes}
    compared, lost = 0, []
    for attempt, step in sorted(resumed.items()):
        beat = read_heartbeat(disturbed.run.attempt(attempt - 1).heartbeat(0)) if attempt > 1 else None
        if beat is None or beat.checkpoint_step < 0 or attempt - 1 in damaged:
            continue
        compared += 1
        if step < beat.checkpoint_step:
            lost.append(f"attempt {attempt} resumed at {step}, {beat.checkpoint_step} had been committed")
    return Check(name, is_held=not lost, found="; ".join(lost) or f"{compared} resumes compared")


def _lost_work(disturbed: Disturbed) -> Check:
    """Of what is lost, one interval may have been run with no save in flight.

    Each damaged checkpoint is one more.
    """
    every = disturbed.workload.every_steps
    lost = recoveries(disturbed)
    bad = []
    for one in lost:
        damage = sum(
            REGISTRY[strike.fault].costs_checkpoints
            for strike in disturbed.strikes
            if one.attempt <= strike.attempt < one.next_attempt
        )
        if one.at_stake_steps > every * (1 + damage):
            bad.append(
                f"attempt {one.attempt} lost {one.lost_steps} steps, {one.at_stake_steps} of them with "
                "no save in "
                f"flight: more than {every * (1 + damage)}"
            )
        if disturbed.lost_steps_max is not None and one.lost_steps > disturbed.lost_steps_max:
            bad.append(
                f"attempt {one.attempt} lost {one.lost_steps} steps, more than {disturbed.lost_steps_max}"
            )
    worst = max((one.lost_steps for one in lost), default=0)
    at_stake = max((one.at_stake_steps for one in lost), default=0)
    found = f"at most {worst} steps, {at_stake} with no save in flight; the interval is {every}"
    return Check("lost work within the interval", is_held=not bad, found="; ".join(bad) or found)


def _restarts(disturbed: Disturbed) -> Check:
    """Each attempt after the first has a fault that explains it."""
    attempts = len(disturbed.outcomes)
    explained = {strike.attempt for strike in disturbed.strikes if REGISTRY[strike.fault].ends_attempt}
    found = f"{attempts} attempts, {len(explained)} of them ended by a fault"
    return Check("no restart without a fault", is_held=attempts <= 1 + len(explained), found=found)


def _verdicts(disturbed: Disturbed) -> Check:
    wrong = []
    for outcome in disturbed.outcomes:
        faults = [strike.fault for strike in disturbed.strikes if strike.attempt == outcome["attempt"]]
        allowed = {verdict for fault in faults for verdict in REGISTRY[fault].verdicts}
        if any(
            strike.attempt == outcome["attempt"] and not 0 <= strike.step < disturbed.workload.steps
            for strike in disturbed.strikes
        ):
            allowed |= _ENDINGS_OUTSIDE_A_SESSION
        if outcome["attempt"] == len(disturbed.outcomes):
            allowed = {"finished"}
        if outcome["kind"] not in allowed:
            wrong.append(
                f"attempt {outcome['attempt']} is judged {outcome['kind']} ({outcome['reason']}), "
                f"after {faults}"
            )
    kinds = Counter(outcome["kind"] for outcome in disturbed.outcomes)
    said = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    return Check("verdicts right", is_held=not wrong, found="; ".join(wrong) or said)


def _disk(disturbed: Disturbed) -> Check:
    """No more checkpoints are left than the workload keeps, and all of them are sound.

    Beyond `keep_last` there may be the one resumed from and, while a run is unfinished, one not pruned yet.
    """
    keep, is_resumed = disturbed.workload.keep_last, bool(disturbed.samples.stretches[1:])
    limit = keep + is_resumed + 1
    left_limit = keep + is_resumed if disturbed.run.finished.exists() else limit
    left = second_reader.checkpoints(disturbed.run.checkpoints)
    unsound = [path.name for path in left if not second_reader.is_sound(path)]
    stale = [path.name for path in disturbed.run.checkpoints.glob(".staging-*")]
    stale += [path.name for path in disturbed.run.checkpoints.glob(".pruned-*")]
    seen = max(disturbed.checkpoints_seen_max, len(left))
    is_held = seen <= limit and len(left) <= left_limit and not unsound and not stale
    found = f"at most {seen} checkpoints at a time of {limit}, {len(left)} left of {left_limit}"
    return Check("disk within the retention limit", is_held, f"{found}; unsound {unsound}, stale {stale}"
                 if unsound or stale else found)  # fmt: skip


def _nobody_survives(disturbed: Disturbed) -> Check:
    left = [process.pid for process in processes_of(disturbed.run.root)]
    return Check("no process survives", is_held=not left, found=f"left: {left}" if left else "none left")
