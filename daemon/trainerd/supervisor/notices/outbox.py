"""Notices on their way: one bounded queue a hook, tries with growing waits, and an end within a limit.

Invariants: `offer` never waits, and nothing here makes the supervisor's loop wait: each try is made in a
thread that may hang. A hook that does not answer delays no other hook. What is dropped is logged: by a full
queue, after the last try, and when the supervisor leaves.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import structlog

from trainerd.supervisor.bounded_io import DaemonThreads
from trainerd.supervisor.notices.delivery import DeliveryError, deliver
from trainerd.supervisor.notices.hook_command import RunningCommands

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from trainerd.contract.hooks import Hook
    from trainerd.supervisor.notices.delivery import MailServer
    from trainerd.supervisor.notices.notice_rules import Notice
    from trainerd.supervisor.notices.payloads import Origin

QUEUE_MAX: Final = 100
"""Most notices that wait for one hook; beyond that the oldest is dropped."""

HOOKS_MAX: Final = 1000
"""Most hooks for which notices wait at once, those of jobs included."""

ACTIVE_MAX: Final = 16
"""So many deliveries are tried at once. Threads that hang beyond their limit count, too."""

RETRY_WAIT_S: Final = 1.0
"""Wait after the first try, in seconds; five times as long after each other."""
RETRY_WAIT_FACTOR: Final = 5.0
RETRY_WAIT_MAX_S: Final = 60.0
"""Longest wait between two tries, in seconds."""

LEAVE_LIMIT_S: Final = 5.0
"""How long the end of the supervisor waits for notices that are on their way, in seconds."""

OVERTIME_S: Final = 1.0
"""How long a try may go on beyond the time limit of its hook, to say how it failed, in seconds."""

_log = structlog.get_logger(__name__)


@dataclass
class _Line:
    """What waits for one hook.

    Attributes:
        hook: The hook in its newest configuration.
        waiting: Oldest first.
        in_hand: The one that is being delivered.
        worker: Delivers them.
    """

    hook: Hook
    waiting: deque[Notice] = field(default_factory=deque)
    in_hand: Notice | None = None
    worker: asyncio.Task[None] | None = None


@dataclass(frozen=True)
class Trial:
    """How a test of a hook went.

    Attributes:
        hook: Its name.
        kind: How it tells.
        problem: Why it failed, None if it did not.
    """

    hook: str
    kind: str
    problem: str | None = None


class Outbox:
    """Delivers notices. Used on one event loop.

    Args:
        hooks: Those that are told of all jobs.
        origin: Where notices come from.
        mail: Where emails are handed in.
        send: Delivers one notice; blocks. The real one if absent.
        retry_wait_s: Wait after the first try.
        queue_max: Most notices that wait for one hook.
    """

    def __init__(
        self,
        hooks: Iterable[Hook],
        origin: Origin,
        mail: MailServer | None = None,
        *,
        send: Callable[[Hook, Notice], None] | None = None,
        retry_wait_s: float = RETRY_WAIT_S,
        queue_max: int = QUEUE_MAX,
    ) -> None:
        self.hooks = tuple(hooks)
        self.running = RunningCommands()
        self._origin = origin
        self._mail = mail
        self._send = send if send is not None else self._deliver
        self._retry_wait_s = retry_wait_s
        self._queue_max = queue_max
        self._lines: dict[str, _Line] = {}
        self._threads = DaemonThreads()
        self._turns = asyncio.Semaphore(ACTIVE_MAX)
        self._is_leaving = asyncio.Event()

    def offer(self, notice: Notice, more: Sequence[Hook] = ()) -> None:
        """Take a notice for the hooks that want it.

        Args:
            notice: The notice.
            more: Hooks of its job alone.
        """
        for hook in (*self.hooks, *more):
            if notice.event in hook.events:
                self._put(hook, notice)

    def _put(self, hook: Hook, notice: Notice) -> None:
        line = self._lines.get(hook.name)
        if line is None:
            if len(self._lines) >= HOOKS_MAX:
                _say_dropped(hook, notice, f"notices wait for {HOOKS_MAX} hooks already")
                return
            line = self._lines[hook.name] = _Line(hook)
        line.hook = hook
        line.waiting.append(notice)
        if len(line.waiting) > self._queue_max:
            _say_dropped(hook, line.waiting.popleft(), f"more than {self._queue_max} notices wait for it")
        if line.worker is None:
            line.worker = asyncio.create_task(self._work(line))

    async def _work(self, line: _Line) -> None:
        try:
            while line.waiting:
                line.in_hand = line.waiting.popleft()
                await self._deliver_with_retries(line.hook, line.in_hand)
                line.in_hand = None
        finally:
            line.worker = None
            if not line.waiting and line.in_hand is None:
                self._lines.pop(line.hook.name, None)

    async def _deliver_with_retries(self, hook: Hook, notice: Notice) -> None:
        wait_s = self._retry_wait_s
        for number in range(1, hook.tries + 1):
            try:
                await self._try(hook, notice)
            except DeliveryError as error:
                if error.is_final or number == hook.tries:
                    _log.warning(
                        "notice.not-delivered",
                        hook=hook.name,
                        notice=notice.event,
                        job=notice.job or "",
                        tries=number,
                        reason=str(error),
                    )
                    return
            else:
                _log.debug("notice.delivered", hook=hook.name, notice=notice.event, job=notice.job or "")
                return
            # When the supervisor leaves there is one more try at once, and no wait after it.
            if self._is_leaving.is_set():
                _say_dropped(hook, notice, "the supervisor leaves")
                return
            await _wait_for(self._is_leaving, wait_s)
            wait_s = min(wait_s * RETRY_WAIT_FACTOR, RETRY_WAIT_MAX_S)

    async def _try(self, hook: Hook, notice: Notice) -> None:
        """Deliver a notice in a thread.

        Raises:
            DeliveryError: It was not delivered within the limit.
        """
        loop = asyncio.get_running_loop()
        await self._turns.acquire()
        future = loop.run_in_executor(self._threads, self._send, hook, notice)
        future.add_done_callback(self._back)
        done, _ = await asyncio.wait({future}, timeout=hook.limit_s + OVERTIME_S)
        if not done:
            raise DeliveryError(f"no answer within {hook.limit_s:g} s")
        try:
            future.result()
        except DeliveryError:
            raise
        except Exception as error:  # a fault in a delivery must not end the supervisor
            raise DeliveryError(f"{type(error).__name__} in trainerd: please report it") from error

    def _back(self, future: asyncio.Future[None]) -> None:
        self._turns.release()
        if not future.cancelled():
            future.exception()  # of a thread that came back too late: its result is not used

    def _deliver(self, hook: Hook, notice: Notice) -> None:
        deliver(hook, notice, origin=self._origin, mail=self._mail, running=self.running)

    async def try_hooks(self, hooks: Iterable[Hook], notice: Notice) -> tuple[Trial, ...]:
        """Deliver a notice to each of some hooks, once and at the same time; return how that went."""

        async def one(hook: Hook) -> Trial:
            try:
                await self._try(hook, notice)
            except DeliveryError as error:
                return Trial(hook.name, hook.kind, str(error))
            return Trial(hook.name, hook.kind)

        return tuple(await asyncio.gather(*map(one, hooks)))

    async def leave(self, limit_s: float = LEAVE_LIMIT_S) -> None:
        """Deliver what is on its way within a limit; say what is dropped then."""
        self._is_leaving.set()
        workers = {line.worker for line in self._lines.values() if line.worker is not None}
        if workers:
            _, late = await asyncio.wait(workers, timeout=limit_s)
            lines = list(self._lines.values())
            for worker in late:
                worker.cancel()
            if late:
                await asyncio.wait(late)
            for line in lines:
                left = [line.in_hand] if line.in_hand is not None else []
                for notice in (*left, *line.waiting):
                    _say_dropped(line.hook, notice, f"not delivered within {limit_s:g} s of leaving")
        self._lines.clear()
        self.running.kill_all()


def only_once(hook: Hook, *, limit_s: float) -> Hook:
    """Return a hook for a test: one try, no longer than a limit."""
    return replace(hook, tries=1, limit_s=min(hook.limit_s, limit_s))


async def _wait_for(event: asyncio.Event, limit_s: float) -> None:
    waiting = asyncio.ensure_future(event.wait())
    await asyncio.wait({waiting}, timeout=limit_s)
    waiting.cancel()


def _say_dropped(hook: Hook, notice: Notice, reason: str) -> None:
    _log.warning("notice.dropped", hook=hook.name, notice=notice.event, job=notice.job or "", reason=reason)
