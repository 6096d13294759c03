"""Names of the runs of programs that have no supervisor."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from trainerd.checkpoint.digest import digest_of_bytes
from trainerd.training.which_run.argument_difference import options_of
from trainerd.training.which_run.program_identity import INTERACTIVE

if TYPE_CHECKING:
    from trainerd.training.which_run.program_identity import ProgramIdentity

DIGEST_CHARACTERS: Final = 8
STEM_CHARACTERS_MAX: Final = 60


def default_name(program: ProgramIdentity) -> str:
    """Return the name of the run of a program: its stem, and a digest unless that tells all."""
    stem = _stem(program.script)
    is_plain = program.script in {f"{stem}.py", stem} and _slug(stem) == stem and not program.arguments
    if is_plain:
        return stem
    text = json.dumps([program.script, sorted(options_of(program.arguments).items())])
    digest = digest_of_bytes(text.encode(errors="replace"))[-DIGEST_CHARACTERS:]
    return f"{_slug(stem)[:STEM_CHARACTERS_MAX]}-{digest}"


def _stem(script: str) -> str:
    kind, has_kind, rest = script.partition(":")
    return (Path(rest).stem if kind == "notebook" else kind) if has_kind else Path(script).stem


def _slug(stem: str) -> str:
    return re.sub(r"[^a-z0-9._-]+", "-", stem.lower()).strip("-._")[:STEM_CHARACTERS_MAX] or "run"


def old_name(program: ProgramIdentity) -> str:
    """Return the name that such a run of this program has; all that had no script shared one."""
    return INTERACTIVE if ":" in program.script else _slug(_stem(program.script))
