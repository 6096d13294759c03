"""What people do in the simulated world: they write, break and remove specs, ask for things, and fill the
disk."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace

from simulated_physics import Training

from trainerd.contract.policy import Group, Resources, RestartPolicy
from trainerd.contract.resolved import ResolvedJob
from trainerd.errors import SpaceError
from trainerd.supervisor.machine import job_events as happened

SHUTDOWN_S = 15.0
GROUP_MAX = 2


class People:
    """Acts on a `World`, of which it is a part."""

    def rescan(self) -> None:
        self.folder_changed_s = self.now
        if self.life is not None and not self.chance(0.1):
            self.life.loop.rescan()

    def write_spec(self, name: str) -> None:
        rng, version = self.rng, next(self.versions)
        training = self.training.setdefault(
            name,
            Training(0, rng.choice([None, None, 0, 12]), has_session=rng.random() < 0.8),
        )
        training.steps_total += rng.choice([5, 20])
        self.specs[name] = ResolvedJob(
            name=name,
            command=("train",),
            workdir="/",
            spec_path=f"/jobs/{name}.yaml",
            spec_digest=f"v{version}",
            resources=Resources(cpus=rng.choice([0.5, 1.0, 2.0, 3.0]), gpus=rng.choice([0, 0, 1])),
            restart=RestartPolicy(budget=rng.choice([1, 2, 5]), initial_s=1.0, max_s=30.0),
            grace_s=10.0,
            priority=rng.choice([0, 0, 1]),
            stall_timeout_s=rng.choice([20.0, 20.0, "auto"]),
            on_nonfinite_loss=rng.choice(["ignore", "stop", "rollback", "rollback"]),
            after=self.some_others(name, version),
            group=Group("sweep", GROUP_MAX) if version % 3 == 0 else None,
        )
        if rng.random() < 0.2:
            training.spoilt_step = rng.choice([5, 10, 15])
        self.note(f"{name}: spec v{version} written")
        self.rescan()

    def some_others(self, name: str, version: int) -> tuple[str, ...]:
        """Return whom a job waits for; with a generator of its own, so that the rest of a schedule stays."""
        rng = random.Random(f"{name} {version}")
        others = sorted(self.training.keys() - {name})
        return tuple(rng.sample(others, 1)) if others and rng.random() < 0.25 else ()

    def forgive(self, name: str) -> None:
        """Whoever changes or resumes a job may have it launched at once, with a full budget."""
        self.not_before[name] = 0.0
        self.failures[name] = 0
        self.same.pop(name, None)

    def remove_spec(self, name: str) -> None:
        self.note(f"{name}: spec removed")
        self.specs.pop(name, None)
        self.rescan()

    def break_spec(self, name: str) -> None:
        if not isinstance(self.specs.get(name), ResolvedJob):
            return
        self.note(f"{name}: spec broken")
        whole = self.specs[name]
        self.specs[name] = f"broken {next(self.versions)}"
        self.rescan()
        self.later(self.rng.choice([1.0, 30.0]), lambda: self.mend_spec(name, whole))

    def rename_spec(self, name: str) -> None:
        """Another file that says the same, as after a rename or a change of its layout."""
        spec = self.specs.get(name)
        if isinstance(spec, ResolvedJob):
            self.note(f"{name}: spec renamed")
            self.specs[name] = replace(spec, spec_path=f"/jobs/{name}-{next(self.versions)}.yaml")
            self.rescan()

    def mend_spec(self, name: str, whole: ResolvedJob) -> None:
        if isinstance(self.specs.get(name), str):
            self.specs[name] = replace(whole, spec_digest=f"v{next(self.versions)}")
            self.rescan()

    def ask(self, name: str, event) -> asyncio.Future | None:
        """Ask as the API does."""
        if self.life is None or self.life.loop.is_stopping or name not in self.ledger.jobs:
            return None
        answer = self.life.loop.inbox.ask(name, event)
        answer.add_done_callback(lambda answer: answer.cancelled() or answer.exception())
        return answer

    def stop(self, name: str) -> None:
        answer = self.ask(name, happened.StopAsked())
        if answer is None:
            return
        was_stopped = name in self.stopped_by_user
        self.stopped_by_user.add(name)

        def note(answer) -> None:
            is_refused = not answer.cancelled() and isinstance(answer.exception(), SpaceError)
            if is_refused and not was_stopped:
                self.stopped_by_user.discard(name)

        answer.add_done_callback(note)

    def resume(self, name: str) -> None:
        self.ask(name, happened.ResumeAsked())

    def hold(self, name: str) -> None:
        self.ask(name, happened.HoldAsked())

    def retry(self, name: str) -> None:
        self.ask(name, happened.RetryAsked())

    def preempt(self, name: str) -> None:
        if self.life is not None:
            self.life.loop.inbox.post(name, happened.PreemptionAsked("somebody"))

    def shut_down(self) -> None:
        if self.life is None or self.life.loop.is_stopping:
            return
        self.note("supervisor is asked to stop")
        life = self.life

        def leave() -> None:
            if self.life is life:
                self.bury(life)

        drained = life.begin(life.loop.drain_all())
        drained.add_done_callback(lambda _drained: leave())
        self.later(SHUTDOWN_S, leave)

    def set_disk(self, *, is_full: bool) -> None:
        self.note(f"the disk {'is full' if is_full else 'has room'}")
        self.has_full_disk = is_full
        self.able_since_s = self.now
