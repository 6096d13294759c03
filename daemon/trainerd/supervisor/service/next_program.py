"""Whether the program that would take this one's place can start at all: asked of a process of its own.

Invariant: whatever is wrong with the new code or the new configuration, the old program keeps running.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

CHECK_OPTION: Final = "--check"
CHECK_LIMIT_S: Final = 60.0
"""How long the check may take. It imports everything once, which takes a second of one core."""

_REASON_CHARACTERS_MAX: Final = 2000


def next_command() -> list[str]:
    """Return the command line with which this program was started."""
    return [sys.executable, *sys.orig_argv[1:]]


async def why_it_cannot_start(
    command: Sequence[str] | None = None, *, limit_s: float = CHECK_LIMIT_S
) -> str | None:
    """Return what is wrong with the next program, None if nothing is. Cancelling ends the check.

    Args:
        command: Which; None is `next_command`.
        limit_s: After so many seconds the answer is that it takes too long.
    """
    words = [*(command or next_command()), CHECK_OPTION]
    try:
        check = await asyncio.create_subprocess_exec(*words, stdin=DEVNULL, stdout=DEVNULL, stderr=PIPE)
    except OSError as error:
        return f"{words[0]} cannot be started: {error.strerror}"
    try:
        _, said = await asyncio.wait_for(check.communicate(), limit_s)
    except TimeoutError:
        return f"its check did not end within {limit_s:.0f} s"
    finally:
        if check.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                check.kill()
            await asyncio.shield(check.wait())
    if check.returncode == 0:
        return None
    return _reason(said.decode(errors="replace")) or f"its check ended with {check.returncode}"


def _reason(said: str) -> str:
    """Return the message of a user's mistake, or the last words of a traceback and where it came from."""
    lines = [line.rstrip() for line in said.splitlines() if line.strip()]
    found = next((line for line in lines if line.startswith("error: ")), None)
    if found is not None:
        text = "\n".join(lines[lines.index(found) :]).removeprefix("error: ")
    else:
        places = [line.strip() for line in lines if line.lstrip().startswith("File ")]
        text = "; ".join([*lines[-1:], *places[-1:]])
    return text[:_REASON_CHARACTERS_MAX]


def replace_this_program() -> None:
    """Start the program again here. Descriptors that were offered stay open; threads must have ended.

    Raises:
        OSError: It cannot be started; this program goes on.
    """
    command = next_command()
    os.execv(command[0], command)  # noqa: S606 - no shell is wanted
