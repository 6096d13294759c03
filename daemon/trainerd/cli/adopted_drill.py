"""The drill of a changed script: `trainerd drill` as a command, and what its exit code says."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pathlib import Path

RESUMABLE: Final = "resumable"
NOT_RESUMABLE: Final = "not resumable"
NOT_DRILLED: Final = "not drilled"

_EXACT: Final = 0
_DIFFERS: Final = 1

DRILL_WAIT_S_MAX: Final = 4 * 3600
"""Longest wait for the drill, in seconds: it has a budget of its own, and ends by that."""


@dataclass(frozen=True)
class DrillResult:
    """What is known after the drill.

    Attributes:
        verdict: `RESUMABLE` only if the drill took place and found everything equal.
        reason: Why it is not.
        report: What the drill printed as JSON, None if it was shown or there was none.
    """

    verdict: str
    reason: str
    report: Any = None

    @property
    def is_exact(self) -> bool:
        """Whether the drill found everything equal."""
        return self.verdict == RESUMABLE

    @classmethod
    def left_out(cls) -> DrillResult:
        """Return what is known without a drill."""
        return cls(NOT_DRILLED, "whether it resumes is not known; trainerd drill -- python FILE finds out")


def drilled(script: Path, arguments: tuple[str, ...], budget: str, *, is_shown: bool) -> DrillResult:
    """Run the drill of a script.

    Args:
        script: The script.
        arguments: Its arguments.
        budget: Time for the drill, as the verb reads it.
        is_shown: Whether its report goes to the terminal; else it is read as JSON.
    """
    options = ["--budget", budget, *([] if is_shown else ["--json"])]
    try:
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "trainerd",
                "drill",
                *options,
                "--",
                sys.executable,
                str(script),
                *arguments,
            ],
            stdin=subprocess.DEVNULL,
            stdout=None if is_shown else subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            timeout=DRILL_WAIT_S_MAX,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return DrillResult(NOT_DRILLED, f"the drill did not end within {DRILL_WAIT_S_MAX} s")
    return judged(done.returncode, done.stdout, done.stderr)


def judged(code: int, output: str | None, errors: str) -> DrillResult:
    """Return what the end of the drill says: an exit code of 1 is a difference only where there is a report.

    Args:
        code: Its exit code.
        output: What it printed, None if that went to the terminal.
        errors: What it printed to standard error.
    """
    report = _parsed(output)
    if output is not None and code in {_EXACT, _DIFFERS} and report is None and not errors.strip():
        return DrillResult(NOT_DRILLED, "the drill printed no report")
    said = [line for line in errors.splitlines() if line.strip()]
    last = next((line for line in said if line.startswith(("error:", "Error:"))), said[-1] if said else "")
    if code == _EXACT and (output is None or report is not None):
        return DrillResult(RESUMABLE, "", report)
    if code == _DIFFERS and not last.lower().startswith("error:"):
        return DrillResult(NOT_RESUMABLE, "the drill found a difference", report)
    return DrillResult(NOT_DRILLED, last.strip() or f"the drill ended with exit code {code}", report)


def _parsed(output: str | None) -> Any:
    try:
        return None if not output else json.loads(output)
    except ValueError:
        return None
