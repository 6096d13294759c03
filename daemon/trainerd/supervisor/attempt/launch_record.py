"""What a shim is told to start, made from a job."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from trainerd.contract.environment import TrainingEnvironment, to_environ
from trainerd.contract.records import LaunchRecord

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trainerd.contract.node_place import Place
    from trainerd.contract.paths import RunPaths
    from trainerd.contract.resolved import ResolvedJob

PYTHON_WORD: Final = "python"
"""As the first word of a command, it means the job's own interpreter."""

_PREFIXES: Final = ("TRAINERD_", "TORCHELASTIC_", "SYSTEMD_", "LISTEN_", "WATCHDOG_")
_NAMES: Final = frozenset(
    {
        "CREDENTIALS_DIRECTORY",
        "GROUP_RANK",
        "GROUP_WORLD_SIZE",
        "INVOCATION_ID",
        "JOURNAL_STREAM",
        "LOCAL_RANK",
        "LOCAL_WORLD_SIZE",
        "MAINPID",
        "MASTER_ADDR",
        "MASTER_PORT",
        "NOTIFY_SOCKET",
        "RANK",
        "ROLE_RANK",
        "ROLE_WORLD_SIZE",
        "WORLD_SIZE",
    }
)
"""What is said to the supervisor alone: a job, or the command of a hook, that heard it would answer in the
supervisor's place."""


def launch_record(
    job: ResolvedJob,
    run: RunPaths,
    attempt: int,
    *,
    environ: Mapping[str, str],
    gpus: tuple[int, ...] = (),
    seed: int | None = None,
    place: Place | None = None,
) -> LaunchRecord:
    """Return what to start.

    Args:
        job: The spec in force.
        run: Its run folder.
        attempt: Number of the attempt.
        environ: The supervisor's own environment, of which a job inherits what is not said to the supervisor.
        gpus: Indices of the GPUs that the job was given.
        seed: Of the data order; None leaves it to the script.
        place: Which node this is; None if the job has one.
    """
    said = TrainingEnvironment(
        run_dir=run.common,
        attempt_dir=run.attempt(attempt).root,
        job=job.name,
        attempt=attempt,
        spec_digest=job.spec_digest,
        grace_s=job.grace_s,
        seed=seed,
        on_nonfinite_loss=job.on_nonfinite_loss,
        checkpoint=job.checkpoint,
        checkpoint_variables=job.checkpoint_variables,
        trackers=job.trackers,
        has_standby=job.standby == "auto",
        node=place.node if place is not None else None,
        compiled_dir=run.compiled,
    )
    defaults = {"PYTHONUNBUFFERED": "1"}
    if job.resources.gpus:
        # NVML and the device files count in the order of the bus; CUDA would put the fastest first.
        defaults["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
        defaults["CUDA_VISIBLE_DEVICES"] = ",".join(str(index) for index in gpus)
    return LaunchRecord(
        job=job.name,
        attempt=attempt,
        command=_with_interpreter(job.command, job.python),
        workdir=job.workdir,
        env=inherited(environ) | defaults | job.env | to_environ(said),
        nproc=job.nproc,
        is_group=job.nproc > 1 or job.is_group_of_one or place is not None,
        grace_s=job.grace_s,
        log_paths=tuple(str(run.rank_log(rank)) for rank in range(job.nproc)),
        env_file=job.env_file,
        memory_bytes=job.resources.memory_bytes,
        place=place,
    )


def inherited(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what a job, or the command of a hook, inherits of the supervisor's environment."""
    return {
        name: value
        for name, value in environ.items()
        if name not in _NAMES and not name.startswith(_PREFIXES)
    }


def _with_interpreter(command: tuple[str, ...], python: str | None) -> tuple[str, ...]:
    if command[0] != PYTHON_WORD:
        return command
    return (python or sys.executable, *command[1:])
