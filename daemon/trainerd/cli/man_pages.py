"""Manual pages of the command line, made from the docstrings and options that `--help` shows.

    python -m trainerd.cli.man_pages FOLDER

writes ``trainerd.1`` and one page a verb, such as ``trainerd-ps.1``.
"""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from typing import Final

import click

from trainerd.cli.main import GROUPS, group
from trainerd.version import VERSION

SECTION: Final = 1
VERBATIM: Final = "\b"
"""First line of a paragraph whose lines click leaves as they are."""


def text_of(words: str) -> str:
    """Return text as roff shows it: no character of it is an instruction."""
    escaped = words.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga")
    escaped = escaped.replace("^", "\\(ha").replace("~", "\\(ti").replace('"', "\\(dq")
    return "\n".join(f"\\&{line}" if line[:1] == "." else line for line in escaped.splitlines())


def paragraphs_of(help_text: str) -> list[str]:
    """Return the roff of a docstring: paragraphs, and blocks of lines that stay as they are."""
    pages: list[str] = []
    for block in re.split(r"\n\s*\n", inspect.cleandoc(help_text).partition("\f")[0]):
        lines = [line.rstrip() for line in block.splitlines()]
        if lines and lines[0].strip() == VERBATIM:
            pages += [".PP", ".nf", text_of("\n".join(lines[1:])), ".fi"]
        elif lines:
            pages += [".PP", text_of(" ".join(line.strip() for line in lines))]
    return pages


def heading(title: str) -> str:
    """Return the first line of a page."""
    return f'.TH {text_of(title.upper())} {SECTION} "" "trainerd {VERSION}"'


def options_of(command: click.Command, context: click.Context) -> list[str]:
    """Return the section of the options, empty if there are none."""
    records = [record for each in command.get_params(context) if (record := each.get_help_record(context))]
    rows: list[str] = []
    for names, explanation in records:
        rows += [".TP", f"\\fB{text_of(names)}\\fR", text_of(" ".join(explanation.split())) or "\\&"]
    return [".SH OPTIONS", *rows] if rows else []


def verb_page(verb: str, context: click.Context) -> str:
    """Return the page of a verb."""
    command = group.get_command(context, verb)
    assert command is not None
    own = click.Context(command, info_name=verb, parent=context)
    help_text = inspect.cleandoc(command.help or "")
    summary, _, rest = help_text.partition("\n")
    pieces = " ".join(command.collect_usage_pieces(own))
    lines = [
        heading(f"trainerd-{verb}"),
        ".SH NAME",
        f"trainerd\\-{text_of(verb)} \\- {text_of(summary.rstrip('.'))}",
        ".SH SYNOPSIS",
        f"\\fBtrainerd {text_of(verb)}\\fR {text_of(pieces)}",
        *([".SH DESCRIPTION", *paragraphs_of(rest)[1:]] if rest.strip() else []),
        *options_of(command, own),
        ".SH SEE ALSO",
        "\\fBtrainerd\\fR(1)",
    ]
    return "\n".join(lines) + "\n"


def group_page(verbs: list[str], context: click.Context) -> str:
    """Return the page of the program, which lists the verbs by task."""
    lines = [
        heading("trainerd"),
        ".SH NAME",
        f"trainerd \\- {text_of((group.help or '').rstrip('.'))}",
        ".SH SYNOPSIS",
        "\\fBtrainerd\\fR VERB [OPTIONS] [ARGS]...",
        ".SH DESCRIPTION",
        text_of("Each verb has a page of its own, such as trainerd-ps(1)."),
    ]
    titles = GROUPS | {"More": tuple(set(verbs) - {verb for named in GROUPS.values() for verb in named})}
    for title, named in titles.items():
        shown = [verb for verb in named if verb in verbs]
        lines += [f".SS {text_of(title)}"] if shown else []
        for verb in shown:
            command = group.get_command(context, verb)
            assert command is not None
            summary = inspect.cleandoc(command.help or "").partition("\n")[0]
            lines += [".TP", f"\\fBtrainerd\\-{text_of(verb)}\\fR(1)", text_of(summary)]
    return "\n".join([*lines, *options_of(group, context)]) + "\n"


def pages() -> dict[str, str]:
    """Return the text of each page by its file name."""
    context = click.Context(group, info_name="trainerd")
    verbs = group.list_commands(context)
    made = {f"trainerd-{verb}.{SECTION}": verb_page(verb, context) for verb in verbs}
    return {f"trainerd.{SECTION}": group_page(verbs, context), **made}


def write_pages(folder: Path) -> None:
    """Write all pages into a folder, which is made if it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, page in pages().items():
        (folder / name).write_text(page, encoding="utf-8")


if __name__ == "__main__":
    write_pages(Path(sys.argv[1]))
