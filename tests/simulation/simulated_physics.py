"""How simulated training behaves: what an attempt does once its shim is up, and the evidence that it
leaves."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field

from trainerd.contract.heartbeat import Heartbeat, Phase
from trainerd.contract.records import ExitRecord, OutcomeRecord, RankExit, StallRecord
from trainerd.supervisor.machine.outcome import Evidence

STEP_S = 1.0
CHECKPOINT_EVERY_STEPS = 5
KEEP_LAST = 3
BOOT = "simulated"


@dataclass
class Training:
    """What the run folder of one job holds, and how far its program can get."""

    steps_total: int
    stuck_at: int | None
    has_session: bool
    checkpoints: dict[int, int] = field(default_factory=dict)  # step to the attempt that made it
    spoilt_step: int | None = None  # the checkpoint of this step is such that whoever goes on from it crashes
    finished_digest: str = ""
    times_gone_back: int = 0

    @property
    def checkpoint_step(self) -> int:
        return max(self.checkpoints, default=0)

    def save(self, step: int, attempt: int) -> None:
        if step > self.checkpoint_step:
            self.checkpoints[step] = attempt
            for older in sorted(self.checkpoints)[:-KEEP_LAST]:
                del self.checkpoints[older]

    def go_back(self, name: str) -> None:
        """Set aside what is newer, as the supervisor does before a launch. Idempotent."""
        step = int(name.removeprefix("step-"))
        if step not in self.checkpoints:
            return
        for newer in [found for found in self.checkpoints if found > step]:
            del self.checkpoints[newer]
            self.times_gone_back += 1
            if newer == self.spoilt_step:
                self.spoilt_step = None


def named(step: int) -> str | None:
    return f"step-{step:09d}" if step else None


@dataclass
class Fate:
    """What an attempt would do if nobody interfered: decided when it is launched."""

    shim_delay_s: float
    ends_after_steps: int
    ending: str  # crash, kill, finish, self-drain, lying-drain, reject, lost, no-space, nan, hang
    drain_s: float
    drains_well: bool


@dataclass
class SimulatedAttempt:
    """One attempt: launched, perhaps up, perhaps over."""

    name: str
    number: int
    digest: str
    fate: Fate
    training: Training
    grace_s: float
    life: int
    on_nonfinite_loss: str = "ignore"
    stall: StallRecord | None = None
    beat_every_s: float = 1.0
    is_void: bool = False
    is_up: bool = False
    is_over: bool = False
    up_s: float = 0.0
    stop_requested_s: float | None = None
    signals: int = 0
    evidence: Evidence | None = None
    began_at_step: int = 0
    has_moved: bool = False
    killed_by_reboot: bool = False
    said: OutcomeRecord | None = field(default=None)
    watchers: list = field(default_factory=list)  # futures of those who wait for a change

    @property
    def may_run(self) -> bool:
        return self.is_up and not self.is_over

    def step_at(self, now: float) -> int:
        made = int((now - self.up_s) / STEP_S)
        limit = self.fate.ends_after_steps
        step = self.began_at_step + min(made, limit)
        if self.training.stuck_at is not None:
            step = min(step, max(self.training.stuck_at, self.began_at_step))
        return min(step, self.training.steps_total)

    def is_hanging(self, now: float) -> bool:
        return (
            self.may_run
            and self.fate.ending == "hang"
            and now - self.up_s >= self.fate.ends_after_steps * STEP_S
        )

    def log_bytes(self, now: float) -> tuple[int, ...]:
        """A plain command writes a line a second."""
        return (int(now - self.up_s) if self.may_run else 0,)

    def heartbeat(self, now: float, *, clock) -> Heartbeat | None:
        """What it says: a beat every so often, until it hangs."""
        if not self.may_run or not self.training.has_session:
            return None
        moving_s = now - self.up_s
        if self.fate.ending == "hang":
            moving_s = min(moving_s, self.fate.ends_after_steps * STEP_S)
        beats = int(moving_s / self.beat_every_s) + 1
        return Heartbeat(
            Phase.STEP,
            beats=beats,
            step=self.step_at(now),
            resumed_step=self.began_at_step,
            beat_monotonic_ns=int(clock(self.up_s + (beats - 1) * self.beat_every_s) * 1e9),
            longest_silences_s=(self.beat_every_s,) * len(Phase),
        )

    def conclude(self, ending: str, now: float) -> None:
        """End, and leave the evidence that such an ending leaves."""
        self.is_over = True
        step = self.step_at(now)
        training = self.training
        for made in range(self.began_at_step + 1, step + 1):
            if made % CHECKPOINT_EVERY_STEPS == 0:
                training.save(made, self.number)
        code, by = 1, None
        if ending in {"finish", "self-drain", "drained"}:
            training.save(step, self.number)
        if ending == "finish":
            code = 0
            if training.has_session:
                training.finished_digest = self.digest
                self.said = OutcomeRecord("finished", step=step)
        elif ending in {"self-drain", "drained", "lying-drain"}:
            code = 85
        elif ending == "no-space":
            self.said = OutcomeRecord("no-space", step=step)
        elif ending == "nan" and self.on_nonfinite_loss != "ignore":
            self.said = OutcomeRecord("nonfinite-loss", step=step)
        elif ending == "reject":
            code = 93
        elif ending in {"kill", "grace", "stalled"}:
            code, by = None, signal.SIGKILL
        by_shim = {"grace": "grace", "stalled": "asked"}.get(ending)
        is_lost = ending == "lost"
        record = ExitRecord(
            ranks=(RankExit(0, code, by, by_shim),),
            started_wall_s=self.up_s,
            ended_wall_s=now,
            duration_s=now - self.up_s,
            boot_id=BOOT,
            stop_requested_s=None if self.stop_requested_s is None else self.stop_requested_s - self.up_s,
        )
        self.evidence = Evidence(
            attempt=self.number,
            exit=None if is_lost or self.killed_by_reboot else record,
            outcomes=(self.said,),
            lost_because="its shim is gone" if is_lost or self.killed_by_reboot else "",
            is_after_reboot=self.killed_by_reboot,
            has_session=training.has_session,
            has_stepped=step > self.began_at_step,
            step=step or None,
            checkpoint=named(training.checkpoint_step),
            checkpoint_step=training.checkpoint_step or None,
            is_checkpoint_new=training.checkpoints.get(training.checkpoint_step) == self.number,
            checkpoint_before=named(max(sorted(training.checkpoints)[:-1], default=0)),
            resumed_from=named(self.began_at_step),
            on_nonfinite_loss=self.on_nonfinite_loss,
            stall=self.stall,
            is_finish_recorded=training.finished_digest == self.digest,
        )
