"""Nobody outlives an attempt, and no stranger is hurt."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
from pathlib import Path

import pytest
from shim_workbench import python, runs, shell, wait_for

from trainerd.contract import records
from trainerd.contract.clock import SystemClock
from trainerd.contract.process import identify
from trainerd.contract.records import RanksRecord, ShimRecord
from trainerd.errors import InternalError, TryAgainError
from trainerd.shim.process_table import carries, processes_since
from trainerd.shim.survivors import SurvivorsEnded, end_processes, find_descendants
from trainerd.supervisor.attempt import launcher as launcher_module
from trainerd.supervisor.attempt.probe import ProbedLost, probe

# Children that do their best to get away: another session, another parent, an empty environment, all of it.
ESCAPE = """
import os, sys, time
def daemonize(clear):
    if os.fork(): return
    os.setsid()
    if os.fork(): os._exit(0)
    code = "import os, time; open(os.sys.argv[1], 'a').write(f'{os.getpid()} '); time.sleep(60)"
    command = [sys.executable, "-I", "-S", "-c", code, HERE + "/escaped"]
    os.execve(sys.executable, command, {} if clear else os.environ)
HERE = os.environ["HERE"]
for _ in range(3):
    daemonize(clear=True)
    daemonize(clear=False)
while not (os.path.exists(HERE + "/escaped") and len(open(HERE + "/escaped").read().split()) == 6):
    time.sleep(0.01)
if len(sys.argv) > 1: time.sleep(60)
"""


@pytest.mark.parametrize("uses_cgroup", [True, False])
def test_orphans_that_changed_session_parent_and_environment_are_ended(workbench, uses_cgroup):
    record = workbench.run_to_end(python(ESCAPE + "\nsys.exit(3)"), uses_cgroup=uses_cgroup)
    pids = workbench.pids_in("escaped", 6)
    assert record.ranks[0].exit_code == 3  # after an exit with 0 a trainer in the background is waited for
    assert record.survivors_killed == 6
    assert not any(runs(pid) for pid in pids)


@pytest.mark.parametrize("uses_cgroup", [True, False])
def test_a_herd_of_workers_is_ended_and_counted(workbench, uses_cgroup):
    """126 of them once held seven of eight GPUs."""
    script = "i=0; while [ $i -lt 60 ]; do sleep 60 & i=$((i+1)); done; exit 1"
    assert workbench.run_to_end(shell(script), uses_cgroup=uses_cgroup).survivors_killed == 60


@pytest.mark.parametrize("uses_cgroup", [True, False])
def test_survivors_that_keep_forking_are_ended(workbench, uses_cgroup):
    code = """
import os, time
if os.fork() == 0:
    os.setsid()
    while True:
        if os.fork(): os._exit(0)
        time.sleep(0.001)
"""
    record = workbench.run_to_end(python(code), uses_cgroup=uses_cgroup)
    assert record.survivors_killed >= 1
    mark = f"HERE={workbench.here}".encode()
    assert not [row for row in processes_since(0) if carries(row.identity.pid, mark)]


def lose_shim(workbench, command, **options):
    paths = workbench.launch(command, **options)
    state = workbench.running(paths)
    return paths, state


def kill_shim(paths, state):
    os.kill(state.shim.pid, signal.SIGKILL)
    wait_for(lambda: isinstance(probe(paths), ProbedLost))


def test_ranks_and_their_children_are_ended_after_the_shim_was_killed_without_a_cgroup(workbench):
    paths, state = lose_shim(workbench, python(ESCAPE + "\n" + "time.sleep(60)"), uses_cgroup=False)
    escaped = workbench.pids_in("escaped", 6)
    kill_shim(paths, state)
    assert runs(state.ranks[0].pid), "the death of the shim is nothing to a rank"
    killed = workbench.launcher.end_survivors(paths)
    assert killed == 4, "the rank and the three that kept their environment"
    assert not runs(state.ranks[0].pid)
    for pid in filter(runs, escaped):  # what only a living shim, or a cgroup, can find
        os.kill(pid, signal.SIGKILL)
    assert workbench.launcher.end_survivors(paths) == 0


def test_children_with_an_empty_environment_are_found_through_their_living_rank(workbench):
    script = "env -i sh -c 'echo $$ >$0; exec sleep 60' $HERE/child & wait"
    paths, state = lose_shim(workbench, shell(script), uses_cgroup=False)
    (child,) = workbench.pids_in("child")
    kill_shim(paths, state)
    assert workbench.launcher.end_survivors(paths) == 2
    assert not runs(child)


def test_survivors_are_found_by_their_mark_when_the_ranks_were_never_recorded(workbench, monkeypatch):
    monkeypatch.setenv("TRAINERD_FAILPOINTS", "ranks.started=kill")
    paths = workbench.launch(shell("echo $$ >$HERE/rank; exec sleep 60"), uses_cgroup=False)
    (rank,) = workbench.pids_in("rank")
    wait_for(lambda: isinstance(probe(paths), ProbedLost))
    assert workbench.launcher.end_survivors(paths) == 1
    assert not runs(rank)


def test_survivors_of_a_living_shim_are_not_ended(workbench, stubborn):
    paths = workbench.launch(stubborn)
    state = workbench.running(paths)
    with pytest.raises(InternalError):
        workbench.launcher.end_survivors(paths)
    assert runs(state.ranks[0].pid)


def test_after_a_restart_of_the_machine_nobody_is_left_and_no_stranger_is_signalled(workbench):
    paths = workbench.run.attempt(1)
    paths.root.mkdir(parents=True)
    with subprocess.Popen(["sleep", "60"]) as stranger:
        reused = dataclasses.replace(identify(stranger.pid), boot_id="another")
        records.write(paths.shim, ShimRecord(reused, 1.0))
        records.write(paths.ranks, RanksRecord((reused,)))
        assert not workbench.launcher.signal(paths, signal.SIGTERM)
        assert workbench.launcher.end_survivors(paths) == 0
        assert stranger.poll() is None
        stranger.kill()


def test_a_stranger_who_was_given_the_pid_of_a_rank_is_not_signalled(workbench):
    paths = workbench.run.attempt(1)
    paths.root.mkdir(parents=True)
    gone = subprocess.Popen(["true"])
    shim = identify(gone.pid)
    gone.wait()
    with subprocess.Popen(["sleep", "60"]) as stranger:
        identity = identify(stranger.pid)
        records.write(paths.shim, ShimRecord(shim, 1.0))
        reused = dataclasses.replace(identity, start_ticks=identity.start_ticks - 1)
        records.write(paths.ranks, RanksRecord((reused,)))
        assert workbench.launcher.end_survivors(paths) == 0
        records.write(paths.shim, ShimRecord(reused, 1.0))
        assert not workbench.launcher.signal(paths, signal.SIGKILL)
        assert stranger.poll() is None
        stranger.kill()


def test_another_attempt_with_the_same_folder_seen_from_outside_a_container_is_a_stranger(
    workbench, stubborn
):
    """Two containers may use the same paths: the mark names the shim too."""
    paths = workbench.launch(stubborn)
    state = workbench.running(paths)
    gone = subprocess.Popen(["true"])
    other_shim = dataclasses.replace(identify(gone.pid), start_ticks=state.shim.start_ticks - 1)
    gone.wait()
    mark = launcher_module.attempt_mark(paths.root, other_shim)
    assert find_descendants(mark, since_ticks=other_shim.start_ticks) == ()
    own_mark = launcher_module.attempt_mark(paths.root, state.shim)
    assert find_descendants(own_mark, since_ticks=state.shim.start_ticks) == state.ranks


def test_whoever_would_not_end_in_time_is_named(workbench, stubborn, monkeypatch):
    paths, state = lose_shim(workbench, stubborn)
    kill_shim(paths, state)
    with monkeypatch.context() as patch:
        patch.setattr(launcher_module, "end_processes", lambda *_, **__: SurvivorsEnded(0, state.ranks))
        with pytest.raises(TryAgainError, match=str(state.ranks[0].pid)):
            workbench.launcher.end_survivors(paths)


def test_the_search_for_survivors_has_a_limit():
    class FakeClock(SystemClock):
        now_s = 0.0

        def monotonic_s(self):
            self.now_s += 1.0
            return self.now_s

    immortal = dataclasses.replace(identify(os.getpid()), start_ticks=1)
    assert end_processes(lambda: (immortal,), FakeClock(), limit_s=10) == SurvivorsEnded(0, (immortal,))


def test_a_process_whose_first_thread_has_left_still_counts_as_alive(tmp_path):
    """It shows as a zombie, and may well hold a GPU."""
    code = "import ctypes, threading, time; threading.Thread(target=time.sleep, args=(60,)).start(); "
    with subprocess.Popen(python(code + "ctypes.CDLL(None).pthread_exit(None)")) as headless:
        try:
            wait_for(lambda: state_of(headless.pid) == "Z")
            assert headless.pid in {row.identity.pid for row in processes_since(0)}
        finally:
            headless.kill()


def test_a_process_that_has_ended_does_not_count_though_nobody_collected_it():
    with subprocess.Popen(["true"]) as ended:
        wait_for(lambda: state_of(ended.pid) == "Z")
        assert ended.pid not in {row.identity.pid for row in processes_since(0)}


def state_of(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
