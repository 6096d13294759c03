"""Finds loops whose batches are pulled before those that were pulled earlier are trained.

A prefetcher in the thread that trains, such as NVIDIA's ``data_prefetcher`` around ``session.batches``, asks
for a batch while the one before it waits: the session counts that one as done, and a saved position is ahead
of the weights. What shows it:

* Nothing was trained with the first batch when the second one is asked for.
* Who asks is no ``for`` of the script, or the script has not run in between: its variables are the same.

A script that skips the first batch on purpose looks alike to a loop by ``next``, but does not keep that
batch. So what is kept until the first step of an optimizer is an error, and the rest a suspicion.

Only the first batches of a loop are watched, until something was trained, and each place in the script once.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
import weakref
from typing import TYPE_CHECKING, Any, Final

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from trainerd.contract.verdict import Reason
from trainerd.errors import UserError
from trainerd.training.data.loop_end import is_at_for
from trainerd.training.state.audit_coverage import tensors_in
from trainerd.training.state.caller_names import place_of_frame
from trainerd.training.state.training_signs import TrainingSigns

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FrameType

    from trainerd.training.engine.suspicions import Suspicions
    from trainerd.training.state.tracked import Objects

_IDLE_MAX: Final = 8
"""After so many batches without training, a loop is no longer watched: it trains nothing that is tracked."""


class ReadAhead:
    """Watches the loops of one attempt.

    Args:
        objects: What is tracked.
        suspicions: Take what is not certain, or all if it is no error.
        has_measured: Tells whether the script has logged something for the step in progress.
        is_strict: Whether what is certain is an error.

    Attributes:
        loop: The loop that is watched, None once it has trained: most of the time.
    """

    def __init__(
        self,
        objects: Objects,
        suspicions: Suspicions,
        has_measured: Callable[[], bool],
        *,
        is_strict: bool,
    ) -> None:
        self._objects = objects
        self._suspicions = suspicions
        self._has_measured = has_measured
        self._is_strict = is_strict
        self._seen: set[tuple[CodeType, int]] = set()
        self.loop: _WatchedLoop | None = None

    def begin_loop(self) -> None:
        """A loop asks for its first batch. To be called below its generator."""
        self.close()
        asker = _asker(sys._getframe(1))  # noqa: SLF001 - the public way there, inspect, asks the same
        if asker is None or (place := (asker.f_code, asker.f_lasti)) in self._seen:
            return
        self._seen.add(place)
        signs = TrainingSigns(self._objects)
        if signs.can_show:
            self.loop = _WatchedLoop(signs, _consumer(asker), self._report)

    def hand(self, batch: Any) -> None:
        """The script gets a batch."""
        if self.loop is not None:
            self.loop.hand(batch)

    def asked(self) -> None:
        """The next batch is asked for. To be called by the generator.

        Raises:
            UserError: Batches are read ahead.
        """
        loop = self.loop
        if loop is None or (loop.batches >= _IDLE_MAX and not loop.has_trained):
            return
        if loop.has_trained or self._has_measured() or loop.signs.have_changed():
            loop.trained()
            self.close()
            return
        loop.idle(_asker(sys._getframe(1)))  # noqa: SLF001 - see above
        if loop.batches >= _IDLE_MAX and not loop.is_pulled:
            self.close()

    def exhausted(self) -> None:
        """The loop is over: a step of an optimizer from here on would train what was pulled before."""
        if self.loop is not None:
            self.loop.is_over = True
            if not self.loop.is_pulled:
                self.close()

    def close(self) -> None:
        """Stop watching."""
        if self.loop is not None:
            self.loop.close()
            self.loop = None

    def _report(self, where: str, batches: int, *, is_certain: bool) -> None:
        many = "the first batch was" if batches == 1 else f"the first {batches} batches were"
        detail = (
            f"session.batches is read ahead: {many} followed by the next one before anything was trained, "
            "so a saved position is ahead of the weights"
        )
        hint = (
            "put what prefetches around the loader, session.batches(prefetch(loader)), or let the loader "
            "prefetch: DataLoader(..., num_workers=2)"
        )
        if is_certain and self._is_strict:
            self.close()
            raise UserError(f"{where}: {detail}", hint=hint)
        self._suspicions.add(Reason("read-ahead", where, detail, hint))


class _WatchedLoop:
    """A loop whose first batches are watched.

    Args:
        signs: What shows that something was trained.
        consumer: Code that the first batch goes to.
        report: Told where, how many batches were pulled without training, and whether that is certain.

    Attributes:
        batches: Number of batches that were done without training.
        has_trained: Whether an optimizer has made a step since the first of them.
        is_pulled: Whether they were pulled by something between the session and the code that trains.
        is_over: Whether the loop has no more batches.
    """

    def __init__(self, signs: TrainingSigns, consumer: FrameType, report: Callable[..., None]) -> None:
        self.signs = signs
        self.batches = 0
        self.has_trained = self.is_pulled = self.is_over = False
        self._code, self._variables = consumer.f_code, _variables(consumer)
        self._report = report
        self._where = ""
        self._handed: list[weakref.ref[torch.Tensor]] = []
        self._last: list[weakref.ref[torch.Tensor]] = []
        self._are_kept = False
        self._hook: Any = None

    def hand(self, batch: Any) -> None:
        self._last = [weakref.ref(tensor) for tensor in tensors_in(batch)]

    def idle(self, asker: FrameType | None) -> None:
        """The next batch is asked for, and nothing was trained with the last one."""
        self.batches += 1
        self._handed += self._last
        if self.batches == 1 and asker is not None:
            consumer = _consumer(asker)
            is_same = consumer.f_code is self._code
            has_run = is_same and _variables(consumer) != self._variables
            self.is_pulled = not (is_at_for(consumer) and has_run)
            self._where = place_of_frame(asker)
        if self._hook is None and self.is_pulled:
            self._hook = register_optimizer_step_post_hook(self._note_step)

    def trained(self) -> None:
        """The next batch is asked for, and something was trained with the last one, or with one before it."""
        if self.batches and self.is_pulled:
            self._report(self._where, self.batches, is_certain=self._are_kept)

    def close(self) -> None:
        hook, self._hook = self._hook, None
        if hook is not None:
            hook.remove()

    def _note_step(self, *_: Any) -> None:
        if self.has_trained:
            return
        self.has_trained = True
        self._are_kept = any(each() is not None for each in self._handed)
        if self.is_over:
            self._report(self._where, self.batches, is_certain=self._are_kept)


def _asker(generator: FrameType) -> FrameType | None:
    """Return the frame that asks the generator of a loop for a batch."""
    frame = generator.f_back
    while frame is not None and frame.f_globals.get("__name__", "").startswith("trainerd."):
        frame = frame.f_back
    return frame


def _consumer(frame: FrameType) -> FrameType:
    """Return the code that a chain of generators and iterators yields to."""
    while frame.f_back is not None and (
        frame.f_code.co_flags & inspect.CO_GENERATOR or frame.f_code.co_name == "__next__"
    ):
        frame = frame.f_back
    return frame


def _variables(frame: FrameType) -> dict[str, int]:
    """Return the variables of a frame by the identity of their values."""
    with contextlib.suppress(Exception):
        return {name: id(value) for name, value in list(frame.f_locals.items())}
    return {}
