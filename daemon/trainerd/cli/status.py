"""`trainerd status`: everything about one job, or about the supervisor."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from trainerd.cli.changes import LIVE
from trainerd.cli.explain import outcome_lines
from trainerd.cli.human import duration, epochs_done, number
from trainerd.cli.job_table import reason_now
from trainerd.cli.missing_scores import missing_scores, missing_scores_line
from trainerd.cli.options import complete_job_names, json_option, state_option
from trainerd.cli.output import ending_quietly, print_json
from trainerd.cli.rank_log_size import rank_log_line
from trainerd.cli.shown_drill import drilled_json, drilled_line, in_force
from trainerd.cli.shown_zone import moment, utc_option
from trainerd.cli.unread_files import unread_error
from trainerd.contract.clock import SystemClock
from trainerd.contract.drill_record import read_drilled
from trainerd.contract.paths import RunPaths, StatePaths
from trainerd.contract.safe_text import one_line
from trainerd.supervisor.api.saved_progress import read_saved

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trainerd.cli.post_mortem import Reader
    from trainerd.contract.drill_record import DrilledRecord
    from trainerd.supervisor.api.control import DaemonView, JobView
    from trainerd.supervisor.goodput.goodput_buckets import Goodput


REASONS_SHOWN_MAX: Final = 10

EXIT_CODES: Final = {
    "queued": 10,
    "backing-off": 11,
    "paused": 12,
    "stopped": 13,
    "parked": 14,
    "rejected": 15,
    "faulted": 16,
    "ended": 17,
    "unknown": 19,
}
"""Exit codes by the state of the job; every other state is one in which all is well, and 0."""

RUNS_ALONE: Final = 18
"""Exit code for a job that runs, and that no supervisor would restart."""

LOSS_SHOWN_MIN: Final = 0.001
"""Smallest part of a run's time that is shown of a bucket."""

NOTES: Final = "notes on the resume"
_HEADINGS: Final = dict.fromkeys(("suspect", "different"), "reasons for the verdict on the resume")

HOLD_NOTE: Final = "it starts nothing until `trainerd resume --all`"


@click.command()
@click.argument("name", required=False, shell_complete=complete_job_names)
@state_option
@utc_option
@json_option
@click.pass_context
def command(context: click.Context, *, name: str | None, state: StatePaths, as_json: bool) -> None:
    """Show one job in detail.

    Without a NAME, show the supervisor.

    The last outcome is shown with its evidence and with what the supervisor does next. The exit code shows
    the state of the job: 0 finished, running, starting or draining; 10 queued; 11 backing-off;
    12 paused; 13 stopped; 14 parked; 15 rejected; 16 faulted. With no supervisor: 17 the
    attempt has ended, 18 it runs, and nothing restarts it, 19 its files cannot be read.

    \b
    Example:
      trainerd status mnist
      trainerd status mnist --json | jq .last_outcome
      trainerd status
    """  # noqa: D301 (click leaves alone the lines after this escape)
    from trainerd.cli.client import Client
    from trainerd.cli.readers import reader

    with ending_quietly():
        if name is None:
            with reader(state) as source:
                if not isinstance(source, Client):
                    _show_left(source, state, as_json=as_json)
                    context.exit(1)
                daemon = source.daemon()
            if as_json:
                print_json(daemon)
            else:
                click.echo("\n".join(daemon_lines(daemon, SystemClock().wall_s())))
            return
        with reader(state) as source:
            job = source.get_job(name)
        now_s = SystemClock().wall_s()
        goodput, unread = _goodput(job, now_s)
        unscored = missing_scores(RunPaths(Path(job.run_dir)))
        drilled = in_force(job, read_drilled(state.drill(name)))
        if as_json:
            shown = drilled_json(drilled) if drilled is not None else None
            more = {"goodput": goodput, "unscored": unscored, "drilled": shown}
            print_json({**dataclasses.asdict(job), **more})
        else:
            lines = job_lines(job, now_s, drilled=drilled, goodput=goodput, unread=unread, unscored=unscored)
            click.echo("\n".join(lines))
    code = EXIT_CODES.get(job.state, 0)
    is_alone = not isinstance(source, Client) and job.state in LIVE
    context.exit(RUNS_ALONE if is_alone else code)


def _goodput(job: JobView, now_s: float) -> tuple[Goodput | None, str | None]:
    """Return where the time of a job's run went, None of one that has not begun, and why it is not known."""
    from trainerd.supervisor.goodput.goodput_facts import read_facts

    # The folder of a job that `trainerd exec` ran is in a state folder of its own.
    facts = read_facts(StatePaths(Path(job.run_dir).parent.parent), job.name)
    if facts.unread:
        return None, f"not known: {unread_error(facts.unread).message}"
    found = facts.goodput(now_s)
    return found if found.wall_s > 0 else None, None


def goodput_line(goodput: Goodput) -> str:
    """Return where the time went, the largest losses first."""
    shares = {bucket: seconds / goodput.wall_s for bucket, seconds in goodput.buckets.items()}
    useful = shares.pop("useful")
    lost = sorted((share, bucket) for bucket, share in shares.items() if share >= LOSS_SHOWN_MIN)
    rest = ", ".join(f"{bucket} {100 * share:.1f} %" for share, bucket in reversed(lost))
    return f"{100 * useful:.1f} % useful of {duration(goodput.wall_s)}" + (f"; {rest}" if rest else "")


def _show_left(source: Reader, state: StatePaths, *, as_json: bool) -> None:
    """Show what there is of a supervisor that does not run."""
    counts = dict(sorted(Counter(job.state for job in source.list_jobs()).items()))
    if as_json:
        print_json({"state_dir": str(state.root), "jobs_by_state": counts, "last_event": source.last_event()})
        return
    shown = ", ".join(f"{count} {name}" for name, count in counts.items()) or "none"
    lines = _aligned(("jobs", shown), ("state folder", str(state.root)))
    click.echo("\n".join(["trainerd: no supervisor is running", *lines]))


def daemon_lines(daemon: DaemonView, now_s: float) -> list[str]:
    """Describe the supervisor, a line each."""
    counts = ", ".join(f"{count} {state}" for state, count in sorted(daemon.jobs_by_state.items()))
    return [
        f"trainerd {daemon.version}, {'stopping' if daemon.is_stopping else 'running'}",
        *_aligned(
            ("pid", str(daemon.pid)),
            ("since", f"{moment(daemon.started_wall_s)} ({duration(now_s - daemon.started_wall_s)} ago)"),
            ("jobs", counts or "none"),
            ("problem", one_line(daemon.journal_problem) or None),
            ("preemption", one_line(daemon.preemption) or None),
            ("on hold", HOLD_NOTE if daemon.is_on_hold else None),
            ("jobs folder", daemon.jobs_dir),
            ("state folder", daemon.state_dir),
        ),
    ]


def job_lines(
    job: JobView,
    now_s: float,
    *,
    drilled: DrilledRecord | None = None,
    goodput: Goodput | None = None,
    unread: str | None = None,
    unscored: Sequence[str] = (),
) -> list[str]:
    """Describe a job, a line each; what is not known is left out."""
    budget = f" ({job.budget_left} more without progress)" if job.budget_left is not None else ""
    checkpoint = f"step {job.checkpoint_step}" if job.checkpoint_step is not None else _unseen_checkpoint(job)
    lines = [
        f"{job.name}: {job.state}",
        *_aligned(
            ("reason", reason_now(job, now_s)),
            ("since", f"{moment(job.since_wall_s)} ({duration(now_s - job.since_wall_s)} ago)"),
            ("attempt", f"{job.attempt}{budget}"),
            ("progress", _progress(job)),
            ("loss", number(job.loss) if job.loss is not None else None),
            ("checkpoint", checkpoint),
            ("keep_best", missing_scores_line(unscored)),
            ("in memory", _in_memory(job)),
            ("resume", job.resume),
            ("drilled", drilled_line(drilled) if drilled is not None else None),
            ("processes", _processes(job)),
            ("gpus", ", ".join(map(str, job.gpus)) or None),
            ("goodput", goodput_line(goodput) if goodput is not None else unread),
            ("standby", job.standby),
            ("held", "until `trainerd resume`" if job.is_held else None),
            ("priority", str(job.priority) if job.priority else None),
            ("spec", job.spec_path),
            ("run folder", job.run_dir),
            ("logs", rank_log_line(RunPaths(Path(job.run_dir)), job.attempt)),
        ),
    ]
    if job.resume_reasons:
        lines += ["", _HEADINGS.get(job.resume_verdict or "", NOTES), *_reasons(job)]
    if job.last_outcome is not None:
        lines += ["", "last outcome", *(f"  {line}" for line in outcome_lines(job.last_outcome, now_s))]
    return lines


def _unseen_checkpoint(job: JobView) -> str:
    """Return what is shown of a job without a known checkpoint: one that cannot be read is not absent."""
    folder = RunPaths(Path(job.run_dir)).checkpoints
    is_known = read_saved(RunPaths(Path(job.run_dir))) is not None
    return "none yet" if is_known else f"not known: {folder} cannot be read"


def _in_memory(job: JobView) -> str | None:
    """Return which step the newest copy in memory has, None if the disk is as far."""
    if job.memory_step is None or job.memory_step <= (job.checkpoint_step or 0):
        return None
    return f"step {job.memory_step}, which does not survive the machine"


def _reasons(job: JobView) -> list[str]:
    """Return the first reasons, a line each, with what to do about it below."""
    lines = []
    for reason in job.resume_reasons[:REASONS_SHOWN_MAX]:
        lines.append(f"  {reason.kind}: {reason.where}: {reason.detail}")
        lines += [f"    {reason.hint}"] if reason.hint else []
    if (more := len(job.resume_reasons) - REASONS_SHOWN_MAX) > 0:
        lines.append(f"  and {more} more, in resume.json of the run folder")
    return lines


def _progress(job: JobView) -> str | None:
    parts = []
    if job.step is not None:
        parts.append(f"step {job.step}")
    if job.epoch is not None:
        parts.append(f"epochs {epochs_done(job.epoch, job.epochs, job.batch, job.batches)}")
    if job.batch is not None:
        parts.append(f"batch {job.batch}" + (f"/{job.batches}" if job.batches is not None else ""))
    if job.phase not in {None, "importing", "no-session"}:
        parts.append(f"in {job.phase}")
    return ", ".join(parts) or None


def _processes(job: JobView) -> str | None:
    shim = [f"shim {job.shim_pid}"] if job.shim_pid is not None else []
    return ", ".join([*shim, *(f"rank {rank}: {pid}" for rank, pid in enumerate(job.pids))]) or None


def _aligned(*rows: tuple[str, str | None]) -> list[str]:
    shown = [(label, value) for label, value in rows if value is not None]
    width = max(len(label) for label, _ in shown)
    return [f"  {label:<{width}}  {value}" for label, value in shown]
