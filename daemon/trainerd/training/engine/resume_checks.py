"""What is said at a resume about the checkpoint, the history and the program, before anything is compared.

Each check returns reasons and changes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch

from trainerd.checkpoint.checkpoint_names import CheckpointName
from trainerd.checkpoint.fingerprint import OPTIONS, changes, compared
from trainerd.contract.counted import counted
from trainerd.contract.metric_history import HEADER
from trainerd.contract.verdict import Reason
from trainerd.training.state.other_hardware import other_scalers
from trainerd.training.state.program_options import GROUPS, SCHEDULE, SETTINGS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from trainerd.checkpoint.fingerprint import FieldVerdict
    from trainerd.checkpoint.store import Checkpoint, CheckpointStore
    from trainerd.training.state.device_generators import SeededGenerators
    from trainerd.training.state.tracked import Objects

GENERATORS: Final = "device-generators"
"""Kind of reason: a random generator has no state to go on from on this machine."""
_IMPORTED: Final = "imported_from"
"""Where `trainerd import` says what it made a checkpoint from."""
_PLANS: Final = {
    "OneCycleLR": ("total_steps", "one more step() raises ValueError"),
    "CosineAnnealingLR": ("T_max", "from here on the rate climbs back"),
}
"""Schedulers of torch whose plan has an end: what says where it is, and what comes after it."""


def fallback_reasons(store: CheckpointStore, used: Checkpoint | None) -> Iterator[Reason]:
    """Yield a reason for each newer checkpoint that could not be used, the newest first."""
    damaged = {aside.name: aside.reason for aside in store.quarantined()} | store.passed_over
    for name in sorted(damaged, key=_place, reverse=True):
        if used is not None and _place(name) <= used.place:
            continue
        lost = _place(name).step - (used.step if used is not None else 0)
        instead = f"{used.name} is used instead" if used is not None else "the run begins at step 0"
        yield Reason(
            "fallback",
            name,
            f"it is damaged: {damaged[name].removeprefix(f'{name}: ')}; {instead}, and "
            f"{counted(lost, 'step between them is', 'steps between them are')} run again",
            "check the disk; `trainerd checkpoints NAME --verify` reads all of them",
        )


def _place(name: str) -> CheckpointName:
    return CheckpointName.parse(name) or CheckpointName(0)


def history_reason(path: Path, *, size_bytes: int, keep_bytes: int) -> Reason | None:
    """Return a reason if the metric history is not the one that the checkpoint counts on.

    Args:
        path: The history.
        size_bytes: Its size.
        keep_bytes: How much of it belongs to the checkpoint.
    """
    hint = (
        "the rows of the steps before the checkpoint are lost; put the file back from a copy if there is one"
    )
    if keep_bytes <= len(HEADER):
        return None
    if size_bytes < keep_bytes:
        kind, what = (
            ("history-short", "it is truncated") if size_bytes else ("history-missing", "it is missing")
        )
        detail = f"{what}: {size_bytes} bytes, and the checkpoint counts on {keep_bytes}"
        return Reason(kind, path.name, detail, hint)
    with path.open("rb") as file:
        begins = file.read(len(HEADER))
        file.seek(keep_bytes - 1)
        ends = file.read(1)
    if begins != HEADER or ends != b"\n":
        return Reason("history-altered", path.name, "it is not the file that the checkpoint counts on", hint)
    return None


def another_run_reason(store: CheckpointStore, used: Checkpoint, *, job: str) -> Reason | None:
    """Return a reason if the checkpoint was made by another run and copied here.

    A rollback begins another lineage too, but leaves checkpoints behind.
    """
    hint = "if that was not intended, remove it and resume from a checkpoint of this run"
    if used.manifest.job != job:
        detail = f"it was made by the run {used.manifest.job!r}, and this one is {job!r}"
        return Reason("another-run", used.name, detail, hint)
    before = [each for each in store.checkpoints() if each.place < used.place]
    own = {each.name for each in before if each.manifest.lineage == used.manifest.lineage}
    if not before or own or store.abandoned() or _IMPORTED in used.manifest.fingerprint:
        return None
    others = ", ".join(sorted({each.manifest.lineage[:8] for each in before}))
    detail = (
        f"it is of lineage {used.manifest.lineage[:8]} and the checkpoints before it are of {others}, "
        "without a rollback in between: it was probably copied from another run"
    )
    return Reason("another-run", used.name, detail, hint)


def generator_reasons(seeded: SeededGenerators | None, reseeded: Iterable[str]) -> Iterator[Reason]:
    """Yield a reason for each kind of generator that has no state to go on from on this machine.

    Args:
        seeded: Global generators of devices that could not be put back, if any.
        reseeded: What is known of single generators that are on another kind of device here.
    """
    hint = "for an exact resume, give the run as many devices of the same kind as it had"
    if seeded is not None:
        yield Reason(GENERATORS, "CUDA generators", str(seeded), hint)
    for what in dict.fromkeys(reseeded):
        yield Reason(GENERATORS, what, "it is seeded from its saved state", hint)


def scaler_reasons(objects: Objects, saved: Mapping[str, Any]) -> Iterator[Reason]:
    """Yield a reason for each gradient scaler that is enabled here or was enabled there, and not both.

    Args:
        objects: What the program tracks.
        saved: State of each object in the checkpoint.
    """
    for name, scaler in other_scalers(objects, saved).items():
        detail = (
            "it was disabled at the checkpoint and is enabled here: it begins with its first scale"
            if scaler.is_enabled()
            else "it was enabled at the checkpoint and is disabled here: its scale is not restored"
        )
        hint = "for an exact resume, train with the same precision on the same kind of device"
        yield Reason("scaler-not-restored", name, detail, hint)


def program_changes(saved: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[FieldVerdict, ...]:
    """Return what changed in the program since a checkpoint was made, but for options; see `option_reasons`.

    Args:
        saved: Fingerprint in the checkpoint.
        now: Fingerprint of the program.
    """
    plain = [{name: each for name, each in side.items() if name != OPTIONS} for side in (saved, now)]
    return changes(compared(*plain, is_inside_epoch=False))


def change_reasons(fields: Iterable[FieldVerdict]) -> Iterator[Reason]:
    """Yield a reason for each field of the program's fingerprint that changed."""
    for each in fields:
        what = str(each).removeprefix(each.field).lstrip(": ")
        yield Reason(f"changed-{each.field.partition('.')[0]}", each.field, what)


def option_reasons(saved: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Reason]:
    """Yield a reason for each option of an optimizer or scheduler that the program changed, without effect.

    Args:
        saved: Fingerprint in the checkpoint.
        now: Fingerprint of the program.
    """
    if OPTIONS not in saved or OPTIONS not in now:
        return
    names = [name for name in saved[OPTIONS] if name in now[OPTIONS]]
    for name in names:
        if any(side[OPTIONS][name] == {SETTINGS: {}} for side in (saved, now)):
            continue  # a disabled scaler; see `scaler_reasons`
        both = [{OPTIONS: {name: side[OPTIONS][name]}} for side in (saved, now)]
        for each in changes(compared(*both, is_inside_epoch=False)):
            yield _option_reason(each, is_scheduler=SCHEDULE in now[OPTIONS][name])


def _option_reason(change: FieldVerdict, *, is_scheduler: bool) -> Reason:
    name, _, option = change.field.removeprefix(f"{OPTIONS}.").partition(".")
    kind, _, option = option.partition(".")
    detail = f"the program says {change.now}, and the saved {change.before} is used: a resume restores it"
    if is_scheduler:
        hint = f"for the plan of the program: {_replan(name)}"
        return Reason("schedule-kept", f"{name}.{option}", detail, hint)
    if kind == GROUPS:
        group, _, key = option.partition(".")
        hint = f"to change it, after session.resume(): {name}.param_groups[{group}][{key!r}] = {change.now}"
        return Reason("option-kept", f"{name}.param_groups[{group}].{key}", detail, hint)
    return Reason("option-kept", f"{name}.{option}", detail, "to change it, set it after session.resume()")


def schedule_end_reasons(objects: Objects) -> Iterator[Reason]:
    """Yield a reason for each restored scheduler whose plan ended with the run that is now prolonged."""
    for name, value in objects.items():
        if not isinstance(value, torch.optim.lr_scheduler.LRScheduler):
            continue
        for kind, (attribute, then) in _PLANS.items():
            end = getattr(value, attribute, None)
            if any(each.__name__ == kind for each in type(value).__mro__) and value.last_epoch >= (end or 0):
                yield Reason(
                    "schedule-over",
                    f"{name}.{attribute}",
                    f"the {kind} planned {end} steps and has done them; {then}",
                    f"make it for all steps, and after session.resume() take over the plan: {_replan(name)}",
                )


def _replan(name: str) -> str:
    """Return the lines that give a restored scheduler the plan of the program."""
    return (
        f"plan = {name}.state_dict() before session.resume(), and after it "
        f"{name}.load_state_dict({{**plan, 'last_epoch': {name}.last_epoch}})"
    )
