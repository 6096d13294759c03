"""`trainerd completion`: verbs, options and names of jobs, completed by the shell."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from trainerd.cli.options import json_option
from trainerd.cli.output import ending_quietly, print_json

PROGRAM = "trainerd"
VARIABLE = "_TRAINERD_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@json_option
@click.pass_context
def command(context: click.Context, shell: str, as_json: bool) -> None:
    """Print a script for completion in a shell.

    Verbs, options, and the names of jobs, which are read from the state folder.

    \b
    Example:
      trainerd completion bash > ~/.local/share/bash-completion/completions/trainerd
      trainerd completion zsh > ~/.zfunc/_trainerd
      trainerd completion fish > ~/.config/fish/completions/trainerd.fish
    """  # noqa: D301 (click leaves alone the lines after this escape)
    kind = get_completion_class(shell)
    assert kind is not None, "click knows the three shells"
    root = context.find_root().command
    # click asks an old bash for its version by running it; the script itself needs no question.
    script = kind.source_template % kind(root, {}, PROGRAM, VARIABLE).source_vars()
    with ending_quietly():
        if as_json:
            print_json({"shell": shell, "script": script})
        else:
            click.echo(script)
