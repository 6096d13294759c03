"""An attempt in a cgroup of its own: nobody gets out of it, its memory is counted, and it does not stay."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
from pathlib import Path

import psutil
import pytest
from shim_workbench import python, runs, shell, wait_for

from trainerd.contract import records
from trainerd.contract.clock import SystemClock
from trainerd.contract.process import identify
from trainerd.contract.records import ShimRecord
from trainerd.errors import UserError
from trainerd.shim import cgroup_members, kernel
from trainerd.shim.cgroup import AttemptCgroup, folders_of
from trainerd.shim.cgroup_members import end_members, members, remove_empty
from trainerd.shim.cgroup_place import find_places
from trainerd.shim.spawn import spawn
from trainerd.shim.survivors import attempt_mark, find_descendants
from trainerd.supervisor.attempt.cgroups import prepare_cgroups, why_no_memory
from trainerd.supervisor.attempt.launcher import ShimLauncher
from trainerd.supervisor.attempt.probe import ProbedLost, probe
from trainerd.supervisor.machine.outcome import Evidence, OutcomeKind, judge

PLACES = find_places()
LIMIT_S = 10.0
MIB = 1024**2

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(PLACES.tree is None, reason=f"no cgroup can be made here: {PLACES.why_not}"),
]

# Behind a subreaper of its own, in another session, with an empty environment; then the one between has left
# too.
HIDDEN = """
import ctypes, os, sys, time
HERE = os.environ["HERE"]
SLEEPER = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(60)"
if os.fork() == 0:
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execve(sys.executable, [sys.executable, "-I", "-S", "-c", SLEEPER, HERE + "/hidden"], {})
        os._exit(0)
    while not os.path.exists(HERE + "/hidden"): time.sleep(0.01)
    os._exit(0)
os.wait()
open(HERE + "/alone", "w").close()
"""


def cgroups_of(paths):
    return folders_of(records.read(paths.shim, ShimRecord))


@pytest.fixture
def cgroup(tmp_path):
    """A cgroup of version 2, or of systemd's tree, and whoever is in it gone afterwards."""
    folder = PLACES.tree / f"trainerd-test-{os.getpid()}"
    folder.mkdir()
    yield folder
    end_members(folder, lambda: None, SystemClock(), limit_s=LIMIT_S)
    assert remove_empty(folder)


def start_in(folder, script="exec sleep 60", *, cgroup=None):
    command, environ = ("sh", "-c", script), {"PATH": os.environ["PATH"]}
    with Path(os.devnull).open("w") as log:
        return spawn(command, "/", environ, log.fileno(), cgroup=cgroup or AttemptCgroup([folder]))


def end(folder):
    """End who is in there, children of this process collected on the way."""
    killed = end_members(folder, collect, SystemClock(), limit_s=LIMIT_S)
    wait_for(lambda: not collect(), "no child to be left")
    return killed


def collect():
    """Collect those children of this test that have ended; tell whether any are left."""
    for pid in children() - CHILDREN_OF_OTHERS:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
    return bool(children() - CHILDREN_OF_OTHERS)


def children():
    return {child.pid for child in psutil.Process().children()}


CHILDREN_OF_OTHERS = set()


@pytest.fixture(autouse=True)
def _leaves_this_process_as_it_was(monkeypatch):
    """Tests before this one may have children that stay, and `spawn` ends in another folder, as is right in a
    shim."""
    monkeypatch.chdir(Path.cwd())
    CHILDREN_OF_OTHERS.clear()
    CHILDREN_OF_OTHERS.update(children())


def test_ranks_run_in_a_cgroup_that_is_named_after_them_and_gone_afterwards(workbench, obedient):
    paths = workbench.launch(obedient, nproc=2)
    state = workbench.running(paths, ready=(0, 1))
    (folder,) = cgroups_of(paths)
    assert folder.parent == PLACES.tree
    assert folder.name.startswith("trainerd-job-1-")
    assert members(folder) == {rank.pid for rank in state.ranks}
    workbench.launcher.signal(paths, signal.SIGTERM)
    assert [rank.exit_code for rank in workbench.ended(paths).ranks] == [85, 85]
    assert not folder.exists()


def test_a_rank_is_in_its_cgroup_from_its_first_instruction_on(workbench):
    workbench.run_to_end(shell("cat /proc/self/cgroup >$HERE/membership"))
    assert "/trainerd-job-1-" in (workbench.here / "membership").read_text()


def test_an_orphan_that_no_trace_leads_to_is_found_by_the_cgroup_after_the_shim_was_killed(workbench):
    """Not its parent, session or environment: all of them are gone."""
    paths = workbench.launch(python(HIDDEN + "\ntime.sleep(60)"))
    state = workbench.running(paths)
    (hidden,) = workbench.pids_in("hidden")
    wait_for((workbench.here / "alone").exists)
    os.kill(state.shim.pid, signal.SIGKILL)
    wait_for(lambda: isinstance(probe(paths), ProbedLost))
    (folder,) = cgroups_of(paths)
    assert members(folder) == {hidden, state.ranks[0].pid}
    traced = find_descendants(
        attempt_mark(paths.root, state.shim), since_ticks=state.shim.start_ticks, known=state.ranks
    )
    assert traced == state.ranks
    assert workbench.launcher.end_survivors(paths) == 2
    assert not runs(hidden)
    assert not folder.exists()


def test_a_job_that_forks_faster_than_it_can_be_walked_is_ended(workbench):
    """Each child leaves its parent at once: a list of children is out of date before it is read."""
    code = """
import os
for _ in range(20):
    if os.fork() == 0:
        os.setsid()
        while True:
            if os.fork(): os._exit(0)
"""
    record = workbench.run_to_end(python(code))
    assert record.survivors_killed
    assert record.duration_s < LIMIT_S


def test_a_cgroup_that_a_job_made_below_its_own_goes_with_it(workbench):
    script = (
        "name=$(grep -o 'trainerd-job-1-[0-9-]*' /proc/self/cgroup | head -n 1); "
        f"sub={PLACES.tree}/$name/sub; mkdir $sub; "
        "sleep 60 & echo $! >$sub/cgroup.procs; echo $! >$HERE/below"
    )
    record = workbench.run_to_end(shell(script))
    (below,) = workbench.pids_in("below")
    assert record.survivors_killed == 1
    assert not runs(below)
    (folder,) = cgroups_of(workbench.run.attempt(1))
    assert not folder.exists()


def test_a_cgroup_left_by_a_killed_shim_is_removed(workbench, monkeypatch):
    monkeypatch.setenv("TRAINERD_FAILPOINTS", "cgroup.made=kill")
    paths = workbench.launch(shell("true"))
    wait_for(lambda: isinstance(probe(paths), ProbedLost))
    (folder,) = cgroups_of(paths)
    assert folder.exists()
    assert workbench.launcher.end_survivors(paths) == 0
    assert not folder.exists()


def test_a_cgroup_on_record_that_is_not_named_after_the_shim_is_a_strangers(workbench, cgroup):
    stranger = start_in(cgroup)
    paths = workbench.run.attempt(1)
    paths.root.mkdir(parents=True)
    gone = dataclasses.replace(identify(os.getpid()), start_ticks=1)
    records.write(paths.shim, ShimRecord(gone, 1.0, (str(cgroup),)))
    assert workbench.launcher.end_survivors(paths) == 0
    assert runs(stranger)
    end(cgroup)


def test_an_attempt_that_is_to_have_no_cgroup_has_none(workbench):
    paths = workbench.launch(shell("cat /proc/self/cgroup >$HERE/membership"), uses_cgroup=False)
    workbench.ended(paths)
    assert cgroups_of(paths) == ()
    assert (workbench.here / "membership").read_text() == Path("/proc/self/cgroup").read_text()


@pytest.mark.parametrize("kernel_is", ["new", "old"])
def test_whoever_is_in_a_cgroup_is_ended_and_whoever_is_not_stays(cgroup, monkeypatch, kernel_is):
    """An old kernel has no cgroup.kill: they are frozen, and killed one by one."""
    if kernel_is == "old":
        write = cgroup_members.write_to_kernel
        monkeypatch.setattr(
            cgroup_members,
            "write_to_kernel",
            lambda file, text: file.name != "cgroup.kill" and write(file, text),
        )
    stranger = os.posix_spawn("/bin/sleep", ["sleep", "60"], {})
    inside = {start_in(cgroup, "sleep 60 & wait") for _ in range(3)}
    wait_for(lambda: len(members(cgroup)) == 6)
    everybody = members(cgroup)
    assert inside < everybody
    assert end_members(cgroup, lambda: None, SystemClock(), limit_s=LIMIT_S) == everybody
    assert members(cgroup) == set()
    assert runs(stranger)
    os.kill(stranger, signal.SIGKILL)
    wait_for(lambda: not collect())


def test_a_rank_moves_into_its_cgroup_by_itself_where_none_can_be_born_in_one(cgroup, monkeypatch):
    def refuse(_cgroup):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(kernel, "fork_into", refuse)
    inside = AttemptCgroup([cgroup])
    pid = start_in(cgroup, cgroup=inside)
    assert members(cgroup) == {pid}
    assert inside.may_leak, "so the shim looks for others in all of /proc too"
    end(cgroup)


def test_a_rank_whose_cgroup_is_gone_runs_without_one(tmp_path):
    pid = start_in(PLACES.tree / "trainerd-gone")
    assert runs(pid)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


@pytest.mark.parametrize(
    ("command", "environ", "message"),
    [
        (("/bin",), {}, "cannot start '/bin' in /: Permission denied"),
        (("/bin/sh",), {"A": "x\0y"}, "cannot start '/bin/sh' in /: embedded null byte"),
        (("/nowhere",), {}, "cannot start '/nowhere' in /: No such file or directory"),
    ],
)
@pytest.mark.parametrize("has_cgroup", [True, False])
def test_what_cannot_be_started_is_said_with_and_without_a_cgroup(
    cgroup, command, environ, message, has_cgroup
):
    inside = AttemptCgroup([cgroup]) if has_cgroup else None
    with pytest.raises(UserError, match=message):
        spawn(command, "/", environ, 1, cgroup=inside)
    assert members(cgroup) == set()
    assert not collect(), "nobody is left to be collected"


HOG = (
    "import os, time\nheld = bytearray(b'x') * (int(os.environ['MIB']) << 20)\n"
    "time.sleep(float(os.environ['HOLD_S']))"
)
needs_memory = pytest.mark.skipif(
    bool(why_no_memory(PLACES)), reason=f"memory cannot be limited here: {why_no_memory(PLACES)}"
)


@needs_memory
def test_an_attempt_beyond_its_memory_is_ended_and_judged_by_the_counter_of_its_own_cgroup(workbench):
    record = workbench.run_to_end(python(HOG), memory_bytes=64 * MIB, MIB="256", HOLD_S="60")
    assert record.ranks[0].signal == signal.SIGKILL
    assert record.oom_kills in {1, 2}, "ending all of a cgroup, Linux 6.1 counts the first one twice"
    assert record.memory_limit_bytes == 64 * MIB
    assert 48 * MIB < record.memory_bytes_max <= 64 * MIB
    unseen = dataclasses.replace(record, ranks=(dataclasses.replace(record.ranks[0], is_oom_victim=False),))
    ending = judge(Evidence(attempt=1, exit=unseen), now_wall_s=0.0)
    assert ending.kind is OutcomeKind.OUT_OF_MEMORY
    assert (
        f"its cgroup counted {record.oom_kills} such kills meanwhile, at a limit of 0.06 GiB" in ending.reason
    )
    assert "memory at its highest: 0.06 GiB of 0.06 GiB" in ending.evidence
    folders = cgroups_of(workbench.run.attempt(1))
    assert folders
    assert not any(folder.exists() for folder in folders)


@needs_memory
def test_an_attempt_that_stays_below_its_memory_is_left_alone_and_its_highest_is_known(workbench):
    record = workbench.run_to_end(python(HOG), memory_bytes=256 * MIB, MIB="64", HOLD_S="0")
    assert (record.ranks[0].exit_code, record.oom_kills) == (0, 0)
    assert 64 * MIB < record.memory_bytes_max < 128 * MIB


@needs_memory
def test_the_counter_of_one_attempt_says_nothing_about_another(workbench):
    neighbour = workbench.launch(shell("sleep 60"), attempt=2, memory_bytes=64 * MIB)
    workbench.running(neighbour)
    assert workbench.run_to_end(python(HOG), memory_bytes=64 * MIB, MIB="256", HOLD_S="60").oom_kills
    workbench.launcher.signal(neighbour, signal.SIGQUIT)
    assert workbench.ended(neighbour).oom_kills == 0


@pytest.mark.parametrize(
    ("uses_cgroups", "limits_memory"), [(False, True), (True, False)], ids=["no cgroups", "no limits"]
)
def test_what_is_switched_off_is_not_done(workbench, uses_cgroups, limits_memory):
    workbench.launcher = ShimLauncher(uses_cgroups=uses_cgroups, limits_memory=limits_memory)
    record = workbench.run_to_end(python(HOG), memory_bytes=16 * MIB, MIB="64", HOLD_S="0")
    assert (record.ranks[0].exit_code, record.memory_limit_bytes) == (0, None)
    shim = records.read(workbench.run.attempt(1).shim, ShimRecord)
    assert bool(shim.cgroups) == uses_cgroups


def test_what_attempts_that_are_over_left_is_swept_and_a_strangers_is_not(workbench):
    paths = workbench.launch(shell("true"))
    workbench.ended(paths)
    running = workbench.launch(shell("sleep 60"), attempt=2)
    workbench.running(running)
    (left,), (live,) = cgroups_of(paths), cgroups_of(running)
    strangers = [PLACES.tree / name for name in ("trainerd-job-1-1-1", "trainerd-other-1-1-1", "trainerd-x")]
    for folder in (left, *strangers):
        folder.mkdir()
    try:
        prepare_cgroups(workbench.state)
        assert not left.exists()
        assert live.exists()
        assert all(folder.exists() for folder in strangers)
    finally:
        for folder in strangers:
            folder.rmdir()
