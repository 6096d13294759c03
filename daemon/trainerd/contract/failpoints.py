"""Named points at which a test can kill, fail or delay a durable act.

Every durable act declares its points where it performs them, each with a sentence that says what a crash
there leaves. `docs/formats.md` holds the same table and a test compares the two; chaos kills at each point.

A point does nothing unless ``TRAINERD_FAILPOINTS`` names it::

    TRAINERD_FAILPOINTS="checkpoint.manifest.written=kill"         at its first hit
    TRAINERD_FAILPOINTS="checkpoint.committed=kill@3"              at its third hit
    TRAINERD_FAILPOINTS="checkpoint.data.written=ENOSPC;record.renamed=EIO@2"

Actions: ``kill`` (SIGKILL to this process), ``stop`` (SIGSTOP), ``exit`` (leave by `os._exit`), the name of a
signal such as ``SIGTERM``, which is sent to this process, or the name of an errno, which is raised as an
OSError.
"""

from __future__ import annotations

import errno
import os
import signal
from dataclasses import dataclass, field
from typing import Final

from trainerd.errors import UserError

VARIABLE: Final = "TRAINERD_FAILPOINTS"

_EXIT_CODE: Final = 70  # EX_SOFTWARE, so that an injected exit is not mistaken for one of the job's own


@dataclass
class Failpoint:
    """One point of one durable act. Made by `declare`, hit where the act is performed."""

    name: str
    leaves: str
    hits: int = field(default=0, compare=False)

    def hit(self) -> None:
        """Do what the environment asks for at this point: usually nothing.

        Raises:
            OSError: The environment names an errno for this point.
        """
        if _armed:
            _strike(self)


REGISTRY: Final[dict[str, Failpoint]] = {}


def declare(name: str, leaves: str) -> Failpoint:
    """Register a point. `leaves` says what a crash there leaves on disk and who cleans it up."""
    assert name not in REGISTRY, f"failpoint {name} is declared twice"
    REGISTRY[name] = Failpoint(name, leaves)
    return REGISTRY[name]


def arm(text: str) -> None:
    """Replace what is armed with `text`, in the syntax of the environment variable; hits count from now.

    Raises:
        UserError: `text` is not in that syntax.
    """
    _armed.clear()
    for point in REGISTRY.values():
        point.hits = 0
    for item in filter(None, (part.strip() for part in text.split(";"))):
        name, separator, action = item.partition("=")
        action, _, nth = action.partition("@")
        if not separator or not (nth or "1").isdigit() or not _is_action(action):
            raise UserError(
                f"{VARIABLE}: cannot read {item!r}",
                hint="write NAME=kill, NAME=stop, NAME=exit or NAME=ENOSPC, with @N for the N-th hit",
            )
        _armed[name] = (action, int(nth or "1"))


def _is_action(action: str) -> bool:
    return action in {"kill", "stop", "exit", *signal.Signals.__members__} or hasattr(errno, action)


def _strike(point: Failpoint) -> None:
    if point.name not in _armed:
        return
    action, nth = _armed[point.name]
    point.hits += 1
    if point.hits != nth:
        return
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif action == "exit":
        os._exit(_EXIT_CODE)
    elif action in signal.Signals.__members__:
        os.kill(os.getpid(), signal.Signals[action])
    else:
        number = getattr(errno, action)
        raise OSError(number, f"{os.strerror(number)} (injected at {point.name})")


_armed: dict[str, tuple[str, int]] = {}
arm(os.environ.get(VARIABLE, ""))
