"""The job of a drill: a command, or what a spec says, with an environment that sets loggers aside."""

from __future__ import annotations

import itertools
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from trainerd.contract import environment
from trainerd.contract.counted import counted
from trainerd.contract.resolved import ResolvedJob
from trainerd.errors import UserError
from trainerd.supervisor.attempt.gpus import find_gpus

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

NAME: Final = "drill"

GRACE_S: Final = 60.0
"""From the request to stop an attempt until SIGKILL, in seconds."""

_OTHER_DEVICES: Final = Path("/dev/kfd")
"""Where it is, the GPUs are AMD's, and no file of NVIDIA tells their number."""


def job_of_command(command: tuple[str, ...], workdir: Path, environ: Mapping[str, str]) -> ResolvedJob:
    """Return the job that a command line means.

    Raises:
        UserError: There is no such program.
    """
    program = shutil.which(command[0], path=environ.get("PATH"))
    if program is None:
        raise UserError(
            f"cannot find the program {command[0]!r}", hint="write: trainerd drill -- python train.py"
        )
    path = command[0] if "/" in command[0] else program
    return ResolvedJob(
        name=NAME, command=(path, *command[1:]), workdir=str(workdir), spec_path="", spec_digest=NAME
    )


def job_of_spec(
    spec: ResolvedJob,
    environ: Mapping[str, str] = os.environ,
    *,
    find_devices: Callable[[], int | None] | None = None,
) -> ResolvedJob:
    """Return the job of a spec as a drill runs it: with the GPUs that the caller sees.

    Raises:
        UserError: The caller sees fewer GPUs than the job asks for.
    """
    wanted = spec.resources.gpus
    seen = visible_devices({**environ, **spec.env}, find_devices or devices_here) if wanted else None
    if seen is not None and seen < wanted:
        raise UserError(
            f"the job asks for {counted(wanted, 'GPU')} (resources.gpus), and a drill sees {seen} here: it "
            "would run without them, and prove nothing",
            hint="drill it where the GPUs are, or look at CUDA_VISIBLE_DEVICES",
        )
    return replace(
        spec,
        grace_s=max(spec.grace_s, GRACE_S),
        python=spec.python or sys.executable,
        # No supervisor gives GPUs out: a job that asks for some would be given an empty list of them.
        resources=replace(spec.resources, gpus=0),
    )


def visible_devices(environ: Mapping[str, str], find_devices: Callable[[], int | None]) -> int | None:
    """Return how many GPUs a job sees that inherits an environment, None if that is not known."""
    named = environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return find_devices()
    # CUDA ignores what follows an index that does not exist.
    names = itertools.takewhile(lambda each: each not in {"", "-1"}, map(str.strip, named.split(",")))
    return len(list(names))


def devices_here() -> int | None:
    """Return how many GPUs the machine has, None where they are not NVIDIA's."""
    return None if _OTHER_DEVICES.exists() else len(find_gpus().indices())


def loggers_aside(folder: Path) -> dict[str, str]:
    """Return the variables that make the usual loggers write into a folder and send nothing."""
    return {
        "WANDB_MODE": "offline",
        "WANDB_DIR": str(folder),
        "MLFLOW_TRACKING_URI": (folder / "mlruns").as_uri(),
        "MLFLOW_ALLOW_FILE_STORE": "true",
        "NEPTUNE_MODE": "offline",
        "CLEARML_OFFLINE_MODE": "1",
        "COMET_OFFLINE_DIRECTORY": str(folder),
        "COMET_START_ONLINE": "0",
        "SWANLAB_MODE": "offline",
        "TENSORBOARD_LOGDIR": str(folder / "tensorboard"),
        "TENSORBOARD_LOGGING_DIR": str(folder / "tensorboard"),
    }


def cadence(every_steps: int) -> dict[str, str]:
    """Return the variables that make a session save every so many steps and keep all of it."""
    return {
        environment.EVERY_STEPS: str(every_steps),
        environment.EVERY_SECONDS: "never",
        environment.AUTO: "0",
        environment.KEEP_LAST: "all",
    }
