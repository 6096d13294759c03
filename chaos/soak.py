"""The soak: faults at random until the time is up, while one run after the other must come out equal.

Times and choices come from a seed. Between two faults lie exponentially distributed times with the given
mean, as between failures of machines. Everything that happens is a line of ``events.jsonl``; what it came to
is in ``soak.json``, from which the report is made.
"""

from __future__ import annotations

import dataclasses
import json
import random
import subprocess
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

import yaml

from chaos import second_reader
from chaos.faults import REGISTRY, Context
from chaos.faults.fault import live_attempt
from chaos.harness import Harness, processes_of, run_reference
from chaos.invariants import Disturbed, Strike, check_all, recoveries
from chaos.report import write_report
from chaos.table import as_text, rows_of
from chaos.waiting import HarnessError, Interruption, NotNowError, StopRequestedError
from trainerd.contract.heartbeat import read_heartbeat

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from chaos.faults import Fault
    from chaos.workloads import Workload

RESULTS: Final = "soak.json"
LOOK_S: Final = 0.5
RUN_LIMIT_S: Final = 1800.0
"""A run that has not finished after so long is stuck, whatever its faults."""

RESTART_BUDGET: Final = 50
FAULT_LIMIT_S: Final = 60.0
"""So long the soak tries to find a process that a fault can strike; then it takes the next one."""

_HOPELESS: Final = frozenset({"parked", "rejected", "stopped", "faulted"})


@dataclass(frozen=True)
class SoakOptions:
    """What to do for how long."""

    root: Path
    workload: Workload
    seed: int
    duration_s: float
    mtbf_s: float
    jobs: int = 2


@dataclass
class Lane:
    """One job at a time: the run that goes on in it."""

    number: int
    job: str = ""
    seed: int = 0
    began_s: float = 0.0
    strikes: list[Strike] = field(default_factory=list)
    checkpoints_seen_max: int = 0
    had_checkpoint: bool = False


class Soak:
    """One soak."""

    def __init__(self, options: SoakOptions, interruption: Interruption, say: Callable[[str], None]) -> None:
        self.options = options
        self._say = say
        self.interruption = interruption
        self.random = random.Random(options.seed)
        options.root.mkdir(parents=True, exist_ok=True)
        self.harness = Harness(options.root / "harness", interruption)
        self.lanes = [Lane(number) for number in range(options.jobs)]
        self.runs: list[dict[str, Any]] = []
        self.violations: list[str] = []
        self.runs_begun = 0
        self.began_s = time.monotonic()
        self._events = (options.root / "events.jsonl").open("a", buffering=1)

    def run(self) -> bool:
        """Run until the time is up; return whether every invariant held.

        Raises:
            StopRequestedError: This program was asked to stop.
        """
        try:
            self.harness.start()
            next_s = self.began_s + self._gap_s()
            while time.monotonic() < self.began_s + self.options.duration_s or self._is_any_running():
                self.harness.tick()
                self._look()
                is_over = time.monotonic() >= self.began_s + self.options.duration_s
                if not is_over and time.monotonic() >= next_s:
                    self._strike()
                    next_s = time.monotonic() + self._gap_s()
                time.sleep(LOOK_S)
        except HarnessError as error:
            self._violate(f"the harness gave up: {error}")
        finally:
            departure = self.harness.close()
            if departure is not None and departure.leftovers:
                self._violate(f"the supervisor left processes behind: {departure.leftovers}")
            left = [process.pid for process in processes_of(self.harness.state.root)]
            if left:
                self._violate(f"processes survive the soak: {left}")
            self._save()
        return not self.violations

    # --- the runs ---

    def _is_any_running(self) -> bool:
        return any(lane.job for lane in self.lanes)

    def _look(self) -> None:
        for lane in self.lanes:
            if not lane.job:
                if time.monotonic() < self.began_s + self.options.duration_s:
                    self._begin(lane)
                continue
            self._look_at_checkpoints(lane)
            job = self.harness.job(lane.job)
            if job is not None and job["state"] == "finished":
                self._conclude(lane)
            elif job is not None and job["state"] in _HOPELESS:
                self._violate(f"{lane.job} is {job['state']}: {job['reason']}")
                self._leave_replay(lane)
                self._drop(lane)
            elif time.monotonic() > lane.began_s + RUN_LIMIT_S:
                self._violate(f"{lane.job} has not finished within {RUN_LIMIT_S:.0f} s: {job}")
                self._drop(lane)

    def _begin(self, lane: Lane) -> None:
        seed = self.options.seed * 10_000 + self.runs_begun
        lane.job, lane.seed = f"soak-{self.runs_begun:04d}", seed
        self.runs_begun += 1
        lane.strikes, lane.checkpoints_seen_max, lane.had_checkpoint = [], 0, False
        run_reference(self._reference(lane), self.options.workload, seed=seed, tick=self.harness.tick)
        # The faults come so fast that some runs are struck again and again before they have begun.
        self.harness.submit(
            lane.job, self.options.workload, seed=seed, spec={"restart": {"budget": RESTART_BUDGET}}
        )
        lane.began_s = time.monotonic()
        self._note("run", job=lane.job, seed=seed)

    def _conclude(self, lane: Lane) -> None:
        outcomes = self.harness.outcomes(lane.job)
        if not outcomes:
            return  # the supervisor is away: at the next look
        disturbed = Disturbed(
            run=self.harness.state.run(lane.job),
            reference=self._reference(lane),
            workload=self.options.workload,
            strikes=tuple(lane.strikes),
            outcomes=outcomes,
            checkpoints_seen_max=lane.checkpoints_seen_max,
        )
        checks = check_all(disturbed)
        for check in checks:
            if not check.is_held:
                self._violate(f"{lane.job}: {check.name}: {check.found}")
        if not all(check.is_held for check in checks):
            self._leave_replay(lane)
        run = {
            "job": lane.job,
            "seed": lane.seed,
            "took_s": time.monotonic() - lane.began_s,
            "attempts": len(outcomes),
            "strikes": [asdict(strike) for strike in lane.strikes],
            "outcomes": [
                {key: outcome[key] for key in ("attempt", "kind", "reason")} for outcome in outcomes
            ],
            "recoveries": [asdict(recovery) for recovery in recoveries(disturbed)],
            "checks": [asdict(check) for check in checks],
        }
        self.runs.append(run)
        self._note("run-finished", **{key: run[key] for key in ("job", "attempts", "took_s", "checks")})
        self._save()
        self._drop(lane)

    def _drop(self, lane: Lane) -> None:
        self.harness.spec_path(lane.job).unlink(missing_ok=True)
        lane.job = ""

    def _reference(self, lane: Lane) -> Path:
        return self.options.root / "undisturbed" / lane.job

    def _look_at_checkpoints(self, lane: Lane) -> None:
        """From the first checkpoint on there is always one that verifies."""
        folder = self.harness.state.run(lane.job).checkpoints
        found = second_reader.checkpoints(folder)
        lane.checkpoints_seen_max = max(lane.checkpoints_seen_max, len(found))
        if any(second_reader.is_sound(path) for path in reversed(found)):
            lane.had_checkpoint = True
        elif lane.had_checkpoint and not any(
            second_reader.is_sound(path) for path in reversed(second_reader.checkpoints(folder))
        ):
            self._violate(f"{lane.job} has had a checkpoint, and now none verifies: {found}")

    # --- the faults ---

    def _gap_s(self) -> float:
        return self.random.expovariate(1 / self.options.mtbf_s)

    def _strike(self) -> None:
        candidates = [fault for fault in REGISTRY.values() if fault.soak_weight]
        deadline_s = time.monotonic() + FAULT_LIMIT_S
        while time.monotonic() < deadline_s:
            (fault,) = self.random.choices(candidates, [one.soak_weight for one in candidates])
            lanes = [lane for lane in self.lanes if lane.job]
            if lanes and self._strike_with(fault, self.random.choice(lanes)):
                return
            self.harness.tick()
            self._look()
            time.sleep(LOOK_S)

    def _strike_with(self, fault: Fault, lane: Lane) -> bool:
        struck = [one for one in self.lanes if one.job] if fault.hits_all_jobs else [lane]
        before = {one.job: live_attempt(self.harness.state.run(one.job)) for one in struck}
        if None in before.values():
            return False
        steps = {job: self._step(attempt) for job, attempt in before.items()}
        if fault.costs_checkpoints and any(
            REGISTRY[strike.fault].costs_checkpoints and strike.attempt >= before[lane.job].number - 1  # type: ignore[union-attr]
            for strike in lane.strikes
        ):
            return False  # one damage at a time: what is left must be able to carry on
        context = Context(self.harness, lane.job, random=random.Random(self.random.randrange(2**32)))
        try:
            done = fault.strike(context)
        except NotNowError:
            return False
        except (AssertionError, OSError, subprocess.SubprocessError) as error:
            self._violate(f"{lane.job}: {fault.name}: {type(error).__name__}: {error}")
            return True
        for one in struck:
            attempt = before[one.job]
            assert attempt is not None
            strike = Strike(
                fault.name, one.job, attempt.number, steps[one.job], done.detail, time.monotonic()
            )
            one.strikes.append(strike)
            self._note("fault", **asdict(strike))
        return True

    @staticmethod
    def _step(attempt: Any) -> int:
        beat = read_heartbeat(attempt.paths.heartbeat(0))
        return beat.step if beat is not None and beat.resumed_step >= 0 else -1

    # --- what is written down ---

    def _leave_replay(self, lane: Lane) -> None:
        """Leave a scenario with the faults of a run at their steps: times do not repeat, steps do."""
        content = {
            "what": f"the faults of {lane.job} in the soak with seed {self.options.seed}, step by step",
            "workload": dataclasses.asdict(self.options.workload),
            "strikes": [
                {"fault": strike.fault, "step": strike.step + 1, "settled": False}
                for strike in lane.strikes
                if 0 <= strike.step < self.options.workload.steps
            ],
        }
        path = self.options.root / f"replay-{lane.job}.yaml"
        path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        self._say(f"replay:   python -m chaos --scenario {path} --seed {lane.seed}")

    def _violate(self, what: str) -> None:
        self.violations.append(what)
        self._note("violation", what=what)
        self._say(f"VIOLATED  {what}")

    def _note(self, kind: str, **fields: Any) -> None:
        line = {"event": kind, "elapsed_s": round(time.monotonic() - self.began_s, 2), **fields}
        self._events.write(json.dumps(line, default=str) + "\n")
        if kind == "fault":
            self._say(
                f"{line['elapsed_s']:8.1f} s  {fields['job']}  step {fields['step']}: {fields['detail']}"
            )
        elif kind == "run-finished":
            held = sum(check["is_held"] for check in fields["checks"])
            self._say(
                f"{line['elapsed_s']:8.1f} s  {fields['job']}  finished after {fields['attempts']} attempts: "
                f"{held} of {len(fields['checks'])} invariants hold"
            )

    def _save(self) -> None:
        options = self.options
        content = {
            "format": "trainerd-chaos.soak/1",
            "workload": dataclasses.asdict(options.workload),
            "seed": options.seed,
            "duration_s": options.duration_s,
            "mtbf_s": options.mtbf_s,
            "elapsed_s": time.monotonic() - self.began_s,
            "supervisor_starts": self.harness.supervisor_starts,
            "runs": self.runs,
            "violations": self.violations,
        }
        draft = options.root / f".{RESULTS}.draft"
        draft.write_text(json.dumps(content, indent=1, default=str))
        draft.rename(options.root / RESULTS)


def soak(options: SoakOptions, interruption: Interruption, say: Callable[[str], None]) -> bool:
    """Run a soak; return whether every invariant held."""
    try:
        return Soak(options, interruption, say).run()
    except StopRequestedError:
        say("interrupted: what was found so far is kept")
        return False


def report_soak(root: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Say what the soak in a folder came to; return it as it is written down."""
    results: dict[str, Any] = json.loads((root / RESULTS).read_text())
    runs = results["runs"]
    strikes = sum(len(run["strikes"]) for run in runs)
    restarts = sum(run["attempts"] - 1 for run in runs)
    checks = [check["is_held"] for run in runs for check in run["checks"]]
    say("")
    say(as_text(rows_of(runs)))
    say("")
    summary = (
        f"{len(runs)} runs, {strikes} faults, {restarts} restarts, {results['supervisor_starts']} "
        "supervisors in "
        f"{results['elapsed_s'] / 60:.0f} minutes, mean time between faults {results['mtbf_s']:g} s, seed "
        f"{results['seed']}: {sum(checks)} of {len(checks)} checks hold, {len(results['violations'])} "
        "violations"
    )
    say(summary)
    folders = {
        run["job"]: (root / "harness" / "state" / "runs" / run["job"], root / "undisturbed" / run["job"])
        for run in runs
    }
    page = write_report(root, results, title="trainerd: the soak", summary=summary, folders=folders)
    say(f"report:   {page}")
    return results
