"""A process that has imported what costs seconds already, and forks a program whenever it is asked to: a
launch costs milliseconds.

    server = ForkServer(warm_up=Path(...))
    process = server.launch(script, arguments, environment, log)
    process.wait(10)

Each is a process in a session of its own and runs the script as `python script.py` would, with the
environment that it is given.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

_LOOK_S = 0.004


class ForkedProcess:
    """One program, seen from the process that asked for it: as much of `subprocess.Popen` as tests use."""

    def __init__(self, server: ForkServer, pid: int) -> None:
        self._server = server
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._server.ask({"poll": self.pid})
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        deadline_s = time.monotonic() + (timeout if timeout is not None else 1e9)
        while (code := self.poll()) is None:
            if time.monotonic() >= deadline_s:
                raise subprocess.TimeoutExpired("a forked process", timeout or 0.0)
            time.sleep(_LOOK_S)
        return code

    def send_signal(self, signum: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, signum)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class ForkServer:
    """Starts the process with its first use, and ends it with the block or with this process.

    Args:
        warm_up: Script that imports, and then calls `serve`.
        arguments: Its arguments.
    """

    def __init__(self, warm_up: Path, *arguments: str) -> None:
        self._command = [sys.executable, str(warm_up), *arguments]
        self._process: subprocess.Popen[bytes] | None = None

    def launch(
        self,
        script: Path,
        arguments: list[str],
        environment: dict[str, str],
        log: Path,
        *,
        command: list[str] | None = None,
        errors: Path | None = None,
        folder: Path | None = None,
    ) -> ForkedProcess:
        """Start a program; its output is appended to `log`.

        Args:
            script: What to run.
            arguments: Its arguments.
            environment: Its environment.
            log: Where its output goes.
            command: What it believes to have been started with, `python script arguments` unless given.
            errors: Where its standard error goes, if not to `log`.
            folder: Its working directory, this process's unless given.
        """
        request = {
            "command": command or [sys.executable, str(script), *arguments],
            "script": str(script),
            "arguments": arguments,
            "environment": environment,
            "log": str(log),
            "errors": str(errors or log),
            "folder": str(folder or Path.cwd()),
        }
        return ForkedProcess(self, int(self.ask(request)))

    def ask(self, request: dict[str, Any]) -> Any:
        if self._process is None:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait(10)
            self._process = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def serve() -> dict[str, Any] | None:
    """Answer until nobody asks any more. In a process that was forked, return what it is to be instead."""
    while line := sys.stdin.readline():
        request = json.loads(line)
        if "poll" in request:
            pid, status = os.waitpid(request["poll"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        elif (answer := os.fork()) == 0:
            return dict(request)
        print(json.dumps(answer), flush=True)
    return None


def become(request: dict[str, Any]) -> int:
    """Turn this process, just forked, into the program, run it, and return its exit code."""
    os.setsid()
    os.chdir(request["folder"])
    log, errors = (
        os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666) for name in ("log", "errors")
    )
    nothing = os.open(os.devnull, os.O_RDONLY)
    for target, source in ((0, nothing), (1, log), (2, errors)):
        os.dup2(source, target)
    os.environ.clear()
    os.environ.update(request["environment"])
    from trainerd.contract import failpoints

    failpoints.arm(os.environ.get(failpoints.VARIABLE, ""))  # which was read when the module was imported
    sys.argv = [request["script"], *request["arguments"]]
    sys.orig_argv[:] = request["command"]
    return _run(request["script"])


def _run(script: str) -> int:
    """Run it and return its exit code, as the interpreter would."""
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            return error.code or 0
        print(error.code, file=sys.stderr)
        return 1
    except BaseException as error:  # noqa: BLE001 - the end of this process
        sys.excepthook(type(error), error, error.__traceback__)
        return 1
    return 0
