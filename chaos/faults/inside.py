"""Faults that a rank does to itself, at the point at which it waits for them (`chaos.actions`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chaos.faults.fault import Fault, Struck, register

if TYPE_CHECKING:
    from collections.abc import Callable

    from chaos.faults.fault import Context


def _tell(action: str, detail: str) -> Callable[[Context], Struck]:
    return lambda context: Struck(f"rank {context.rank} {detail}", action)


for name, what, action, detail, verdicts in (
    ("exception", "the training script raises", "raise", "raises", ("crashed",)),
    ("abort-in-c", "a C library calls abort()", "abort-in-c", "calls abort()", ("crashed",)),
    (
        "memory-hog",
        "a rank uses up its memory",
        "hog-memory",
        "takes memory until none is left",
        ("out-of-memory",),
    ),
    ("deadlock", "a rank waits for a lock for ever", "deadlock", "deadlocks", ("stalled",)),
    (
        "gil-held",
        "C code keeps the interpreter lock for ever",
        "hold-gil",
        "holds the interpreter lock",
        ("stalled",),
    ),
    ("slow-disk", "every write and sync takes half a second", "slow-disk", "has a slow disk", ()),
    ("nan-loss", "the loss of a step is not a number", "nan", "computes NaN", ("non-finite-loss",)),
):
    # After a loss that is not a number the newest checkpoint may be spoilt: the job goes back behind it.
    costs = 1 if action == "nan" else 0
    register(Fault(name, what, _tell(action, detail), verdicts, costs_checkpoints=costs, needs_point=True))

FAILPOINT = register(
    Fault(
        "failpoint",
        "a durable act is killed, or fails, at a named point",
        _tell("go", "has a failpoint"),
        ("killed", "crashed"),
    )
)
"""Not for `strikes`: a scenario names failpoints in a field of its own."""
