"""Whether a standby that was prepared for one start can become another: pure.

What has been imported in advance depends on the interpreter, its options, the working folder and the
environment, but for the variables of an attempt. Whether it depends on the script and its arguments only the
standby can tell, which looks at both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainerd.contract.environment import STANDBY
from trainerd.shim.spawn import OF_AN_ATTEMPT
from trainerd.shim.warm_command import WarmCommand, divide, why_not

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from trainerd.contract.records import LaunchRecord
    from trainerd.shim.spawn import RankStart


def what_differs(was: RankStart, now: RankStart) -> str | None:
    """Return what a standby that was prepared for `was` cannot take over of `now`; None if it can."""
    if _interpreter(was.command) != _interpreter(now.command):
        return "interpreter"
    if was.workdir != now.workdir:
        return "working folder"
    if _lasting(was.environ) != _lasting(now.environ):
        return "environment"
    return "signal mask" if was.held != now.held else None


def may_become(was: LaunchRecord, now: LaunchRecord) -> bool:
    """Return whether a standby that was prepared for an attempt is offered to one of another spec or job.

    That is so only if both ask for one, and neither has a limit of memory: what has one is born in the cgroup
    of its attempt.
    """
    return may_use_any(was) and may_use_any(now) and lasting_part(was) == lasting_part(now)


def may_use_any(launch: LaunchRecord) -> bool:
    """Return whether an attempt may begin in a standby of another attempt."""
    return (
        STANDBY in launch.env
        and launch.memory_bytes is None
        and why_not(launch.command, launch.env, is_group=launch.is_group) is None
    )


def lasting_part(launch: LaunchRecord) -> tuple[object, ...]:
    """Return the part of a launch on which depends what is imported in advance."""
    return (
        _interpreter(launch.command),
        launch.workdir,
        sorted(_lasting(launch.env).items()),
        launch.env_file,
        launch.uses_cgroup,
    )


def _interpreter(command: Sequence[str]) -> tuple[str, ...] | None:
    words = divide(command)
    return (command[0], *words.options) if isinstance(words, WarmCommand) else None


def _lasting(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if name not in OF_AN_ATTEMPT}
