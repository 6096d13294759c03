"""`trainerd drill` on a whole program, as a test runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

LIMIT_S = 500


def drill(folder: Path, *arguments: str) -> tuple[int, dict[str, Any], str]:
    """Return the exit code, the report, empty if there is none, and what was said beside it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TRAINERD_")}
    done = subprocess.run(
        [sys.executable, "-m", "trainerd", "drill", "--json", *arguments],
        cwd=folder,
        env=environment | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    return done.returncode, json.loads(done.stdout) if done.stdout.strip() else {}, done.stderr


def by_name(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the faults of a report by their names."""
    return {each["name"]: each for each in report["faults"]}
