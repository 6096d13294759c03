"""A real supervisor in a process of its own, with a jobs folder and a state folder to play with."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx

from tests.support.fork_server import ForkedProcess
from tests.support.supervisor_server import COMMAND_LINE, supervisor_server
from tests.support.training_runs import Result, has_done_step, result_of
from tests.support.waiting import LOOK_S, wait_for
from trainerd.contract.paths import StatePaths
from trainerd.contract.process import identify, is_alive

WAIT_S = 60.0
"""Longest wait for something that comes: a start takes 1 s, and 25 s on a machine at load 14."""
UNKNOWN_SHIM_S = 1.0
STEP_LIMIT_S = 90.0
STEP_LOOK_S = 0.002
SUPERVISORS = supervisor_server()
"""For all tests of this process, with which it ends: what a supervisor imports is imported once for them."""


class Bench:
    """Starts supervisors, drops specs, watches; ends everything that it started."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.jobs = root / "jobs"
        self.jobs.mkdir(mode=0o755)
        self.state = StatePaths(root / "state")
        self.work = root / "work"
        self.work.mkdir()
        self.supervisor: subprocess.Popen | ForkedProcess | None = None
        self.output = root / "supervisor.out"

    # --- the supervisor ---

    def command(self, state: Path | None = None) -> list[str]:
        """Return what starts a supervisor on these jobs, as a user would."""
        folders = ["--jobs", str(self.jobs), "--state", str(state or self.state.root)]
        return [sys.executable, "-m", "trainerd", "run", *folders]

    def start(
        self,
        *,
        failpoints: str = "",
        state: Path | None = None,
        config: str = "",
        is_ready: bool = True,
        is_forked: bool = True,
        **env,
    ):
        """Start a supervisor; return once it answers.

        Args:
            failpoints: Its failpoints.
            state: Its state folder, if not the bench's own.
            config: Text of its configuration.
            is_ready: Whether to wait for its answer.
            is_forked: Whether it is forked from a process that has imported all of it, which saves 1.3 s,
                or is a new interpreter.
            env: What its environment has besides.
        """
        (self.root / "trainerd.toml").write_text(config)
        environ = os.environ | {"TRAINERD_FAILPOINTS": failpoints} | env
        command = [*self.command(state), "--config", str(self.root / "trainerd.toml")]
        if is_forked:
            arguments = command[command.index("run") :]
            self.output.touch()  # the supervisor opens it, in its own time
            self.supervisor = SUPERVISORS.launch(
                COMMAND_LINE, arguments, environ, self.output, command=command
            )
        else:
            with self.output.open("ab") as output:
                self.supervisor = subprocess.Popen(command, stdout=output, stderr=output, env=environ)
        if is_ready:
            self.wait_for(self.answers, "the supervisor to answer")
        return self.supervisor

    def answers(self) -> bool:
        assert self.supervisor.poll() is None, self.output.read_text()
        with contextlib.suppress(httpx.HTTPError):
            return self.get("/v1/daemon")["pid"] == self.supervisor.pid
        return False

    def kill(self) -> None:
        """SIGKILL the supervisor."""
        self.supervisor.kill()
        self.supervisor.wait()

    def stop(self, signum: int = signal.SIGTERM) -> int:
        """Ask the supervisor to stop; return its exit code."""
        self.supervisor.send_signal(signum)
        return self.supervisor.wait(WAIT_S)

    def clean_up(self) -> None:
        if self.supervisor is not None and self.supervisor.poll() is None:
            self.kill()
        # A shim that was told to start a moment ago may not have said yet who it is.
        deadline_s = time.monotonic() + UNKNOWN_SHIM_S
        while self._shims_to_come() and time.monotonic() < deadline_s:
            time.sleep(LOOK_S)
        for path in self.state.root.glob("runs/*/attempts/*/shim.json"):
            with contextlib.suppress(OSError, ValueError, KeyError):
                who = json.loads(path.read_text())["process"]
                found = identify(who["pid"])
                if found is not None and found.start_ticks == who["start_ticks"] and is_alive(found):
                    os.kill(who["pid"], signal.SIGQUIT)
                    self.wait_for(lambda found=found: not is_alive(found), "a shim to leave")

    def _shims_to_come(self) -> bool:
        launches = self.state.root.glob("runs/*/attempts/*/launch.json")
        return any(not path.with_name("shim.json").exists() for path in launches)

    # --- requests ---

    def _client(self) -> httpx.Client:
        # A Unix socket has no certificate; without this, httpx reads every authority's: 45 ms a request.
        return httpx.Client(
            transport=httpx.HTTPTransport(uds=str(self.state.socket), verify=False),
            base_url="http://trainerd",
            timeout=10,
            trust_env=False,
        )

    def get(self, path: str):
        with self._client() as client:
            answer = client.get(path)
        return answer.json() if answer.status_code == 200 else None

    def post(self, path: str) -> httpx.Response:
        with self._client() as client:
            return client.post(path)

    def job(self, name: str) -> dict | None:
        return self.get(f"/v1/jobs/{name}")

    def outcomes(self, name: str) -> list[dict]:
        return self.get(f"/v1/jobs/{name}/outcomes")

    # --- training jobs ---

    def pids_at_step(
        self, name: str, step: int, *, ranks: int = 1, limit_s: float = STEP_LIMIT_S
    ) -> list[int]:
        """Wait until a live attempt has finished `step`; return the pids of its ranks."""
        deadline_s = time.monotonic() + limit_s
        while time.monotonic() < deadline_s:
            job = self.job(name)
            if job is not None and job["state"] == "running" and len(job["pids"]) == ranks:
                page = self.state.run(name).attempt(job["attempt"]).heartbeat(0)
                while time.monotonic() < deadline_s and (rank := identify(job["pids"][0])) and is_alive(rank):
                    if has_done_step(page, step):
                        return job["pids"]
                    time.sleep(STEP_LOOK_S)
            time.sleep(STEP_LOOK_S)
        raise AssertionError(f"{name} did not come to step {step}\n{self.output.read_text()[-3000:]}")

    def finished(self, name: str, *, limit_s: float = STEP_LIMIT_S) -> Result:
        """Wait until a job has finished; return what it left."""
        self.wait_state(name, "finished", limit_s=limit_s)
        return result_of(self.state.run(name).root)

    # --- specs ---

    def drop(self, name: str, script: str, **fields) -> Path:
        """Drop a spec whose command runs `script` with sh, after a fast restart policy."""
        spec = {
            "command": ["sh", "-c", script],
            "workdir": str(self.work),
            "restart": {"budget": 3, "backoff": {"initial": 0.05, "max": 0.2}},
            "grace": 5,
            **fields,
        }
        return self.write(name, json.dumps(spec))

    def write(self, name: str, text: str) -> Path:
        path = self.jobs / f"{name}.json"
        temporary = self.jobs / f".{name}"
        temporary.write_text(text)
        temporary.replace(path)
        return path

    # --- waiting ---

    def wait_for(self, condition, what: str, *, limit_s: float = WAIT_S):
        """Return what `condition` returns once it is true."""
        return wait_for(condition, what, limit_s=limit_s, story=lambda: self.output.read_text()[-4000:])

    def wait_state(self, name: str, *states: str, limit_s: float = WAIT_S) -> dict:
        def look():
            job = self.job(name)
            return job if job is not None and job["state"] in states else None

        return self.wait_for(look, f"{name} to be {' or '.join(states)}", limit_s=limit_s)

    def wait_running(self, name: str, *, attempt: int = 1) -> dict:
        """Wait until the ranks are on record."""

        def look():
            job = self.job(name)
            is_up = job is not None and job["state"] == "running" and job["pids"]
            return job if is_up and job["attempt"] >= attempt else None

        return self.wait_for(look, f"{name} to run")

    def wait_gone(self, name: str) -> None:
        self.wait_for(lambda: self.job(name) is None, f"{name} to be forgotten")

    def wait_file(self, name: str) -> Path:
        path = self.work / name
        self.wait_for(path.exists, f"{path} to be there")
        return path

    def log(self) -> list[dict]:
        return [json.loads(line) for line in self.state.log.read_text().splitlines()]

    def starts(self, name: str) -> int:
        """How often the command really began, by its own account: each start appends a line."""
        path = self.work / f"{name}.starts"
        return len(path.read_text().splitlines()) if path.exists() else 0


def script(name: str, body: str) -> str:
    """Return a script that counts its starts durably enough for a test, then does `body`."""
    return f"echo $$ >> {name}.starts; {body}"


OBEDIENT = "trap 'exit 85' TERM; while :; do sleep 0.05; done"
"""Leaves on SIGTERM."""

ENDLESS = "while :; do sleep 0.05; done"
