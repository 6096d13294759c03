"""The session's part in a drill: strikes itself where it was told to, and notes what the drill must know.

Outside of a drill there is no object of this class, and a step costs a comparison with None.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any, Final

import torch

from trainerd.contract import rehearsal
from trainerd.contract.rehearsal import Rehearsal, RehearsalNotes
from trainerd.training.engine.output_trace import OutputTrace

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trainerd.contract.rehearsal import Place, Strike
    from trainerd.training.engine.run_parts import RunParts


_MEASURED: Final = "trainerd_measured"
"""Attribute of the class of a tracked object: names in its state that measure this machine."""


class RehearsedRun:
    """Strikes one attempt of a drill.

    Args:
        asked: What the drill asks for.
        run: Parts of the attempt.
    """

    def __init__(self, asked: Rehearsal, run: RunParts) -> None:
        self._asked = asked
        self._run = run
        self._left = list(asked.strikes)
        self._trace: OutputTrace | None = None
        self._epoch_steps: int | None = None

    @classmethod
    def asked_by(cls, environ: Mapping[str, str], run: RunParts) -> RehearsedRun | None:
        """Return the session's part in the drill that an environment speaks of, None if it speaks of none."""
        asked = rehearsal.from_environ(environ)
        return cls(asked, run) if asked is not None else None

    def begin(self) -> None:
        """The state is restored: note what the script said, and listen to its modules."""
        if self._asked.traced_step is not None:
            self._trace = OutputTrace(self._run.state.objects.items())
        self._note()

    def enter_step(self) -> None:
        """A step begins."""
        if self._trace is not None and self._run.state.position.step + 1 == self._asked.traced_step:
            self._trace.begin()

    def reach(self, place: Place) -> None:
        """A place is reached: strike, if it is one of those asked for."""
        step = self._run.state.position.step
        if self._trace is not None and place == "step" and step == self._asked.traced_step:
            self._trace.end()
            self._note()
        if place == "epoch" and self._run.state.position.epoch == 1:
            self._epoch_steps = step
            self._note()
        for strike in list(self._left):
            # An epoch may have steps of its own that no boundary of a step ends.
            is_here = strike.place == place or (strike.place == "step" and place == "epoch")
            if is_here and step >= strike.step:
                self._left.remove(strike)
                self._strike(strike)

    def _strike(self, strike: Strike) -> None:
        if strike.action == "kill":
            # A save in flight would be lost, and the run would begin at step 0: that proves little.
            self._run.saves.wait()
            rehearsal.note_kill(self._asked.folder, self._run.settings.attempt)
            os.kill(os.getpid(), signal.SIGKILL)
        if strike.action == "flush" and self._run.is_alone:
            self._run.exit.flush_alone("the grace period of a drill is over")
        # The handler runs before the next line of Python, and sets the flag that boundaries read.
        os.kill(os.getpid(), signal.SIGTERM)

    def _note(self) -> None:
        if self._run.settings.environment.rank != 0:
            return
        folder = self._asked.folder
        traced = self._trace
        notes = RehearsalNotes(
            uncompared=(*self._run.settings.uncompared, *_measured(self._run.state.objects)),
            is_deterministic=torch.are_deterministic_algorithms_enabled(),
            outputs=tuple(traced.outputs) if traced is not None else (),
            kernels=tuple(traced.kernels) if traced is not None else (),
            epoch_steps=self._epoch_steps,
        )
        rehearsal.write_notes(folder, notes)


def _measured(objects: Mapping[str, Any]) -> list[str]:
    """Return the paths of what tracked objects call measurements of the machine."""
    return [
        f"{name}.{each}" for name, value in objects.items() for each in getattr(type(value), _MEASURED, ())
    ]
