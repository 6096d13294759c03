"""How simulated training behaves: what an attempt does once its shim is up, and the evidence that it leaves."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field

from trainerd.contract.records import ExitRecord, OutcomeRecord, RankExit
from trainerd.supervisor.outcome import Evidence

STEP_S = 1.0
CHECKPOINT_EVERY_STEPS = 5
BOOT = "simulated"


@dataclass
class Training:
    """What the run folder of one job holds, and how far its program can get."""

    steps_total: int
    stuck_at: int | None
    has_session: bool
    checkpoint_step: int = 0
    checkpoint_attempt: int = 0
    finished_digest: str = ""


@dataclass
class Fate:
    """What an attempt would do if nobody interfered: decided when it is launched."""

    shim_delay_s: float
    ends_after_steps: int
    ending: str  # crash, kill, finish, self-drain, lying-drain, reject, lost, no-space
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

    def conclude(self, ending: str, now: float) -> None:
        """End, and leave the evidence that such an ending leaves."""
        self.is_over = True
        step = self.step_at(now)
        training = self.training
        periodic = step - step % CHECKPOINT_EVERY_STEPS
        if periodic > training.checkpoint_step:
            training.checkpoint_step, training.checkpoint_attempt = periodic, self.number
        code, by = 1, None
        if ending in {"finish", "self-drain", "drained"} and step > training.checkpoint_step:
            training.checkpoint_step, training.checkpoint_attempt = step, self.number
        if ending == "finish":
            code = 0
            if training.has_session:
                training.finished_digest = self.digest
                self.said = OutcomeRecord("finished", step=step)
        elif ending in {"self-drain", "drained", "lying-drain"}:
            code = 85
        elif ending == "no-space":
            self.said = OutcomeRecord("no-space", step=step)
        elif ending == "reject":
            code = 93
        elif ending in {"kill", "grace"}:
            code, by = None, signal.SIGKILL
        is_lost = ending == "lost"
        record = ExitRecord(
            ranks=(RankExit(0, code, by, "grace" if ending == "grace" else None),),
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
            checkpoint=f"step-{training.checkpoint_step:09d}" if training.checkpoint_step else None,
            checkpoint_step=training.checkpoint_step or None,
            is_checkpoint_new=training.checkpoint_attempt == self.number,
            is_finish_recorded=training.finished_digest == self.digest,
        )
