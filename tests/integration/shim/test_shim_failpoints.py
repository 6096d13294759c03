"""Killed at each of its durable acts, the shim leaves what its failpoint says, and nobody survives."""

from __future__ import annotations

from pathlib import Path

import pytest
from shim_workbench import runs, wait_for

from trainerd.contract import records
from trainerd.contract.failpoints import REGISTRY
from trainerd.contract.records import ShimRecord
from trainerd.supervisor.attempt import launcher
from trainerd.supervisor.attempt.probe import ProbedEnded, ProbedLost, ProbedNotStarted

# What an attempt of one rank, which waits to be asked to leave, is found as after a kill at each point.
EXPECTED = {
    "shim.locked": ProbedNotStarted,
    "shim.recorded": ProbedLost,
    "cgroup.made": ProbedLost,
    "ranks.started": ProbedLost,
    "ranks.recorded": ProbedLost,
    "ranks.ended": ProbedLost,
    "survivors.ended": ProbedLost,
    "exit.recorded": ProbedEnded,
    "record.written@1": ProbedNotStarted,
    "record.synced@1": ProbedNotStarted,
    "record.renamed@1": ProbedLost,
    "record.durable@1": ProbedLost,
    "record.written@2": ProbedLost,
    "record.renamed@2": ProbedLost,
    "record.durable@2": ProbedLost,
    "record.written@3": ProbedLost,
    "record.synced@3": ProbedLost,
    "record.renamed@3": ProbedEnded,
    "record.durable@3": ProbedEnded,
}


def test_every_failpoint_of_the_shim_is_tried():
    prefixes = ("shim.", "cgroup.", "ranks.", "survivors.", "exit.")
    of_others = {launcher.SHIM_SPAWNED.name, "ranks.announced"}  # the latter is the training side's
    of_the_shim = {name for name in REGISTRY if name.startswith(prefixes)} - of_others
    assert of_the_shim == {name for name in EXPECTED if "@" not in name} & of_the_shim
    assert of_the_shim <= set(EXPECTED)


@pytest.mark.parametrize("point", EXPECTED)
def test_a_kill_leaves_what_is_said_and_nobody_survives(workbench, monkeypatch, point):
    name, _, nth = point.partition("@")
    monkeypatch.setenv("TRAINERD_FAILPOINTS", f"{name}=kill@{nth or 1}")
    # The rank ends by itself where the point lies after its end, and would run for long where it does not.
    ends = name in {"ranks.ended", "survivors.ended", "exit.recorded"} or nth == "3"
    script = "echo $$ >$HERE/rank; " + ("exit 85" if ends else "exec sleep 60")
    paths = workbench.launch(("sh", "-c", script))
    final = workbench.watch(paths)[-1]
    assert isinstance(final, EXPECTED[point]), paths.shim_log.read_text()
    if isinstance(final, ProbedEnded):
        assert final.record.ranks[0].exit_code == 85
    if isinstance(final, ProbedLost):
        workbench.launcher.end_survivors(paths)
        assert not list(paths.root.glob(".*tmp*")), "swept"
        assert not any(Path(folder).exists() for folder in records.read(paths.shim, ShimRecord).cgroups)
    path = workbench.here / "rank"
    if path.exists() and path.read_text().strip():
        pid = int(path.read_text())
        wait_for(lambda: not runs(pid))
    assert not workbench.launcher.child_pids
