"""One run of a drill: its folders, its attempts, and what they left behind."""

from __future__ import annotations

import dataclasses
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from trainerd.checkpoint.store import CheckpointStore
from trainerd.contract import rehearsal
from trainerd.contract.environment import COMPILED_DIR
from trainerd.contract.metric_history import read_history
from trainerd.contract.paths import RunPaths
from trainerd.contract.rehearsal import Rehearsal, RehearsalNotes, Strike
from trainerd.contract.resume_record import read_resume
from trainerd.contract.save_journal import CHECKPOINTERS_NAME, SaveEvent, read_events
from trainerd.drill.drill_attempt import DrillAttempt, run_attempt
from trainerd.drill.drilled_job import cadence, loggers_aside
from trainerd.drill.run_comparison import Boundary, RunTrace
from trainerd.drill.work_copy import copy_work
from trainerd.supervisor.attempt.launch_record import launch_record

if TYPE_CHECKING:
    from collections.abc import Callable

    from trainerd.checkpoint.committed import Checkpoint
    from trainerd.contract.heartbeat import Heartbeat
    from trainerd.contract.resolved import ResolvedJob
    from trainerd.contract.verdict import Reason

PROBE_EVERY_STEPS: Final = 1_000_000
"""The probe saves nothing by its cadence."""


@dataclass(frozen=True)
class RunPlaces:
    """Where the runs of a drill go.

    Attributes:
        root: A folder for this drill alone.
        is_in_place: Whether the job runs in its real working folder.
        linked: Absolute paths in the working folder that are linked into the copies.
        keeps: Whether the folders of runs stay.
    """

    root: Path
    is_in_place: bool = False
    linked: tuple[Path, ...] = ()
    keeps: bool = False


def checkpoints_by_boundary(store: CheckpointStore) -> dict[Boundary, Checkpoint]:
    """Return checkpoints by their boundaries, the oldest first; of several at one, the newest."""
    found: dict[Boundary, Checkpoint] = {}
    for checkpoint in store.checkpoints():
        manifest = checkpoint.manifest
        key = (manifest.step, manifest.epoch, manifest.batch, manifest.is_final)
        found.pop(key, None)
        found[key] = checkpoint
    return found


class DrilledRun:
    """One run of the job.

    Args:
        job: What is drilled.
        places: Where the runs go.
        name: Name of this run.
        every_steps: It makes a checkpoint every so many steps.
        stop_step: It is drained once so many steps are done; None runs to its end.
        saves_alone: Whether the job opens no session: it has Checkpointers alone.

    Attributes:
        folder: Its folder, with its run folder and its copy of the working folder.
        evaluated: Whether an attempt was in an evaluation that the session drives.
    """

    def __init__(
        self,
        job: ResolvedJob,
        places: RunPlaces,
        name: str,
        *,
        every_steps: int = PROBE_EVERY_STEPS,
        stop_step: int | None = None,
        saves_alone: bool = False,
    ) -> None:
        self.evaluated = False
        self._saves_alone = saves_alone
        self.folder = places.root / name
        self._run = RunPaths(self.folder / "run")
        self._keeps = places.keeps
        self._loggers = loggers_aside(self.folder / "loggers")
        self._variables = cadence(every_steps) | self._loggers
        self._stop_step = stop_step
        self._attempts = 0
        self._run.root.mkdir(parents=True)
        (self.folder / "loggers").mkdir()
        work = Path(job.workdir)
        if not places.is_in_place:
            work = self.folder / "beside" / work.name
            copy_work(Path(job.workdir), work, linked=places.linked)
        self._job = dataclasses.replace(job, workdir=str(work))

    def attempt(
        self,
        *strikes: Strike,
        limit_s: float,
        patience_s: float = 0.0,
        changes_workers: bool = False,
        traced_step: int | None = None,
        ranks: int | None = None,
        is_enough: Callable[[Heartbeat, float], bool] | None = None,
        is_saved_enough: Callable[[], bool] | None = None,
    ) -> DrillAttempt:
        """Run the next attempt; it is stopped at the last step of the drill if it comes so far."""
        self._attempts += 1
        if self._stop_step is not None:
            stop = Strike("stop", "save", self._stop_step)
            strikes = (*strikes, stop if self._saves_alone else Strike("drain", "step", self._stop_step))
        asked = Rehearsal(str(self.folder), strikes, changes_workers, traced_step)
        job = self._job if ranks is None else dataclasses.replace(self._job, nproc=ranks)
        launch = launch_record(job, self._run, self._attempts, environ=os.environ)
        # All runs of a drill share what is compiled: another choice of a kernel may change bits.
        variables = self._variables | {
            rehearsal.VARIABLE: rehearsal.to_variable(asked),
            COMPILED_DIR: str(self.folder.parent / "compiled"),
        }
        command = launch.command
        if job.env_file is not None:
            # Its variables win over those of the record: a logger could be led to the real runs.
            command = (
                "/usr/bin/env",
                *(f"{name}={value}" for name, value in self._loggers.items()),
                *command,
            )
        launch = dataclasses.replace(launch, command=command, env=launch.env | variables, uses_cgroup=False)
        paths = self._run.attempt(self._attempts)
        number = self._attempts
        end = run_attempt(
            paths,
            launch,
            limit_s=limit_s,
            patience_s=patience_s,
            is_enough=is_enough,
            saves=lambda: self.events(number),
            is_saved_enough=is_saved_enough,
            was_struck=lambda: rehearsal.was_killed(self.folder, number),
        )
        self.evaluated = self.evaluated or end.evaluated
        return end

    # ------------------------------------------------------------------ what it left

    @property
    def steps(self) -> int:
        """Steps that its newest checkpoint has."""
        return self._newest()[0]

    @property
    def epochs(self) -> int:
        """Epochs that its newest checkpoint has."""
        return self._newest()[1]

    def _newest(self) -> Boundary:
        return next(reversed(self.checkpoints()), (0, 0, 0, False))

    @property
    def is_finished(self) -> bool:
        """Whether it ran to its end."""
        return self._run.finished.exists()

    def is_at_stop(self) -> bool:
        """Tell whether it has come to the step at which the drill stops it."""
        return self._stop_step is not None and self.steps >= self._stop_step

    def trace(self) -> RunTrace:
        """Return what is compared of it besides the state."""
        history = read_history(self._run.metrics)
        return RunTrace(history.rows, history.reports, tuple(self.checkpoints()))

    def checkpoints(self) -> dict[Boundary, Checkpoint]:
        """Return its checkpoints by their boundaries, the oldest first; of several at one, the newest."""
        return checkpoints_by_boundary(CheckpointStore.of_run(self._run))

    def checkpointers(self) -> tuple[CheckpointStore, ...]:
        """Return the folders into which Checkpointers of the script saved, in the order of their names."""
        folder = self.folder / CHECKPOINTERS_NAME
        return tuple(CheckpointStore(each) for each in sorted(folder.iterdir())) if folder.is_dir() else ()

    def events(self, attempt: int | None = None) -> tuple[SaveEvent, ...]:
        """Return what the Checkpointers of one attempt did, or of all."""
        found = read_events(self.folder)
        return found if attempt is None else tuple(each for each in found if each.attempt == attempt)

    def notes(self) -> RehearsalNotes:
        """Return what its session noted."""
        return rehearsal.read_notes(self.folder)

    def changed_workers(self) -> bool:
        """Tell whether a loader got another number of workers."""
        return (self.folder / rehearsal.WORKERS_NAME).exists()

    def reasons(self) -> tuple[Reason, ...]:
        """Return what the session of its newest resume suspected or found."""
        record = read_resume(self._run.resume)
        return record.reasons if record is not None else ()

    def remove(self) -> None:
        """Remove its folders, unless they are to stay."""
        if not self._keeps:
            shutil.rmtree(self.folder, ignore_errors=True)
