"""Hooks: whom a supervisor tells what happened to a job, and how."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal, get_args

NoticeEvent = Literal[
    "finished", "parked", "rejected", "restarted", "stalled", "suspect", "disk-low", "preemption"
]
NOTICE_EVENTS: Final[tuple[NoticeEvent, ...]] = get_args(NoticeEvent)
"""What hooks can be told of."""

HookKind = Literal["command", "webhook", "email", "desktop"]
PayloadFormat = Literal["json", "slack"]

TRY_LIMIT_S: Final = 10.0
"""How long one try to deliver a notice may take, in seconds, where nothing else is configured."""
TRIES_MAX: Final = 4
"""How many tries a notice gets, where nothing else is configured."""


@dataclass(frozen=True)
class Hook:
    """One way to tell of what happened.

    Attributes:
        name: How it is called in the log and by ``trainerd notify --test``.
        kind: How it tells.
        events: Of what.
        command: Program and arguments.
        url: Where a webhook is; a secret. None if `url_file` holds it.
        url_file: Absolute path of an owner-only file with the URL, read at each delivery.
        format: What a webhook is sent.
        to: Addresses that get an email.
        limit_s: How long one try may take, in seconds.
        tries: How many tries there are.
        folder: Where a command starts; None is the supervisor's own folder.
    """

    name: str
    kind: HookKind
    events: tuple[NoticeEvent, ...] = NOTICE_EVENTS
    command: tuple[str, ...] = ()
    url: str | None = field(default=None, repr=False)
    url_file: str | None = None
    format: PayloadFormat = "json"
    to: tuple[str, ...] = ()
    limit_s: float = TRY_LIMIT_S
    tries: int = TRIES_MAX
    folder: str | None = None
