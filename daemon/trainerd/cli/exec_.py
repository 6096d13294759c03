"""`trainerd exec`: one job in the foreground, for a container, a batch job, a terminal."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from trainerd.cli.chosen_log import no_such_rank
from trainerd.cli.durations import option_s
from trainerd.contract import exit_codes
from trainerd.contract.paths import StatePaths
from trainerd.contract.safe_text import safe_text
from trainerd.errors import UserError

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator

    from trainerd.contract.node_place import Place
    from trainerd.contract.paths import RunPaths
    from trainerd.contract.resolved import ResolvedJob
    from trainerd.supervisor.service.node_group import NodeGroup

SAID_AT_START: Final = 2
"""How many sentences there are before anything has happened to the job."""
EXEC_STATES: Final = Path(".trainerd") / "exec"

_MEANINGS: Final = {
    exit_codes.FINISHED: "finished",
    exit_codes.DRAINED: "drained: run it again",
    exit_codes.NEVER_RETRY: "never retry",
    exit_codes.FAILED: "failed",
}
_NOT_NOW: Final = "not now: run it again"


@click.command()
@click.argument("spec", type=click.Path(path_type=Path, readable=False))
@click.option(
    "--state-dir",
    "--state",
    "state_dir",
    type=click.Path(path_type=Path, readable=False),  # who may not look is told more than that
    metavar="DIR",
    help=f"State folder of this job alone; its runs are kept there.  [default: ./{EXEC_STATES}/NAME]",
)
@click.option(
    "--fresh", is_flag=True, help="Begin a new run at step 0: the old one is moved aside, never deleted."
)
@click.option("--temporary", is_flag=True, help="Keep nothing: a state folder that is removed at the end.")
@click.option(
    "--takeover-after",
    "takeover_after",
    metavar="TIME",
    help="Time to wait for another process that has the job; then take over, if it is on another machine."
    "  [default: 60s under an engine such as Slurm or Kubernetes; else exit with 85 at once]",
)
@click.option(
    "--leave-every",
    "leave_every",
    metavar="TIME",
    help="Drain the job after this time and exit with 85, so that the engine runs it again."
    "  [default: only when asked]",
)
@click.option(
    "--nnodes",
    type=click.IntRange(min=1),
    metavar="N",
    help="Number of nodes; run this command on each.  [default: as srun says; else 1]",
)
@click.option(
    "--node-rank",
    type=click.IntRange(min=0),
    metavar="K",
    help="Number of this node, from 0.  [default: as srun or an Indexed Job says]",
)
@click.option(
    "--rendezvous",
    metavar="HOST:PORT",
    help="Where the ranks of all nodes meet: node 0, and a free port.  [default: as srun says]",
)
@click.option(
    "--run",
    "common",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Run folder that all nodes share; --state is then this node's own.",
)
@click.option(
    "--meet-within",
    "meet_within",
    metavar="TIME",
    help="Time to wait for the other nodes, before exiting with 85.  [default: 15m]",
)
@click.option("--rank", type=click.IntRange(min=0), metavar="N", help="Show only this rank.  [default: all]")
@click.option("--quiet", "-q", is_flag=True, help="Do not print events of the job.")
@click.pass_context
def command(
    context: click.Context,
    *,
    spec: Path,
    state_dir: Path | None,
    fresh: bool,
    temporary: bool,
    takeover_after: str | None,
    leave_every: str | None,
    nnodes: int | None,
    node_rank: int | None,
    rendezvous: str | None,
    common: Path | None,
    meet_within: str | None,
    rank: int | None,
    quiet: bool,
) -> None:
    """Run one job in the foreground, without a jobs folder.

    It is restarted, judged and drained as by the supervisor. The output of its ranks goes to standard
    output, and events of the job to standard error. SIGTERM, SIGINT, SIGUSR1 and SIGHUP drain it; a second
    signal shortens the drain.

    Exits with 0 when the job has finished, 85 when it should be run again (it left on request and continues
    from its newest checkpoint, or another process has the job now), 93 when it can never run like this, and
    1 otherwise. Works as process 1 of a container.

    With several nodes, run it once on each, with one --run that all see. Their ranks are one group. Each node
    restarts its own ranks; when one node is asked to leave, all drain and exit with 85.

    \b
    Example:
      trainerd exec job.yaml
      trainerd exec job.yaml --state /scratch/mnist
      trainerd exec job.yaml --fresh
      trainerd exec job.yaml --leave-every 1h
      srun --ntasks-per-node=1 trainerd exec job.yaml --run /shared/mnist
    """  # noqa: D301 (click leaves alone the lines after this escape)
    from trainerd.contract.folder_owner import refuse_root_on_service
    from trainerd.contract.node_place import place_of
    from trainerd.supervisor.service.foreground import supervise_one
    from trainerd.supervisor.service.takeover import usual_wait_s
    from trainerd.supervisor.specs.load import load_spec

    takeover_after_s = (
        option_s("--takeover-after", takeover_after) if takeover_after else usual_wait_s(os.environ)
    )
    leave_every_s = option_s("--leave-every", leave_every, least_s=1.0) if leave_every else None
    if temporary and leave_every_s is not None:
        raise click.UsageError("--temporary keeps nothing that a job could go on from after --leave-every")
    if temporary and state_dir is not None:
        raise click.UsageError("--temporary and --state exclude one another")
    try:
        # A user who names a file on the command line has chosen to run it, as with a shell script.
        job = load_spec(spec, trust=None)
        place = place_of(os.environ, nodes=nnodes, node=node_rank, rendezvous=rendezvous)
        for_one = [name for name, is_given in (("--temporary", temporary), ("--fresh", fresh)) if is_given]
        group = _group(job, place, common, meet_within, for_one=for_one)
        if rank is not None and rank >= job.nproc:
            raise no_such_rank(rank, job.name, range(job.nproc))
    except UserError as error:
        click.echo(f"error: {safe_text(str(error))}", err=True)
        context.exit(exit_codes.NEVER_RETRY)

    said = [""]
    where = "" if group is None else f" node {group.place.node}:"

    def say(sentence: str) -> None:
        said.append(sentence)
        if not quiet:
            click.echo(f"trainerd: {job.name}:{where} {sentence}", err=True)

    with _state_folder(job.name, state_dir, is_temporary=temporary, group=group) as state:
        refuse_root_on_service(state, shlex.join(["trainerd", *sys.argv[1:]]))
        say(f"state is kept in {state.root}" if not temporary else "nothing is kept")
        end = supervise_one(
            job,
            state,
            stream=lambda run, no_more: _stream(run, no_more, rank=rank),
            say=say,
            is_fresh=fresh,
            takeover_after_s=takeover_after_s,
            leave_every_s=leave_every_s,
            group=group,
        )
    if end.code == exit_codes.FINISHED and len(said) == SAID_AT_START and not temporary:
        how = f"trainerd exec {spec} --fresh" if group is None else "name another folder with --run"
        say(f"it was finished before; to begin a new run: {how}")
    say(
        f"exits with {end.code} ({_NOT_NOW if end.is_not_now else _MEANINGS[end.code]})"
        + (f": {end.reason}" if end.reason != said[-1] else "")
    )
    context.exit(end.code)


@contextlib.contextmanager
def _state_folder(
    name: str, given: Path | None, *, is_temporary: bool, group: NodeGroup | None
) -> Iterator[StatePaths]:
    if is_temporary:
        with tempfile.TemporaryDirectory(prefix=f"trainerd-{name}-") as folder:
            yield StatePaths(Path(folder))
    else:
        root = (given or EXEC_STATES / name).absolute()
        # Nodes that are given one folder must not take one another for an earlier start of themselves.
        yield StatePaths(root if group is None else root / f"node-{group.place.node}")


def _group(
    job: ResolvedJob,
    place: Place | None,
    common: Path | None,
    meet_within: str | None,
    *,
    for_one: list[str],
) -> NodeGroup | None:
    """Return the nodes of the job, None if it has one.

    Raises:
        UserError: They have no folder in common, or the job asks for what nodes cannot do together.
    """
    from trainerd.supervisor.service.node_group import MEETING_LIMIT_S, NodeGroup

    if place is None:
        if common is not None or meet_within is not None:
            raise UserError(
                "--run and --meet-within are for several nodes, and this job has one",
                hint="its run is kept in the state folder: --state; or say how many nodes it has: --nnodes",
            )
        return None
    if common is None:
        raise UserError(
            f"this is node {place.node} of {place.nodes}, and they have no run folder in common",
            hint="name a folder that all nodes see: --run DIR; or run on one node: --nnodes 1",
        )
    if for_one:
        raise UserError(f"{for_one[0]} is for one node", hint="for a new run, name another folder with --run")
    if job.on_nonfinite_loss == "rollback":
        raise UserError(
            "on_nonfinite_loss: rollback is for one node: no node decides for the others", hint="use `stop`"
        )
    limit_s = option_s("--meet-within", meet_within, least_s=1.0) if meet_within else MEETING_LIMIT_S
    return NodeGroup(place, common.absolute(), limit_s)


def _stream(run: RunPaths, no_more: threading.Event, *, rank: int | None) -> None:
    """Copy what the ranks print from now on to standard output. A reader that leaves ends only this."""
    from trainerd.cli.rank_logs import RankLogs
    from trainerd.supervisor.service.foreground import STREAM_LOOK_S

    with (
        contextlib.suppress(BrokenPipeError, OSError),
        contextlib.closing(RankLogs(run, rank=rank, lines=0)) as logs,
    ):
        is_last = False
        while True:
            has_more = False
            for number, data in logs.read_new():
                has_more = True
                _write(number, data, is_mixed=logs.is_mixed)
            if has_more:
                continue
            if is_last:
                break
            # Once more after the end: what came between the last look and it.
            is_last = no_more.wait(STREAM_LOOK_S)
        for number, data in logs.rest():
            _write(number, data, is_mixed=logs.is_mixed)


def _write(rank: int, data: bytes, *, is_mixed: bool) -> None:
    if is_mixed:
        data = b"".join(b"[%d] %s" % (rank, line) for line in data.splitlines(keepends=True))
    # What a job prints need not be text, and must not wait in a buffer for the end.
    view = memoryview(data)
    while view:
        view = view[os.write(sys.stdout.fileno(), view) :]
