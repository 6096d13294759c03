"""Numbers for Prometheus: views and readings in its text format.

Imports prometheus_client, which takes a while: call it in a thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from trainerd.contract.heartbeat import Phase
from trainerd.supervisor.machine.states import STATES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from prometheus_client.core import Metric

    from trainerd.supervisor.api.control import DaemonView, JobView
    from trainerd.supervisor.api.run_readings import RunSummary

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


def prometheus_page(
    daemon: DaemonView, jobs: Sequence[JobView], runs: Mapping[str, RunSummary], *, now_wall_s: float
) -> bytes:
    """Return all numbers in the text format.

    Args:
        daemon: The supervisor.
        jobs: Its jobs.
        runs: What was read of their runs, by job.
        now_wall_s: Seconds since the epoch.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(daemon, jobs, runs, now_wall_s))
    return bytes(generate_latest(registry))


class _Families:
    """Families of one page, made when they are first needed, each with all its samples together."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}

    def gauge(self, name: str, help_text: str, value: float | None, **labels: str) -> None:
        self._add(GaugeMetricFamily, name, help_text, value, labels)

    def counter(self, name: str, help_text: str, value: float | None, **labels: str) -> None:
        self._add(CounterMetricFamily, name, help_text, value, labels)

    def _add(self, kind: Any, name: str, text: str, value: float | None, labels: dict[str, str]) -> None:
        if value is None:
            return
        family = self._made.get(name)
        if family is None:
            family = self._made[name] = kind(f"trainerd_{name}", text, labels=list(labels))
        family.add_metric(list(labels.values()), float(value))

    def all(self) -> tuple[Metric, ...]:
        return tuple(self._made.values())


class _Collector:
    def __init__(
        self,
        daemon: DaemonView,
        jobs: Sequence[JobView],
        runs: Mapping[str, RunSummary],
        now_wall_s: float,
    ) -> None:
        self._daemon, self._jobs, self._runs, self._now_wall_s = daemon, jobs, runs, now_wall_s

    def collect(self) -> Iterator[Metric]:
        families = _Families()
        daemon = self._daemon
        families.gauge("info", "The supervisor, with its version.", 1, version=daemon.version)
        families.gauge("start_time_seconds", "When the supervisor began.", daemon.started_wall_s)
        families.gauge("on_hold", "1 while the supervisor starts nothing.", daemon.is_on_hold)
        families.gauge("journal_failing", "1 while nothing can be decided.", bool(daemon.journal_problem))
        for state in STATES:
            count = daemon.jobs_by_state.get(state.NAME, 0)
            families.gauge("jobs", "Jobs by state.", count, state=state.NAME)
        for job in self._jobs:
            _add_view(families, job)
            run = self._runs.get(job.name)
            if run is not None:
                _add_run(families, job, run, self._now_wall_s)
        yield from families.all()


def _add_view(families: _Families, job: JobView) -> None:
    name = job.name
    families.gauge("job_state", "1, with the state of the job.", 1, job=name, state=job.state)
    families.counter("job_attempts", "Attempts launched.", job.attempt, job=name)
    families.gauge("job_step", "Steps finished.", job.step, job=name)
    families.gauge("job_epoch", "Epoch in progress, from 0.", job.epoch, job=name)
    families.gauge("job_epochs", "Epochs planned.", job.epochs, job=name)
    loss = job.loss if isinstance(job.loss, float | int) else None
    families.gauge("job_loss", "Last loss that was logged.", loss, job=name)
    families.gauge("job_budget_left", "Attempts left without progress.", job.budget_left, job=name)
    families.gauge("job_retry_timestamp_seconds", "When it is tried again.", job.retry_at_wall_s, job=name)


def _add_run(families: _Families, job: JobView, run: RunSummary, now_wall_s: float) -> None:
    name, facts = job.name, run.facts
    for kind, count in sorted(facts.endings.items()):
        families.counter("job_endings", "Attempts that ended, by class.", count, job=name, kind=kind)
    goodput = facts.goodput(now_wall_s)
    if goodput.wall_s:
        for bucket, seconds in goodput.buckets.items():
            # No counter: seconds of a step that hangs turn out to be lost when it has died.
            families.gauge(
                "job_goodput_seconds", "Where the time of the run went.", seconds, job=name, bucket=bucket
            )
        families.gauge("job_wall_seconds", "Wall time of the run.", goodput.wall_s, job=name)
    families.counter("job_lost_steps", "Steps that were lost and run again.", goodput.lost_steps, job=name)
    families.gauge("job_step_seconds", "Mean time of a step of the newest attempt.", goodput.step_s, job=name)
    families.gauge(
        "job_return_seconds",
        "From the newest death until the next attempt had done a step.",
        goodput.return_s,
        job=name,
    )
    beats = [each.beat for each in facts.attempts if each.beat is not None]
    if beats:
        stall_s = sum(beat.spent_s[Phase.CHECKPOINT] for beat in beats)
        families.counter(
            "job_save_stall_seconds", "Time in which training waited for saves.", stall_s, job=name
        )
        saves = sum(beat.saves for beat in beats)
        families.counter("job_saves", "Checkpoints made.", saves, job=name)
        families.gauge(
            "job_save_durable_seconds",
            "How long the newest save took until it was durable.",
            beats[-1].last_save_s or None,
            job=name,
        )
    if run.readable:
        newest = run.readable[0]
        age_s = max(now_wall_s - newest.created_wall_s, 0.0)
        families.gauge("job_checkpoint_step", "Step of the newest checkpoint.", newest.step, job=name)
        families.gauge("job_checkpoint_age_seconds", "Time since the newest checkpoint.", age_s, job=name)
    families.gauge("job_checkpoint_bytes", "Size of its checkpoints.", run.disk_bytes, job=name)
    families.gauge("job_memory_bytes", "Memory that its ranks hold.", run.memory_bytes, job=name)
    for gpu in run.gpus:
        labels = {"job": name, "gpu": str(gpu.index)}
        families.gauge(
            "job_gpu_busy_ratio", "Part of the time in which it computes.", gpu.busy_share, **labels
        )
        families.gauge("job_gpu_memory_bytes", "Memory taken on a GPU.", gpu.memory_bytes, **labels)
        families.gauge("job_gpu_memory_size_bytes", "Memory of a GPU.", gpu.memory_bytes_max, **labels)
    families.gauge("job_disk_free_bytes", "Room beside its run folder.", run.free_bytes, job=name)
