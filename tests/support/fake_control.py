"""A supervisor that is only what it is told to be, for the tests of its interfaces."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import math
import threading
from pathlib import Path

from trainerd.errors import UserError
from trainerd.supervisor.api.app import create_app
from trainerd.supervisor.api.control import (
    DaemonView,
    EventView,
    JobView,
    OutcomeView,
    ReasonView,
    TrialView,
)
from trainerd.supervisor.api.server import serve

NOW_S = 1_800_000_000.0
SERVER_START_S = 10.0

CRASH = OutcomeView(
    attempt=1,
    kind="crashed",
    reason="ValueError: no more cheese (after step 120)",
    evidence=("rank 0 exited with 1", "outcome record: ValueError: no more cheese"),
    step=120,
    checkpoint="step-000000100",
    next_action="run again at once from step-000000100: the job has made progress",
    wall_s=NOW_S - 60,
)


def job(name: str, state: str = "running", **fields) -> JobView:
    values = {
        "reason": "making progress",
        "since_wall_s": NOW_S - 42,
        "attempt": 2,
        "spec_path": f"/jobs/{name}.yaml",
        "run_dir": f"/state/runs/{name}",
    }
    return JobView(name=name, state=state, **(values | fields))


MNIST = job(
    "mnist",
    phase="step",
    step=130,
    epoch=1,
    epochs=10,
    batch=30,
    batches=100,
    loss=0.25,
    checkpoint_step=120,
    shim_pid=4242,
    pids=(4243,),
    budget_left=5,
    last_outcome=CRASH,
    resume="exact: 10 steps run again, equal in samples and values",
    resume_verdict="exact",
    resume_reasons=(ReasonView("changed-code", "code.train.py", "code.train.py changed"),),
)


class FakeControl:
    """Implements `Control`. `daemon_view`, `jobs`, `events` and `outcomes` are free to change; calls are
    kept."""

    def __init__(
        self, *jobs: JobView, state_dir: Path = Path("/state"), jobs_dir: Path = Path("/jobs")
    ) -> None:
        self.jobs = {view.name: view for view in jobs}
        self.events: list[EventView] = []
        self.outcomes: dict[str, tuple[OutcomeView, ...]] = {}
        self.calls: list[tuple[str, ...]] = []
        self.on_rescan = lambda: None
        self.daemon_view = DaemonView(
            version="1.2.3",
            pid=99,
            state_dir=str(state_dir),
            jobs_dir=str(jobs_dir),
            started_wall_s=NOW_S - 3600,
            is_stopping=False,
            jobs_by_state={"running": 1},
        )

    def daemon(self) -> DaemonView:
        return self.daemon_view

    def list_jobs(self) -> tuple[JobView, ...]:
        return tuple(self.jobs[name] for name in sorted(self.jobs))

    def get_job(self, name: str) -> JobView | None:
        return self.jobs.get(name)

    async def observe(self, name: str | None = None) -> None:
        pass

    def list_events(
        self, *, job: str | None = None, after: int = 0, limit: int = 200, is_newest: bool = False
    ) -> tuple[EventView, ...]:
        chosen = [one for one in self.events if one.sequence > after and job in {None, one.job}]
        return tuple(chosen[-limit:] if is_newest else chosen[:limit])

    def list_outcomes(self, name: str) -> tuple[OutcomeView, ...]:
        return self.outcomes.get(name, ())

    async def stop(self, name: str, *, now: bool = False) -> JobView:
        self.calls.append(("stop --now" if now else "stop", name))
        if self.jobs[name].state == "finished":
            raise UserError(f"{name} is finished", hint="there is nothing to stop")
        return self._change(name, state="stopped", reason="asked to stop")

    async def resume(self, name: str) -> JobView:
        self.calls.append(("resume", name))
        if self.jobs[name].state == "running":
            raise UserError(f"{name} is running", hint="there is nothing to resume")
        return self._change(name, state="queued", reason="asked to resume")

    async def hold(self, name: str) -> JobView:
        self.calls.append(("hold", name))
        return self._change(name, is_held=True, reason="held until it is resumed")

    async def retry(self, name: str) -> JobView:
        self.calls.append(("retry", name))
        if self.jobs[name].state == "running":
            raise UserError(f"cannot retry {name!r}, which is running: it has not been given up")
        return self._change(name, state="queued", reason="tried again on request")

    def check_restart(self, name: str) -> JobView:
        if self.jobs[name].state == "rejected":
            raise UserError(f"cannot restart {name!r}, which is rejected: its spec is refused")
        return self.jobs[name]

    async def restart(self, name: str, *, is_fresh: bool) -> JobView:
        self.calls.append(("restart", name, "fresh" if is_fresh else ""))
        return self._change(name, state="queued", reason="restarted on request")

    async def hold_all(self) -> DaemonView:
        self.calls.append(("hold_all",))
        self.daemon_view = dataclasses.replace(self.daemon_view, is_on_hold=True)
        return self.daemon_view

    async def release_all(self) -> DaemonView:
        self.calls.append(("release_all",))
        self.daemon_view = dataclasses.replace(self.daemon_view, is_on_hold=False)
        return self.daemon_view

    async def test_hooks(self, name: str | None) -> tuple[TrialView, ...]:
        self.calls.append(("test_hooks", name or ""))
        if name == "unknown":
            raise UserError("there is no hook 'unknown'")
        return (TrialView("ops", "webhook", "the webhook answered 500"),)

    async def reload(self) -> None:
        self.calls.append(("reload",))
        self.daemon_view = dataclasses.replace(
            self.daemon_view, started_wall_s=self.daemon_view.started_wall_s + 1
        )

    async def rescan(self) -> None:
        self.calls.append(("rescan",))
        self.on_rescan()

    def _change(self, name: str, **changes) -> JobView:
        self.jobs[name] = dataclasses.replace(self.jobs[name], **changes)
        return self.jobs[name]


@contextlib.contextmanager
def served(control: FakeControl, socket_path: Path, *, group_id: int | None = None, runs: Path | None = None):
    """Answer for `control` on a real socket, in a thread of its own, for as long as the context lasts."""
    started = threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def run() -> None:
        ready = asyncio.Event()
        server = asyncio.create_task(
            serve(create_app(control), socket_path, stop=stop, ready=ready, group_id=group_id, runs=runs)
        )
        await asyncio.wait({server, asyncio.create_task(ready.wait())}, return_when=asyncio.FIRST_COMPLETED)
        started.set()
        await server

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),))
    thread.start()
    try:
        assert started.wait(SERVER_START_S), "the server did not start"
        yield control
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(SERVER_START_S)
        loop.close()


NAN = math.nan
