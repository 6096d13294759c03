"""`trainerd schema`: the JSON Schema of a spec. Needs no supervisor."""

from __future__ import annotations

import click

from trainerd.cli.options import json_option
from trainerd.cli.output import ending_quietly, print_json


@click.command()
@json_option
def command(as_json: bool) -> None:
    """Print the JSON Schema of a job spec.

    For editors that complete and check fields.

    It is JSON with or without --json.

    \b
    Example:
      trainerd schema > .trainerd-schema.json
      # then, as the first line of a spec, for editors with a YAML language server:
      # yaml-language-server: $schema=.trainerd-schema.json
    """  # noqa: D301 (click leaves alone the lines after this escape)
    del as_json
    from trainerd.supervisor.specs.json_schema import json_schema

    with ending_quietly():
        print_json(json_schema())
