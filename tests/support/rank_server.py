"""A process that has imported torch already and forks a rank whenever it is asked to: a launch costs
milliseconds.

    with RankServer() as server:
        rank = server.launch(script, arguments, environment, log)
        rank.wait(10)

Each rank is a process in a session of its own and runs the script as `python script.py` would, with the
environment that it is given. Only the interpreter's teardown is left out, which takes seconds in a process
with all of torch.
"""

from __future__ import annotations

import gc
import importlib
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


class ForkedRank:
    """One rank, seen from the process that asked for it: as much of `subprocess.Popen` as tests use."""

    def __init__(self, server: RankServer, pid: int) -> None:
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
                raise subprocess.TimeoutExpired("rank", timeout or 0.0)
            time.sleep(_LOOK_S)
        return code

    def send_signal(self, signum: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, signum)


class RankServer:
    """Starts the process with its first use, and ends it with the block or with this process.

    Args:
        modules: What to import besides.
    """

    def __init__(self, *modules: str) -> None:
        self._modules = modules
        self._process: subprocess.Popen[bytes] | None = None

    def launch(
        self, script: Path, arguments: list[str], environment: dict[str, str], log: Path
    ) -> ForkedRank:
        request = {"script": str(script), "arguments": arguments, "environment": environment, "log": str(log)}
        return ForkedRank(self, int(self.ask(request)))

    def ask(self, request: dict[str, Any]) -> Any:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, str(Path(__file__).resolve()), *self._modules],
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


def become(request: dict[str, Any]) -> None:
    """Turn this process, just forked, into a rank, and run its script."""
    os.setsid()
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for target, source in ((0, nothing), (1, log), (2, log)):
        os.dup2(source, target)
    os.environ.clear()
    os.environ.update(request["environment"])
    from trainerd.contract import failpoints
    from trainerd.training.interruption import leaving

    failpoints.arm(os.environ.get(failpoints.VARIABLE, ""))  # which was read when the module was imported
    sys.argv = [request["script"], *request["arguments"]]
    code = _run(request["script"])
    leaving.end_workers()
    leaving.exit_process(code)


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


def _warm_up(modules: list[str]) -> None:
    """Import what the scripts import. No thread may live here, for none would live on in a fork."""
    repository = Path(__file__).resolve().parents[2]
    sys.path[:0] = [str(repository / "daemon"), str(repository)]
    import torch.distributed

    import tests.support.tiny_parts
    import trainerd
    import trainerd.training.session

    assert (torch.distributed, tests.support.tiny_parts, trainerd) is not None
    next(iter(torch.utils.data.DataLoader(torch.zeros(1, 1))))  # imports more
    for module in modules:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()  # what is shared stays shared


if __name__ == "__main__":
    del sys.path[0]  # this file's folder, which has nothing to import
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    _warm_up(sys.argv[1:])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if (asked := serve()) is not None:
        become(asked)
