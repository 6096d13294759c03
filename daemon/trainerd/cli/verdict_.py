"""`trainerd verdict`: what a script should do with a run next. Needs no supervisor."""

from __future__ import annotations

from pathlib import Path

import click

from trainerd.cli.options import find_state, json_option, unsought_state_option
from trainerd.cli.output import print_json
from trainerd.cli.run_folder import find_run
from trainerd.cli.run_place import is_path
from trainerd.contract.clock import SystemClock
from trainerd.contract.paths import RunPaths
from trainerd.contract.safe_text import safe_line


@click.command()
@click.argument("run", metavar="RUN")
@click.option(
    "--code",
    type=click.IntRange(-64, 255),
    metavar="N",
    help="What the program or its launcher exited with; -15 or 143 for a signal.  [default: not known]",
)
@click.option(
    "--since",
    type=click.FloatRange(min=0),
    default=0.0,
    metavar="SECONDS",
    help="When it was started (`date +%s`): records of earlier starts do not count for it.",
)
@unsought_state_option
@json_option
@click.pass_context
def command(
    context: click.Context,
    *,
    run: str,
    code: int | None,
    since: float,
    state: Path | None,
    as_json: bool,
) -> None:
    """Print whether to run a program again.

    Judges the run folder. For scripts that start the program themselves, with srun or torchrun, whose exit
    codes do not say enough. RUN is a job, or a folder with a slash in it. Exits with 0 if the run has
    finished, 85 if it should be run again, 93 if that can never help, 1 if it failed or its folder cannot be
    read; the line that is printed says why.

    \b
    Example:
      trainerd verdict ./runs/mnist
      trainerd verdict ./runs/mnist --code $code --since $began
    """  # noqa: D301 (click leaves alone the lines after this escape)
    from trainerd.supervisor.attempt.run_seen import read_run
    from trainerd.supervisor.machine.run_verdict import judge_run

    paths = RunPaths(Path(run)) if is_path(run) else find_run(find_state(state), run)
    verdict = judge_run(read_run(paths, code, since_wall_s=since), now_wall_s=SystemClock().wall_s())
    if as_json:
        print_json(
            {
                "run": run,
                "verdict": verdict.word.value,
                "exit_code": verdict.exit_code,
                "reason": verdict.reason,
            }
        )
    else:
        click.echo(safe_line(f"{verdict.word.value}: {verdict.reason}"))
    context.exit(verdict.exit_code)
