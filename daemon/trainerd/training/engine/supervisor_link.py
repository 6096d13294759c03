"""What a rank tells the supervisor, and what the supervisor asks of it: two pages of shared memory."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from trainerd.contract.durable import translated_space_errors
from trainerd.contract.environment import ATTEMPT_ID
from trainerd.contract.heartbeat import HeartbeatWriter
from trainerd.contract.reached_before import furthest_step_before
from trainerd.contract.request_page import RequestPage
from trainerd.contract.session_record import SessionRecord, close_session, register_session, shim_pid_of

if TYPE_CHECKING:
    from trainerd.contract.heartbeat import Phase
    from trainerd.contract.paths import AttemptPaths
    from trainerd.training.engine.checkpoint_manager import CheckpointManager
    from trainerd.training.engine.measurements import Measurements
    from trainerd.training.engine.position import Position

UNKNOWN: Final = -1
"""A number that is not known, in the heartbeat."""


class SupervisorLink:
    """Heartbeat and requests of one rank. Without a supervisor they are there as well: others read them.

    Args:
        paths: Folder of the attempt.
        rank: This rank.
        position: Boundary crossed last.
        checkpoints: What is saved.
        measurements: Loss of the newest step.

    Attributes:
        epochs: How many epochs the run has, `UNKNOWN` if that is not known.
        batches: How many batches the loop in progress has, `UNKNOWN` if that is not known.
        resumed_step: Step that this attempt began at, `UNKNOWN` before that.
    """

    def __init__(
        self,
        paths: AttemptPaths,
        *,
        rank: int,
        position: Position,
        checkpoints: CheckpointManager,
        measurements: Measurements,
    ) -> None:
        self.epochs = self.batches = self.resumed_step = UNKNOWN
        self._paths = paths
        self._rank = rank
        self._position = position
        self._lineage = checkpoints.lineage
        self._sequence = checkpoints.sequence
        self._measurements = measurements
        self._heartbeat: HeartbeatWriter | None = None
        self._requests: RequestPage | None = None
        self._session: SessionRecord | None = None

    def open(self) -> None:
        """Make the pages, and register this process as one that trains: it must hear signals already.

        Raises:
            SpaceError: There is no room for them.
        """
        with translated_space_errors(self._paths.root):
            # What an earlier session of this attempt said about its end is not about this one.
            self._paths.outcome(self._rank).unlink(missing_ok=True)
            self._heartbeat = HeartbeatWriter(
                self._paths.heartbeat(self._rank),
                furthest_step=furthest_step_before(self._paths, rank=self._rank),
            )
            self._requests = RequestPage(self._paths.requests)
            shim_pid = shim_pid_of(os.environ.get(ATTEMPT_ID, ""))
            self._session = register_session(self._paths, rank=self._rank, shim_pid=shim_pid)

    def beat(self, phase: Phase) -> None:
        """Tell what this rank does now, and how far it is."""
        if self._heartbeat is None:
            return
        position, newest = self._position, self._lineage.newest
        self._heartbeat.beat(
            phase,
            step=position.step,
            epoch=position.epoch,
            epochs=self.epochs,
            batch=position.batch,
            batches=self.batches,
            checkpoint_step=newest.step if newest else UNKNOWN,
            loss=self._measurements.last_loss,
            saves=self._sequence.saves,
            resumed_step=self.resumed_step,
            last_save_s=self._sequence.last_save_s,
        )

    def takes_checkpoint_request(self) -> bool:
        """Tell whether a checkpoint was asked for since the last call."""
        return self._requests is not None and self._requests.take_checkpoint_request()

    @property
    def hears_requests(self) -> bool:
        """Whether a shim is there that asks for a stop on the request page too."""
        return shim_pid_of(os.environ.get(ATTEMPT_ID, "")) is not None

    def stop_signal(self) -> int | None:
        """Return the number of the signal by which the page asks for a stop, None if it does not."""
        return self._requests.stop_signal() if self._requests is not None else None

    def close(self) -> None:
        if self._session is not None:
            close_session(self._paths, self._session)
            self._session = None
        for page in (self._heartbeat, self._requests):
            if page is not None:
                page.close()
