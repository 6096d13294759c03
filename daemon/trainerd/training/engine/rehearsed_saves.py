"""The Checkpointer's part in a drill: saves aside, notes what it does, and strikes where it was told to.

A script without a session has no boundaries that trainerd knows, except its saves, what it resumes, and the
steps of its optimizers: a strike is so many of these after a save.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from trainerd.contract import environment, rehearsal
from trainerd.contract.rehearsal import Rehearsal, RehearsalNotes
from trainerd.contract.save_journal import CHECKPOINTERS_NAME, SaveEvent, SaveEventKind, add_event, now_s
from trainerd.training.engine.output_trace import OutputTrace

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from trainerd.contract.rehearsal import Strike

_NAME_CHARACTERS_MAX: Final = 40


class RehearsedSaves:
    """The Checkpointers of one process in an attempt of a drill.

    Args:
        asked: What the drill asks for.
        attempt: Number of the attempt.
        rank: Rank of this process. Rank 0 notes what happens.
    """

    def __init__(self, asked: Rehearsal, *, attempt: int, rank: int) -> None:
        self._asked = asked
        self._attempt = attempt
        self._rank = rank
        self._left = [each for each in asked.strikes if each.place == "save"]
        self._passed: dict[Strike, int] = {}
        self._updates = 0
        self._is_first_update = True
        self._wait: Callable[[], object] = lambda: None
        self._trace: OutputTrace | None = None
        self._pid = os.getpid()
        register_optimizer_step_post_hook(self._updated)
        self._pass(0)

    @property
    def is_here(self) -> bool:
        """Whether this is the process in which they were made, not one forked from it."""
        return os.getpid() == self._pid

    def folder_for(self, directory: Path) -> Path:
        """Return the folder in which a Checkpointer saves instead of its own."""
        # The same in each run, though each has a working folder of its own.
        place = os.path.relpath(directory.absolute(), self._asked.folder)
        digest = hashlib.sha256(place.encode(errors="surrogateescape")).hexdigest()[:8]
        word = re.sub(r"[^A-Za-z0-9_.-]", "_", directory.absolute().name)[:_NAME_CHARACTERS_MAX] or "root"
        return Path(self._asked.folder) / CHECKPOINTERS_NAME / f"{word}-{digest}"

    def opened(self, folder: Path, objects: Mapping[str, Any], wait: Callable[[], object]) -> None:
        """Note a Checkpointer.

        Args:
            folder: Where it saves.
            objects: What it saves.
            wait: Waits until its save in flight is durable.
        """
        self._wait = wait
        self._note("open", folder=folder)
        if self._asked.traced_step is not None and self._trace is None and self._rank == 0:
            self._trace = OutputTrace(objects.items())
            self._trace.begin()

    def resumed(self, folder: Path, step: int) -> None:
        """Note that the objects were put back; strike, if that is one of the places."""
        self._is_first_update = True
        self._note("resume", step=step, folder=folder)
        self._pass(step)

    def saved(self, folder: Path, step: int, epoch: int, wait: Callable[[], object]) -> None:
        """Note a save; strike, or end the process, if that is one of the places."""
        self._wait = wait
        self._note("save", step=step, epoch=epoch, folder=folder)
        self._pass(step)

    def _updated(self, *_arguments: Any) -> None:
        if not self.is_here:
            return
        self._updates += 1
        if self._is_first_update:
            self._is_first_update = False
            self._note("update")
        if self._trace is not None and self._updates == self._asked.traced_step:
            self._trace.end()
            self._note_trace(self._trace)
        self._strike_if_due()

    def _pass(self, step: int) -> None:
        for strike in self._left:
            if step >= strike.step:
                self._passed.setdefault(strike, self._updates)
        self._strike_if_due()

    def _strike_if_due(self) -> None:
        for strike in list(self._left):
            if strike in self._passed and self._updates - self._passed[strike] >= strike.updates:
                self._left.remove(strike)
                self._strike(strike)

    def _strike(self, strike: Strike) -> None:
        if strike.action == "drain":
            self._note("strike", step=strike.step)
            # The script's own handler runs before the next line of Python; without one the process ends.
            os.kill(os.getpid(), signal.SIGTERM)
            return
        self._wait()  # a save in flight would be lost: that proves little
        if strike.action == "kill":
            self._note("strike", step=strike.step)
            os.kill(os.getpid(), signal.SIGKILL)
        self._note("stop", step=strike.step)
        os._exit(0)

    def _note(
        self, kind: SaveEventKind, *, step: int = -1, epoch: int = 0, folder: Path | None = None
    ) -> None:
        if self._rank != 0:
            return
        name = folder.name if folder is not None else ""
        event = SaveEvent(kind, self._attempt, step, epoch, self._updates, now_s(), name)
        add_event(self._asked.folder, event)

    def _note_trace(self, trace: OutputTrace) -> None:
        notes = RehearsalNotes(
            is_deterministic=torch.are_deterministic_algorithms_enabled(),
            outputs=tuple(trace.outputs),
            kernels=tuple(trace.kernels),
        )
        rehearsal.write_notes(self._asked.folder, notes)


def rehearsed_saves() -> RehearsedSaves | None:
    """Return this process's part in a drill, None outside of one."""
    if not os.environ.get(rehearsal.VARIABLE):
        return None
    return _of_process(os.getpid())


@functools.cache
def _of_process(_pid: int) -> RehearsedSaves | None:
    asked = rehearsal.from_environ(os.environ)
    if asked is None:
        return None
    attempt = int(os.environ.get(environment.ATTEMPT) or 1)
    return RehearsedSaves(asked, attempt=attempt, rank=int(os.environ.get("RANK") or 0))
