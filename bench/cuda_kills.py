"""Kill jobs with a GPU under a real supervisor, and compare what they train with a run left alone.

    python -m bench.cuda_kills              # resources: {gpus: 1}
    python -m bench.cuda_kills --device cpu # a rehearsal

Three jobs want the one GPU, so two wait. One is killed twice, one is told to stop twice, one is left alone.
Exits with 1 if the results differ.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

JOB = Path(__file__).with_name("cuda_job.py")
START_LIMIT_S = 60.0
RUN_LIMIT_S = 200.0
STEPS_BEFORE_STRIKE = 12
LOOK_S = 0.05
STRIKES = {"killed": (signal.SIGKILL,) * 2, "stopped": (signal.SIGTERM,) * 2, "left-alone": ()}
"""Struck ones first: on the CPU all run at once."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.cuda_kills", description=__doc__.partition("\n")[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    device = parser.parse_args().device
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # a limit from outside ends the supervisor too
    folder = Path(tempfile.mkdtemp(prefix="cuda-kills-"))
    jobs, state = folder / "jobs", folder / "state"
    jobs.mkdir()
    with (folder / "log").open("wb") as log:
        supervisor = subprocess.Popen(
            [sys.executable, "-m", "trainerd", "run", "--jobs", jobs, "--state", state],
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        for name in STRIKES:
            _submit(folder, name, device)
        results = _results(folder, supervisor)
    finally:
        supervisor.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            supervisor.wait(START_LIMIT_S)
    expected = results["left-alone"]
    has_failed = expected is None
    for name, found in results.items():
        is_equal = found is not None and found == expected
        has_failed |= not is_equal
        print(f"{name}: {found and found[:16]} {'EQUAL' if is_equal else 'DIFFERS'}")
    if has_failed:
        print((folder / "log").read_text(errors="replace")[-4000:])
    shutil.rmtree(folder, ignore_errors=True)
    return int(has_failed)


def _submit(folder: Path, name: str, device: str) -> None:
    spec = {
        "name": name,
        "command": [sys.executable, "-P", str(JOB), str(folder / f"{name}.digest"), device],
        "resources": {"gpus": 1} if device == "cuda" else {},
        "checkpoint": {"every": {"steps": 17}},
    }
    place = folder / "jobs" / f".{name}"
    place.write_text(json.dumps(spec))  # JSON is YAML
    place.rename(folder / "jobs" / f"{name}.yaml")


def _results(folder: Path, supervisor: subprocess.Popen[bytes]) -> dict[str, str | None]:
    """Strike the jobs as planned, wait for their ends, and return the digest of each, None without one."""
    left = {name: list(strikes) for name, strikes in STRIKES.items()}
    goal = dict.fromkeys(STRIKES, STEPS_BEFORE_STRIKE)
    digests = {name: folder / f"{name}.digest" for name in STRIKES}
    end_s = time.monotonic() + RUN_LIMIT_S
    while not all(each.exists() for each in digests.values()) and time.monotonic() < end_s:
        if supervisor.poll() is not None:
            print(f"the supervisor has ended: {supervisor.returncode}")
            return dict.fromkeys(STRIKES)
        for name, strikes in left.items():
            if strikes and (rows := _rows(folder, name)) >= goal[name]:
                struck = _pids(str(digests[name]))
                goal[name] = rows + STEPS_BEFORE_STRIKE
                strike = strikes.pop(0)
                print(f"{name}: {strike.name} to {len(struck)} processes after {rows} rows", flush=True)
                for pid in struck:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, strike)
        time.sleep(LOOK_S)
    if any(left.values()):
        print(f"not struck as often as planned: {sorted(name for name in left if left[name])}")
        return dict.fromkeys(STRIKES)
    return {name: each.read_text() if each.exists() else None for name, each in digests.items()}


def _rows(folder: Path, name: str) -> int:
    found = list((folder / "state").glob(f"**/{name}/**/metrics.jsonl"))
    return found[0].read_bytes().count(b'"batch"') if found else 0


def _pids(argument: str) -> list[int]:
    """Return the processes that train: their command line ends with the digest file and the device."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (place / "cmdline").read_bytes().split(b"\0")
            if str(JOB).encode() in command[:3] and argument.encode() in command:
                found.append(int(place.name))
    return found


if __name__ == "__main__":
    sys.exit(main())
