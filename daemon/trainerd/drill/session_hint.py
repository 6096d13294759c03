"""What to do about a job that opens no session, so that it cannot be drilled."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trainerd.contract.names import ADOPTED_SUFFIX

if TYPE_CHECKING:
    from collections.abc import Sequence


def session_hint(command: Sequence[str], workdir: Path) -> str:
    """Return what to do about a job that opens no session: `trainerd adopt`, or what that has written.

    Args:
        command: Command of the job.
        workdir: Its working folder.
    """
    script = next((word for word in command[1:] if word.endswith(".py")), None)
    if script is not None:
        changed = Path(script).with_name(f"{Path(script).stem}{ADOPTED_SUFFIX}.py")
        if (workdir / changed).is_file():
            return f"{changed} is the script that `trainerd adopt` has changed: drill that"
    adopt = f"`trainerd adopt {script}`" if script is not None else "`trainerd adopt`"
    return (
        f"{adopt} changes a plain script so that it has one; by hand, a drill needs trainerd.session(), or "
        "trainerd.Checkpointer: see docs/training-api.md"
    )
