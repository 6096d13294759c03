"""At most once, whoever dies: launching, adopting, declaring void."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from shim_workbench import runs, shell, wait_for

from trainerd.contract import records
from trainerd.contract.clock import SystemClock
from trainerd.contract.process import identify, is_alive
from trainerd.contract.records import LaunchRecord, ShimRecord
from trainerd.errors import SpaceError, TryAgainError
from trainerd.shim.entry import held_lock
from trainerd.supervisor.attempt.launcher import ShimLauncher
from trainerd.supervisor.attempt.probe import (
    ProbedEnded,
    ProbedLost,
    ProbedNotStarted,
    ProbedRunning,
    ProbedStarting,
    ProbedUnknown,
    probe,
)

SHIM = (sys.executable, "-P", "-m", "trainerd.shim")


def start_shim_by_hand(paths, **options):
    return subprocess.Popen([*SHIM, paths.root], stderr=subprocess.PIPE, text=True, **options)


def prepare(workbench, command, attempt=1):
    paths = workbench.run.attempt(attempt)
    paths.root.mkdir(parents=True)
    records.write(paths.launch, workbench.record(command, attempt=attempt))
    return paths


def test_an_attempt_is_watched_from_start_to_end_and_leaves_no_zombie(workbench):
    paths = workbench.launch(shell("sleep 0.1; exit 3"))
    states = workbench.watch(paths)
    assert [type(state) for state in states] == [ProbedStarting, ProbedRunning, ProbedEnded]
    assert len(states[1].ranks) == 1
    assert states[-1].record.ranks[0].exit_code == 3
    assert identify(states[1].shim.pid) is None, "collected"
    assert not workbench.launcher.child_pids


def test_launching_returns_without_waiting(workbench):
    paths = workbench.launch(("sleep", "60"))
    assert isinstance(probe(paths), ProbedStarting)


def test_watching_costs_nothing_while_nothing_happens(workbench, obedient, monkeypatch):
    """The event loop sleeps in one wait from the start of the ranks to the end of the shim."""
    paths = workbench.launch(obedient)
    workbench.running(paths, ready=(0,))
    looks = []
    monkeypatch.setattr(
        "trainerd.supervisor.attempt.launcher.probe", lambda paths: looks.append(1) or probe(paths)
    )

    async def watch():
        states = workbench.launcher.watch(paths)
        while not (isinstance(state := await anext(states), ProbedRunning) and state.ranks):
            pass
        before = len(looks)
        ending = asyncio.ensure_future(anext(states))
        await asyncio.sleep(0.3)
        assert len(looks) <= before + 1
        workbench.launcher.signal(paths, signal.SIGTERM)
        assert isinstance(await ending, ProbedEnded)

    asyncio.run(watch())


def test_training_does_not_notice_the_death_of_the_supervisor_and_its_true_exit_is_collected(workbench):
    """Another process launches and is killed; this one adopts, sees the end and learns the exit code."""
    paths = workbench.run.attempt(1)
    paths.root.mkdir(parents=True)
    record = workbench.record(shell("while [ ! -e $HERE/go ]; do sleep 0.01; done; exit 42"))
    code = f"""
import signal
from pathlib import Path
from trainerd.contract.paths import AttemptPaths
from trainerd.contract.records import LaunchRecord
from trainerd.supervisor.attempt.launcher import ShimLauncher
ShimLauncher().launch(AttemptPaths(Path({str(paths.root)!r})), {record!r})
signal.pause()
"""
    with subprocess.Popen([sys.executable, "-c", code], start_new_session=True) as supervisor:
        try:
            wait_for(paths.ranks.exists)
            before = probe(paths)
        finally:
            os.killpg(supervisor.pid, signal.SIGKILL)
    assert probe(paths) == before, "same shim, same ranks"
    assert runs(before.ranks[0].pid)
    go = threading.Timer(0.1, (workbench.here / "go").touch)
    go.start()
    adopted, ended = workbench.watch(paths, ShimLauncher())
    go.join()
    assert adopted == before
    assert ended.record.ranks[0].exit_code == 42


def test_an_adopted_attempt_is_drained_like_any_other(workbench, obedient):
    paths = workbench.launch(obedient)
    workbench.running(paths, ready=(0,))
    assert ShimLauncher().signal(paths, signal.SIGTERM)
    assert workbench.ended(paths).ranks[0].exit_code == 85


def test_an_attempt_that_no_shim_came_for_is_declared_void_by_watching_it(workbench):
    paths = prepare(workbench, ("true",))
    (state,) = workbench.watch(paths)
    assert state == ProbedNotStarted("no shim had started it", is_void=True)
    late = start_shim_by_hand(paths)
    assert "was declared void" in late.communicate()[1]
    assert not paths.shim.exists()


def test_a_shim_that_dies_before_it_says_who_it_is_makes_the_attempt_void(workbench, monkeypatch):
    monkeypatch.setenv("TRAINERD_FAILPOINTS", "shim.locked=kill")
    paths = workbench.launch(("true",))
    states = workbench.watch(paths)
    assert states[-1] == ProbedNotStarted("its shim ended before it started anything", is_void=True)
    assert not workbench.launcher.child_pids


def test_a_shim_that_is_killed_makes_the_attempt_lost(workbench, stubborn):
    paths = workbench.launch(stubborn)
    state = workbench.running(paths)
    os.kill(state.shim.pid, signal.SIGKILL)
    assert isinstance(workbench.watch(paths)[-1], ProbedLost)


def test_a_second_shim_starts_nothing_while_the_first_one_runs(workbench, stubborn):
    paths = workbench.launch(stubborn)
    state = workbench.running(paths)
    code = (
        "import sys; from trainerd.shim import entry; entry.LOCK_WAIT_S = 0.0\n"
        "from trainerd.shim.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )
    second = subprocess.Popen([sys.executable, "-c", code, paths.root], stderr=subprocess.PIPE, text=True)
    assert "a shim is minding this attempt" in second.communicate()[1]
    assert second.returncode == 1
    assert probe(paths) == state


def test_a_shim_for_an_attempt_that_is_over_starts_nothing(workbench):
    workbench.run_to_end(("true",))
    paths = workbench.run.attempt(1)
    wait_for(lambda: not is_alive(records.read(paths.shim, ShimRecord).process))
    again = start_shim_by_hand(paths)
    assert "has been started before" in again.communicate()[1]
    assert not workbench.launcher.void(paths, "too late"), "it did start"


def test_a_running_attempt_cannot_be_declared_void(workbench, stubborn):
    paths = workbench.launch(stubborn)
    workbench.running(paths)
    assert not workbench.launcher.void(paths, "no")
    assert not paths.void.exists()


def test_declaring_void_twice_keeps_the_first_reason(workbench):
    paths = prepare(workbench, ("true",))
    assert workbench.launcher.void(paths, "first")
    assert workbench.launcher.void(paths, "second")
    assert probe(paths) == ProbedNotStarted("first", is_void=True)


def test_an_attempt_is_either_void_or_started_never_both_and_never_neither(workbench):
    """The race of a late shim with a supervisor that gives it up, run at offsets all across the shim's
    start."""
    began_s = time.monotonic()
    paths = workbench.launch(shell("true"))
    wait_for(paths.shim.exists)
    start_s = time.monotonic() - began_s
    workbench.watch(paths)
    outcomes = {}
    for attempt in range(2, 26):
        paths = workbench.launch(shell(f"echo {attempt} >>$HERE/started"), attempt=attempt)
        signal.sigtimedwait([], start_s * (attempt - 2) / 16)
        outcomes[attempt] = ShimLauncher().void(paths, "given up")
        final = workbench.watch(paths)[-1]
        assert isinstance(final, ProbedNotStarted if outcomes[attempt] else ProbedEnded)
    started = (workbench.here / "started").read_text().split()
    assert started == [str(attempt) for attempt, is_void in outcomes.items() if not is_void]
    assert any(outcomes.values())


def test_a_shim_waits_for_a_lock_that_is_held_for_a_moment(workbench):
    paths = prepare(workbench, ("true",))
    with held_lock(paths, SystemClock(), wait_s=0):
        shim = start_shim_by_hand(paths)
        wait_for(lambda: str(paths.lock) in open_files(shim.pid))
        assert shim.poll() is None
    assert shim.communicate()[1]
    assert workbench.ended(paths).ranks[0].exit_code == 0


def open_files(pid):
    found = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(str(link.readlink()))
    return found


def test_a_shim_started_by_hand_in_somebodys_session_leaves_it(workbench):
    """With everything ignored that can be, and a descriptor left open, as a careless parent would."""
    paths = prepare(workbench, ("sh", "-c", "ls -l /proc/$$/fd; grep SigIgn /proc/$$/status"))
    leaked = os.open("/etc/passwd", os.O_RDONLY)
    os.set_inheritable(leaked, True)

    def careless():
        for signum in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP, signal.SIGABRT):
            signal.signal(signum, signal.SIG_IGN)

    shim = start_shim_by_hand(paths, close_fds=False, preexec_fn=careless)
    os.close(leaked)
    shim.communicate()
    assert workbench.ended(paths).ranks[0].exit_code == 0
    assert "/etc/passwd" not in workbench.log()
    ignored = int(workbench.log().split("SigIgn:")[1], 16)
    assert ignored & ~(3 << 31) == 0, "32 and 33 belong to the C library"


def test_signalling_a_shim_that_has_not_said_who_it_is_is_to_be_tried_again(workbench):
    paths = prepare(workbench, ("true",))
    with pytest.raises(TryAgainError):
        workbench.launcher.signal(paths, signal.SIGTERM)


def test_a_launch_record_that_makes_no_sense_starts_nothing(workbench):
    paths = workbench.run.attempt(1)
    paths.root.mkdir(parents=True)
    records.write(paths.launch, LaunchRecord("job", 1, ("true",), "/", {}, 2, 1.0, ("only one",)))
    assert "one log a rank" in start_shim_by_hand(paths).communicate()[1]
    paths.launch.write_text("{")
    assert isinstance(probe(paths), ProbedUnknown)
    assert "not valid JSON" in start_shim_by_hand(paths).communicate()[1]


@pytest.mark.parametrize("arguments", [[], ["a", "b"], ["a", "--ready-fd", "x"]])
def test_wrong_arguments_are_answered_with_the_usage(arguments):
    shim = subprocess.run([*SHIM, *arguments], capture_output=True, text=True, check=False)
    assert shim.returncode == 2
    assert "usage:" in shim.stderr


def test_a_disk_that_is_full_at_the_launch_is_said_and_nothing_is_started(workbench, monkeypatch):
    def full(*_):
        raise SpaceError("full")

    monkeypatch.setattr(records, "write", full)
    with pytest.raises(SpaceError):
        workbench.launch(("true",))
    monkeypatch.undo()
    assert isinstance(probe(workbench.run.attempt(1)), ProbedNotStarted)


def test_an_interpreter_that_is_gone_is_an_error_of_the_launch(workbench):
    paths = workbench.run.attempt(1)
    with pytest.raises(OSError, match="No such file"):
        ShimLauncher(python="/no/such/python").launch(paths, workbench.record(("true",)))
    assert workbench.launcher.void(paths, "could not be launched")


def test_what_cannot_be_observed_is_shown_as_unknown_and_looked_at_again(workbench, stubborn, monkeypatch):
    paths = workbench.launch(stubborn)
    workbench.running(paths)
    answers = [ProbedUnknown("/proc was out of reach")]
    monkeypatch.setattr("trainerd.supervisor.attempt.launcher.UNKNOWN_LOOK_S", 0.01)
    monkeypatch.setattr(
        "trainerd.supervisor.attempt.launcher.probe", lambda paths: answers.pop() if answers else probe(paths)
    )

    async def first_two():
        states = workbench.launcher.watch(paths)
        return [await anext(states), await anext(states)]

    unknown, running = asyncio.run(first_two())
    assert unknown == ProbedUnknown("/proc was out of reach")
    assert isinstance(running, ProbedRunning)
