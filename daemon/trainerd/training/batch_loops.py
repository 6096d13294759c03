"""The loops of a script over its loaders.

Batches are pulled here, and the engine is told of each that is done.
"""

from __future__ import annotations

import warnings
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from trainerd.contract.failpoints import declare
from trainerd.contract.heartbeat import Phase
from trainerd.training.data.batch_wait import WaitInterruptedError
from trainerd.training.data.loop_end import was_left_on_purpose
from trainerd.training.data.passes import Pass
from trainerd.training.data.sharding import ShardPlan
from trainerd.training.data.source_cache import SourceCache

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trainerd.training.data.passes import Source
    from trainerd.training.engine.run_engine import RunEngine
    from trainerd.training.engine.witness import Witness

BATCH = declare("training.batch", "the newest checkpoint; the steps since are run again")

_TRAINING: Final = 1
_EVALUATION: Final = 2


@dataclass(eq=False)
class _Loop:
    """A loop that trains.

    Attributes:
        accumulate: How many batches make a step.
        indices: What the sampler gave for the batches that were fetched and are not done.
    """

    accumulate: int
    indices: deque[Any]


class BatchLoops:
    """All loops over loaders of one session."""

    def __init__(self, engine: RunEngine) -> None:
        self._engine = engine
        self._position = engine.run.state.position
        self._sources = SourceCache(self._warn_once, engine.run.suspicions.add)
        self._accumulate = 1
        self._in_hand: _Loop | None = None  # the loop whose batch the script has
        self._is_broken_off = False
        self._evaluated: tuple[tuple[int, int], int] = ((0, 0), 0)
        self._warned: set[str] = set()

    @property
    def ends_step(self) -> bool:
        """Whether the batch in hand is the last one of its step."""
        done = self._position.batch + 1
        return done % self._accumulate == 0 or done == self._engine.run.link.batches

    def train(self, loader: Any, accumulate: int) -> Iterator[Any]:
        """Yield the batches that are left of the training loop that begins."""
        engine, position = self._engine, self._position
        if engine.skips_loop():
            return
        source = self._source(loader)
        engine.begin_loop(source)
        loop = _Loop(accumulate, deque())
        which = Pass((_TRAINING, position.loop), position.epoch, self._shard_plan(), loop.indices)
        total = source.length(which)
        self._accumulate = accumulate
        engine.run_loop(total)
        iterator = source.iterate(which, position.batch, engine.hears_drain)
        witness = engine.run.evidence.witness
        witness.begin_loop(iterator)
        while True:
            if not engine.run.is_alone and not source.is_idle_at_boundary:
                engine.enter_step()  # what may be decided while it waits would come too late
            found, batch = self._next_batch(
                iterator, is_at_boundary=source.is_idle_at_boundary, witness=witness
            )
            if not found:
                break
            engine.enter_step()
            BATCH.hit()
            self._in_hand = loop
            try:
                yield batch
            except GeneratorExit:  # by a break, after which the batch counts, or by an exception
                self._is_broken_off = self._in_hand is loop
                if self._is_broken_off and was_left_on_purpose():
                    self.end_broken_loop()
                return
            self._in_hand = None
            self._end_batch(loop, is_last=position.batch + 1 == total)
        if position.batch % accumulate and total is None:
            engine.step_done(is_last_batch=True)
        engine.loop_done()

    def evaluate(self, loader: Any) -> Iterator[Any]:
        """Yield the batches of a loop that does not train."""
        engine = self._engine
        which = Pass((_EVALUATION, self._position.step, self._number_of_evaluation()), self._position.epoch)
        engine.run.link.beat(Phase.EVALUATION)
        iterator = self._source(loader).iterate(which, 0, engine.hears_drain)
        while True:
            found, batch = self._next_batch(iterator)
            if not found:
                break
            yield batch
            engine.evaluation_batch_done()
        engine.run.link.beat(Phase.STEP)

    def end_broken_loop(self, *, is_over: bool = False) -> None:
        """A loop that was left in the middle ends, unless that was done.

        One that raised, and was caught, too.

        Args:
            is_over: Whether it cannot be going on where this is called, though its iterator is still there.
        """
        if (
            self._in_hand is not None
            and (is_over or self._is_broken_off)
            and not self._engine.run.exit.is_leaving
        ):
            loop, self._in_hand = self._in_hand, None
            self._is_broken_off = False
            self._end_batch(loop, is_last=True)
            self._engine.loop_done()

    def close(self) -> None:
        """Let go of the loaders, and so of workers that persist."""
        self._sources.clear()

    def _next_batch(
        self, iterator: Iterator[Any], *, is_at_boundary: bool = True, witness: Witness | None = None
    ) -> tuple[bool, Any]:
        """Wait for a batch. A drain asked for in the meantime, or a loader that it broke, is a boundary."""
        try:
            found, batch = True, next(iterator)
        except StopIteration:
            return False, None
        except WaitInterruptedError:
            self._engine.leave()
        except Exception:
            if self._engine.hears_drain():
                self._engine.leave()
            raise
        if witness is not None:
            witness.arrived(batch)
        if is_at_boundary:
            self._engine.answer()
        if witness is not None:
            witness.let_go()
        return found, batch

    def _end_batch(self, loop: _Loop, *, is_last: bool) -> None:
        if loop.indices:
            self._engine.run.state.note_samples(loop.indices.popleft())
        ends_step = is_last or (self._position.batch + 1) % loop.accumulate == 0
        self._engine.batch_done(ends_step=ends_step, is_last=is_last)

    def _number_of_evaluation(self) -> int:
        """Count the evaluations since the step they come after.

        An attempt that begins there counts the same.
        """
        after = (self._position.step, self._position.epoch)
        number = self._evaluated[1] if self._evaluated[0] == after else 0
        self._evaluated = (after, number + 1)
        return number

    def _shard_plan(self) -> ShardPlan:
        """Return which of the batches of the loop that begins are this rank's."""
        environment, position = self._engine.run.settings.environment, self._position
        return ShardPlan(
            environment.rank, environment.world_size, position.resharded_at, position.resharded_after
        )

    def _source(self, loader: Any) -> Source:
        """Return the source of a loader, made at its first use: workers that persist, persist in it."""
        return self._sources.source(loader, seed=self._engine.run.state.seed, epoch=self._position.epoch)

    def _warn_once(self, message: str) -> None:
        if message not in self._warned:
            self._warned.add(message)
            warnings.warn(f"trainerd: {message}", stacklevel=3)
