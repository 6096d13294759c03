"""The witness of a drain: a digest of what the batch after the drained checkpoint contains.

No step is lost in a drain, so none is run again and compared. The witness takes its place: the drained run
notes the contents of the next batch beside the checkpoint, and the resumed run compares its first batch.

Invariants:
    A witness is made after the checkpoint is durable, and changes nothing in it.
    It never holds up a drain for longer than `LIMIT_S`, and an error in it ends nothing.
    The resumed run sees the batches that it would see without it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from trainerd.contract import codec
from trainerd.contract.durable import read_file, write_file
from trainerd.contract.verdict import Reason
from trainerd.errors import CorruptError, SpaceError
from trainerd.training.data.batch_content import content_digest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from trainerd.checkpoint.store import Checkpoint
    from trainerd.training.engine.position import Position

FORMAT: Final = "trainerd.witness/1"

LIMIT_S: Final = 1.0
"""How long a drain waits for the next batch and its digest, in seconds; then the process leaves without."""

BYTES_MAX: Final = 1 << 16

_NOTHING: Final = object()

Interruptible = Callable[[float, BaseException], "AbstractContextManager[None]"]


class WitnessTimeoutError(BaseException):
    """The next batch did not come in time. Never leaves this module.

    No `Exception`: datasets catch those, and go on to another sample.
    """


@dataclass(frozen=True)
class WitnessRecord:
    """What the batch after a checkpoint contains.

    Attributes:
        checkpoint: Name of the checkpoint.
        lineage: Its lineage: names come again after a rollback.
        step: Steps finished.
        epoch: Epoch in progress.
        loop: Training loop of the epoch.
        batch: Number of the batch in its loop.
        digest: Of its contents.
    """

    checkpoint: str
    lineage: str
    step: int
    epoch: int
    loop: int
    batch: int
    digest: str


class Witness:
    """Takes and compares witnesses for one attempt.

    Args:
        path: Of the record.
        position: Of the run.
        is_alone: Whether this is the only rank; several make no witness.
    """

    def __init__(self, path: Path, position: Position, *, is_alone: bool) -> None:
        self._path = path
        self._position = position
        self._is_alone = is_alone
        self._iterator: Iterator[Any] | None = None
        self._at_hand: Any = _NOTHING
        self._expected: WitnessRecord | None = None
        self._found: Callable[[Reason | None], None] = lambda _difference: None

    # ------------------------------------------------------------------ told by the loop that trains

    def begin_loop(self, iterator: Iterator[Any]) -> None:
        """A loop begins to draw its batches from `iterator`."""
        self._iterator = iterator

    def end_loop(self) -> None:
        """The loop is over or was left: its iterator, and so its workers, are let go of."""
        self._iterator = None

    def arrived(self, batch: Any) -> None:
        """A batch arrived, and the script does not have it yet."""
        self._at_hand = batch
        if self._expected is not None:
            self._compare(batch)

    def let_go(self) -> None:
        """The script gets the batch."""
        self._at_hand = _NOTHING

    # ------------------------------------------------------------------ at a resume

    def expect(self, checkpoint: Checkpoint, place: Position, found: Callable[[Reason | None], None]) -> bool:
        """Get ready to compare the next batch. Tell whether there is a witness of this checkpoint.

        Args:
            checkpoint: Resumed from.
            place: Its position.
            found: Told the difference, None if the batch has the contents that the witness says.
        """
        record = self._read()
        if not self._is_alone or record is None:
            return False
        if (record.checkpoint, record.lineage) != (checkpoint.name, checkpoint.manifest.lineage):
            return False
        if (record.step, record.epoch, record.loop, record.batch) != place.key():
            return False
        self._expected, self._found = record, found
        return True

    def _read(self) -> WitnessRecord | None:
        with contextlib.suppress(OSError, CorruptError, RecursionError):
            data = read_file(self._path, bytes_max=BYTES_MAX)
            return codec.from_json(data, WitnessRecord, FORMAT, source=self._path)
        return None

    def _compare(self, batch: Any) -> None:
        expected, self._expected = self._expected, None
        assert expected is not None
        if self._position.key() != (expected.step, expected.epoch, expected.loop, expected.batch):
            return
        digest = content_digest(batch)
        if digest is None:
            return
        where = f"epoch {expected.epoch}, batch {expected.batch}"
        detail = "the next batch has other contents than the drained run had at hand"
        self._found(None if digest == expected.digest else Reason("different-batch", where, detail))

    # ------------------------------------------------------------------ at a drain

    def take(self, checkpoint: Checkpoint | None, interruptible: Interruptible) -> None:
        """Note what the next batch contains, if it is at hand or comes in time.

        Args:
            checkpoint: The one that the drain made durable.
            interruptible: Ends its block by an exception once the time is over.
        """
        position = self._position
        if checkpoint is None or not self._is_alone or self._iterator is None:
            return
        manifest = checkpoint.manifest
        if (manifest.step, manifest.epoch, manifest.batch) != (position.step, position.epoch, position.batch):
            return  # what was saved is another boundary
        try:
            with interruptible(LIMIT_S, WitnessTimeoutError()):
                batch = next(self._iterator) if self._at_hand is _NOTHING else self._at_hand
                digest = content_digest(batch)
            if digest is not None:
                record = WitnessRecord(
                    checkpoint.name,
                    manifest.lineage,
                    position.step,
                    position.epoch,
                    position.loop,
                    position.batch,
                    digest,
                )
                write_file(self._path, codec.to_json(record, FORMAT))
        except (Exception, SpaceError, WitnessTimeoutError):  # noqa: BLE001 - the checkpoint is durable, and the process leaves in any case
            return
