"""The one queue of events. A caller may wait for the decision about what it asks for."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trainerd.supervisor.ledger import Step
    from trainerd.supervisor.machine.job_events import Event

BATCH_MAX: Final = 8
"""Most events that share one transaction. A request for the state of things waits for one or two of them."""


@dataclass(frozen=True)
class Message:
    """An event, and who waits to hear what was decided."""

    name: str
    event: Event
    answer: asyncio.Future[Step] | None = None


class Inbox:
    """Events in the order in which they came. Used on one event loop only."""

    def __init__(self) -> None:
        self._messages: deque[Message] = deque()
        self._has_some = asyncio.Event()

    def post(self, name: str, event: Event) -> None:
        """Say that something happened to a job."""
        self._put(Message(name, event))

    def ask(self, name: str, event: Event) -> asyncio.Future[Step]:
        """Ask for something; the future is done when the decision about it is durable."""
        answer: asyncio.Future[Step] = asyncio.get_running_loop().create_future()
        self._put(Message(name, event, answer))
        return answer

    def put_back(self, messages: Sequence[Message]) -> None:
        """Return messages that could not be dealt with, before all others."""
        self._messages.extendleft(reversed(messages))
        if messages:
            self._has_some.set()

    async def take(self) -> tuple[Message, ...]:
        """Wait for messages, and return those that are there. Returns nothing after `nudge`."""
        await self._has_some.wait()
        taken = tuple(self._messages.popleft() for _ in range(min(len(self._messages), BATCH_MAX)))
        if not self._messages:
            self._has_some.clear()
        return taken

    def nudge(self) -> None:
        """Make `take` return even if there is no message: who may start is asked again."""
        self._has_some.set()

    def _put(self, message: Message) -> None:
        self._messages.append(message)
        self._has_some.set()
