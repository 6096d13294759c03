"""Real kills of a training with Lightning, with the callback alone: no session in the script."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).with_name("lightning_job.py")
REPOSITORY = Path(__file__).parents[3]
LIMIT_S = 120
DRAINED = 85

KILLS = (
    "step5:KILL",
    "valid1:TERM",
    "save2:KILL",
    "step2:INT",
)
"""With seven batches and three of the validation in an epoch."""


def run(out: Path, kills: tuple[str, ...], **variables: Any) -> tuple[list[int], dict[str, Any]]:
    codes: list[int] = []
    environment = {
        **os.environ,
        "OUT": str(out),
        "KILLS": ",".join(kills),
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")]),
        **{name: str(value) for name, value in variables.items()},
    }
    (out / "result.json").unlink(missing_ok=True)
    while not codes or codes[-1] != 0:
        done = subprocess.run(
            [sys.executable, str(SCRIPT)],
            env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False,
        )  # fmt: skip
        assert done.returncode in (0, DRAINED, -9), done.stdout[-3000:] + done.stderr[-6000:]
        codes.append(done.returncode)
    return codes, json.loads((out / "result.json").read_text())


@pytest.mark.slow
@pytest.mark.torch
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("package", "workers", "accumulate"), [("lightning.pytorch", 0, 1), ("pytorch_lightning", 2, 4)], ids=str
)
def test_kills_and_drains_change_nothing(package: str, workers: int, accumulate: int, tmp_path: Path) -> None:
    if importlib.util.find_spec(package.partition(".")[0]) is None:
        pytest.skip(f"{package} is not installed")
    variables = {"PACKAGE": package, "WORKERS": workers, "ACCUMULATE": accumulate}
    codes, plain = run(tmp_path / "plain", (), EPOCHS=4, **variables)
    assert codes == [0]
    assert plain["steps"] == 28

    codes, killed = run(tmp_path / "killed", KILLS, EPOCHS=3, **variables)
    wanted = [-9 if kill.endswith("KILL") else DRAINED for kill in KILLS]
    assert codes == [*wanted, 0]
    assert killed["steps"] < 3 * 7
    _, more = run(tmp_path / "killed", (), EPOCHS=4, **variables)
    assert {**more, "steps": 28} == plain
    verdict = json.loads((tmp_path / "killed" / "run" / "resume.json").read_text())
    assert verdict["verdict"] in ("exact", "unchecked"), verdict
