"""What a standby holds counts in its job's limit of memory, and its cgroup does not stay."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
import time

import pytest
from shim_workbench import runs, wait_for

from trainerd.contract import records
from trainerd.contract.module_note import ModuleNote, write_note
from trainerd.contract.records import RanksRecord, ShimRecord
from trainerd.shim.cgroup import folders_of
from trainerd.shim.cgroup_members import members
from trainerd.shim.cgroup_place import find_places
from trainerd.shim.standby_recipe import WAITING_BYTES_MAX, StandbyRecipe
from trainerd.supervisor.attempt.cgroups import prepare_cgroups, why_no_memory
from trainerd.supervisor.attempt.launcher import ShimLauncher
from trainerd.supervisor.machine.standby_policy import StandbyState

PLACES = find_places()
MIB = 1024**2
BALLAST_MIB = 64
LIMIT_MIB = 112

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(PLACES.tree is None, reason=f"no cgroup can be made here: {PLACES.why_not}"),
    pytest.mark.skipif(
        bool(why_no_memory(PLACES)), reason=f"memory cannot be limited here: {why_no_memory(PLACES)}"
    ),
]

TRAIN = """
import os, sys
import ballast
held = bytearray(b"x") * (int(sys.argv[1]) << 20)
open(os.environ["HERE"] + "/membership", "w").write(open("/proc/self/cgroup").read())
"""


class Standby:
    """A prepared shim of the job's first attempt, whose package holds `BALLAST_MIB` once it is imported."""

    def __init__(self, workbench, *, holds_mib, limit_mib=LIMIT_MIB):
        self.bench, packages = workbench, workbench.here / "site-packages"
        packages.mkdir(exist_ok=True)
        (packages / "ballast.py").write_text(f"HELD = bytearray(b'x') * ({BALLAST_MIB} << 20)\n")
        (workbench.here / "train.py").write_text(TRAIN)
        workbench.run.root.mkdir(parents=True, exist_ok=True)
        note = ModuleNote(1, (("ballast", str(packages / "ballast.py")),), (), ())
        write_note(workbench.run.modules, note)
        record = workbench.record(
            (sys.executable, "train.py", str(holds_mib)),
            memory_bytes=limit_mib * MIB,
            PYTHONPATH=str(packages),
            PYTHONDONTWRITEBYTECODE="1",
        )
        self.launch = dataclasses.replace(record, is_group=False)
        self.paths = workbench.run.attempt(1)

    def prepare(self):
        recipe = StandbyRecipe(
            str(self.paths.root), self.launch, str(self.bench.run.modules), str(self.bench.run.standby)
        )
        # A file that was changed within two seconds of its start makes a standby unfit.
        written_ns = (self.bench.here / "site-packages" / "ballast.py").stat().st_ctime_ns
        wait_for(lambda: time.time_ns() - written_ns > 2.5e9, "the package to be old enough")
        standbys = self.bench.launcher.standbys
        standbys.prepare(recipe, StandbyState(1, "digest", "preparing"))
        wait_for(lambda: standbys.state("job").phase != "preparing", "the standby")
        return standbys.state("job")

    def detail(self):
        return self.bench.launcher.standbys.state("job").detail

    def on_record(self):
        return records.read(self.bench.run.standby, ShimRecord)

    def run(self):
        """Use it; return its process and how the attempt ended."""
        inside = {pid for folder in folders_of(self.on_record()) for pid in members(folder)}
        self.bench.launcher.launch(self.paths, self.launch)
        ended = self.bench.ended(self.paths)
        ranks = records.read(self.paths.ranks, RanksRecord).processes
        assert inside == {process.pid for process in ranks}, "it became the rank"
        return ended


@pytest.fixture
def standby(workbench):
    yield lambda **options: Standby(workbench, **options)
    workbench.launcher.standbys.dismiss_all()
    wait_for(lambda: not workbench.launcher.standbys.collect() and not workbench.launcher.standbys.pids)


def limit_of(folder):
    files = [folder / "memory.max", folder / "memory.limit_in_bytes"]
    return next((int(file.read_text()) for file in files if file.exists()), None)


def test_what_a_standby_holds_counts_in_the_limit_and_at_the_highest(standby):
    """Moved into the cgroup when it is used, it would hold its package's memory beside the limit."""
    subject = standby(holds_mib=8)
    assert subject.prepare().phase == "ready", subject.detail()
    ended = subject.run()
    assert (ended.ranks[0].exit_code, ended.oom_kills) == (0, 0)
    assert ended.memory_limit_bytes == LIMIT_MIB * MIB
    assert (BALLAST_MIB + 8) * MIB < ended.memory_bytes_max <= LIMIT_MIB * MIB


def test_an_attempt_in_a_standby_that_goes_beyond_its_limit_is_ended_as_a_cold_one_is(standby):
    """What the script takes is less than the limit, and more than the standby has left of it."""
    subject = standby(holds_mib=LIMIT_MIB - 24)
    assert subject.prepare().phase == "ready", subject.detail()
    warm = subject.run()
    assert warm.ranks[0].signal == signal.SIGKILL
    assert warm.oom_kills


def test_a_cold_start_of_the_same_job_is_ended_too(standby, workbench):
    subject = standby(holds_mib=LIMIT_MIB - 24)
    workbench.launcher.launch(subject.paths, subject.launch)
    cold = workbench.ended(subject.paths)
    assert cold.ranks[0].signal == signal.SIGKILL
    assert cold.oom_kills


def test_a_standby_beyond_the_limit_is_ended_and_its_cgroup_removed(standby, workbench):
    subject = standby(holds_mib=0, limit_mib=BALLAST_MIB // 2)
    state = subject.prepare()
    (pid,) = workbench.launcher.standbys.pids
    assert (state.phase, state.detail) == ("failed", "its process has ended")
    wait_for(lambda: not workbench.run.standby.exists(), "the end of its shim")
    wait_for(lambda: not left_over(pid), "the end of its cgroup")


def test_it_may_hold_less_while_it_waits_and_all_of_the_limit_once_it_is_used(standby, workbench):
    subject = standby(holds_mib=8, limit_mib=2 * WAITING_BYTES_MAX // MIB)
    assert subject.prepare().phase == "ready", subject.detail()
    limits = [limit_of(folder) for folder in folders_of(subject.on_record())]
    assert [limit for limit in limits if limit is not None] == [WAITING_BYTES_MAX]
    assert subject.run().memory_limit_bytes == 2 * WAITING_BYTES_MAX


def test_one_that_is_dismissed_leaves_no_cgroup_and_no_record(standby, workbench):
    subject = standby(holds_mib=8)
    subject.prepare()
    folders = folders_of(subject.on_record())
    assert folders
    workbench.launcher.standbys.dismiss("job")
    wait_for(lambda: not any(folder.exists() for folder in folders), "the end of its cgroup")
    wait_for(lambda: not workbench.run.standby.exists(), "the end of its record")


def test_one_that_was_used_is_on_record_as_that_of_the_attempt_and_removed_with_it(standby, workbench):
    subject = standby(holds_mib=8)
    subject.prepare()
    prepared = subject.on_record()
    subject.run()
    assert records.read(subject.paths.shim, ShimRecord).cgroups == prepared.cgroups
    assert not workbench.run.standby.exists()
    assert not left_over(prepared.process.pid)


@pytest.mark.parametrize("removed_by", ["next standby", "supervisor"])
def test_the_cgroup_of_one_whose_shim_was_killed_is_removed(standby, workbench, removed_by):
    subject = standby(holds_mib=8)
    subject.prepare()
    left = subject.on_record()
    folders = folders_of(left)
    inside = {pid for folder in folders for pid in members(folder)}
    os.kill(left.process.pid, signal.SIGKILL)
    wait_for(lambda: not any(map(runs, inside)), "the end of its process")
    workbench.launcher.standbys.state("job")  # which sees that it has ended
    wait_for(lambda: not workbench.launcher.standbys.collect() and not workbench.launcher.standbys.pids)
    assert all(folder.exists() for folder in folders)
    if removed_by == "supervisor":
        prepare_cgroups(workbench.state)
    else:
        workbench.launcher.standbys.dismiss("job")
        subject.prepare()
    assert not any(folder.exists() for folder in folders)


def test_a_kill_before_its_cgroup_is_made_leaves_a_record_that_the_next_one_replaces(
    standby, workbench, monkeypatch
):
    subject = standby(holds_mib=8)
    monkeypatch.setenv("TRAINERD_FAILPOINTS", "standby.cgroup-recorded=kill")
    assert subject.prepare().phase == "failed"
    killed = subject.on_record()
    monkeypatch.delenv("TRAINERD_FAILPOINTS")
    workbench.launcher.standbys.dismiss("job")
    assert subject.prepare().phase == "ready", subject.detail()
    assert subject.on_record().process != killed.process


def test_without_cgroups_there_is_none_for_a_job_with_a_limit(standby, workbench):
    workbench.launcher = ShimLauncher(uses_cgroups=False)
    subject = standby(holds_mib=8)
    subject.launch = workbench.launcher.as_allowed(subject.launch)
    state = subject.prepare()
    assert state.detail == "`resources.memory` is set, and no cgroup counts what a standby holds"


def left_over(pid):
    """Return the cgroups that are left of a shim."""
    places = [place for place in (PLACES.tree, PLACES.memory) if place is not None]
    return [folder for place in places for folder in place.glob(f"trainerd-job-1-{pid}-*")]
