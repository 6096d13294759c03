"""Ray Train: a session of a worker, which drains when Ray says that a node is about to be taken.

Ray runs the training loop in a thread that gets no signals. What it knows of a preemption is read twice a
second where Ray keeps it in the worker; `ray.train.get_preemption_info` says the same, but waits for all
workers at each call. All ranks drain at one boundary. Each leaves its function with the exception that Ray
itself raises for a worker whose node was taken: Ray starts all of them elsewhere, at once, and counts a
preemption and no failure.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import ray.train
from ray.exceptions import RayActorError

from trainerd.contract.exit_codes import DRAINED
from trainerd.errors import UserError
from trainerd.training.integrations.linked_folder import link_folder
from trainerd.training.session import Session, open_session

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from trainerd.checkpoint.store import Checkpoint
    from trainerd.training.settings import Settings

LOOK_S: Final = 0.5
"""How often a worker looks for a notice, in seconds. Ray itself asks its head every 5 s."""

PREEMPTED: Final = "Ray Train: preemption"
"""How the reason of a drain begins that Ray has announced: the same for all ranks."""

RUN_FOLDER: Final = "trainerd"
"""Name of the run folder in the folder of the experiment."""


def session(run_dir: str | Path | None = None, **settings: Any) -> RaySession:
    """Open a training session in the function that Ray Train runs in each worker.

    Args:
        run_dir: The run folder, on storage that all workers see; ``trainerd`` in the folder of the experiment
            if not given.
        settings: As `trainerd.session` takes them. The grace period begins with Ray's notice.

    Raises:
        UserError: This is no worker of Ray Train V2, the storage is no filesystem, or a setting cannot be
            read.
    """
    notice = _notice_of_worker()
    settings.setdefault("signals", False)
    return open_session(
        lambda found: RaySession(notice, found), run_dir or _folder_of_experiment(), **settings
    )


class RaySession(Session):
    """A session of a worker of Ray Train; see `Session`.

    Args:
        notice: Returns what Ray has told this worker of a preemption, None before that.
        settings: Settings of the session.
    """

    def __init__(self, notice: Callable[[], Any], settings: Settings) -> None:
        super().__init__(settings)
        self._run.exit.ends_with = _end_for_ray
        self._notice = notice
        self._is_watch_over = threading.Event()

    def __enter__(self) -> Self:
        super().__enter__()
        threading.Thread(target=self._watch, name="trainerd-ray", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_watch_over.set()
        super().__exit__(kind, error, trace)

    def hand_over(self) -> None:
        """Report the newest checkpoint to Ray, with its step, its epoch and its scores.

        To be called by all workers alike, such as at the beginning of each epoch and after the last one: Ray
        waits for all of them. The save in flight is waited for first. A checkpoint that Ray has is not
        reported twice; the others report nothing but that they were here.

        Raises what the save in flight raised.
        """
        self._check_open()
        newest = self._run.saves.wait()
        name = _name_for_ray(newest) if newest is not None else ""
        if newest is None or self.rank != 0 or _is_known(name):
            ray.train.report({})
            return
        manifest = newest.manifest
        ray.train.report(
            {**manifest.scores, "step": newest.step, "epoch": manifest.epoch},
            checkpoint=ray.train.Checkpoint.from_directory(newest.path),
            checkpoint_dir_name=name,
            checkpoint_upload_fn=_linked,
        )

    def _watch(self) -> None:
        while not self._is_watch_over.wait(LOOK_S):
            if (notice := self._notice()) is not None:
                ranks = ", ".join(map(str, notice.preempted_ranks))
                self.ask_to_stop(f"{PREEMPTED} of the node of rank {ranks}")
                return


def _notice_of_worker() -> Callable[[], Any]:
    try:
        from ray.train.v2._internal.execution.context import get_train_context

        place = get_train_context().preemption_context
        place.preemption_info  # noqa: B018 - whether this version has it
    except (ImportError, AttributeError, RuntimeError) as error:
        raise UserError(
            f"no worker of Ray Train that is told of preemptions ({type(error).__name__}: {error})",
            hint="call it in the function that TorchTrainer runs, with Ray 2.60 or newer and without "
            "RAY_TRAIN_V2_ENABLED=0; trainerd.session(run_dir) does without",
        ) from None
    return lambda: place.preemption_info


def _end_for_ray(reason: str) -> BaseException:
    if not reason.startswith(PREEMPTED):
        return SystemExit(DRAINED)
    # All by position, so that a copy of it has them too.
    end: BaseException = RayActorError(None, f"drained: {reason}", False, True)
    return end


def _folder_of_experiment() -> Path:
    storage = ray.train.get_context().get_storage()
    if storage.storage_filesystem.type_name != "local":
        raise UserError(
            f"the experiment lies on {storage.storage_filesystem.type_name}, and a run needs a folder",
            hint="name one that all workers see: session(run_dir), with mirror= for a copy in the cloud; or "
            "RunConfig(storage_path=) on a shared filesystem",
        )
    return Path(storage.experiment_fs_path) / RUN_FOLDER


def _name_for_ray(checkpoint: Checkpoint) -> str:
    """Return a name that no other checkpoint of the experiment has, also after ``fresh=True``."""
    manifest = checkpoint.manifest
    return f"{checkpoint.name}-{manifest.lineage[:8]}-{manifest.attempt}"


def _is_known(name: str) -> bool:
    known = ray.train.get_checkpoint()
    return known is not None and Path(known.path).name == name


def _linked(checkpoint: Any, name: str) -> Any:
    """Have Ray keep a checkpoint under its own name, with the same data: either may delete its own."""
    storage = ray.train.get_context().get_storage()
    is_local = storage.storage_filesystem.type_name == "local"
    target = Path(storage.experiment_fs_path) / name
    if is_local and link_folder(Path(checkpoint.path), target):
        return ray.train.Checkpoint(str(target), filesystem=storage.storage_filesystem)
    return storage.persist_current_checkpoint(checkpoint, name)
