"""An attempt on another machine is fenced before its end is said; no restart of this machine is claimed."""

from __future__ import annotations

import asyncio
import dataclasses
import os

import pytest

from trainerd.checkpoint.store import CheckpointStore
from trainerd.contract import records
from trainerd.contract.clock import SystemClock
from trainerd.contract.paths import RunPaths
from trainerd.contract.process import identify
from trainerd.contract.records import ShimRecord
from trainerd.contract.resolved import ResolvedJob
from trainerd.errors import FencedError
from trainerd.supervisor.attempt.launcher import ShimLauncher
from trainerd.supervisor.attempt.monitor import Monitor, MonitoredAttempt
from trainerd.supervisor.machine.job_events import AttemptEnded
from trainerd.supervisor.machine.outcome import OutcomeKind, Retry


def test_it_is_fenced_and_the_next_one_starts_at_once(tmp_path):
    run = RunPaths(tmp_path / "ant")
    paths = run.attempt(1)
    paths.root.mkdir(parents=True)
    paths.session(7).touch()
    shim = dataclasses.replace(identify(os.getpid()), boot_id="another", host="n1")
    records.write(paths.shim, ShimRecord(shim, 1.0))
    job = ResolvedJob("ant", ("true",), str(tmp_path), str(tmp_path / "ant.yaml"), "v1")
    store = CheckpointStore.of_run(run)
    events = []

    async def watch():
        monitor = Monitor(
            MonitoredAttempt(job, run, 1, "v1", ()),
            launcher=ShimLauncher(),
            say=events.append,
            clock=SystemClock(),
            begin=asyncio.create_task,
        )
        await monitor._watch_once()

    with store.lock():
        store.take_over()
        asyncio.run(watch())
        with pytest.raises(FencedError):
            store.begin(1)
    (end,) = events
    assert isinstance(end, AttemptEnded)
    assert (end.outcome.kind, end.outcome.retry) == (OutcomeKind.LOST, Retry.AT_ONCE)
    assert "an attempt on n1 may still run; it is fenced" in end.outcome.reason
    assert "restarted" not in str(end.outcome)
