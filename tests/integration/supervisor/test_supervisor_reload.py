"""SIGHUP: the program is replaced in place; no job notices, and no request fails."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import httpx
import pytest

import trainerd
from tests.support.daemon_bench import ENDLESS, OBEDIENT, script

pytestmark = pytest.mark.timeout(400)

PATIENCE_S = 60.0
"""How long a request waits that the new program has to answer: about the time of its start."""

PAUSE_S = 0.02
"""Between two questions: those who ask without a pause take the processor that the new program needs."""

UNTIL_GO = "while ! test -e go; do sleep 0.02; done; exit 0"


class Asker:
    """Asks a supervisor again and again, each time on a new connection, and tries to take its lock."""

    def __init__(self, bench, path="/v1/jobs/ant", *, method="GET", expected):
        self.bench = bench
        self.method, self.path, self.expected = method, path, expected
        self.answers = 0
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()

    def _ask(self):
        while not self._stop.is_set():
            try:
                with self.bench._client() as client:
                    answer = client.request(self.method, self.path, timeout=PATIENCE_S)
                assert self.expected.items() <= answer.json().items()
            except (httpx.HTTPError, AssertionError, TypeError) as error:
                self.failures.append(repr(error))
            self.answers += 1
            self._stop.wait(PAUSE_S)
            with self.bench.state.lock.open("rb") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                self.failures.append("the lock of the state folder was free")


@pytest.fixture
def notices(tmp_path):
    """A systemd of sorts: a socket, its address."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(120)  # two starts of Python on a busy machine
        yield listener


def await_notices(notices, *wanted: str) -> list[str]:
    """Return what was said until all of `wanted` were, in this order."""
    said = []
    for text in wanted:
        while not said or not said[-1].startswith(text):
            said.append(notices.recv(4096).decode())
    return said


def processes_like(bench) -> list[str]:
    """Return the processes, the supervisor apart, that have its command line."""
    own = bench.supervisor.pid
    line = Path(f"/proc/{own}/cmdline").read_bytes()
    others = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if path.read_bytes() == line and path.parent.name != str(own):
                others.append(path.parent.name)
    return others


def count(bench, event: str) -> int:
    return sum(line["event"] == event for line in bench.log())


@pytest.mark.slow
def test_no_job_notices_no_request_fails_and_the_lock_is_never_free(bench, notices):
    bench.start(is_forked=False, NOTIFY_SOCKET=notices.getsockname())
    await_notices(notices, "READY=1")
    bench.drop("ant", script("ant", UNTIL_GO))
    before = bench.wait_running("ant")
    asker = Asker(bench, expected={"name": "ant", "state": "running", "pids": before["pids"]})
    # What only the new program can do waits for it.
    doer = Asker(bench, "/v1/rescan", method="POST", expected={"ok": True})
    with asker, doer:
        for life in (2, 3):
            began = time.monotonic_ns() // 1000
            bench.supervisor.send_signal(signal.SIGHUP)
            said = await_notices(notices, "RELOADING=1\nMONOTONIC_USEC=", "READY=1")
            moment = int(next(text for text in said if "MONOTONIC" in text).partition("USEC=")[2])
            assert began <= moment <= time.monotonic_ns() // 1000
            assert count(bench, "supervisor.ready") == life
    assert (asker.failures, doer.failures) == ([], [])
    assert asker.answers > 10
    bench.wait_for(lambda: not processes_like(bench), "no other process to be left")
    assert bench.get("/v1/daemon")["pid"] == bench.supervisor.pid
    after = bench.wait_running("ant")
    assert (after["pids"], after["shim_pid"]) == (before["pids"], before["shim_pid"])
    (bench.work / "go").touch()
    bench.wait_state("ant", "finished")
    assert bench.starts("ant") == 1
    assert bench.stop() == 0
    assert not bench.state.socket.exists()


@pytest.mark.slow
def test_requests_made_between_the_two_programs_wait_and_are_answered(bench):
    """In the queue of the socket, which stays open. The process is stopped there, so that they do come
    then."""
    bench.start(is_forked=False)
    bench.drop("ant", script("ant", OBEDIENT))
    before = bench.wait_running("ant")
    bench.supervisor.send_signal(signal.SIGHUP)
    bench.wait_for(lambda: count(bench, "supervisor.reloading"), "the old program to end")
    bench.supervisor.send_signal(signal.SIGSTOP)
    assert count(bench, "supervisor.ready") == 1

    def ask(method, path):
        with bench._client() as client:
            return client.request(method, path, timeout=PATIENCE_S)

    requests = [("GET", "/v1/jobs/ant"), ("POST", "/v1/rescan")] * 16
    with ThreadPoolExecutor(len(requests)) as pool:
        waiting = [pool.submit(ask, *request) for request in requests]
        assert not wait(waiting, timeout=0.5).done
        bench.supervisor.send_signal(signal.SIGCONT)
        answers = [answer.result() for answer in waiting]
    assert {answer.status_code for answer in answers} == {200}
    assert answers[0].json()["pids"] == before["pids"]
    assert bench.stop() == 0


@pytest.mark.slow
def test_code_that_cannot_start_is_refused_and_sound_code_is_run(bench, notices):
    """With the program's own files in a copy, to break and to mend."""
    code = bench.root / "code"
    shutil.copytree(Path(trainerd.__file__).parent, code / "trainerd")
    bench.start(
        is_forked=False,
        NOTIFY_SOCKET=notices.getsockname(),
        PYTHONPATH=str(code),
        PYTHONDONTWRITEBYTECODE="1",
    )
    await_notices(notices, "READY=1")
    bench.drop("ant", script("ant", OBEDIENT))
    before = bench.wait_running("ant")

    victim = code / "trainerd" / "supervisor" / "specs" / "quantities.py"
    sound = victim.read_text()
    victim.write_text(sound + "\ndef half(:\n")
    bench.supervisor.send_signal(signal.SIGHUP)
    said = await_notices(notices, "RELOADING=1", "READY=1", "STATUS=reload refused")
    assert "SyntaxError" in said[-1]
    assert "quantities.py" in said[-1]
    assert bench.answers()
    assert count(bench, "supervisor.reloading") == 0
    assert "SyntaxError" in bench.get("/v1/daemon")["reload_refusal"]

    victim.write_text(sound)
    version = code / "trainerd" / "version.py"
    version.write_text(version.read_text().replace(trainerd.__version__, "99.1"))
    bench.supervisor.send_signal(signal.SIGHUP)
    await_notices(notices, "RELOADING=1", "READY=1")
    assert bench.get("/v1/daemon")["version"] == "99.1"
    assert bench.answers()
    assert bench.wait_running("ant")["pids"] == before["pids"]
    assert bench.stop() == 0


@pytest.mark.slow
def test_a_configuration_is_read_again_and_one_that_is_not_sound_is_refused(bench):
    bench.start(is_forked=False, config="[limits]\ncpus = 64\nmax_jobs = 1\n")
    for name in ("ant", "bee"):
        bench.drop(name, script(name, OBEDIENT))
    bench.wait_running("ant")
    assert "max_jobs" in bench.wait_state("bee", "queued")["reason"]
    file = bench.root / "trainerd.toml"
    for text, event in (
        ("[limits]\nmax_job = 2\n", "reload-refused"),
        ("[limits]\ncpus = 64\n", "reloading"),
    ):
        file.write_text(text)
        bench.supervisor.send_signal(signal.SIGHUP)
        bench.wait_for(lambda event=event: count(bench, f"supervisor.{event}"), event)
    (refusal,) = (line for line in bench.log() if line["event"] == "supervisor.reload-refused")
    assert f"{file}:2: limits.max_job: unknown field" in refusal["reason"]
    bench.wait_running("bee")


@pytest.mark.slow
def test_a_request_to_stop_in_the_midst_of_a_reload_is_not_lost(bench):
    """It is held until the new program can note it: everything is drained."""
    bench.start(is_forked=False)
    bench.drop("ant", script("ant", f"trap 'touch asked; exit 0' TERM; {ENDLESS}"))
    bench.wait_running("ant")
    bench.supervisor.send_signal(signal.SIGHUP)
    bench.wait_for(lambda: count(bench, "supervisor.reloading"), "the reload to begin")
    assert bench.stop() == 0
    assert (bench.work / "asked").exists()


def test_a_request_to_stop_while_the_next_program_is_checked_ends_the_check(bench):
    bench.start(is_forked=False)
    bench.drop("ant", script("ant", f"trap 'touch asked; exit 0' TERM; {ENDLESS}"))
    bench.wait_running("ant")
    bench.supervisor.send_signal(signal.SIGHUP)
    assert bench.stop() == 0
    assert (bench.work / "asked").exists()
    assert count(bench, "supervisor.reloading") == 0


def test_a_socket_that_was_deleted_is_there_again_after_a_reload(bench):
    bench.start(is_forked=False)
    bench.state.socket.unlink()
    bench.supervisor.send_signal(signal.SIGHUP)
    bench.wait_for(lambda: count(bench, "supervisor.ready") == 2, "the reload")
    assert bench.answers()


@pytest.mark.slow
def test_a_supervisor_killed_after_a_reload_leaves_no_descriptor_that_keeps_the_lock(bench):
    """Jobs and checks inherit neither the lock nor the socket: the next supervisor can start at once."""
    bench.start(is_forked=False)
    bench.supervisor.send_signal(signal.SIGHUP)
    bench.wait_for(lambda: count(bench, "supervisor.ready") == 2, "the reload")
    bench.drop("ant", script("ant", OBEDIENT))
    pid = bench.wait_running("ant")["pids"][0]
    held = [str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()]
    assert not any("trainerd.lock" in target or "socket" in target for target in held)
    bench.kill()
    bench.start(is_forked=False)
    assert bench.wait_running("ant")["pids"] == [pid]
