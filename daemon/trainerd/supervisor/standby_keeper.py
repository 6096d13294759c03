"""Carries out what `standby_policy` chooses, for all jobs, once a tick."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from trainerd.errors import TrainerdError
from trainerd.shim.standby_recipe import WAITING_BYTES_MAX, StandbyRecipe
from trainerd.shim.warm_command import why_not
from trainerd.supervisor.bounded_io import NotObservedError
from trainerd.supervisor.machine.standby_policy import REST_LIMIT_S, StandbyState, choose, why_no_room
from trainerd.supervisor.machine.states import Finished, Running

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from trainerd.contract.clock import Clock
    from trainerd.contract.records import LaunchRecord
    from trainerd.supervisor.attempt.launcher import ShimLauncher
    from trainerd.supervisor.attempt.monitor import Monitor
    from trainerd.supervisor.bounded_io import BoundedIo
    from trainerd.supervisor.machine.standby_policy import StandbyChoice
    from trainerd.supervisor.machine.states import Job


TAKEN: Final = "none: the newest attempt runs in it, or it has ended; the next one is not begun yet"


class StandbyKeeper:
    """Keeps the standbys of all jobs.

    Args:
        launcher: Has the standbys.
        io: Makes the calls that block.
        clock: Tells how long an attempt has run.
        memory_bytes: What there is for jobs; None is no limit.

    Attributes:
        words: How the standby of each job that asks for one is.
    """

    def __init__(
        self, launcher: ShimLauncher, io: BoundedIo, clock: Clock, *, memory_bytes: int | None = None
    ) -> None:
        self.words: dict[str, str] = {}
        self._launcher = launcher
        self._io = io
        self._clock = clock
        self._memory_bytes = memory_bytes

    def word(self, name: str) -> str | None:
        """Return how the standby of a job is now; None if the job asks for none.

        Between two looks an attempt may have taken it: then it is ready no more.
        """
        words = self.words.get(name)
        if words is not None and words.startswith("ready"):
            state = self._launcher.standbys.state(name)
            if state is None or state.phase != "ready":
                return TAKEN
        return words

    def follow(self, job: Job | None) -> None:
        """Make the standby of a job that has finished the spare: the next job may start at once."""
        if job is not None and isinstance(job.state, Finished):
            self._launcher.standbys.release(job.name)

    async def look(
        self, jobs: Mapping[str, Job], monitors: Mapping[str, Monitor], *, is_stopping: bool
    ) -> None:
        """See to every job that asks for a standby, or has one."""
        standbys = self._launcher.standbys
        known = {*standbys.names, *self.words}
        for name in known - jobs.keys():
            standbys.release(name)
            standbys.dismiss(name)
            self.words.pop(name, None)
        for name, job in list(jobs.items()):
            is_asked_for = job.spec is not None and job.spec.standby == "auto"
            if is_asked_for or name in known:
                no_room = why_no_room(
                    job,
                    jobs.values(),
                    standbys.names,
                    memory_bytes=self._memory_bytes,
                    waiting_bytes=WAITING_BYTES_MAX,
                )
                await self._look_at(job, monitors.get(name), no_room=no_room, is_stopping=is_stopping)
        standbys.dismiss_spare(after_s=0.0 if is_stopping else REST_LIMIT_S)
        standbys.collect()

    def end(self) -> None:
        """End all of them."""
        self._launcher.standbys.dismiss_all()

    async def _look_at(
        self, job: Job, monitor: Monitor | None, *, no_room: str | None, is_stopping: bool
    ) -> None:
        expected = self._launcher.as_allowed(monitor.expected_next()) if monitor is not None else None
        choice = choose(
            job,
            self._launcher.standbys.state(job.name),
            refusal=_refusal(expected) or no_room,
            has_note=monitor is not None and await self._has_note(job, monitor.note_path),
            now_wall_s=self._clock.wall_s(),
            is_stopping=is_stopping,
        )
        await self._carry_out(job, choice, monitor, expected)
        if choice.words is not None:
            self.words[job.name] = choice.words
        else:
            self.words.pop(job.name, None)

    async def _carry_out(
        self, job: Job, choice: StandbyChoice, monitor: Monitor | None, expected: LaunchRecord | None
    ) -> None:
        standbys = self._launcher.standbys
        if choice.act == "dismiss":
            standbys.dismiss(job.name)
        elif choice.act == "release":
            standbys.release(job.name)
        elif (
            choice.act == "prepare" and monitor is not None and expected is not None and job.spec is not None
        ):
            recipe = StandbyRecipe(
                str(monitor.next_paths.root),
                expected,
                str(monitor.note_path),
                str(monitor.attempt.run.standby),
            )
            state = StandbyState(job.attempt + 1, job.spec.spec_digest, "preparing")
            await self._io.act(partial(standbys.prepare, recipe, state))

    async def _has_note(self, job: Job, path: Path) -> bool:
        """Return whether the attempt that runs has noted what it imported."""
        if not isinstance(job.state, Running):
            return False
        try:
            return await self._io.observe(path.parent, lambda: path.stat().st_mtime) >= job.since_wall_s
        except (NotObservedError, TrainerdError, OSError):
            return False


def _refusal(expected: LaunchRecord | None) -> str | None:
    if expected is None:
        return None
    return why_not(expected.command, expected.env, is_group=expected.is_group)
