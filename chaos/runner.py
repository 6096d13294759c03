"""Plays scenarios: many jobs under one supervisor, each struck where its scenario says.

Invariants:
    * A rank waits at a point until its fault has struck, so a fault strikes at exactly that rank, step and
      phase.
    * A scenario is over when its job has ended and every fault has struck; then everything is checked.
    * Nothing is left behind: no process, no mount.
"""

from __future__ import annotations

import os
import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from chaos import own_disk, second_reader
from chaos.faults import REGISTRY, Context
from chaos.harness import Harness, processes_of, run_reference
from chaos.invariants import Check, Disturbed, Recovery, Strike, check_all, check_some, recoveries
from chaos.waiting import HarnessError, Interruption, NotNowError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from chaos.rendezvous import Arrival, Point
    from chaos.scenario import Planned, Scenario

LOOK_S: Final = 0.05
JOB_LOOK_S: Final = 0.5
SETTLE_LIMIT_S: Final = 10.0
_END_STATES: Final = frozenset({"finished", "parked", "rejected", "stopped", "faulted"})


@dataclass(frozen=True)
class Outcome:
    """What a scenario came to.

    Attributes:
        scenario: The scenario that was run.
        checks: Everything that was checked.
        strikes: The faults that struck.
        endings: How each attempt was judged, in order.
        recoveries: What each interruption cost.
        took_s: From its submission to its end.
        folders: Its run folder, and that of the undisturbed run.
        skipped: Why it was not played; None if it was.
    """

    scenario: Scenario
    checks: tuple[Check, ...] = ()
    strikes: tuple[Strike, ...] = ()
    endings: tuple[str, ...] = ()
    recoveries: tuple[Recovery, ...] = ()
    took_s: float = 0.0
    folders: tuple[Path, Path] | None = None
    skipped: str | None = None

    @property
    def is_held(self) -> bool:
        return all(check.is_held for check in self.checks)


@dataclass
class Part:
    """A scenario that is being played."""

    scenario: Scenario
    points: list[Point]
    began_s: float
    strikes: list[Strike] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    checkpoints_seen_max: int = 0
    looked_s: float = 0.0

    @property
    def job(self) -> str:
        return self.scenario.name


class ScenarioRunner:
    """Some scenarios under one supervisor."""

    def __init__(
        self,
        root: Path,
        scenarios: Sequence[Scenario],
        seed: int,
        interruption: Interruption,
        *,
        undisturbed: Path | None = None,
    ) -> None:
        """`undisturbed` is the folder where runs of the same seed share their undisturbed runs.

        Without it each run makes its own.
        """
        self.root = root
        self.undisturbed = undisturbed or root / "undisturbed"
        self.scenarios = scenarios
        self.seed = seed
        root.mkdir(parents=True, exist_ok=True)
        self.harness = Harness(root / "harness", interruption)
        self.outcomes: list[Outcome] = []

    def run(self, *, limit_s: float, say: Callable[[Outcome], None]) -> list[Outcome]:
        """ScenarioRunner them all; `say` is called with each as soon as it is over.

        Raises:
            HarnessError: The supervisor does not come up.
            StopRequestedError: This program was asked to stop.
        """
        try:
            parts = [self._begin(scenario) for scenario in self.scenarios]
            self.harness.start()
            deadline_s = time.monotonic() + limit_s
            while parts:
                self.harness.tick()
                for part in list(parts):
                    self._strike(part)
                    if self._is_over(part, is_late=time.monotonic() > deadline_s):
                        parts.remove(part)
                        self.outcomes.append(self._conclude(part))
                        say(self.outcomes[-1])
                time.sleep(LOOK_S)
        finally:
            self._close()
        return self.outcomes

    def _begin(self, scenario: Scenario) -> Part:
        reference = self._reference(scenario)
        run_reference(reference, scenario.workload, seed=self.seed, tick=self.harness.heed)
        points = scenario.points(self.seed)
        self.harness.rendezvous(scenario.name).name(points)
        if scenario.disk_bytes is not None:
            own_disk.mount(self.harness.state.run(scenario.name).root, scenario.disk_bytes)
        self.harness.submit(
            scenario.name,
            scenario.workload,
            seed=self.seed,
            spec=scenario.spec,
            failpoints=scenario.failpoints,
        )
        return Part(scenario, points, time.monotonic())

    def _reference(self, scenario: Scenario) -> Path:
        size = scenario.workload
        extent = f"{size.epochs}x{size.batches}x{size.batch_size}"
        shape = f"{size.name}-{extent}-{size.ranks}-every-{size.every_steps}"
        return self.undisturbed / shape

    def _run_folder(self, scenario: Scenario) -> Path:
        """Return where the run is to be found afterwards: what was on a disk of its own has been copied."""
        is_copied = scenario.disk_bytes is not None
        return (
            self.root / "disks" / scenario.name if is_copied else self.harness.state.run(scenario.name).root
        )

    def _strike(self, part: Part) -> None:
        rendezvous = self.harness.rendezvous(part.job)
        for point, planned in zip(part.points, part.scenario.strikes, strict=True):
            if rendezvous.is_answered(point.id):
                continue
            arrival = rendezvous.arrival(point.id)
            if arrival is None or (planned.settled and not self._is_settled(part, point, arrival)):
                continue
            try:
                action = self._strike_at(part, planned, arrival, point)
            except NotNowError:
                continue  # its records are not written yet: at the next look
            rendezvous.answer(point.id, action)

    def _is_settled(self, part: Part, point: Point, arrival: Arrival) -> bool:
        """Return whether the checkpoint that is due at this point is there, or was waited for long enough."""
        if time.monotonic() > arrival.monotonic_s + SETTLE_LIMIT_S:
            return True
        due_step = (
            _steps_done(point) // part.scenario.workload.every_steps * part.scenario.workload.every_steps
        )
        found = second_reader.checkpoints(self.harness.state.run(part.job).checkpoints)
        return due_step == 0 or any(second_reader.step_of(path) >= due_step for path in found)

    def _strike_at(self, part: Part, planned: Planned, arrival: Arrival, point: Point) -> str:
        fault = REGISTRY[planned.fault]
        chance = random.Random(f"{self.seed}/{part.job}/{point.id}")
        context = Context(self.harness, part.job, planned.rank, chance)
        context.attempt()
        done_s = time.monotonic()
        try:
            struck = fault.strike(context)
            detail, action = struck.detail, struck.action
        except AssertionError as error:
            part.troubles.append(f"{fault.name}: {error}")
            detail, action = str(error), "go"
        where = f"{detail} (step {point.step}, {point.phase})"
        part.strikes.append(Strike(fault.name, part.job, arrival.attempt, _steps_done(point), where, done_s))
        return action

    def _is_over(self, part: Part, *, is_late: bool) -> bool:
        if is_late:
            part.troubles.append("it was not over in time")
            return True
        if time.monotonic() < part.looked_s + JOB_LOOK_S:
            return False
        part.looked_s = time.monotonic()
        found = second_reader.checkpoints(self.harness.state.run(part.job).checkpoints)
        part.checkpoints_seen_max = max(part.checkpoints_seen_max, len(found))
        job = self.harness.job(part.job)
        is_ended = job is not None and job["state"] in _END_STATES
        return is_ended and bool(self.harness.outcomes(part.job))

    def _conclude(self, part: Part) -> Outcome:
        scenario = part.scenario
        if scenario.failpoints:
            attempt, _, text = scenario.failpoints.partition(":")
            part.strikes.append(Strike("failpoint", part.job, int(attempt), -1, text, 0.0))
        job, outcomes = self.harness.job(part.job), self.harness.outcomes(part.job) or []
        endings = tuple(outcome["kind"] for outcome in outcomes)
        checks = [
            Check(trouble, is_held=False, found="see the logs") for trouble in part.troubles
        ] + self._expectations(part, job, endings)
        disturbed = self._disturbed(part, outcomes)
        costs: tuple[Recovery, ...] = ()
        try:
            is_finished = job is not None and job["state"] == "finished"
            judge = check_all if is_finished and scenario.expected.is_equal else check_some
            made = disturbed()
            checks += judge(made)
            costs = tuple(recoveries(made))
        except (OSError, ValueError, KeyError, second_reader.UnsoundError) as error:
            checks.append(
                Check("the run folder can be read", is_held=False, found=f"{type(error).__name__}: {error}")
            )
        return Outcome(
            scenario,
            tuple(checks),
            tuple(part.strikes),
            endings,
            costs,
            time.monotonic() - part.began_s,
            (self._run_folder(scenario), self._reference(scenario)),
        )

    def _disturbed(self, part: Part, outcomes: Sequence[dict[str, Any]]) -> Callable[[], Disturbed]:
        return lambda: Disturbed(
            run=self.harness.state.run(part.job),
            reference=self._reference(part.scenario),
            workload=part.scenario.workload,
            strikes=tuple(part.strikes),
            outcomes=outcomes,
            checkpoints_seen_max=part.checkpoints_seen_max,
            lost_steps_max=part.scenario.expected.lost_steps,
        )

    @staticmethod
    def _expectations(part: Part, job: dict[str, Any] | None, endings: tuple[str, ...]) -> list[Check]:
        expected = part.scenario.expected
        state = job["state"] if job is not None else "unknown"
        checks = [
            Check(f"ends as {expected.state}", state == expected.state, f"{state}: {job and job['reason']}"),
            Check(
                "every fault has struck",
                len(part.strikes) >= len(part.points),
                f"{len(part.strikes)} of {len(part.points)}",
            ),
        ]
        if expected.endings is not None:
            checks.append(
                Check(
                    f"endings {', '.join(expected.endings)}", endings == expected.endings, ", ".join(endings)
                )
            )
        return checks

    def _close(self) -> None:
        try:
            departure = self.harness.close()
            left = [process.pid for process in processes_of(self.harness.state.root)]
            if left or (departure is not None and departure.leftovers):
                raise HarnessError(f"processes were left behind: {left or departure}")
        finally:
            for scenario in self.scenarios:
                own_disk.unmount(
                    self.harness.state.run(scenario.name).root, keep_in=self._run_folder(scenario)
                )


def _steps_done(point: Point) -> int:
    """Return the steps behind the last boundary before a point."""
    return point.step if point.phase in {"evaluation", "epoch"} else point.step - 1


def why_skipped(scenario: Scenario) -> str | None:
    """Return why a scenario cannot be played here, None if it can."""
    return "needs root" if scenario.needs_root and os.geteuid() != 0 else None
