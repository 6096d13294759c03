"""What the HTTP API says, as documented in its OpenAPI description.

The views of `trainerd.supervisor.api.control` are what the supervisor knows; these are what version 1 of the API
promises. A field may be added, none is removed or changes its meaning within a version.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer

from trainerd.contract.nonfinite import spelled

Number = Annotated[
    float,
    PlainSerializer(spelled, return_type=float | str, when_used="json"),
    Field(description="a number, or 'nan', 'inf' or '-inf', which JSON has no number for"),
]
Data = Annotated[dict[str, Any], PlainSerializer(spelled, return_type=dict[str, Any], when_used="json")]


class _Model(BaseModel):
    model_config = ConfigDict(from_attributes=True, frozen=True)


class Outcome(_Model):
    """How an attempt ended."""

    attempt: int = Field(description="number of the attempt, from 1")
    kind: str = Field(
        description="finished, drained, crashed, killed, out-of-memory, stalled, lost, non-finite-loss, stopped or rejected"
    )
    reason: str = Field(description="one sentence")
    evidence: tuple[str, ...] = Field(description="what the judgement rests on, a line each")
    step: int | None = Field(description="last step it finished; null if it never said")
    checkpoint: str | None = Field(description="newest valid checkpoint afterwards; null if there is none")
    next_action: str = Field(description="what the supervisor does about it, and why")
    wall_s: float = Field(description="when it ended, in seconds since the epoch")


class Job(_Model):
    """A job. Fields about progress are null where the job has not said, or is no trainerd session."""

    name: str
    state: str = Field(
        description="queued, starting, running, draining, backing-off, paused, stopped, finished, parked or rejected"
    )
    reason: str = Field(description="why it is in that state: one sentence")
    since_wall_s: float = Field(description="since when, in seconds since the epoch")
    attempt: int = Field(description="number of the newest attempt, 0 before the first")
    spec_path: str
    run_dir: str
    phase: str | None = Field(description="what rank 0 is doing")
    step: int | None = Field(description="steps finished, over all attempts")
    epoch: int | None = Field(description="epoch in progress, from 0")
    epochs: int | None = Field(description="epochs planned")
    batch: int | None = Field(description="batches finished in this epoch")
    batches: int | None = Field(description="batches in this epoch")
    loss: Number | None = Field(description="last value logged under the name loss")
    checkpoint_step: int | None = Field(description="step of the newest checkpoint")
    shim_pid: int | None = Field(description="process id of the shim of a live attempt")
    pids: tuple[int, ...] = Field(description="process ids of the live ranks, by rank")
    retry_at_wall_s: float | None = Field(description="when the next attempt starts, while backing off")
    budget_left: int | None = Field(description="attempts left without progress")
    priority: int = Field(description="higher goes first")
    last_outcome: Outcome | None = Field(description="how the newest ended attempt ended")
    spec_digest: str = Field(
        description="of what the newest accepted spec says, whatever its layout; empty if none ever was"
    )
    resume: str | None = Field(
        description="whether its newest resume was exact, or what differed; null if it was never resumed"
    )
    is_held: bool = Field(description="whether nothing of it is launched until it is resumed")


class Event(_Model):
    """One line of the journal's history."""

    sequence: int = Field(description="rises by at least one an event; pass the last one as `after`")
    wall_s: float = Field(description="when, in seconds since the epoch")
    job: str | None = Field(description="the job it is about; null for the supervisor itself")
    kind: str
    message: str
    data: Data


class Daemon(_Model):
    """The supervisor itself."""

    version: str
    pid: int
    state_dir: str
    jobs_dir: str
    started_wall_s: float = Field(description="in seconds since the epoch")
    is_stopping: bool = Field(description="whether it is draining all jobs before it leaves")
    jobs_by_state: dict[str, int] = Field(
        description="number of jobs by state; states without one are absent"
    )
    last_event: int = Field(description="sequence number of the newest event, 0 if there is none")
    is_on_hold: bool = Field(description="whether nothing is started until it is released")
    reload_refused_wall_s: float | None = Field(
        description="when a reload was last refused, in seconds since the epoch"
    )
    reload_refusal: str = Field(description="why it was refused, empty if none was")


class ProblemDetails(BaseModel):
    """Why a request was not carried out."""

    error: str = Field(description="what is wrong")
    hint: str | None = Field(default=None, description="what to do about it")


class Done(BaseModel):
    """The request was carried out."""

    ok: bool = True
