"""Runs that only show why two undisturbed ones differ."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainerd.drill.diagnosis import diagnose_undisturbed, first_differing_output

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trainerd.drill.diagnosis import DrillCause
    from trainerd.drill.drilled_run import DrilledRun
    from trainerd.drill.run_comparison import RunDifference


def trace_causes(
    differences: Sequence[RunDifference], traced_run: Callable[[str], DrilledRun]
) -> tuple[DrillCause, ...]:
    """Make a run twice that notes the outputs of all modules, and return the likely causes.

    Args:
        differences: What differs between the undisturbed runs.
        traced_run: Makes such a run, given its name.
    """
    notes = []
    for name in ("traced", "traced-again"):
        run = traced_run(name)
        notes.append(run.notes())
        run.remove()
    return diagnose_undisturbed(
        differences,
        first_module=first_differing_output(notes[0].outputs, notes[1].outputs),
        kernels=notes[0].kernels,
        is_deterministic=notes[0].is_deterministic,
    )
