"""Writes snapshots: periodic ones in the background from a warm arena, urgent ones at once from live memory.

Invariants:
    At most one write is in flight, and besides it one of what is staged to another destination, which is
    called off for anything else. What needs the arena waits for it, and for its preparation.
    What a background write raises is raised by the next call that meets it, never lost.
    A checkpoint is committed only if its tensors arrived in host memory unchanged from their devices. After
    the first time that one did not, copies are blocking ones, and a newer save takes its place; after the
    second, the error is raised.
    Only one thread at a time touches the store.
"""

from __future__ import annotations

import contextlib
import threading
import time
import warnings
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from trainerd.checkpoint.side_thread import KeptThread
from trainerd.errors import DeviceCopyError, SpaceError
from trainerd.training.state.rank_files import encode_document, tensors_name, tree_name
from trainerd.training.state.snapshot import DOCUMENT_BYTES_MAX
from trainerd.training.writing.device_copy import CUDA, Runtime, damage_error
from trainerd.training.writing.direct_file import AbandonedError, write_direct
from trainerd.training.writing.staging_buffer import Arena, Filling, ImageLayout
from trainerd.training.writing.streaming import Ring, streamed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from trainerd.checkpoint.manifest import Manifest
    from trainerd.checkpoint.store import Checkpoint
    from trainerd.training.state.snapshot import Snapshot
    from trainerd.training.writing.destination import Destination

HOLD_LIMIT_S: Final = 2.0
"""How long work in the background waits for the first step, in seconds."""


@dataclass
class StagedSnapshot:
    """A snapshot in the arena: copied, not written yet."""

    document: dict[str, Any]
    filling: Filling

    @property
    def size_bytes(self) -> int:
        """How much room its files take, to the safe side, in bytes."""
        return self.filling.image.size + DOCUMENT_BYTES_MAX


@dataclass
class _InFlight:
    future: Future[Checkpoint]
    uses_arena: bool = True
    is_released: threading.Event = field(default_factory=threading.Event)
    is_called_off: threading.Event = field(default_factory=threading.Event)


@dataclass
class _Aside:
    is_called_off: threading.Event
    has_ended: threading.Event = field(default_factory=threading.Event)


class CheckpointWriter:
    """Turns snapshots into the files of checkpoints.

    Args:
        destination: Where the files go, and what makes them a checkpoint. Used by the thread that writes.
        runtime: Of the devices on which tensors may be.
    """

    def __init__(self, destination: Destination, *, runtime: Runtime = CUDA) -> None:
        self._destination = destination
        self._runtime = runtime
        self._arena = Arena(runtime)
        self._ring = Ring()
        self._in_flight: _InFlight | None = None
        self._aside: _Aside | None = None
        self._preparation: threading.Thread | None = None
        self._thread = KeptThread("trainerd-write")
        self._has_forgiven = False

    @property
    def is_busy(self) -> bool:
        """Whether a write is in flight."""
        return self._in_flight is not None and not self._in_flight.future.done()

    @property
    def is_writing_aside(self) -> bool:
        """Whether a write of `write_aside` is in flight."""
        return self._aside is not None and not self._aside.has_ended.is_set()

    @property
    def is_preparing(self) -> bool:
        """Whether memory is being provided: the next save or copy would wait for it."""
        return self._preparation is not None and self._preparation.is_alive()

    @property
    def has_failed(self) -> bool:
        """Whether the last background write has failed, and no call has raised it yet: `wait` raises why."""
        flight = self._in_flight
        return flight is not None and flight.future.done() and flight.future.exception() is not None

    def prepare(self, snapshot: Snapshot) -> None:
        """Get the memory ready in another thread, so that the first save costs no more than the others.

        Does nothing while a write is in flight: it uses an arena that is there already.
        """
        uses_arena = self._in_flight is not None and self._in_flight.uses_arena
        if (self.is_busy and uses_arena) or self._preparation is not None:
            return
        self._thread.start()

        def work() -> None:
            self._runtime.ignore_captures_of_others()
            self._arena.prepare(snapshot)
            self._ring.prepare(snapshot.predicted_bytes)

        self._preparation = threading.Thread(target=work, name="trainerd-prepare", daemon=True)
        self._preparation.start()

    def stage(self, snapshot: Snapshot) -> StagedSnapshot:
        """Copy a snapshot into the arena; the live tensors may change at once.

        Waits for a write in flight.
        """
        self._wait_for_arena()
        return StagedSnapshot(snapshot.document, self._arena.fill(snapshot))

    def write_staged(self, staged: StagedSnapshot, manifest: Manifest) -> Checkpoint:
        """Write what is staged, and return when it is durable.

        Waits for work in the background that began since, and raises what that raised.

        Raises:
            DeviceCopyError: A device tensor arrived damaged. What is staged is worthless.
        """
        self.wait()
        self.call_off_aside()
        filling = staged.filling
        return self._write(
            staged.document, filling.image, filling.pieces(), manifest, damaged=filling.damaged
        )

    def write_aside(
        self,
        staged: StagedSnapshot,
        manifest: Manifest,
        destination: Destination,
        on_end: Callable[[BaseException | None, float], None],
        *,
        called_off: threading.Event | None = None,
    ) -> None:
        """Write what is staged to another destination too, in the background.

        It is called off by whatever uses the arena next, and by every write to the destination of the writer.

        Args:
            staged: What to write. It stays staged.
            manifest: Manifest of it.
            destination: Where it goes.
            on_end: Called from the thread that writes, with the error that ended it, None if all went well,
                and how much processor time it took in seconds: what it waited for cost the loop nothing.
            called_off: Set once it is called off, for a destination that waits.
        """
        self.call_off_aside()
        flight = _Aside(called_off or threading.Event())

        def work() -> None:
            self._runtime.ignore_captures_of_others()
            began_s = time.thread_time()
            problem: BaseException | None = None
            try:
                self._write_copy(staged, manifest, flight.is_called_off, destination)
            except BaseException as error:  # noqa: BLE001 - told to who asked for it
                problem = error
            try:
                on_end(problem, time.thread_time() - began_s)
            finally:
                flight.has_ended.set()

        self._aside = flight
        self._thread.run(work)

    def call_off_aside(self) -> None:
        """Stop a write of `write_aside`, if it has not come too far, and wait for its end."""
        flight, self._aside = self._aside, None
        if flight is not None:
            flight.is_called_off.set()
            flight.has_ended.wait()

    def write_and_wait(self, snapshot: Snapshot, manifest: Manifest) -> Checkpoint:
        """Copy a snapshot, write it, and return when it is durable.

        A copy that arrives damaged is made once more.

        Raises:
            DeviceCopyError: A device tensor arrived damaged twice.
        """
        try:
            return self.write_staged(self.stage(snapshot), manifest)
        except DeviceCopyError as error:
            self._forgive(error)
            return self.write_staged(self.stage(snapshot), manifest)

    def supersede(self) -> bool:
        """Wait for the write in flight, which a newer one is about to follow.

        Returns:
            Whether the write failed because a device tensor arrived damaged, for the first time. That is a
            warning: the newer save takes its place, with blocking copies.

        Raises:
            DeviceCopyError: A device tensor arrived damaged, and not for the first time; or this is one of
                several ranks, whose others cannot know that a save is to be repeated.
            SpaceError: The disk was full.
            OSError: The write failed.
        """
        try:
            self.wait()
        except DeviceCopyError as error:
            self._forgive(error)
            return True
        return False

    def _forgive(self, error: DeviceCopyError) -> None:
        if self._has_forgiven or self._destination.is_joint:
            raise error
        self._has_forgiven = True
        warnings.warn(
            f"trainerd: {error.message}; the save is made again now, with blocking copies", stacklevel=2
        )

    def write_in_background(self, snapshot: Snapshot, manifest: Manifest) -> None:
        """Copy a snapshot and write it in another thread.

        Waits for a write in flight, and raises what that raised.

        The write begins with what is copied first, while the rest is still being copied. Hashing waits for
        the copy: it would take memory bandwidth and a core from what the loop is waiting for.
        """
        self._wait_for_arena()
        filling, copy = self._arena.begin(snapshot)
        staged, flight = StagedSnapshot(snapshot.document, filling), _InFlight(Future())

        def work() -> None:
            if not flight.future.set_running_or_notify_cancel():
                return
            self._runtime.ignore_captures_of_others()
            try:
                checkpoint = self._write_copy(staged, manifest, flight.is_called_off, self._destination)
            except BaseException as error:  # noqa: BLE001 - raised by what waits
                flight.future.set_exception(error)
            else:
                flight.future.set_result(checkpoint)

        # A signal handler may raise at any place here: a loader does when a worker of its own dies. Then
        # no thread copies any more, and those that wait for what is copied must be told.
        try:
            self._in_flight = flight
            self._thread.run(work)
            copy()
        except BaseException:
            filling.give_up()
            if flight.future.cancel():
                self._in_flight = None
            self.call_off()
            raise

    def run_in_background(self, work: Callable[[], Checkpoint]) -> None:
        """Make a checkpoint from something other than a snapshot, in the thread that writes.

        It begins at `release`, when something waits for it, or after `HOLD_LIMIT_S`: it takes a core and
        memory bandwidth from the beginning of training. It counts as a write in flight that cannot be called
        off. Waits for the one before, and raises what that raised.
        """
        self.supersede()
        self.call_off_aside()
        flight = _InFlight(Future(), uses_arena=False)

        def run() -> None:
            flight.is_released.wait(HOLD_LIMIT_S)
            try:
                checkpoint = work()
            except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
                flight.future.set_exception(error)
            else:
                flight.future.set_result(checkpoint)

        self._in_flight = flight
        self._thread.run(run)

    def release(self) -> None:
        """Have what `run_in_background` was given begin now."""
        if self._in_flight is not None:
            self._in_flight.is_released.set()

    def _wait_for_arena(self) -> None:
        self.supersede()
        self.call_off_aside()
        if self._preparation is not None:
            self._preparation.join()
            self._preparation = None

    def write_now(self, snapshot: Snapshot, manifest: Manifest) -> Checkpoint:
        """Write live memory, and return when it is durable. A write in flight that is older is called off.

        Raises:
            DeviceCopyError: A device tensor arrived damaged twice.
        """
        self.drop()
        image, pieces = streamed(snapshot, self._ring, self._runtime)
        return self._write(snapshot.document, image, pieces, manifest, is_urgent=True)

    def wait(self) -> Checkpoint | None:
        """Wait for the write in flight and return what it wrote, None if there was none.

        Raises:
            SpaceError: The disk was full.
            OSError: The write failed.
            DeviceCopyError: A device tensor arrived damaged.
        """
        self.release()
        flight, self._in_flight = self._in_flight, None
        return flight.future.result() if flight is not None else None

    def close(self) -> None:
        """Wait as `wait` does, end the thread that writes, and give the memory back."""
        try:
            self.call_off_aside()
            self.wait()
        finally:
            self._thread.close()
            if self._preparation is not None:
                self._preparation.join()
                self._preparation = None
            self._arena.release()

    def call_off(self) -> Checkpoint | None:
        """Stop the write in flight, if it has not come too far; return what it wrote if it has."""
        if self._in_flight is None:
            return None
        self._in_flight.is_called_off.set()
        try:
            return self.wait()
        except AbandonedError:
            return None

    def drop(self) -> None:
        """Call off the write in flight for a newer one, which says itself if it fails too."""
        self.call_off_aside()
        with contextlib.suppress(OSError, SpaceError, DeviceCopyError):
            self.call_off()

    def _write_copy(
        self,
        staged: StagedSnapshot,
        manifest: Manifest,
        is_called_off: threading.Event,
        destination: Destination,
    ) -> Checkpoint:
        """Write what is in the arena, or still on its way there, from the thread that writes."""
        filling = staged.filling
        return self._write(
            staged.document,
            filling.image,
            filling.pieces(),
            manifest,
            is_called_off=is_called_off.is_set,
            wait_to_digest=filling.wait,
            damaged=filling.damaged,
            destination=destination,
        )

    def _write(
        self,
        document: dict[str, Any],
        image: ImageLayout,
        pieces: Iterator[memoryview],
        manifest: Manifest,
        *,
        is_called_off: Callable[[], bool] = lambda: False,
        wait_to_digest: Callable[[], object] | None = None,
        damaged: Callable[[], list[str]] = list,
        is_urgent: bool = False,
        destination: Destination | None = None,
    ) -> Checkpoint:
        destination = destination or self._destination
        rank, part = destination.rank, destination.begin(manifest)
        try:
            path = part.staging.path / tensors_name(rank)
            with part.staging.fence_noticed():
                entry = write_direct(
                    path, pieces, image.size, is_called_off=is_called_off, wait_to_digest=wait_to_digest
                )
            self._check_arrivals(damaged())
            part.staging.add(entry)
            part.staging.write(tree_name(rank), [encode_document(document)])
            return destination.commit(part, manifest, is_urgent=is_urgent)
        except BaseException:
            part.abandon()
            raise

    def _check_arrivals(self, damaged: list[str]) -> None:
        """Have later copies be blocking ones, if any of these arrived damaged."""
        if damaged:
            self._arena.distrust()
            raise damage_error(damaged)
