"""How an attempt stands is told truthfully, and what cannot be seen is unknown."""

from __future__ import annotations

import dataclasses
import os
import subprocess

import pytest

from trainerd.contract import process, records
from trainerd.contract.paths import AttemptPaths
from trainerd.contract.process import ProcessIdentity, identify
from trainerd.contract.records import (
    ExitRecord,
    LaunchRecord,
    RankExit,
    RanksRecord,
    ShimRecord,
    VoidRecord,
)
from trainerd.supervisor.attempt.probe import (
    ProbedElsewhere,
    ProbedEnded,
    ProbedLost,
    ProbedNotStarted,
    ProbedRunning,
    ProbedStarting,
    ProbedUnknown,
    probe,
)

LAUNCH = LaunchRecord("job", 1, ("true",), "/", {}, 1, 1.0, ("log",))
EXIT = ExitRecord((RankExit(0, exit_code=0),), 1.0, 2.0, 1.0, "boot")


@pytest.fixture
def paths(tmp_path):
    return AttemptPaths(tmp_path)


@pytest.fixture
def myself():
    return identify(os.getpid())


@pytest.fixture
def somebody_gone():
    process = subprocess.Popen(["true"])
    identity = identify(process.pid)
    process.wait()
    return identity


def test_without_a_launch_record_nothing_was_started(paths):
    assert probe(paths) == ProbedNotStarted("there is no launch record", is_void=False)


def test_a_launch_record_alone_means_that_a_shim_may_be_on_its_way(paths):
    records.write(paths.launch, LAUNCH)
    assert probe(paths) == ProbedStarting()


def test_a_void_attempt_never_started(paths):
    records.write(paths.launch, LAUNCH)
    records.write(paths.void, VoidRecord("why"))
    assert probe(paths) == ProbedNotStarted("why", is_void=True)


def test_a_living_shim_is_running_before_and_after_it_records_its_ranks(paths, myself):
    records.write(paths.shim, ShimRecord(myself, 1.0))
    assert probe(paths) == ProbedRunning(myself)
    records.write(paths.ranks, RanksRecord((myself,)))
    assert probe(paths) == ProbedRunning(myself, (myself,))


def test_an_exit_record_counts_even_while_the_shim_is_leaving(paths, myself):
    records.write(paths.shim, ShimRecord(myself, 1.0))
    records.write(paths.exit, EXIT)
    assert probe(paths) == ProbedEnded(EXIT)


def test_a_shim_that_is_gone_without_an_exit_record_is_lost(paths, somebody_gone):
    records.write(paths.shim, ShimRecord(somebody_gone, 1.0))
    state = probe(paths)
    assert isinstance(state, ProbedLost)
    assert f"process {somebody_gone.pid}" in state.evidence


@pytest.mark.parametrize("change", [{"start_ticks": 1}, {"boot_id": "another"}])
def test_a_stranger_with_the_same_pid_is_not_the_shim(paths, myself, change):
    records.write(paths.shim, ShimRecord(dataclasses.replace(myself, **change), 1.0))
    assert isinstance(probe(paths), ProbedLost)


def test_a_shim_of_another_boot_is_lost_to_the_restart(paths, myself):
    records.write(paths.shim, ShimRecord(ProcessIdentity(myself.pid, myself.start_ticks, "another"), 1.0))
    assert "restarted" in probe(paths).evidence


@pytest.mark.parametrize("change", [{"host": "n1"}, {"machine": "another"}])
def test_a_shim_of_another_machine_is_unknown_and_nobody_says_restarted(paths, myself, change):
    shim = dataclasses.replace(myself, boot_id="another", **change)
    records.write(paths.shim, ShimRecord(shim, 1.0))
    state = probe(paths)
    assert isinstance(state, ProbedElsewhere)
    assert f"an attempt on {shim.host} may still run" in state.evidence
    assert "restarted" not in state.evidence
    assert "not fenced" in state.evidence, "it has opened no session"
    paths.session(7).touch()
    assert "it is fenced" in probe(paths).evidence
    records.write(paths.exit, EXIT)
    assert probe(paths) == ProbedEnded(EXIT)


def test_an_exit_record_written_between_two_looks_is_not_overlooked(paths, somebody_gone, monkeypatch):
    records.write(paths.shim, ShimRecord(somebody_gone, 1.0))

    def dies_just_now(_identity):
        records.write(paths.exit, EXIT)
        return False

    monkeypatch.setattr("trainerd.supervisor.attempt.probe.is_alive", dies_just_now)
    assert probe(paths) == ProbedEnded(EXIT)


@pytest.mark.parametrize("name", ["launch", "void", "shim", "ranks", "exit"])
def test_a_record_that_cannot_be_read_is_unknown_and_names_the_file(paths, somebody_gone, name):
    if name in {"ranks", "exit"}:
        records.write(paths.shim, ShimRecord(somebody_gone, 1.0))
    getattr(paths, name).write_text("torn")
    state = probe(paths)
    assert isinstance(state, ProbedUnknown)
    assert f"{name}.json" in state.why


def test_a_process_that_cannot_be_looked_at_is_unknown(paths, myself, monkeypatch):
    records.write(paths.shim, ShimRecord(myself, 1.0))

    def refuse(_pid):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(process, "identify", refuse)
    assert isinstance(probe(paths), ProbedUnknown)
