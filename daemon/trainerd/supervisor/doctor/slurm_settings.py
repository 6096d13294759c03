"""What Slurm does with a job that leaves with 85, from its own configuration."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING, Final

from trainerd.contract.exit_codes import DRAINED
from trainerd.supervisor.doctor.asked_programs import output_of
from trainerd.supervisor.doctor.finding import ok, skipped, warning

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from trainerd.supervisor.doctor.finding import Finding

_CHECK: Final = "slurm"
_SETTING: Final = re.compile(r"^(\w+)\s*=\s*(.*?)\s*$", re.MULTILINE)
_RANGE: Final = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")


def check_slurm() -> Iterator[Finding]:
    """Ask the controller, where there is one."""
    program = shutil.which("scontrol")
    if program is None:
        return
    shown = output_of([program, "show", "config"])
    if shown is None:
        yield skipped(_CHECK, "the controller does not answer")
        return
    yield from judge_slurm(dict(_SETTING.findall(shown)))


def judge_slurm(settings: Mapping[str, str]) -> Iterator[Finding]:
    """Judge what ``scontrol show config`` says of exit codes.

    Args:
        settings: Its lines, name to value.
    """
    if has_code(settings.get("RequeueExitHold", ""), DRAINED):
        yield warning(
            _CHECK,
            f"RequeueExitHold has {DRAINED}: a job that was drained is held in the queue",
            f"take {DRAINED} out of RequeueExitHold in slurm.conf, or use `scontrol release` on such jobs",
        )
    elif has_code(settings.get("RequeueExit", ""), DRAINED):
        yield ok(_CHECK, f"RequeueExit has {DRAINED}: Slurm itself runs a drained job again")
    else:
        yield ok(
            _CHECK,
            f"{DRAINED} is a failure to Slurm (not in RequeueExit); `trainerd slurm` writes a script for it",
        )


def has_code(listed: str, code: int) -> bool:
    """Return whether a list of exit codes as in slurm.conf, such as ``1-10,85``, has one."""
    for part in listed.split(","):
        found = _RANGE.fullmatch(part.strip())
        if found is not None and int(found[1]) <= code <= int(found[2] or found[1]):
            return True
    return False
