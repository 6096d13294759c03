"""The place where chaos happens: a supervisor that is started again whenever it dies, its folders, and time.

Invariants:
    * One thread. What is to happen later happens in `tick`, which every wait of the harness calls.
    * Closing the harness first does all that was to happen later: no process stays stopped.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psutil

from chaos.rendezvous import FAILPOINT_VARIABLE, VARIABLE, Rendezvous
from chaos.supervised import Departure, Supervised
from chaos.waiting import POLL_S, HarnessError, Interruption, NotNowError, StopRequestedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from chaos.workloads import Workload

REPOSITORY: Final = Path(__file__).parents[1]
EXAMPLES: Final = REPOSITORY / "jobs" / "examples"
"""What the reference trainer is made of; they come with a checkout and with no wheel."""

REFERENCE_LIMIT_S: Final = 600.0
STALL_LIMIT_S: Final = 180
"""So long a job may show nothing: longer than any start takes, and short enough that a hang is found in this
playing."""

START_LIMIT_S: Final = 120.0
"""Long, because the harness may be told to be nice to a machine that is busy."""


class Harness:
    """A supervisor on folders of its own under `root`."""

    def __init__(self, root: Path, interruption: Interruption) -> None:
        self.root = root
        self.interruption = interruption
        (root / "jobs").mkdir(parents=True, mode=0o755)
        self.clock = root / "clock"
        self.supervised = Supervised(root, interruption, self._environment())
        self.jobs = self.supervised.jobs
        self.state = self.supervised.state
        self.supervisor_starts = 0
        self._due: list[tuple[float, Callable[[], None]]] = []

    # --- the supervisor ---

    def start(self) -> None:
        """Start the supervisor.

        Raises:
            HarnessError: It does not answer.
        """
        self.supervised.start(limit_s=START_LIMIT_S)
        self.supervisor_starts += 1

    def supervisor_pid(self) -> int:
        """Return the pid of the supervisor.

        Raises:
            NotNowError: It has ended.
        """
        pid = self.supervised.pid
        if pid is None:
            raise NotNowError("the supervisor has ended")
        return pid

    def tick(self) -> None:
        """Do what is due, and start the supervisor again if it has ended, as a service manager would.

        Raises:
            StopRequestedError: This program was asked to stop.
            HarnessError: The supervisor does not come up.
        """
        self.heed()
        now_s = time.monotonic()
        due = [action for at_s, action in self._due if at_s <= now_s]
        self._due = [(at_s, action) for at_s, action in self._due if at_s > now_s]
        for action in due:
            action()
        if self.supervised.pid is None:
            self.start()

    def heed(self) -> None:
        """Look whether this program was asked to stop.

        Raises:
            StopRequestedError: It was.
        """
        if self.interruption.requests:
            raise StopRequestedError

    def later(self, delay_s: float, action: Callable[[], None]) -> None:
        """Do something in so many seconds."""
        self._due.append((time.monotonic() + delay_s, action))

    def close(self) -> Departure | None:
        """Drain everything; return how the supervisor left, None if it had ended before."""
        for _, action in self._due:
            action()
        self._due = []
        return self.supervised.drain()

    def _environment(self) -> dict[str, str]:
        """Return what makes a program of ours find this code, and the clock that can be shifted."""
        folders = (REPOSITORY / "chaos" / "clock", REPOSITORY, REPOSITORY / "daemon")
        return {"PYTHONPATH": os.pathsep.join(map(str, folders)), "CHAOS_CLOCK": str(self.clock)}

    def shift_clock(self, by_s: float) -> None:
        """Let the clock of supervisor and ranks jump."""
        draft = self.clock.with_name(".clock.draft")
        draft.write_text(str(by_s))
        draft.rename(self.clock)

    # --- jobs ---

    def spec_path(self, job: str) -> Path:
        return self.jobs / f"{job}.json"

    def rendezvous(self, job: str) -> Rendezvous:
        return Rendezvous(self.root / "points" / job)

    def submit(
        self, job: str, workload: Workload, *, seed: int, spec: Mapping[str, Any] = {}, failpoints: str = ""
    ) -> None:
        """Drop the spec of a job that trains the workload. `spec` replaces fields of it."""
        whole = {
            "command": [sys.executable, "-m", "chaos.workload", *workload.arguments(seed)],
            "workdir": str(REPOSITORY),
            "env": {
                **self._environment(),
                "OMP_NUM_THREADS": "1",
                VARIABLE: str(self.root / "points" / job),
                FAILPOINT_VARIABLE: failpoints,
            },
            "nproc": workload.ranks,
            "resources": {"cpus": 0.5},
            "checkpoint": {
                "every": {"steps": workload.every_steps, "seconds": "never", "epochs": 1},
                "keep_last": workload.keep_last,
            },
            "restart": {"budget": 5, "backoff": {"initial": 0.2, "max": 2}},
            "grace": 20,
            "stall_timeout": STALL_LIMIT_S,
        }
        for name, value in spec.items():
            found = whole.get(name)
            whole[name] = {**found, **value} if isinstance(found, dict) and isinstance(value, dict) else value
        draft = self.jobs / f".{job}.draft"
        draft.touch(mode=0o644)
        draft.write_text(json.dumps(whole, indent=2))
        draft.rename(self.spec_path(job))

    def job(self, name: str) -> dict[str, Any] | None:
        """Describe a job; None is not known at the moment."""
        try:
            return self.supervised.job(name)
        except HarnessError:
            return None

    def outcomes(self, name: str) -> list[dict[str, Any]] | None:
        """Say how each attempt of a job ended; None is not known at the moment."""
        try:
            return self.supervised.outcomes(name)
        except HarnessError:
            return None


def why_nothing_can_be_played() -> str | None:
    """Return why no training can be started from here, None if it can."""
    if not EXAMPLES.is_dir():
        return (
            f"{EXAMPLES} is not there: the scenarios train its examples, so runner them in a "
            "checkout (make chaos)"
        )
    if importlib.util.find_spec("torch") is None:
        return f"torch is not installed for {sys.executable}: pip install 'trainerd[examples]'"
    return None


def run_reference(folder: Path, workload: Workload, *, seed: int, tick: Callable[[], None]) -> None:
    """Train the workload undisturbed, without any supervisor, as fast as it can.

    Args:
        folder: Its run folder; a run that is finished already is not repeated.
        workload: What to train.
        seed: Of everything random.
        tick: Called ten times a second while it runs.

    Raises:
        HarnessError: It failed.
    """
    if (folder / "finished.json").exists():
        return
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("TRAINERD_", "CHAOS_"))},
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join((str(REPOSITORY), str(REPOSITORY / "daemon"))),
        "TRAINERD_RUN_DIR": str(folder),
        "TRAINERD_CHECKPOINT_EVERY_STEPS": str(workload.every_steps),
        "TRAINERD_CHECKPOINT_KEEP_LAST": str(workload.keep_last),
    }
    command = [sys.executable, "-m", "chaos.workload", *workload.arguments(seed, is_undisturbed=True)]
    if workload.ranks > 1:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone",
                   f"--nproc-per-node={workload.ranks}", *command[1:]]  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "output.txt").open("wb") as output:
        process = subprocess.Popen(
            command, cwd=REPOSITORY, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
        deadline_s = time.monotonic() + REFERENCE_LIMIT_S
        try:
            while process.poll() is None:
                tick()
                if time.monotonic() > deadline_s:
                    raise HarnessError(f"the undisturbed run took more than {REFERENCE_LIMIT_S:.0f} s")
                time.sleep(POLL_S)
        finally:
            process.kill()
            process.wait()
    if process.returncode != 0:
        raise HarnessError(f"the undisturbed run failed: see {folder / 'output.txt'}")


def processes_of(folder: Path) -> Iterator[psutil.Process]:
    """Yield every process whose environment names a run folder at or below `folder`."""
    for process in psutil.process_iter():
        try:
            run_dir = process.environ().get("TRAINERD_RUN_DIR", "")
        except (psutil.Error, OSError):
            continue
        if run_dir and Path(run_dir).is_relative_to(folder) and process.pid != os.getpid():
            yield process
