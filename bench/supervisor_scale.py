"""Many jobs at once under one supervisor: plain commands, real processes, a configuration that lets so many
run."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import httpx

RUNNING_S = 1.0
"""How long each job works."""
READY_LIMIT_S = 30.0
LOOK_S = 0.1


@dataclass
class Ground:
    """A supervisor with folders of its own."""

    root: Path
    process: subprocess.Popen[bytes]
    client: httpx.Client

    @property
    def jobs(self) -> Path:
        return self.root / "jobs"

    def drop(self, specs: dict[str, dict[str, object]]) -> None:
        """Put specs into the jobs folder, each by one rename."""
        aside = self.root / "aside"
        aside.mkdir(exist_ok=True)
        for name, spec in specs.items():
            (aside / f"{name}.json").write_text(json.dumps(spec))
        for name in specs:
            (aside / f"{name}.json").rename(self.jobs / f"{name}.json")

    def get(self, path: str) -> object:
        answer = self.client.get(path)
        answer.raise_for_status()
        return answer.json()

    def states(self) -> dict[str, int]:
        found = self.get("/v1/daemon")
        assert isinstance(found, dict)
        return found["jobs_by_state"]

    def resident_bytes_max(self) -> int:
        """Largest resident memory so far."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024

    def cpu_s(self) -> float:
        stat = Path(f"/proc/{self.process.pid}/stat").read_text()
        fields = stat[stat.rindex(")") + 2 :].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def ground(configuration: str = "") -> Iterator[Ground]:
    """Start a supervisor; stop it at the end."""
    with tempfile.TemporaryDirectory(prefix="trainerd-bench-") as folder:
        root = Path(folder)
        (root / "jobs").mkdir(mode=0o755)
        (root / "trainerd.toml").write_text(configuration)
        words = ["-m", "trainerd", "run", "--jobs", str(root / "jobs"), "--state", str(root / "state")]
        with (root / "output").open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, *words, "--config", str(root / "trainerd.toml")],
                stdout=output,
                stderr=output,
                start_new_session=True,  # as a service manager does
            )
        transport = httpx.HTTPTransport(uds=str(root / "state" / "trainerd.sock"), verify=False)
        with httpx.Client(transport=transport, base_url="http://trainerd", timeout=30) as client:
            found = Ground(root, process, client)
            try:
                _await_answer(found)
                yield found
            finally:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(60)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def _await_answer(found: Ground) -> None:
    deadline = time.monotonic() + READY_LIMIT_S
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.HTTPError):
            found.get("/v1/daemon")
            return
        if found.process.poll() is not None:
            break
        time.sleep(LOOK_S)
    raise SystemExit((found.root / "output").read_text())


@dataclass
class Scale:
    """What was seen while many jobs ran."""

    jobs: int
    at_once: int
    wall_s: float = 0.0
    finished: int = 0
    started_twice: int = 0
    never_started: int = 0
    running_max: int = 0
    resident_bytes_max: int = 0
    supervisor_cpu_s: float = 0.0
    status_s: list[float] = field(default_factory=list)
    list_s: list[float] = field(default_factory=list)
    drop_to_start_s: list[float] = field(default_factory=list)


def measure_scale(jobs: int, at_once: int, *, limit_s: float, drops: int = 20) -> Scale:
    """Drop `jobs` specs at once, watch them finish `at_once` at a time, then drop single ones into the
    crowd."""
    seen = Scale(jobs, at_once)
    with ground(f"[limits]\nmax_jobs = {at_once}\n") as found:
        starts = found.root / "starts"
        starts.mkdir()
        names = [f"job-{number:04}" for number in range(jobs)]
        found.drop({name: _spec(starts / name, RUNNING_S) for name in names})
        began = time.monotonic()
        number = 0
        while time.monotonic() - began < limit_s:
            states = found.states()
            seen.finished = states.get("finished", 0)
            seen.running_max = max(
                seen.running_max, *(states.get(s, 0) for s in ("running", "starting", "draining"))
            )
            if seen.finished == jobs:
                break
            for path, times in (
                (f"/v1/jobs/{names[number % jobs]}", seen.status_s),
                ("/v1/daemon", seen.status_s),
            ):
                if sum(states.values()) == jobs:
                    times.append(_timed(found, path))
            if number % 20 == 0:
                seen.list_s.append(_timed(found, "/v1/jobs"))
            number += 1
            time.sleep(LOOK_S)
        seen.wall_s = time.monotonic() - began
        lines = {name: _lines(starts / name) for name in names}
        seen.started_twice = sum(len(found) > 1 for found in lines.values())
        seen.never_started = sum(not found for found in lines.values())
        seen.supervisor_cpu_s = found.cpu_s()
        for extra in range(drops):
            name = f"extra-{extra:02}"
            now = time.time()
            found.drop({name: _spec(starts / name, 0.0)})
            _await(lambda name=name: bool(_lines(starts / name)), limit_s=10)
            seen.drop_to_start_s.append(_lines(starts / name)[0] - now)
            time.sleep(LOOK_S)
        seen.resident_bytes_max = found.resident_bytes_max()
    return seen


def _spec(starts: Path, running_s: float) -> dict[str, object]:
    return {
        "command": ["sh", "-c", f"date +%s.%N >> {starts}; exec sleep {running_s}"],
        "workdir": str(starts.parent),
        "resources": {"cpus": 0},
    }


def _lines(path: Path) -> list[float]:
    return [float(line) for line in path.read_text().split()] if path.exists() else []


def _timed(found: Ground, path: str) -> float:
    began = time.perf_counter()
    found.get(path)
    return time.perf_counter() - began


def _await(condition, *, limit_s: float) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"waited {limit_s} s in vain")
        time.sleep(0.01)


def report_scale(seen: Scale) -> bool:
    """Print it; return whether every target is met."""
    rows = [
        ("finished", f"{seen.finished} of {seen.jobs}", seen.finished == seen.jobs),
        ("started twice", str(seen.started_twice), seen.started_twice == 0),
        ("never started", str(seen.never_started), seen.never_started == 0),
        ("at once, at most", f"{seen.running_max} of {seen.at_once}", seen.running_max <= seen.at_once),
        (
            "supervisor, most memory",
            f"{seen.resident_bytes_max / 1e6:.0f} MB",
            seen.resident_bytes_max < 150e6,
        ),
        (
            "drop to start, median",
            f"{median(seen.drop_to_start_s):.3f} s",
            median(seen.drop_to_start_s) < 0.5,
        ),
        ("drop to start, worst", f"{max(seen.drop_to_start_s):.3f} s", max(seen.drop_to_start_s) < 0.5),
        ("status call, median", f"{median(seen.status_s) * 1e3:.1f} ms", median(seen.status_s) < 0.02),
        (
            "status call, 95 %",
            f"{_ninety_five(seen.status_s) * 1e3:.1f} ms",
            _ninety_five(seen.status_s) < 0.02,
        ),
    ]
    for what, value, is_met in rows:
        print(f"  {what:28} {value:>16}   {'' if is_met else 'MISSED'}")
    print(f"  {'all jobs, median listing':28} {median(seen.list_s) * 1e3:13.1f} ms")
    print(f"  {'in all':28} {seen.wall_s:14.1f} s   supervisor's cpu {seen.supervisor_cpu_s:.1f} s")
    return all(is_met for *_, is_met in rows)


def _ninety_five(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.95)]
