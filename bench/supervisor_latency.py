"""From a rank's death to its next start: trainerd with no backoff, `torchrun --max-restarts`, supervisord.

All three run the same command, which appends the time to a file and waits to be killed. A round kills each
once, in turn, so that a slow moment of the machine hits all alike.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

from bench.supervisor_scale import ground

START_LIMIT_S = 60.0
PAUSE_S = 1.5
"""Between two kills of the same program: supervisord takes an end within its `startsecs` for a failed
start."""

SCRIPT = 'echo "$$ $(date +%s.%N)" >> "$1"; exec sleep 100000\n'
VICTIM = "victim.sh"


def measure_latencies(rounds: int) -> dict[str, list[float]]:
    """Return, by name, how long each of `rounds` restarts took, in seconds."""
    with tempfile.TemporaryDirectory(prefix="trainerd-latency-") as folder, contextlib.ExitStack() as stack:
        root = Path(folder)
        (root / VICTIM).write_text(SCRIPT)  # torchrun would read a dollar sign in an argument as its own
        runners: dict[str, Path] = {}
        for name, (start, missing) in _RUNNERS.items():
            if missing is not None and importlib.util.find_spec(missing) is None:
                print(f"  {name}: left out, {missing} is not installed")
                continue
            starts = root / f"{name}.starts"
            stack.enter_context(start(root, starts))
            runners[name] = starts
        for starts in runners.values():
            _await_start(starts, 1)
        found: dict[str, list[float]] = {name: [] for name in runners}
        for number in range(1, rounds + 1):
            for name, starts in runners.items():
                pid, _ = _last(starts)
                time.sleep(PAUSE_S / len(runners))
                now = time.time()
                os.kill(pid, signal.SIGKILL)
                _await_start(starts, number + 1)
                found[name].append(_last(starts)[1] - now)
    return found


def report_latencies(found: dict[str, list[float]]) -> bool:
    """Print medians and ratios; return whether trainerd is ahead of everybody."""
    ours = median(found["trainerd"])
    for name, times in found.items():
        ratio = "" if name == "trainerd" else f"   {median(times) / ours:5.1f} x trainerd"
        print(
            f"  {name:12} median {median(times) * 1e3:7.0f} ms   least {min(times) * 1e3:7.0f}   "
            f"most {max(times) * 1e3:7.0f}{ratio}"
        )
    return all(median(times) > ours for name, times in found.items() if name != "trainerd")


@contextlib.contextmanager
def _trainerd(root: Path, starts: Path) -> Iterator[None]:
    with ground() as found:
        spec = {
            "command": ["sh", str(root / VICTIM), str(starts)],
            "workdir": str(root),
            "resources": {"cpus": 0},
            "restart": {"budget": 1000, "backoff": {"initial": 0, "max": 0}},
            "grace": 1,
        }
        found.drop({"victim": spec})
        yield


@contextlib.contextmanager
def _torchrun(root: Path, starts: Path) -> Iterator[None]:
    words = ["--nnodes", "1", "--nproc-per-node", "1", "--max-restarts", "1000", "--no-python"]
    command = [sys.executable, "-m", "torch.distributed.run", *words, "sh", str(root / VICTIM), str(starts)]
    with _process(command, root):
        yield


@contextlib.contextmanager
def _supervisord(root: Path, starts: Path) -> Iterator[None]:
    configuration = root / "supervisord.conf"
    configuration.write_text(
        f"[supervisord]\nnodaemon=true\nlogfile={root}/supervisord.log\npidfile={root}/supervisord.pid\n"
        f"[program:victim]\ncommand=sh {root / VICTIM} {starts}\n"
        "autorestart=true\nstartsecs=0\nstartretries=1000\n"
    )
    with _process([sys.executable, "-m", "supervisor.supervisord", "-c", str(configuration)], root):
        yield


@contextlib.contextmanager
def _process(command: list[str], workdir: Path) -> Iterator[None]:
    with (workdir / "output").open("ab") as output:
        process = subprocess.Popen(command, cwd=workdir, stdout=output, stderr=output, start_new_session=True)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(40)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


_Start = Callable[[Path, Path], contextlib.AbstractContextManager[None]]
_RUNNERS: dict[str, tuple[_Start, str | None]] = {
    "trainerd": (_trainerd, None),
    "torchrun": (_torchrun, "torch"),
    "supervisord": (_supervisord, "supervisor"),
}


def _await_start(starts: Path, count: int) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    while not (starts.exists() and len(starts.read_text().splitlines()) >= count):
        if time.monotonic() > deadline:
            raise SystemExit(f"{starts.stem} did not start again within {START_LIMIT_S:.0f} s")
        time.sleep(0.01)


def _last(starts: Path) -> tuple[int, float]:
    pid, moment = starts.read_text().split()[-2:]
    return int(pid), float(moment)
