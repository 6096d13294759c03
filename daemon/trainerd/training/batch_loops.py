"""The loops of a script over its loaders.

Batches are pulled here, and the engine is told of each that is done.

Invariants:
    One loop trains at a time: what is counted is its batches.
    The batch in hand counts when the next one is asked for or the loop is left on purpose. A loop that may
    have raised counts only at a call that shows that the exception was caught.
"""

from __future__ import annotations

import contextlib
import threading
import warnings
import weakref
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from trainerd.contract.failpoints import declare
from trainerd.contract.heartbeat import Phase
from trainerd.contract.verdict import Reason
from trainerd.errors import UserError
from trainerd.training import loop_misuse, loop_wrappers
from trainerd.training.batch_iterator import BatchIterator
from trainerd.training.data.batch_wait import WaitInterruptedError
from trainerd.training.data.counted_source import CountedSource
from trainerd.training.data.loop_end import (
    Asking,
    Places,
    is_asked_explicitly,
    leaves_several_loops,
    loops_that_ask,
    places_that_ask,
    was_left_on_purpose,
)
from trainerd.training.data.passes import TRAINING, Pass
from trainerd.training.data.replica_place import ReplicaPlace, StatedSharding
from trainerd.training.data.sharding import ShardPlan
from trainerd.training.data.silent_ends import silent_end, tracked_part_of
from trainerd.training.data.source_cache import SourceCache
from trainerd.training.data.zipped_source import ZippedSource
from trainerd.training.engine.replica_places import ReplicaPlaces
from trainerd.training.read_ahead import ReadAhead

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trainerd.training.data.passes import Source
    from trainerd.training.engine.run_engine import RunEngine
    from trainerd.training.engine.witness import Witness

BATCH = declare("training.batch", "the newest checkpoint; the steps since are run again")

_EVALUATION: Final = 2


@dataclass(eq=False)
class _Loop:
    """A loop that trains.

    Attributes:
        loaders: What it draws from, in step.
        source: Where its batches come from.
        place: Which share of them is this rank's.
        accumulate: How many batches make a step.
        is_numbered: Whether the script gets the number of each batch as well.
        thread: The thread that asked for the loop.
        indices: What the sampler gave for the batches that were fetched and are not done.
        has_begun: Whether a batch was asked for.
        is_replayed: Whether it runs again what was done before the checkpoint, and counts nothing.
        generator: The generator of its batches.
        made_at: Where the script asked for the loop.
        asking: The ``for`` loops that its batches go to.
    """

    loaders: tuple[Any, ...]
    source: Source
    place: ReplicaPlace
    accumulate: int
    is_numbered: bool
    thread: int = field(default_factory=threading.get_ident)
    indices: deque[Any] = field(default_factory=deque)
    has_begun: bool = False
    is_replayed: bool = False
    generator: weakref.ref[Iterator[Any]] | None = None
    made_at: Places = ()
    asking: Asking = frozenset()


class BatchLoops:
    """All loops over loaders of one session.

    Attributes:
        has_begun: Whether a training loop has begun, or was skipped.
    """

    def __init__(self, engine: RunEngine) -> None:
        self.has_begun = False
        self._engine = engine
        self._position = engine.run.state.position
        self._places = ReplicaPlaces(engine.run)
        self._sources = SourceCache(self._warn_once, engine.run.suspicions.add)
        self._accumulate = 1
        self._in_hand: _Loop | None = None  # the loop whose batch the script has
        self._is_broken_off = False
        self._series: tuple[int, tuple[Any, ...]] | None = (
            None  # epoch and loaders of the series that goes on
        )
        self._error: BaseException | None = None
        self._evaluated: tuple[tuple[int, ...], int] = ((), 0)
        self._warned: set[str] = set()
        self._checked: set[Places] = set()
        run = engine.run
        self._read_ahead = ReadAhead(
            run.state.objects,
            run.suspicions,
            lambda: run.measurements.has_any,
            is_strict=run.settings.is_strict,
        )

    @property
    def ends_step(self) -> bool:
        """Whether the batch in hand is the last one of its step."""
        done = self._position.batch + 1
        return done % self._accumulate == 0 or done == self._engine.run.link.batches

    @property
    def thread(self) -> int | None:
        """The thread that pulls the batch in hand, None if there is none."""
        return self._in_hand.thread if self._in_hand is not None else None

    # ------------------------------------------------------------------ loops that begin

    def train(
        self,
        loaders: tuple[Any, ...],
        sharding: StatedSharding,
        accumulate: int,
        *,
        is_numbered: bool = False,
    ) -> BatchIterator:
        """Return the batches that are left of the next training loop."""
        sources = self._sources_of(loaders)
        place = self._places.place(sharding, loaders, tuple(sources))
        return self._iterator(_Loop(loaders, _in_step(sources), place, accumulate, is_numbered))

    def count(self, total: int) -> BatchIterator:
        """Return the numbers that are left of the next training loop, which has no loader."""
        return self._iterator(
            _Loop((total,), CountedSource(total), self._places.by_rank, 1, is_numbered=False)
        )

    def evaluate(self, loaders: tuple[Any, ...], *, is_numbered: bool = False) -> BatchIterator:
        """Return the batches of a loop that does not train."""
        source = _in_step(self._sources_of(loaders))
        place = (_EVALUATION, *self._position.key()[2:], self._number_of_evaluation())
        which = Pass(place, self._position.epoch)
        return BatchIterator(
            self._evaluated_batches(source, which, is_numbered=is_numbered), lambda: source.length(which)
        )

    def length(self, loader: Any) -> int | None:
        """Return how many batches this rank has of an epoch of a loader, None if that is not known."""
        (source,) = self._sources_of((loader,))
        place = self._places.place(StatedSharding(), (loader,), (source,))
        return source.length(self._pass(_Loop((loader,), source, place, 1, is_numbered=False)))

    def look_around(self) -> None:
        """Note what the data looks like that the script may change in its first epoch."""
        self._sources.look_around(self._engine.run.state.loop_sources.kinds_that_wait())

    def end_broken_loop(self, *, is_over: bool = False) -> None:
        """A loop that was left in the middle ends, unless that was done.

        One that raised, and was caught, too. The script has run code since: there is no boundary here.

        Args:
            is_over: Whether it cannot be going on where this is called, though its iterator is still there.

        Raises:
            Exception: What went wrong when a loop was left: it could not be raised there.
        """
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        loop = self._in_hand
        if loop is None or not (is_over or self._is_broken_off) or self._engine.run.exit.is_leaving:
            return
        self._in_hand, self._is_broken_off = None, False
        if loop.is_replayed:
            self._engine.skips_loop()
            return
        self._series = None
        self._note_samples(loop)
        self._engine.loop_found_over()

    @contextlib.contextmanager
    def errors_kept(self) -> Iterator[None]:
        """Keep an error for the next call of the session: Python ignores what is raised by a loop's end."""
        try:
            yield
        except BaseException as error:  # noqa: BLE001 - raised by `end_broken_loop`
            self._error = error

    def close(self) -> None:
        """Let go of the loaders, and so of workers that persist."""
        self._sources.clear()
        self._in_hand = self._series = None
        self._read_ahead.close()

    # ------------------------------------------------------------------ training

    def _iterator(self, loop: _Loop) -> BatchIterator:
        batches = self._batches(loop)
        loop.made_at = places_that_ask()
        loop.generator = weakref.ref(batches)
        return BatchIterator(batches, lambda: self._left(loop))

    def _batches(self, loop: _Loop) -> Iterator[Any]:
        engine, position, source = self._engine, self._position, loop.source
        loop.asking = loops_that_ask()
        loop_misuse.check_thread(loop.thread)
        loop.has_begun = self.has_begun = True
        self.end_broken_loop(is_over=True)  # of two that were made before either was begun
        way = self._way(loop, is_explicit=is_asked_explicitly())
        if way == "replay":
            yield from self._replayed(loop)
        if way != "train":
            return
        place = (*loop.made_at, *places_that_ask())
        if loop.generator is not None and place not in self._checked:
            self._checked.add(place)  # once is enough: it takes milliseconds
            loop_wrappers.check_wrapper(loop.generator(), engine.run.suspicions.add)
        engine.begin_loop(source)
        position.shard_over(loop.place.size)
        if self._series is None or not _are_same(self._series, (position.epoch, loop.loaders)):
            position.series = position.loop
        self._series = None
        self._accumulate = loop.accumulate
        which = self._pass(loop)
        total = source.length(which)
        engine.run_loop(total)
        iterator = source.iterate(which, position.batch, engine.hears_drain)
        witness = self._watch(source, iterator)
        read_ahead = self._read_ahead
        looks_ahead = total is None and self._can_look_ahead(loop)
        fetched: tuple[bool, Any] | None = None
        while True:
            if fetched is None:
                if not engine.run.is_alone and not source.is_idle_at_boundary:
                    engine.enter_step()  # what may be decided while it waits would come too late
                fetched = self._next_batch(
                    iterator, is_at_boundary=source.is_idle_at_boundary, witness=witness
                )
            (found, batch), fetched = fetched, None
            if not found:
                break
            engine.enter_step()
            BATCH.hit()
            self._in_hand = loop
            read_ahead.hand(batch)
            try:
                yield (position.batch, batch) if loop.is_numbered else batch
            except GeneratorExit:  # by a break, after which the batch counts, or by an exception
                self._leave(loop)
                return
            if self._in_hand is not loop:
                loop_misuse.refuse_two_loops()
            loop_misuse.check_thread(loop.thread)
            self._in_hand = None
            if read_ahead.loop is not None:
                read_ahead.asked()
            ends_step = (position.batch + 1) % loop.accumulate == 0
            is_over = ends_step and engine.is_last_step
            if not is_over and (position.batch + 1 == total or (ends_step and looks_ahead)):
                fetched = self._fetched_ahead(loop, total, iterator, witness, ends_step=ends_step)
                is_over = not fetched[0]
            self._note_samples(loop)
            if is_over:
                self._read_ahead.exhausted()
                self._end(loop, is_in_series=is_asked_explicitly(), is_exhausted=fetched is not None)
                return
            engine.batch_done(ends_step=ends_step, is_last=False)
            engine.run.evidence.witness.let_go()
        self._read_ahead.exhausted()
        self._end_exhausted(loop, total, is_in_series=is_asked_explicitly())

    def _watch(self, source: Source, iterator: Iterator[Any]) -> Witness | None:
        """Watch the batches of a loop that begins, unless they are mere numbers. Return what takes witness.

        Numbers are the same whatever the script draws for them: they are no witness of it.
        """
        if isinstance(source, CountedSource):
            return None
        witness = self._engine.run.evidence.witness
        witness.begin_loop(iterator)
        self._read_ahead.begin_loop()
        return witness

    def _way(self, loop: _Loop, *, is_explicit: bool) -> Literal["skip", "replay", "train"]:
        """Return what becomes of the loop that begins: those finished before the checkpoint do not train.

        Args:
            loop: The loop.
            is_explicit: Whether its first batch is asked for by an explicit ``next``.
        """
        engine, position, resume = self._engine, self._position, self._engine.run.resume
        if resume.is_pending:
            if is_explicit and (jumped := resume.jump()) is not None:
                self._series = (position.epoch, loop.loaders)
                for number in jumped:
                    engine.run.state.skip_source(number, loop.source)
            elif is_explicit and resume.has_finished_loop():
                return "replay"
            number = position.loop
            if engine.skips_loop(loop.source.total if isinstance(loop.source, CountedSource) else None):
                engine.run.state.skip_source(number, loop.source)
                if not engine.run.resume.is_pending:
                    engine.run.state.put_back_skipped_sources()
                return "skip"
        if engine.is_at_max:
            return "skip"
        return "replay" if resume.repeats_end() else "train"

    def _end(self, loop: _Loop, *, is_in_series: bool, is_exhausted: bool) -> None:
        """The loop ends with the batch in hand."""
        self._series = (self._position.epoch, loop.loaders) if is_in_series else None
        self._engine.batch_done(
            ends_step=True, is_last=is_exhausted, ends_loop=True, is_in_series=is_in_series
        )

    def _end_exhausted(self, loop: _Loop, total: int | None, *, is_in_series: bool) -> None:
        """The loop ends after its last batch was counted: that it was the last one was not known."""
        batch = self._position.batch
        self._series = (self._position.epoch, loop.loaders) if is_in_series else None
        if batch % loop.accumulate and batch != total:
            self._engine.step_done(is_last_batch=True, ends_loop=True, is_in_series=is_in_series)
        else:
            self._engine.loop_done(is_in_series=is_in_series)

    def _replayed(self, loop: _Loop) -> Iterator[Any]:
        """Yield the batches of a loop that was finished before the checkpoint, to an explicit ``next``.

        The script takes as many as it took then. Nothing is counted, and the state is put back later.
        """
        position = self._position
        loop.is_replayed = True
        for batch in loop.source.iterate(self._pass(loop), 0, self._engine.hears_drain):
            self._in_hand = loop
            try:
                yield (position.batch, batch) if loop.is_numbered else batch
            except GeneratorExit:
                self._is_broken_off = self._in_hand is loop
                return
            if self._in_hand is not loop:
                loop_misuse.refuse_two_loops()
            position.batch += 1
        self._in_hand = None
        self._engine.skips_loop()

    def _leave(self, loop: _Loop) -> None:
        """The loop was left with a batch in hand: end it here if that is no exception."""
        engine = self._engine
        if self._in_hand is not loop or engine.run.exit.is_leaving:
            return
        self._is_broken_off = True
        if not was_left_on_purpose(loop.asking, depth=2) or leaves_several_loops(depth=2):
            return  # seen to by the next call, if there is one, or by the loop around this one
        self._in_hand, self._is_broken_off = None, False
        with self.errors_kept():
            self._note_samples(loop)
            ends_step = (self._position.batch + 1) % loop.accumulate == 0
            if engine.has_told_drain:
                # Because of the drain, so the loop goes on: the boundary is in it, or was before this step.
                if ends_step:
                    engine.batch_done(ends_step=True, is_last=False)
                engine.leave_where_safe()
            self._series = None
            engine.batch_done(ends_step=True, is_last=False, ends_loop=True)

    def _next_batch(
        self, iterator: Iterator[Any], *, is_at_boundary: bool = True, witness: Witness | None = None
    ) -> tuple[bool, Any]:
        """Wait for a batch. A drain asked for in the meantime, or a loader that it broke, is a boundary."""
        try:
            found, batch = True, next(iterator)
        except StopIteration:
            found, batch = False, None
        except WaitInterruptedError:
            self._engine.leave()
        except Exception:
            if self._engine.hears_drain():
                self._engine.leave()
            raise
        if found and witness is not None:
            witness.arrived(batch)
        if found and is_at_boundary:
            self._engine.answer()
        if witness is not None:
            witness.let_go()
        return found, batch

    def _can_look_ahead(self, loop: _Loop) -> bool:
        """Tell whether the end of a loop is to be looked for before its last batch counts."""
        if not loop.source.ends_silently:
            return False
        tracked = self._engine.run.state.objects
        for loader in loop.loaders:
            if (name := tracked_part_of(loader, tracked)) is not None:
                hint = f", or let its state_dict() hold the state of {name}"
                self._engine.run.suspicions.add(
                    silent_end(loader, f"{name}, which is tracked, is part of it", hint)
                )
                return False
        return True

    def _fetched_ahead(
        self,
        loop: _Loop,
        total: int | None,
        iterator: Iterator[Any],
        witness: Witness | None,
        *,
        ends_step: bool,
    ) -> tuple[bool, Any]:
        """Fetch the batch after the one that is done before that counts: there may be none."""
        engine = self._engine
        if loop.source.ends_silently:
            engine.run.state.loop_sources.hold(loop.source, self._position.batch + 1)
        try:
            found, batch = self._next_batch(iterator, is_at_boundary=False)
        except Exception:
            self._note_samples(loop)
            engine.batch_done(ends_step=ends_step, is_last=False)
            raise
        if found and witness is not None:
            witness.arrived(batch)  # a drain at the boundary notes what is in it
        if found and total is not None:
            self._suspect_length(loop, total)
        return found, batch

    def _note_samples(self, loop: _Loop) -> None:
        if loop.indices:
            self._engine.run.state.note_samples(loop.indices.popleft())

    def _suspect_length(self, loop: _Loop, total: int) -> None:
        self._engine.run.suspicions.add(
            Reason(
                "wrong-length",
                type(loop.loaders[0]).__name__,
                f"has more batches than its len() of {total}: the next one was fetched too early",
                "correct its __len__",
            )
        )

    # ------------------------------------------------------------------ evaluation

    def _evaluated_batches(self, source: Source, which: Pass, *, is_numbered: bool) -> Iterator[Any]:
        engine = self._engine
        engine.begin_evaluation()
        iterator = source.iterate(which, 0, engine.hears_drain)
        number = 0
        while True:
            found, batch = self._next_batch(iterator)
            if not found:
                break
            yield (number, batch) if is_numbered else batch
            number += 1
            engine.evaluation_batch_done()
        engine.run.link.beat(Phase.STEP)

    def _number_of_evaluation(self) -> int:
        """Count the evaluations since the batch they come after.

        An attempt that comes by there again counts the same.
        """
        after = self._position.key()[1:]
        number = self._evaluated[1] if self._evaluated[0] == after else 0
        self._evaluated = (after, number + 1)
        return number

    # ------------------------------------------------------------------ sources

    def _pass(self, loop: _Loop) -> Pass:
        position, resume = self._position, self._engine.run.resume
        if loop.is_replayed:
            plan = ShardPlan(loop.place.rank, loop.place.size)
        else:
            # Where the loop goes on, if it is the one that was interrupted and has not begun.
            at = (resume.position if resume.is_pending and not loop.has_begun else position).copied()
            at.shard_over(loop.place.size)
            plan = ShardPlan(loop.place.rank, loop.place.size, at.resharded_at, at.resharded_after)
        return Pass((TRAINING, position.loop), position.epoch, plan, loop.indices)

    def _left(self, loop: _Loop) -> int | None:
        """Return how many batches of a loop are left, None if that is not known."""
        engine, position = self._engine, self._position
        if loop.has_begun and self._in_hand is not loop:
            return 0
        done, resume = position.batch + (self._in_hand is loop), engine.run.resume
        if resume.is_pending and not loop.has_begun:
            if resume.has_finished_loop():
                return 0
            done = resume.position.batch
        total = loop.source.length(self._pass(loop))
        if total is None:
            return None
        if engine.max_steps is not None:
            steps_left = max(engine.max_steps - position.step, 0)
            total = min(total, done - done % loop.accumulate + steps_left * loop.accumulate)
        return max(total - done, 0)

    def _sources_of(self, loaders: tuple[Any, ...]) -> list[Source]:
        """Return the source of each loader, made at its first use."""
        if not loaders:
            raise UserError("batches() needs a loader")
        seed, epoch = self._engine.run.state.seed, self._position.epoch
        return [self._sources.source(loader, seed=seed, epoch=epoch) for loader in loaders]

    def _warn_once(self, message: str) -> None:
        if message not in self._warned:
            self._warned.add(message)
            warnings.warn(f"trainerd: {message}", stacklevel=3)


def _in_step(sources: list[Source]) -> Source:
    return sources[0] if len(sources) == 1 else ZippedSource(sources)


def _are_same(one: tuple[int, tuple[Any, ...]], other: tuple[int, tuple[Any, ...]]) -> bool:
    """Tell whether two series are of one epoch and of the very same loaders."""
    return one[0] == other[0] and list(map(id, one[1])) == list(map(id, other[1]))
