"""What the supervisor shows its interfaces, and what it lets them ask for.

The HTTP API is written against this protocol and the service implements it; neither knows the other. The
views are also what version 1 of the API promises, with the descriptions of its OpenAPI document: a field may
be added, none is removed or changes its meaning within a version.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Protocol

from trainerd.contract.nonfinite import spelled

if TYPE_CHECKING:
    from pydantic import ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic_core import CoreSchema

# The command line reads these views too and must not load pydantic, so none of it is imported here.


@dataclass(frozen=True)
class Described:
    """Description of a field in the OpenAPI document."""

    text: str

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {**handler(schema), "description": self.text}


@dataclass(frozen=True)
class Spelled:
    """Serialization of numbers that JSON has no form for, as text."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        from pydantic import PlainSerializer

        result: Any = float | str if source is float else dict[str, Any]
        serializer = PlainSerializer(spelled, return_type=result, when_used="json")
        return serializer.__get_pydantic_core_schema__(source, handler)


Number = Annotated[
    float, Spelled(), Described("a number, or 'nan', 'inf' or '-inf', which JSON has no number for")
]
Data = Annotated[dict[str, Any], Spelled()]


def _promise_every_field(schema: dict[str, Any]) -> None:
    """Describe every field as present in every answer.

    Defaults are for a client that is newer than the supervisor.
    """
    for described in schema["properties"].values():
        described.pop("default", None)
    schema["required"] = list(schema["properties"])


def _shown_as(name: str) -> ConfigDict:
    """Return the configuration of a view that the OpenAPI document calls `name`."""
    return {"title": name, "json_schema_extra": _promise_every_field}


@dataclass(frozen=True)
class OutcomeView:
    """How an attempt ended."""

    __pydantic_config__: ClassVar = _shown_as("Outcome")

    attempt: Annotated[int, Described("number of the attempt, from 1")]
    kind: Annotated[
        str,
        Described(
            "finished, drained, crashed, killed, out-of-memory, stalled, lost, "
            "non-finite-loss, stopped or rejected"
        ),
    ]
    reason: Annotated[str, Described("one sentence")]
    evidence: Annotated[tuple[str, ...], Described("what the judgement rests on, a line each")] = ()
    step: Annotated[int | None, Described("last step it finished; null if it never said")] = None
    checkpoint: Annotated[
        str | None, Described("newest valid checkpoint afterwards; null if there is none")
    ] = None
    next_action: Annotated[str, Described("what the supervisor does about it, and why")] = ""
    wall_s: Annotated[float, Described("when it ended, in seconds since the epoch")] = 0.0


@dataclass(frozen=True)
class ReasonView:
    """A reason for the verdict on a resume."""

    __pydantic_config__: ClassVar = _shown_as("Reason")

    kind: Annotated[str, Described("short name of the cause, such as changed-libraries")]
    where: Annotated[str, Described("the object, field, step or file that it is about")]
    detail: Annotated[str, Described("what was found")]
    hint: Annotated[str, Described("what to do about it; may be empty")] = ""


@dataclass(frozen=True)
class JobView:
    """A job. Fields about progress are null where the job has not said, or is no trainerd session."""

    __pydantic_config__: ClassVar = _shown_as("Job")

    name: str
    state: Annotated[
        str,
        Described(
            "queued, starting, running, draining, backing-off, paused, stopped, finished, parked, "
            "rejected or faulted"
        ),
    ]
    reason: Annotated[str, Described("why it is in that state: one sentence")]
    since_wall_s: Annotated[float, Described("since when, in seconds since the epoch")]
    attempt: Annotated[int, Described("number of the newest attempt, 0 before the first")]
    spec_path: str
    run_dir: str
    phase: Annotated[str | None, Described("what rank 0 is doing")] = None
    step: Annotated[int | None, Described("steps finished, over all attempts")] = None
    epoch: Annotated[int | None, Described("epoch in progress, from 0")] = None
    epochs: Annotated[int | None, Described("epochs planned")] = None
    batch: Annotated[int | None, Described("batches finished in this epoch")] = None
    batches: Annotated[int | None, Described("batches in this epoch")] = None
    loss: Annotated[Number | None, Described("last value logged under the name loss")] = None
    checkpoint_step: Annotated[int | None, Described("step of the newest checkpoint")] = None
    shim_pid: Annotated[int | None, Described("process id of the shim of a live attempt")] = None
    pids: Annotated[tuple[int, ...], Described("process ids of the live ranks, by rank")] = ()
    retry_at_wall_s: Annotated[float | None, Described("when the next attempt starts, while backing off")] = (
        None
    )
    budget_left: Annotated[int | None, Described("attempts left without progress")] = None
    priority: Annotated[int, Described("higher goes first")] = 0
    last_outcome: Annotated[OutcomeView | None, Described("how the newest ended attempt ended")] = None
    spec_digest: Annotated[
        str,
        Described("of what the newest accepted spec says, whatever its layout; empty if none ever was"),
    ] = ""
    resume: Annotated[
        str | None,
        Described("what is known of its newest resume, in one line; null if it was never resumed"),
    ] = None
    resume_verdict: Annotated[
        str | None,
        Described("exact, unchecked, suspect or different: of the newest resume; null if there was none"),
    ] = None
    resume_reasons: Annotated[tuple[ReasonView, ...], Described("what led to that verdict")] = ()
    is_held: Annotated[bool, Described("whether nothing of it is launched until it is resumed")] = False
    gpus: Annotated[
        tuple[int, ...], Described("indices of the GPUs that its live attempt was given; empty if none")
    ] = ()
    standby: Annotated[
        str | None,
        Described(
            "how the process is that is kept ready for the next attempt, or why there is none; "
            "null if the spec asks for none"
        ),
    ] = None
    memory_step: Annotated[
        int | None,
        Described("step of its newest copy in memory, which the machine would take with it; null if none"),
    ] = None

    @property
    def share_done(self) -> float | None:
        """How much of the planned epochs is done, from 0 to 1; None if the job has not said."""
        if self.state == "finished":
            return 1.0
        if self.epoch is None or not self.epochs:
            return None
        batch = self.batch / self.batches if self.batch is not None and self.batches else 0.0
        return min(max((self.epoch + batch) / self.epochs, 0.0), 1.0)


@dataclass(frozen=True)
class EventView:
    """One line of the journal's history."""

    __pydantic_config__: ClassVar = _shown_as("Event")

    sequence: Annotated[int, Described("rises by at least one an event; pass the last one as `after`")]
    wall_s: Annotated[float, Described("when, in seconds since the epoch")]
    job: Annotated[str | None, Described("the job it is about; null for the supervisor itself")]
    kind: str
    message: str
    data: Data = field(default_factory=dict)


@dataclass(frozen=True)
class DaemonView:
    """The supervisor itself."""

    __pydantic_config__: ClassVar = _shown_as("Daemon")

    version: str
    pid: int
    state_dir: str
    jobs_dir: str
    started_wall_s: Annotated[float, Described("in seconds since the epoch")]
    is_stopping: Annotated[bool, Described("whether it is draining all jobs before it leaves")]
    jobs_by_state: Annotated[
        dict[str, int], Described("number of jobs by state; states without one are absent")
    ] = field(default_factory=dict)
    last_event: Annotated[int, Described("sequence number of the newest event, 0 if there is none")] = 0
    is_on_hold: Annotated[bool, Described("whether nothing is started until it is released")] = False
    reload_refused_wall_s: Annotated[
        float | None, Described("when a reload was last refused, in seconds since the epoch")
    ] = None
    reload_refusal: Annotated[str, Described("why it was refused, empty if none was")] = ""
    journal_problem: Annotated[
        str, Described("why nothing can be decided: the journal is full or gone; empty if all is well")
    ] = ""
    preemption: Annotated[
        str, Described("what is done because the machine is about to be taken; empty if it is not")
    ] = ""


@dataclass(frozen=True)
class GoodputView:
    """Where the time of a run went."""

    __pydantic_config__: ClassVar = _shown_as("Goodput")

    job: str
    buckets: Annotated[
        dict[str, float],
        Described("seconds in starting, loading, useful, repeated, saving, waiting and down"),
    ]
    wall_s: Annotated[float, Described("wall time of the run in seconds: the sum of the buckets")]
    share: Annotated[float | None, Described("the part that was useful; null if it has not begun")]
    attempts: Annotated[int, Described("how many attempts were counted")]
    lost_steps: Annotated[int, Described("steps that were run and then lost")]
    return_s: Annotated[
        float | None, Described("from the newest death until the next attempt had done a step, in seconds")
    ]
    step_s: Annotated[float | None, Described("mean time of a step of the newest attempt, in seconds")]
    silent_attempts: Annotated[
        tuple[int, ...], Described("attempts of which only beginning and end are known")
    ] = ()


@dataclass(frozen=True)
class TrialView:
    """How a test of a hook went."""

    __pydantic_config__: ClassVar = _shown_as("Trial")

    hook: Annotated[str, Described("its name; that of a hook of a job is the job's name, # and a number")]
    kind: Annotated[str, Described("command, webhook, email or desktop")]
    problem: Annotated[str | None, Described("why it failed; null if it was delivered")] = None


class Control(Protocol):
    """The supervisor, as its interfaces use it. All calls are made on the supervisor's event loop."""

    def daemon(self) -> DaemonView:
        """Describe the supervisor."""
        ...

    def list_jobs(self) -> tuple[JobView, ...]:
        """Describe every job, by name."""
        ...

    def get_job(self, name: str) -> JobView | None:
        """Describe one job, None if no job has that name."""
        ...

    async def observe(self, name: str | None = None) -> None:
        """Read the run folders of all jobs, or of one, for the views, as far as they answer in time."""
        ...

    def list_events(
        self, *, job: str | None = None, after: int = 0, limit: int = 200, is_newest: bool = False
    ) -> tuple[EventView, ...]:
        """Return events with a sequence number above `after`, oldest first, at most `limit`.

        Those are the oldest ones, or with `is_newest` the newest ones.
        """
        ...

    def list_outcomes(self, name: str) -> tuple[OutcomeView, ...]:
        """Return how each attempt of a job ended, oldest first."""
        ...

    async def stop(self, name: str, *, now: bool = False) -> JobView:
        """Drain a job and keep it stopped until `resume`. Returns once the request is durable.

        Args:
            name: Of the job.
            now: Whether its ranks are asked twice, so that they save what they hold and leave at once.

        Raises:
            UserError: There is no such job, or it cannot be stopped in its state.
        """
        ...

    async def resume(self, name: str) -> JobView:
        """Let a stopped, parked, paused or backing-off job go on now. Returns once the request is durable.

        Raises:
            UserError: There is no such job, or there is nothing to resume.
        """
        ...

    async def hold(self, name: str) -> JobView:
        """Launch nothing of a job until `resume`, and drain it if it runs. Durable when this returns.

        Raises:
            UserError: There is no such job.
        """
        ...

    async def retry(self, name: str) -> JobView:
        """Try a parked, rejected or waiting job again with a full budget. Durable when this returns.

        Raises:
            UserError: There is no such job, or it was not given up.
        """
        ...

    def check_restart(self, name: str) -> JobView:
        """Describe a job that could be started again; one that runs, once it is stopped. Changes nothing.

        Raises:
            UserError: There is no such job, or it would be refused.
        """
        ...

    async def restart(self, name: str, *, is_fresh: bool) -> JobView:
        """Start a job at rest again, also a complete one, with a full budget. Durable when this returns.

        Args:
            name: The job.
            is_fresh: Whether its run was moved aside, so that a new one begins.

        Raises:
            UserError: There is no such job, or an attempt of it runs.
        """
        ...

    async def hold_all(self) -> DaemonView:
        """Drain every job and start none until `release_all`. Durable when this returns."""
        ...

    async def release_all(self) -> DaemonView:
        """Start jobs again. Those that were held or stopped one by one stay so."""
        ...

    async def test_hooks(self, name: str | None) -> tuple[TrialView, ...]:
        """Deliver a test notice to the hooks of the configuration, or to one of them, or to those of a job.

        Raises:
            UserError: There is no such hook.
        """
        ...

    async def reload(self) -> None:
        """Ask the supervisor to start its program again in place; returns before it does."""
        ...

    async def rescan(self) -> None:
        """Look at the jobs folder now; returns once every settled spec is acknowledged."""
        ...
