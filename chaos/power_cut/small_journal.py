"""A journal with numbered decisions about one job, and what must be found of them after a cut."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from trainerd.supervisor.journal.journal import EndingRow, Entry, Journal
from trainerd.supervisor.machine.outcome import Outcome, OutcomeKind, Retry
from trainerd.supervisor.machine.states import Job, Queued

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["SmallJournal"]

_NAME: Final = "ant"
_KIND: Final = "chaos.decided"


class SmallJournal:
    """The journal of a state folder."""

    def __init__(self, folder: Path) -> None:
        self._journal = Journal(folder / "journal.sqlite3")

    def decide(self, number: int) -> None:
        """Take decision `number`.

        It ends attempt `number` - 1 and starts the next, in one transaction.
        """
        ending = EndingRow(number - 1, Outcome(OutcomeKind.CRASHED, "it did", Retry.AFTER_BACKOFF), "again")
        entry = Entry(
            _NAME,
            Job(_NAME, Queued(), f"decision {number}", float(number), attempt=number),
            _KIND,
            f"decision {number}",
            attempt_started=number,
            ending=ending if number > 1 else None,
        )
        self._journal.commit([entry], wall_s=float(number))

    def decisions(self) -> list[int]:
        """Return the numbers of all decisions that are in it, after checking that each is there as a whole.

        Raises:
            ValueError: One is there in part.
        """
        found = [int(event.message.split()[1]) for event in self._journal.events(limit=1_000_000)]
        last = found[-1] if found else 0
        if found != list(range(1, last + 1)):
            raise ValueError(f"decisions {found} are not those up to {last}")
        attempts = [job.attempt for job in self._journal.jobs().values()]
        if attempts != ([last] if last else []):
            raise ValueError(f"the job is at {attempts}, the history at {last}")
        endings = [ending.attempt for ending in self._journal.endings(_NAME)]
        if endings != list(range(1, last)):
            raise ValueError(f"endings {endings} do not belong to {last} decisions")
        return found

    def close(self) -> None:
        self._journal.close()
