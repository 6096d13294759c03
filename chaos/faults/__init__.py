"""The faults, each with a name, a sentence and what must come of it. `REGISTRY` has them all."""

from __future__ import annotations

from chaos.faults import checkpoints, disk, inside, processes, surroundings
from chaos.faults.fault import REGISTRY, Context, Fault, Struck

__all__ = [
    "REGISTRY",
    "Context",
    "Fault",
    "Struck",
    "checkpoints",
    "disk",
    "inside",
    "processes",
    "surroundings",
]
