"""The job of a drill: a command, or what a spec says, with an environment that sets loggers aside."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from trainerd.contract import environment
from trainerd.contract.resolved import ResolvedJob
from trainerd.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

NAME: Final = "drill"

GRACE_S: Final = 60.0
"""From the request to stop an attempt until SIGKILL, in seconds."""


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


def job_of_spec(spec: ResolvedJob) -> ResolvedJob:
    """Return the job of a spec as a drill runs it."""
    return replace(spec, grace_s=max(spec.grace_s, GRACE_S), python=spec.python or sys.executable)


def loggers_aside(folder: Path) -> dict[str, str]:
    """Return the variables that make the usual loggers write into a folder and send nothing."""
    return {
        "WANDB_MODE": "offline",
        "WANDB_DIR": str(folder),
        "MLFLOW_TRACKING_URI": (folder / "mlruns").as_uri(),
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


def drill_environ(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment that jobs of a drill inherit: without what steers a session."""
    return {name: value for name, value in environ.items() if name not in environment.VARIABLES}
