"""The drill of a changed script: `trainerd drill` as a command, and what its exit code says."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from trainerd.cli.stop_signals import leaving_on_stop_signals

RESUMABLE: Final = "resumable"
NOT_RESUMABLE: Final = "not resumable"
NOT_DRILLED: Final = "not drilled"
NOT_ENOUGH: Final = "not drilled enough"

_EXACT: Final = 0
_DIFFERS: Final = 1

_NEEDED: Final = ("drain", "kill")
"""Faults without which a drill proves too little."""

DRILL_WAIT_S_MAX: Final = 4 * 3600
"""Longest wait for the drill, in seconds: it has a budget of its own, and ends by that."""

DRILL_END_S_MAX: Final = 60.0
"""Longest wait for a drill that is stopped, in seconds: it ends its job first."""


@dataclass(frozen=True)
class DrillResult:
    """What is known after the drill.

    Attributes:
        verdict: `RESUMABLE` only if the drill took place, with a drain and a kill at least and all
            that the budget could have been too small for, and found everything equal.
        reason: Why it is not.
        report: What the drill wrote as JSON, None if there was none.
    """

    verdict: str
    reason: str
    report: Any = None

    @property
    def is_exact(self) -> bool:
        """Whether the drill found everything equal."""
        return self.verdict == RESUMABLE

    @classmethod
    def left_out(cls, script: Path, arguments: tuple[str, ...]) -> DrillResult:
        """Return what is known without a drill."""
        command = shlex.join(["trainerd", "drill", "--", "python", str(script), *arguments])
        return cls(NOT_DRILLED, f"whether it resumes is not known; {command} finds out")


def drilled(script: Path, arguments: tuple[str, ...], budget: str, *, is_shown: bool) -> DrillResult:
    """Run the drill of a script.

    Args:
        script: The script.
        arguments: Its arguments.
        budget: Time for the drill, as the verb reads it.
        is_shown: Whether its report goes to the terminal.
    """
    with tempfile.TemporaryDirectory(prefix="trainerd-adopt-") as folder:
        file = Path(folder) / "report.json"
        options = ["--budget", budget, "--report", str(file)]
        job = [sys.executable, str(script), *arguments]
        # -P: a module of the working folder must not stand in for one that trainerd imports.
        command = [sys.executable, "-P", "-m", "trainerd", "drill", *options, "--", *job]
        try:
            code, errors = run_drill(command, is_shown=is_shown)
        except subprocess.TimeoutExpired:
            return DrillResult(NOT_DRILLED, f"the drill did not end within {DRILL_WAIT_S_MAX} s")
        return judged(code, _read(file), errors)


def run_drill(command: list[str], *, is_shown: bool) -> tuple[int, str]:
    """Run a drill to its end; return its exit code and what it said on standard error.

    Raises:
        subprocess.TimeoutExpired: It does not end. It was stopped, and its job with it.
    """
    with leaving_on_stop_signals():
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=None if is_shown else subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        try:
            _, errors = process.communicate(timeout=DRILL_WAIT_S_MAX)
        finally:
            _end(process)
    return process.returncode, errors


def _end(process: subprocess.Popen[str]) -> None:
    """End a drill that still runs: by SIGTERM first, at which it ends the job that it has started."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(DRILL_END_S_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def judged(code: int, report: Any, errors: str) -> DrillResult:
    """Return what the end of the drill says: only a report tells whether something was equal or different.

    Args:
        code: Its exit code.
        report: What it wrote, None if that is no report.
        errors: What it printed to standard error.
    """
    if code == _EXACT and report is None:
        return DrillResult(NOT_DRILLED, "the drill wrote no report")
    if code == _EXACT and report.get("verdict") == "exact":
        return _too_little(report) or DrillResult(RESUMABLE, "", report)
    if code == _DIFFERS and report is not None:
        found = {each["verdict"] for each in report["faults"]}
        if "different" not in found and "refused" in found:
            return DrillResult(NOT_RESUMABLE, "an attempt after a fault failed", report)
        too_little = _too_little(report) if "different" not in found else None
        return too_little or DrillResult(NOT_RESUMABLE, "the drill found a difference", report)
    said = [line for line in errors.splitlines() if line.strip()]
    last = next((line for line in said if line.startswith(("error:", "Error:"))), said[-1] if said else "")
    return DrillResult(NOT_DRILLED, last.strip() or f"the drill ended with exit code {code}", report)


def _too_little(report: dict[str, Any]) -> DrillResult | None:
    missing = not_shown(report)
    return (
        DrillResult(NOT_ENOUGH, f"the drill did not show {'; '.join(missing)}", report) if missing else None
    )


def not_shown(report: dict[str, Any]) -> list[str]:
    """Return what a report without a difference lacks for a script to be called resumable.

    Each is a fault with the reason for which it was not run. A drain and a kill must have been run,
    and all that would have been run in a larger budget.
    """
    faults = {each["name"]: each for each in report["faults"]}
    missing = [name for name in _NEEDED if name not in faults]
    return missing + [
        f"{each['title']} ({each['message'] or each['verdict']})"
        for name, each in faults.items()
        if each["lacks_budget"] or (name in _NEEDED and each["verdict"] != "exact")
    ]


def _read(file: Path) -> Any:
    try:
        report = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return None
    return report if isinstance(report, dict) and isinstance(report.get("faults"), list) else None
