"""A process that has loaded everything forks the shims: each minds what it is told, and is a shim like any
other."""

from __future__ import annotations

import asyncio
import os
import select
import signal
from pathlib import Path

import pytest
from shim_workbench import runs, shell, wait_for

from trainerd.contract import records
from trainerd.contract.process import identify
from trainerd.contract.records import ShimRecord
from trainerd.supervisor.attempt.probe import ProbedEnded, probe
from trainerd.supervisor.attempt.shim_template import ShimTemplate


@pytest.fixture
def template(workbench):
    """Its pid."""
    workbench.launcher.prepare_template()
    (pid,) = workbench.launcher.child_pids
    yield pid
    workbench.launcher.dismiss_template()


def shim_pid(paths):
    return records.read(paths.shim, ShimRecord).process.pid


def parent_of(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_a_template_forks_each_attempt_a_shim_of_its_own(workbench, template, obedient):
    workbench.launcher.prepare_template()
    assert workbench.launcher.child_pids == {template}, "one is enough"
    first = workbench.launch(obedient)
    second = workbench.launch(shell("exit 3"), attempt=2)
    assert workbench.ended(second).ranks[0].exit_code == 3
    shim = workbench.running(first, ready=(0,)).shim.pid
    assert parent_of(shim) == template
    assert os.getsid(shim) == shim, "no hang-up or Ctrl-C of another reaches it"
    assert shim in workbench.launcher.child_pids, "known before it has said so on disk"
    descriptors = Path(f"/proc/{shim}/fd")
    assert str((descriptors / "0").readlink()) == os.devnull
    assert {(descriptors / name).readlink() for name in "12"} == {first.shim_log}
    (rank,) = probe(first).ranks
    assert {path.name for path in Path(f"/proc/{rank.pid}/fd").iterdir()} == {"0", "1", "2"}
    assert workbench.launcher.signal(first, signal.SIGTERM)
    assert workbench.ended(first).ranks[0].exit_code == 85


def test_a_forked_shim_is_watched_to_its_end_and_leaves_no_zombie(workbench, template):
    paths = workbench.launch(shell("sleep 0.1; exit 3"))
    states = workbench.watch(paths)
    assert isinstance(states[-1], ProbedEnded)
    wait_for(lambda: identify(shim_pid(paths)) is None, "the kernel to collect it")
    assert workbench.launcher.child_pids == {template}


def test_the_launcher_hears_at_once_that_the_ranks_run(workbench, template):
    paths = workbench.launch(shell("sleep 600"))
    workbench.running(paths)
    is_ready = workbench.launcher._children[paths.root].is_ready
    assert select.select([is_ready], [], [], 10)[0], "closed by the shim, and held open by nobody else"


def test_orphans_of_a_forked_shim_come_to_it_and_are_ended(workbench, template):
    paths = workbench.launch(shell("(setsid sleep 600 & echo $! > $HERE/orphan); exit 0"))
    (orphan,) = workbench.pids_in("orphan")
    assert workbench.ended(paths).ranks[0].exit_code == 0
    assert not runs(orphan)


def test_the_end_of_a_template_disturbs_no_shim_and_the_next_one_is_started_without(
    workbench, template, obedient
):
    paths = workbench.launch(obedient)
    shim = workbench.running(paths, ready=(0,)).shim.pid
    os.kill(template, signal.SIGKILL)
    os.waitid(os.P_PID, template, os.WEXITED | os.WNOWAIT)
    second = workbench.launch(shell("exit 0"), attempt=2)
    assert workbench.ended(second).ranks[0].exit_code == 0
    assert parent_of(shim) != template
    assert runs(shim)
    assert workbench.launcher.signal(paths, signal.SIGTERM)
    assert workbench.ended(paths).ranks[0].exit_code == 85


def test_whoever_waits_for_the_end_of_a_template_can_start_another(workbench, template):
    async def wait():
        ended = asyncio.create_task(workbench.launcher.template_ended())
        await asyncio.sleep(0)
        os.kill(template, signal.SIGKILL)
        await asyncio.wait_for(ended, 10)

    asyncio.run(wait())
    workbench.launcher.prepare_template()
    (another,) = workbench.launcher.child_pids
    assert another != template
    paths = workbench.launch(shell("exit 0"))
    assert workbench.ended(paths).ranks[0].exit_code == 0


def test_an_attempt_whose_template_does_not_answer_is_started_once_all_the_same(workbench, template):
    """It obeys late, after another shim was started: one of the two passes the door."""
    launcher = workbench.launcher
    launcher._template._waiting.orders.settimeout(0.2)
    os.kill(template, signal.SIGSTOP)
    paths = workbench.launch(shell("echo $$ >> $HERE/started; sleep 600"))
    shim = workbench.running(paths).shim.pid
    assert shim != template
    assert len(workbench.pids_in("started")) == 1
    assert launcher.signal(paths, signal.SIGTERM), "it is the one on record that is asked"
    assert workbench.ended(paths)
    assert len((workbench.here / "started").read_text().split()) == 1


def test_a_template_that_is_dismissed_or_whose_supervisor_is_gone_leaves(workbench, template):
    launcher = workbench.launcher
    launcher.dismiss_template()
    assert (launcher.child_pids, identify(template)) == (frozenset(), None)
    launcher.prepare_template()
    (template,) = launcher.child_pids
    launcher._template._waiting.orders.close()  # as the kernel does for one that was killed
    assert os.WEXITSTATUS(os.waitpid(template, 0)[1]) == 0


def test_a_template_that_cannot_be_started_leaves_nothing_open():
    def refuse(_orders):
        raise OSError("simulated")

    template = ShimTemplate(refuse)
    before = sorted(Path("/proc/self/fd").iterdir())
    with pytest.raises(OSError, match="simulated"):
        template.prepare()
    assert sorted(Path("/proc/self/fd").iterdir()) == before
    assert template.pid is None
    assert template.fork(Path("/nowhere")) is None
