"""The first step of a compiled model, cold and in a second attempt: `python -m bench.compiled_code`.

A small model that `torch.compile` compiles for the CPU runs under `trainerd exec`, in a new folder each
round. Its first attempt is killed once the run has recorded what was compiled. Printed are the times from the
beginning of the first step to its end, of both attempts of each round, and whether the second one compiled
anything. The median of the first attempts is to be five times that of the second ones. Torch's precompiled
headers, which all jobs of a machine share, are made before the first round.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.targets import Target, print_verdicts
from trainerd.contract.compiled_code import record_path, this_machine
from trainerd.contract.paths import StatePaths
from trainerd.errors import TrainerdError

if TYPE_CHECKING:
    from collections.abc import Callable

NAME = "compiled"
LIMIT_S = 300.0
TIMES_SOONER = 5.0
JOB = Path(__file__).with_name("compiled_job.py")


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.compiled_code", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scratch", type=Path)
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # by way of every `finally`
    print(f"{platform.node()}: {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", flush=True)
    with tempfile.TemporaryDirectory(prefix="compiled-", dir=args.scratch) as scratch:
        rounds = [one_round(Path(scratch, str(number))) for number in range(args.rounds + 1)][1:]
    cold_s = statistics.median(first["seconds"] for first, _ in rounds)
    warm_s = statistics.median(second["seconds"] for _, second in rounds)
    print(f"first step: {cold_s:.2f} s in first attempts, {warm_s:.2f} s in second ones")
    return print_verdicts(
        [
            Target("first step, second attempts, times sooner", cold_s / warm_s, TIMES_SOONER, "at least"),
            Target(
                "graphs compiled in second attempts", sum(row["misses"] for _, row in rounds), 0, "at most"
            ),
        ]
    )


def one_round(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run a job that is killed once; return what it noted of its two first steps."""
    folder.mkdir()
    (folder / "wait").touch()
    shutil.copy(JOB, folder / "train.py")  # beside it lie files with the names of modules
    spec = {
        "name": NAME,
        "command": [sys.executable, "train.py"],
        "restart": {"backoff": {"initial": 0.02, "max": 0.05}},
        "checkpoint": {"every": {"steps": 1}},
    }
    (folder / f"{NAME}.json").write_text(json.dumps(spec))
    chosen = {"TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"}
    environ = {name: value for name, value in os.environ.items() if name not in chosen}
    run = StatePaths(folder / "state").run(NAME)
    with (folder / "output").open("wb") as output:
        program = subprocess.Popen(
            [sys.executable, "-m", "trainerd", "exec", f"{NAME}.json", "--state", "state"],
            cwd=folder,
            env=environ,
            stdout=output,
            stderr=output,
        )
    try:
        first = wait_for(lambda: notes(folder), "the first step", program)[0]
        wait_for(
            record_path(run.compiled / this_machine()).exists, "the record of what was compiled", program
        )
        os.kill(first["pid"], signal.SIGKILL)
        second = wait_for(lambda: notes(folder)[1:], "the second attempt", program)[0]
        (folder / "wait").unlink()
        program.wait(LIMIT_S)
    except (TrainerdError, subprocess.TimeoutExpired):
        print((folder / "output").read_text()[-3000:], file=sys.stderr)
        raise
    finally:
        program.terminate()
        program.wait(60)
    return first, second


def notes(folder: Path) -> list[dict[str, Any]]:
    path = folder / "first-steps"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def wait_for(condition: Callable[[], Any], what: str, program: subprocess.Popen[bytes]) -> Any:
    deadline_s = time.monotonic() + LIMIT_S
    while not (found := condition()):
        if program.poll() is not None:
            raise TrainerdError(f"the job has ended with {program.returncode} before {what}")
        if time.monotonic() >= deadline_s:
            raise TrainerdError(f"{what} did not come within {LIMIT_S:g} s")
        time.sleep(0.01)
    return found


if __name__ == "__main__":
    sys.exit(main())
