"""The fields of a job spec: what may be written, what it means, what it is when absent.

Everything is strict: an unknown field, a number where text belongs or a text where a number belongs is an
error. A field without a value (``env:`` and nothing after it) counts as not written.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from trainerd.contract.names import NAME_LENGTH_MAX, NAME_PATTERN
from trainerd.contract.policy import Tracker
from trainerd.supervisor.specs.fields import (
    METRIC_PATTERN,
    Command,
    Count,
    CountOrAll,
    CountOrNever,
    Duration,
    DurationOrNever,
    Env,
    FilePath,
    Name,
    Size,
    SomeDuration,
    StallTimeout,
    Text,
    as_list,
    as_words,
    none_for_auto,
)
from trainerd.supervisor.specs.hook_fields import HookSection
from trainerd.supervisor.specs.section import Section


class ResourcesSpec(Section):
    """What one attempt occupies while it runs; the supervisor starts a job when that much is free."""

    gpus: int = Field(0, ge=0, le=1024, description="GPUs of this machine.", examples=[1])
    cpus: float = Field(
        1.0, ge=0, le=65536, description="CPU cores; a fraction is allowed.", examples=[2, 0.5]
    )
    memory: Size | None = Field(
        None,
        description="Memory of all ranks together, with its unit. The kernel ends an attempt that "
        "exceeds it, if cgroups limit memory here (`trainerd doctor`).",
        examples=["2GiB", "512MB"],
    )


class EverySpec(Section):
    """When to checkpoint: whichever comes first. Each of the three has its default unless it says `never`."""

    steps: CountOrNever = Field(
        None, description="Number of steps between checkpoints, or `never`.", examples=[200]
    )
    seconds: DurationOrNever = Field(
        300.0,
        description="Time between checkpoints, or `never`.",
        examples=[300, "10m"],
    )
    epochs: CountOrNever = Field(
        1,
        description="Number of epochs between checkpoints, each at the end of an epoch, or `never`.",
        examples=[1],
    )


class KeepBestSpec(Section):
    """Keep the checkpoints with the best scores of one metric."""

    metric: Text = Field(
        description="Name of the score, as passed to `session.report`.",
        pattern=METRIC_PATTERN,
        examples=["accuracy"],
    )
    n: Count = Field(1, description="Number of checkpoints to keep.", examples=[2])
    mode: Literal["max", "min"] = Field(
        "max", description="Whether a larger or a smaller score is better.", examples=["min"]
    )
    on_tie: Literal["first", "latest"] = Field(
        "first", description="Which of two equal scores ranks higher.", examples=["latest"]
    )


class KeepEverySpec(Section):
    """Keep for good the first checkpoint in each stretch of so many steps, seconds or epochs."""

    steps: Count | None = Field(None, description="The length in steps.", examples=[10000])
    seconds: SomeDuration | None = Field(None, description="The length in time.", examples=["6h"])
    epochs: Count | None = Field(None, description="The length in epochs.", examples=[10])

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.steps is None and self.seconds is None and self.epochs is None:
            raise ValueError("name at least one of steps, seconds, epochs")
        return self


class CheckpointSpec(Section):
    """When to checkpoint and what to keep."""

    every: Annotated[EverySpec | None, BeforeValidator(none_for_auto)] = Field(
        EverySpec(),  # type: ignore[call-arg] # every field has a default
        description="When to checkpoint; `auto` computes the interval from the cost of saves and failures.",
        examples=[{"steps": 200, "seconds": 300, "epochs": 1}, "auto"],
    )
    at_start: bool = Field(
        False, description="Whether to checkpoint before the first step of a fresh run too.", examples=[True]
    )
    keep_last: CountOrAll = Field(
        3, description="Number of the newest checkpoints to keep, or `all`.", examples=[3, "all"]
    )
    keep_best: Annotated[list[KeepBestSpec], BeforeValidator(as_list)] = Field(
        [],
        description="Keep the checkpoints with the best scores: one rule, or a list of rules.",
        examples=[{"metric": "accuracy", "mode": "max", "n": 2}],
    )
    keep_every: KeepEverySpec | None = Field(
        None,
        description="Keep the first checkpoint at or after each multiple of a length permanently.",
        examples=[{"epochs": 10}],
    )

    mirror: Text | None = Field(
        None,
        description="URL to which each checkpoint is copied in the background, of any kind that "
        "fsspec knows. The run has a folder with the job's name there.",
        examples=["s3://bucket/runs"],
    )
    mirror_bandwidth: Size | None = Field(
        None, description="Limit on the rate of copying, per second; none if absent.", examples=["20MB"]
    )
    memory: Literal["auto", "off"] = Field(
        "off",
        description="Whether copies of the newest boundary are kept in memory, for the next attempt after a "
        "process was killed: `auto` as often as that costs next to nothing. They do not survive the machine. "
        "Several ranks keep them where all are on one machine.",
        examples=["auto"],
    )

    @model_validator(mode="after")
    def _has_a_mirror_to_be_slow(self) -> Self:
        if self.mirror_bandwidth is not None and self.mirror is None:
            raise ValueError("mirror_bandwidth is of no use without mirror")
        if self.mirror_bandwidth == 0:
            raise ValueError("mirror_bandwidth must be more than 0; leave it out for no limit")
        if self.mirror is not None and "://" not in self.mirror:
            raise ValueError(f"mirror must be a URL such as s3://bucket/runs, not {self.mirror!r}")
        return self

    @model_validator(mode="after")
    def _has_one_rule_a_metric(self) -> Self:
        metrics = [rule.metric for rule in self.keep_best]
        twice = sorted({metric for metric in metrics if metrics.count(metric) > 1})
        if twice:
            raise ValueError(f"keep_best has two rules for {twice[0]!r}; keep one")
        return self


class BackoffSpec(Section):
    """How long to wait before trying again; the wait doubles each time."""

    initial: Duration = Field(1.0, description="Wait before the first retry.", examples=["1s"])
    max: Duration = Field(300.0, description="Longest wait.", examples=["5m"])

    @model_validator(mode="after")
    def _is_ordered(self) -> Self:
        if self.max < self.initial:
            raise ValueError("max must not be shorter than initial")
        return self


class RestartSpec(Section):
    """Retries after a failure: how often, and after which wait."""

    budget: int = Field(
        5, ge=0, le=1_000_000, description="Attempts without progress before the job is parked.", examples=[5]
    )
    backoff: BackoffSpec = Field(
        BackoffSpec(),  # type: ignore[call-arg] # every field has a default
        description="Waits between attempts.",
        examples=[{"initial": "1s", "max": "5m"}],
    )


class GroupSpec(Section):
    """Jobs of which only so many run at once, as those of a sweep."""

    name: Name = Field(description="Name of the group.", examples=["lr-sweep"])
    max_running: Count = Field(
        description="How many jobs of the group may run at once; a job waits while that many others run.",
        examples=[2],
    )


class JobSpec(Section):
    """A job: what to run, with what, and what to do when it ends. Every field but `command` has a default."""

    name: Name | None = Field(
        None,
        description="Name of the job and of its run folder; the file's name without its extension if absent.",
        examples=["mnist"],
        json_schema_extra={"pattern": f"^{NAME_PATTERN}$", "maxLength": NAME_LENGTH_MAX},
    )
    command: Command = Field(
        description="Program and arguments: a list, or one text that is split as a shell splits "
        "it, without expansion.",
        examples=[["python", "train.py", "--epochs", "2"], "python train.py --epochs 2"],
    )
    workdir: FilePath = Field(
        ".",
        description="Folder in which the ranks start, relative to the spec's folder.",
        examples=["examples/mnist"],
    )
    python: FilePath | None = Field(
        None,
        description="Interpreter for the word `python` in `command`: a path, relative to the "
        "spec's folder, or a name that is looked up in PATH; the supervisor's own if "
        "absent.",
        examples=["/opt/venvs/vision/bin/python"],
    )
    env: Env = Field(
        {}, description="Environment variables; every value is text.", examples=[{"OMP_NUM_THREADS": "2"}]
    )
    env_file: FilePath | None = Field(
        None,
        description="File with secret variables (NAME=value lines), relative to the spec's folder; "
        "read at each launch, never copied or shown.",
        examples=["secrets.env"],
    )
    nproc: Annotated[int, Field(ge=1, le=4096)] | None = Field(
        None,
        description="Number of ranks on this machine. Each gets the variables that torchrun sets "
        "(`RANK`, `WORLD_SIZE`, `MASTER_ADDR` and others), also with 1. If absent, one "
        "process without these variables.",
        examples=[2],
    )
    resources: ResourcesSpec = Field(
        ResourcesSpec(),  # type: ignore[call-arg] # every field has a default
        description="Share of the machine that one attempt occupies while it runs.",
        examples=[{"gpus": 1, "cpus": 4, "memory": "16GiB"}],
    )
    checkpoint: CheckpointSpec = Field(
        CheckpointSpec(),  # type: ignore[call-arg] # every field has a default
        description="When to checkpoint and what to keep.",
        examples=[{"every": {"steps": 200}, "keep_last": 3}],
    )
    restart: RestartSpec = Field(
        RestartSpec(),  # type: ignore[call-arg] # every field has a default
        description="Retries after a failure.",
        examples=[{"budget": 5}],
    )
    grace: Duration = Field(
        30.0, description="Time from the request to stop until SIGKILL.", examples=["30s", 90]
    )
    stall_timeout: StallTimeout = Field(
        "auto",
        description="Time without progress that counts as a stall; `auto` learns it from the job, "
        "`never` means no limit.",
        examples=["10m", "never"],
    )
    on_nonfinite_loss: Literal["ignore", "stop", "rollback"] = Field(
        "ignore",
        description="Action when the value logged as `loss` is NaN or infinite: `ignore` does "
        "nothing, `stop` parks the job, `rollback` continues from the checkpoint "
        "before the newest.",
        examples=["rollback"],
    )
    completion: Literal["exit-zero", "record"] = Field(
        "exit-zero",
        description="When a program that opens no session is finished: at exit code 0, or, with "
        "`record`, only if the run has a finished record too; exit code 0 without the "
        "record is then a crash. A program that opens a session is finished when its "
        "session is, whatever this field says.",
        examples=["record"],
    )
    trackers: Annotated[list[Tracker], BeforeValidator(as_words)] | None = Field(
        None,
        description="Experiment trackers that receive what a session logs and reports: a list, or "
        "one name. If absent, the script chooses.",
        examples=[["tensorboard"]],
    )
    standby: Literal["auto", "off"] = Field(
        "off",
        description="Whether a process that has imported what the last attempt imported is kept ready for "
        "the next one, edits of the script included that leave its imports alone, and for another job when "
        "this one has ended: `auto` where that is possible (`trainerd status` says why it is not), or `off`.",
        examples=["auto"],
    )
    priority: int = Field(
        0,
        ge=-1_000_000,
        le=1_000_000,
        description="Jobs with a higher number start first. A job that does not fit drains jobs of "
        "lower priority, which resume when there is room.",
        examples=[10],
    )
    notify: Annotated[list[HookSection], BeforeValidator(as_list)] = Field(
        [],
        description="Hooks for the events of this job, in addition to those of the supervisor's "
        "configuration: one hook, or a list of hooks.",
        examples=[{"events": ["finished", "parked"], "email": ["me@example.org"]}],
    )
    after: Annotated[list[Name], BeforeValidator(as_words)] = Field(
        [],
        description="Jobs that must be finished before this job is launched. Once launched under "
        "its spec, it continues whatever happens to them.",
        examples=[["prepare"]],
    )
    group: GroupSpec | None = Field(
        None,
        description="Group of jobs of which a limited number run at once.",
        examples=[{"name": "lr-sweep", "max_running": 2}],
    )

    @model_validator(mode="after")
    def _is_not_after_itself(self) -> Self:
        if self.name is not None and self.name in self.after:
            raise ValueError(f"after: {self.name} cannot wait for itself; take it out")
        return self
