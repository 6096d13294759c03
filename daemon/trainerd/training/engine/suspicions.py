"""Known causes of inexactness that are present in this attempt."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from trainerd.contract.verdict import Reason


def without_line(where: str) -> str:
    """Return where something was found without the number of its line, if it has one."""
    file, _, line = where.rpartition(":")
    return file if line.isdigit() else where


class Suspicions:
    """Collects the reasons for which a resume of this run may not be exact.

    Args:
        say: Tells the user.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._reasons: dict[tuple[str, str], Reason] = {}
        self._named: dict[str, str] = {}
        self._listeners: list[Callable[[Reason], None]] = []

    def listen(self, listener: Callable[[Reason], None]) -> None:
        """Have `listener` called with each reason that is found from here on."""
        self._listeners.append(listener)

    @property
    def reasons(self) -> tuple[Reason, ...]:
        """All reasons so far, in the order in which they were found."""
        return tuple(self._reasons.values())

    def has(self, reason: Reason) -> bool:
        """Tell whether a reason is known, maybe from a checkpoint, which does not say at which line it is."""
        keys = ((reason.kind, where) for where in (reason.where, without_line(reason.where)))
        return any(
            known is not None and known.detail == reason.detail for known in map(self._reasons.get, keys)
        )

    def add(self, reason: Reason, *, is_said: bool = False, of: str = "") -> None:
        """Take in a reason and tell the user, unless the same one is known.

        Args:
            reason: The reason.
            is_said: Whether the user is told of it elsewhere.
            of: What the script calls that which is not kept. The first kind of reason for it counts.
        """
        key = (reason.kind, reason.where)
        if self.has(reason) or key in self._reasons or self._named.get(of, reason.kind) != reason.kind:
            return
        if of:
            self._named[of] = reason.kind
        self._reasons[key] = reason
        if not is_said:
            self._say(f"trainerd: may not resume exactly: {reason}")
        for listener in self._listeners:
            listener(reason)
