"""Why two runs of a drill differ: from what differs, and from what is known of the script. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from trainerd.contract.rehearsal import BEFORE_STEP
from trainerd.contract.resume_record import DIFFERENCES, ENVIRONMENT, NOTICES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from trainerd.contract.verdict import Reason
    from trainerd.drill.run_comparison import RunDifference

CAUSES_MAX: Final = 3
"""Most causes that are told of one fault."""

NONDETERMINISTIC: Final = "nondeterministic from the start"
STATE: Final = "untracked state"
DATA: Final = "order of the data"
GENERATOR: Final = "generator"
AFTER_LOOP: Final = "code after the loop"
CARRIED: Final = "variable carried between batches"
CLOCK: Final = "the clock decides"
WORKERS: Final = "number of workers"
WORLD_SIZE: Final = "number of ranks"
ENDING: Final = "end of the loop"
OTHER: Final = "known suspicion"


@dataclass(frozen=True)
class DrillCause:
    """A likely cause of a difference.

    Attributes:
        kind: What kind of cause, in words.
        where: File and line, object or module that it is about; empty if that is not known.
        detail: What happens.
        hint: What to do, empty if nothing can be done.
    """

    kind: str
    where: str
    detail: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.kind}: {self.where}: {self.detail}" if self.where else f"{self.kind}: {self.detail}"


_KINDS: Final = {
    "carried-variable": CARRIED,
    "clock-decides": CLOCK,
    "enumerate-count": CARRIED,
    "gathered-over-loop": CARRIED,
    "not-restored": STATE,
    "read-after-loop": AFTER_LOOP,
    "two-training-loops": DATA,
    "untracked-order": CARRIED,
    "unseeded-randomness": GENERATOR,
}
_MATCHES: Final = {
    "samples": (GENERATOR, DATA, CARRIED, CLOCK),
    "rows": (CARRIED, CLOCK, DATA),
    "end": (CARRIED, CLOCK, DATA),
    "report": (AFTER_LOOP, CARRIED, STATE),
    "value": (STATE, CARRIED, GENERATOR, AFTER_LOOP),
    "state": (STATE, CARRIED, AFTER_LOOP, GENERATOR),
}
"""Kinds of causes that explain a kind of difference, the likeliest first."""


def kind_of_reason(kind: str) -> str:
    """Return the kind of cause that a reason of a session stands for."""
    if kind in _KINDS:
        return _KINDS[kind]
    if "generator" in kind or "random" in kind:
        return GENERATOR
    if kind.startswith("untracked"):
        return STATE
    if any(word in kind for word in ("sampler", "order", "dataset", "loader", "stream", "source")):
        return DATA
    return OTHER


def known_causes(reasons: Iterable[Reason]) -> list[DrillCause]:
    """Return what the sessions of a run already suspected, as causes."""
    found: dict[DrillCause, None] = {}
    for reason in reasons:
        if reason.kind in NOTICES | DIFFERENCES - {"not-restored"} or reason.kind in ENVIRONMENT:
            continue
        found[DrillCause(kind_of_reason(reason.kind), reason.where, reason.detail, reason.hint)] = None
    return list(found)


def diagnose_fault(
    fault: str, differences: Sequence[RunDifference], reasons: Iterable[Reason]
) -> tuple[DrillCause, ...]:
    """Return the likely causes for which a disturbed run differs from an undisturbed one.

    What the session suspected comes first, where it explains the first difference; otherwise the difference
    itself says where to look.

    Args:
        fault: Name of the fault.
        differences: What differs, the earliest first.
        reasons: Reasons of the sessions of the disturbed run.
    """
    if not differences:
        return ()
    first = differences[0]
    if fault == "ranks" and first.kind in {"samples", "rows", "end"}:
        detail = "a step on other ranks uses other samples: each rank loads batches of the same size"
        return (DrillCause(WORLD_SIZE, "", detail, "give each rank its share: batch_size // world_size"),)
    if fault == "ranks":
        detail = "sums over another number of ranks are added in another order, so the last bits may differ"
        return (DrillCause(WORLD_SIZE, "", detail, "resume on as many ranks where bits count"),)
    matching = _MATCHES[first.kind]
    known = [each for each in known_causes(reasons) if each.kind in matching or each.kind == OTHER]
    known.sort(key=lambda each: matching.index(each.kind) if each.kind in matching else len(matching))
    if fault == "workers" and first.kind == "samples":
        detail = "which sample comes when depends on how many workers load them"
        known.insert(0, DrillCause(WORKERS, "", detail, "resume with the same number of workers"))
    if not known:
        known = [_from_difference(first)]
    return tuple(known[:CAUSES_MAX])


def _from_difference(first: RunDifference) -> DrillCause:
    if first.kind == "samples":
        return DrillCause(
            DATA,
            f"step {first.step}",
            "after the resume other samples come: their order is not in the checkpoint",
            "let a DataLoader with shuffle=True draw it, or track the sampler and its generator",
        )
    if first.kind in {"rows", "end"}:
        detail = "the disturbed run made other steps: what ends its loop is not in the checkpoint"
        return DrillCause(ENDING, "", detail, "decide by session.step, session.epoch or a session.value")
    if first.kind == "report":
        detail = "all steps before are equal: the code after the loop uses what is not in the checkpoint"
        return DrillCause(AFTER_LOOP, first.where, detail, "keep it in a session.value")
    path = first.where
    if path.startswith("rng"):
        detail = "the generators were drawn from a different number of times after the resume"
        return DrillCause(GENERATOR, path, detail, "draw in the loop, once a batch, and not before it")
    if path.startswith("values."):
        name = path.split(".")[1]
        detail = f"the session's value {name!r} goes on from another value than it had"
        return DrillCause(CARRIED, path, detail, "change it only within the loop")
    what = f"{path.partition('.')[0]} " if path else ""
    return DrillCause(
        STATE,
        path,
        f"the samples are equal and {what}differs: an object, a variable or a generator that is not tracked "
        "decides it",
        "track it with session.track(…) or session.variables(…); `trainerd check` names the usual ones",
    )


def diagnose_saving(fault: str, differences: Sequence[RunDifference]) -> tuple[DrillCause, ...]:
    """Return the likely causes for which a script with Checkpointers alone goes on differently.

    Args:
        fault: Name of the fault.
        differences: What differs, the earliest first.
    """
    if not differences:
        return ()
    first = differences[0]
    if fault == "ranks":
        return diagnose_fault(fault, differences, ())
    if first.kind == "end":
        detail = "the disturbed run saved at other steps, or another number of times"
        hint = "begin the loop at the step or epoch of checkpointer.resume(), and save it with save(step=…)"
        return (DrillCause(ENDING, first.where, detail, hint),)
    if first.kind == "report":
        detail = "the saved state is equal: the score is made of what the Checkpointer does not save"
        return (
            DrillCause(
                CARRIED, first.where, detail, "give it to the Checkpointer, or make a new one in each epoch"
            ),
        )
    path = first.where
    what = path.partition(".")[0] or "the state"
    return (
        DrillCause(
            GENERATOR,
            path,
            "a Checkpointer saves the objects that it is given, and no random generators: order of the data, "
            "dropout and augmentations begin again after a resume",
            "seed each epoch by its number, such as torch.manual_seed(seed + epoch); or use "
            "trainerd.session(), which keeps generators and the place in the data",
        ),
        DrillCause(
            STATE,
            path,
            f"{what} depends on an object or a variable that the Checkpointer is not given, or on batches "
            "that were trained again or left out",
            "save all of model, optimizer, scheduler, scaler and counters, and where the next epoch begins",
        ),
    )


def diagnose_undisturbed(
    differences: Sequence[RunDifference],
    *,
    first_module: str | None,
    kernels: Sequence[str],
    is_deterministic: bool,
) -> tuple[DrillCause, ...]:
    """Return the likely causes for which two undisturbed runs differ.

    Args:
        differences: What differs, the earliest first.
        first_module: First module whose output differs in the step in which they part; None if none does.
        kernels: Kernels without a deterministic form that the step uses.
        is_deterministic: Whether torch was told to use deterministic kernels only.
    """
    if not differences:
        return ()
    first = differences[0]
    found = [
        DrillCause(NONDETERMINISTIC, kernel, "has no deterministic form", "replace it, or accept other bits")
        for kernel in kernels[: CAUSES_MAX - 1]
    ]
    if first.kind == "samples":
        detail = "two undisturbed runs use other samples: the order is drawn from a generator without a seed"
        found.insert(0, DrillCause(DATA, f"step {first.step}", detail, "seed it, or draw from torch's own"))
    elif first_module is not None and first_module.endswith(BEFORE_STEP):
        name = first_module.removesuffix(BEFORE_STEP)
        when = "the first step" if first.step in {None, 1} else f"step {first.step}"
        detail = f"begins {when} with other values in two undisturbed runs"
        hint = f"make {name} within the session, which seeds the generators, or after torch.manual_seed(…)"
        found.insert(0, DrillCause(NONDETERMINISTIC, name, detail, hint))
    elif first_module is not None:
        detail = "is the first module whose output differs between two undisturbed runs"
        hint = "" if is_deterministic else "try torch.use_deterministic_algorithms(True)"
        found.insert(0, DrillCause(NONDETERMINISTIC, first_module, detail, hint))
    if not found:
        detail = f"two undisturbed runs differ: {first}"
        hint = "seed every generator of the script; name what measures time in session(uncompared=…)"
        found.append(DrillCause(NONDETERMINISTIC, first.where, detail, hint))
    return tuple(found)


def first_differing_output(then: Sequence[tuple[str, ...]], now: Sequence[tuple[str, ...]]) -> str | None:
    """Return the first module whose output differs between two traces of a step, None if there is none."""
    for one, other in zip(then, now, strict=False):
        if one != other:
            return one[0]
    return None
