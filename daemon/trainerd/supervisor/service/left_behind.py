"""Whether `trainerd exec` may leave a process behind that is ready for the next one: pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from trainerd.supervisor.service.takeover import ENGINE_VARIABLES

if TYPE_CHECKING:
    from collections.abc import Mapping

BATCH_VARIABLES: Final = (*ENGINE_VARIABLES, "RAY_JOB_ID", "PBS_JOBID", "LSB_JOBID")
"""Variables of batch systems and clusters: they end all processes of a command when it has ended, or wait for
them."""


def may_leave_processes(environ: Mapping[str, str], *, has_terminal: bool, pid: int) -> bool:
    """Return whether a process may outlive this one: if a user at a terminal started it, and nothing else.

    Args:
        environ: The environment.
        has_terminal: Whether the standard input is a terminal.
        pid: Of this process; the first one of a container has the number 1.
    """
    return has_terminal and pid != 1 and not any(name in environ for name in BATCH_VARIABLES)
