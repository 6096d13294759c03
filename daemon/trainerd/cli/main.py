"""The command line: one group, whose verbs are the files of this folder that define `command`.

A verb's module is imported only when that verb is used; `--help` and completion read the first line of its
docstring from the source instead. So no verb pays for what another verb needs, and adding a file adds a verb.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import pkgutil
import sys
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

from trainerd import cli
from trainerd.cli.json_errors import is_said_as_line, prepare_errors
from trainerd.contract.safe_text import safe_text
from trainerd.errors import InternalError, TrainerdError
from trainerd.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ERROR_CHARACTERS_MAX: Final = 100_000
"""Longest error that is printed, in characters: a spec may have many problems."""

GROUPS: Final[dict[str, tuple[str, ...]]] = {
    "Start with these": ("run", "submit", "ps", "logs", "stop"),
    "Look": ("status", "wait", "explain", "events", "metrics", "goodput", "checkpoints"),
    "Steer": ("resume", "restart", "retry", "hold", "drain", "checkpoint", "reload"),
    "Jobs and their specs": ("edit", "rm", "validate", "schema", "exec", "sweep", "clone"),
    "Under other engines": ("slurm", "verdict"),
    "Checkpoints": ("pin", "prune", "export", "import"),
    "Training scripts": ("check", "adopt", "drill"),
    "This installation": ("doctor", "notify", "completion"),
}
"""Verbs by task, as ``--help`` lists them; those of a newcomer first. A verb that is in none comes last."""

ELSEWHERE: Final = {
    "list": "ps",
    "ls": "ps",
    "jobs": "ps",
    "queue": "ps",
    "squeue": "ps",
    "top": "ps --watch",
    "watch": "ps --watch",
    "describe": "status",
    "show": "status",
    "info": "status",
    "inspect": "status",
    "kill": "stop",
    "cancel": "stop",
    "scancel": "stop",
    "abort": "stop",
    "end": "stop",
    "pause": "hold",
    "start": "submit",
    "add": "submit",
    "create": "submit",
    "sbatch": "submit",
    "launch": "submit",
    "up": "run",
    "serve": "run",
    "daemon": "run",
    "down": "drain",
    "shutdown": "drain",
    "unpause": "resume",
    "continue": "resume",
    "delete": "rm",
    "remove": "rm",
    "purge": "rm --purge",
    "log": "logs",
    "tail": "logs -f",
    "history": "events",
    "why": "explain",
    "version": "--version",
    "lint": "validate",
    "test": "drill",
    "save": "checkpoint",
    "verify": "checkpoints --verify",
}
"""Verbs of other programs, and what does that here."""


def _verb_files() -> Iterator[tuple[str, Path]]:
    """Yield each module of this folder with the verb it would be; a trailing underscore avoids a keyword."""
    from pathlib import Path

    for module in pkgutil.iter_modules(cli.__path__):
        yield module.name.rstrip("_").replace("_", "-"), Path(cli.__path__[0]) / f"{module.name}.py"


def _summary(path: Path) -> str | None:
    """Return the first line of a verb's docstring without importing it, None if the file is no verb."""
    try:
        source = path.read_text(encoding="utf-8")
    except OSError:
        return None
    if "def command(" not in source:
        return None
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and node.name == "command":
            return (ast.get_docstring(node) or "").partition("\n")[0]
    return None


class Verbs(click.Group):
    """A group that finds its commands among the files of this folder when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return [verb for verb, path in _verb_files() if _summary(path) is not None]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        for verb, path in _verb_files():
            if verb == cmd_name and _summary(path) is not None:
                command = importlib.import_module(f"{cli.__name__}.{path.stem}").command
                assert isinstance(command, click.Command)
                command.name = verb
                return command
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs from their sources: importing them all would make help slow."""
        del ctx
        rows = {verb: summary for verb, path in _verb_files() if (summary := _summary(path)) is not None}
        for title, verbs in GROUPS.items():
            with formatter.section(title):
                formatter.write_dl([(verb, rows.pop(verb)) for verb in verbs if verb in rows])
        if rows:
            with formatter.section("More"):
                formatter.write_dl(list(rows.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb, or say which one was probably meant."""
        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None:
            ctx.fail(f"there is no verb {name!r}{self._meant(ctx, name)}")
        return super().resolve_command(ctx, args)

    def _meant(self, ctx: click.Context, name: str) -> str:
        """Return what a word that is no verb was probably meant to be, empty if that cannot be told."""
        if name.lower() in ELSEWHERE:
            return f"; you may want `trainerd {ELSEWHERE[name.lower()]}`"
        if name.endswith((".yaml", ".yml", ".json", ".toml")):
            return f"; to run a spec: `trainerd submit {name}`, or alone and here: `trainerd exec {name}`"
        if name.endswith(".py"):
            return f"; to run a script as a job: `trainerd submit -- python {name}`"
        near = difflib.get_close_matches(name.lower(), self.list_commands(ctx), n=1)
        return f"; did you mean {near[0]!r}?" if near else "; `trainerd --help` lists them"

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb; a mistake of the user's ends as one message, a bug of ours as a traceback."""
        try:
            return super().invoke(ctx)
        except InternalError:
            raise
        except click.UsageError as error:
            said = error.format_message()
            if (safe := safe_text(said, characters_max=len(said))) != said:
                raise click.UsageError(safe, error.ctx) from error
            raise
        except PermissionError as error:
            from trainerd.cli.rights import without_rights

            _fail(ctx, without_rights(error))
        except OSError as error:
            from trainerd.cli.disk_trouble import disk_trouble

            if (trouble := disk_trouble(error)) is None:
                raise
            _fail(ctx, trouble)
        except TrainerdError as error:
            _fail(ctx, error)


def _fail(ctx: click.Context, error: TrainerdError) -> NoReturn:
    if not is_said_as_line(ctx.invoked_subcommand, error):
        click.echo(f"error: {safe_text(str(error), characters_max=ERROR_CHARACTERS_MAX)}", err=True)
    ctx.exit(1)


@click.group(
    cls=Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Begin with: trainerd run --jobs jobs --state .trainerd",
)
@click.version_option(VERSION, prog_name="trainerd", message="%(prog)s %(version)s")
def group() -> None:
    """Fault-tolerant, preemption-safe training for PyTorch."""


def main() -> None:
    """Run the command line."""
    prepare_errors(sys.argv[1:])
    group(prog_name="trainerd")
