"""The heartbeat: one page of shared memory a rank, in a file of the attempt's folder.

Writing it costs about a microsecond and no system call, so a rank can beat on every step. The page is guarded
by a sequence number that is odd while it is being written (a seqlock); a reader that sees it odd or changed
reads again, and one that never gets a quiet moment says that it does not know.

Layout, little-endian: magic ``TRNDHB01``, sequence u64, then the fields of `Heartbeat` in order. The longest
silences and what follows them were added later: a page without them has zeros there, which say that nothing
is known.
"""

from __future__ import annotations

import enum
import math
import mmap
import os
import struct
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from trainerd.contract.regular_file import NotRegularError, open_regular

if TYPE_CHECKING:
    from pathlib import Path

PAGE_BYTES: Final = 4096
_MAGIC: Final = b"TRNDHB01"
_HEAD: Final = struct.Struct("<8sQ")
_BODY: Final = struct.Struct("<IIqqqqqqqdqqq")
_LATER: Final = struct.Struct("<6d6dddqd")
_LATER_OFFSET: Final = _HEAD.size + _BODY.size
_SEQUENCE: Final = struct.Struct("<Q")
_READ_TRIES: Final = 100
_UNKNOWN: Final = -1


class Phase(enum.IntEnum):
    """What a rank is doing."""

    START = 0
    STEP = 1
    EVALUATION = 2
    CHECKPOINT = 3
    DRAIN = 4
    END = 5


@dataclass(frozen=True)
class Heartbeat:
    """What a rank last said.

    Attributes:
        phase: What it is doing.
        beats: How often it has beaten: moves even where `step` does not, as in evaluation.
        step: Steps finished, over all attempts.
        epoch: Epoch in progress, from 0.
        epochs: Epochs planned, -1 if unknown.
        batch: Batches finished in this epoch.
        batches: Batches in this epoch, -1 if unknown.
        checkpoint_step: Step of the newest checkpoint, -1 if there is none.
        loss: Last value logged under the name ``loss``, NaN if none was.
        saves: Checkpoints committed by this attempt.
        resumed_step: Step at which this attempt began, -1 before that is known.
        beat_monotonic_ns: When, by CLOCK_MONOTONIC, which all processes of a boot share.
        longest_silences_s: Longest time between two beats of this attempt, in seconds, by what it was `doing`
            meanwhile: one number a `Phase`. What a stall is told from.
        spent_s: Time between the beats of this attempt, in seconds, by what it was `doing` meanwhile.
        repeated_s: The part of the time of steps that went into steps which an earlier attempt had done.
        opened_wall_s: When the first session opened the page, seconds since the epoch; 0 if unknown.
        furthest_step: Step that the attempts before this one had reached.
        last_save_s: How long the newest save took until it was durable, in seconds; 0 before the first.
    """

    phase: Phase = Phase.START
    beats: int = 0
    step: int = 0
    epoch: int = 0
    epochs: int = _UNKNOWN
    batch: int = 0
    batches: int = _UNKNOWN
    checkpoint_step: int = _UNKNOWN
    loss: float = math.nan
    saves: int = 0
    resumed_step: int = _UNKNOWN
    beat_monotonic_ns: int = 0
    longest_silences_s: tuple[float, ...] = (0.0,) * len(Phase)
    spent_s: tuple[float, ...] = (0.0,) * len(Phase)
    repeated_s: float = 0.0
    opened_wall_s: float = 0.0
    furthest_step: int = 0
    last_save_s: float = 0.0

    @property
    def doing(self) -> Phase:
        """What it is doing, the first step of an attempt counted to its start.

        Compilers and caches warm up in it.
        """
        return _doing(self.phase, self.step, self.resumed_step)


def _doing(phase: Phase, step: int, resumed_step: int) -> Phase:
    is_starting = resumed_step < 0 or step <= resumed_step
    return Phase.START if phase is Phase.STEP and is_starting else phase


class HeartbeatWriter:
    """Writes one rank's page. Not for use from several threads.

    A page that an earlier session of the same attempt has left goes on: its times are kept.

    Args:
        path: The page.
        furthest_step: Step that earlier attempts had reached: steps until then are repeated.
    """

    def __init__(self, path: Path, *, furthest_step: int = 0) -> None:
        earlier = _earlier(path)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            # Not sparse: touching a hole on a full disk is a SIGBUS, and here an error.
            os.posix_fallocate(descriptor, 0, PAGE_BYTES)
            self._page = mmap.mmap(descriptor, PAGE_BYTES)
        finally:
            os.close(descriptor)
        self._sequence = 0
        self._beats = 0
        self._beat_ns = time.monotonic_ns()
        self._doing = Phase.START
        self._silences_s = [0.0] * len(Phase)
        self._spent_s = list(earlier.spent_s)
        self._repeated_s = earlier.repeated_s
        self._opened_wall_s = earlier.opened_wall_s or time.time()
        self._furthest_step = furthest_step
        self._is_repeating = False
        if earlier.opened_wall_s:  # between two sessions
            self._spent_s[Phase.START] += max(self._beat_ns - earlier.beat_monotonic_ns, 0) / 1e9
        _HEAD.pack_into(self._page, 0, _MAGIC, 0)

    def beat(
        self,
        phase: Phase,
        *,
        step: int,
        epoch: int,
        epochs: int,
        batch: int,
        batches: int,
        checkpoint_step: int,
        loss: float,
        saves: int,
        resumed_step: int,
        last_save_s: float = 0.0,
    ) -> None:
        """Publish. The sequence number is odd in between, so no reader sees half of it."""
        now_ns = time.monotonic_ns()
        silence_s = (now_ns - self._beat_ns) / 1e9
        was_doing = self._doing
        self._silences_s[was_doing] = max(self._silences_s[was_doing], silence_s)
        self._spent_s[was_doing] += silence_s
        if self._is_repeating and was_doing is Phase.STEP:
            self._repeated_s += silence_s
        self._beat_ns, self._doing = now_ns, _doing(phase, step, resumed_step)
        self._is_repeating = step < self._furthest_step
        self._beats += 1
        self._sequence += 2
        _SEQUENCE.pack_into(self._page, 8, self._sequence - 1)
        _BODY.pack_into(
            self._page,
            _HEAD.size,
            phase,
            0,
            self._beats,
            step,
            epoch,
            epochs,
            batch,
            batches,
            checkpoint_step,
            loss,
            saves,
            resumed_step,
            now_ns,
        )
        _LATER.pack_into(
            self._page,
            _LATER_OFFSET,
            *self._silences_s,
            *self._spent_s,
            self._repeated_s,
            self._opened_wall_s,
            self._furthest_step,
            last_save_s,
        )
        _SEQUENCE.pack_into(self._page, 8, self._sequence)

    def close(self) -> None:
        self._page.close()


def read_heartbeat(path: Path) -> Heartbeat | None:
    """Read a rank's page.

    None is *unknown*: no page yet, no quiet moment to read it in, or a page that no rank can have written.

    Raises:
        OSError: The page could not be looked at: unknown likewise, never a sign of death.
    """
    try:
        descriptor = open_regular(path)
    except (FileNotFoundError, NotRegularError):
        return None
    try:
        for _ in range(_READ_TRIES):
            data = os.pread(descriptor, PAGE_BYTES, 0)
            if len(data) < _HEAD.size + _BODY.size:
                return None
            magic, sequence = _HEAD.unpack_from(data)
            if magic != _MAGIC or sequence == 0:
                return None
            if sequence % 2 == 0 and sequence == _sequence_now(descriptor):
                return _decoded(data)
    finally:
        os.close(descriptor)
    return None


def _earlier(path: Path) -> Heartbeat:
    """Return what an earlier session of the attempt has left, the times of none if there is no such page."""
    try:
        beat = read_heartbeat(path)
    except OSError:
        beat = None
    return beat if beat is not None else Heartbeat()


def _decoded(data: bytes) -> Heartbeat | None:
    phase, _, *fields = _BODY.unpack_from(data, _HEAD.size)
    is_long = len(data) >= _LATER_OFFSET + _LATER.size
    later = _LATER.unpack_from(data, _LATER_OFFSET) if is_long else (0.0,) * 14 + (0, 0.0)
    if phase >= len(Phase) or not all(0.0 <= number < math.inf for number in later):
        return None
    count = len(Phase)
    return replace(
        Heartbeat(Phase(phase), *fields),
        longest_silences_s=later[:count],
        spent_s=later[count : 2 * count],
        repeated_s=later[-4],
        opened_wall_s=later[-3],
        furthest_step=later[-2],
        last_save_s=later[-1],
    )


def _sequence_now(descriptor: int) -> int:
    data = os.pread(descriptor, _HEAD.size, 0)
    return int(_HEAD.unpack(data)[1]) if len(data) == _HEAD.size else -1
