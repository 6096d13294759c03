"""Where everything is. No other module joins a file name to a state or run folder."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from trainerd.contract.names import check_name

USER_STATE: Final = Path(".local/state/trainerd")
"""Where the unit of one person keeps its state, below the home."""


def log_times_path(log: Path) -> Path:
    """Return where the times of a rank's log are."""
    return log.with_suffix(".times")


@dataclass(frozen=True)
class StatePaths:
    """A supervisor's state folder."""

    root: Path

    @property
    def lock(self) -> Path:
        return self.root / "trainerd.lock"

    @property
    def holder(self) -> Path:
        """Who holds the lock, and on which machine; only while `trainerd exec` does."""
        return self.root / "holder.json"

    @property
    def journal(self) -> Path:
        return self.root / "journal.sqlite3"

    def move_journal_aside(self) -> list[Path]:
        """Rename the files of the journal; return the new names, that of the database first."""
        parts = [
            path for end in ("", "-wal", "-shm") if (path := self.root / f"{self.journal.name}{end}").exists()
        ]
        number = 1
        while (self.root / f"{self.journal.name}.old-{number}").exists():
            number += 1
        stem = f"{self.journal.name}.old-{number}"
        return [path.rename(self.root / path.name.replace(self.journal.name, stem, 1)) for path in parts]

    @property
    def socket(self) -> Path:
        return self.root / "trainerd.sock"

    @property
    def web_token(self) -> Path:
        """What a browser must know to see the page."""
        return self.root / "web.token"

    @property
    def log(self) -> Path:
        return self.root / "logs" / "trainerd.jsonl"

    @property
    def hold(self) -> Path:
        """While it is there, the supervisor starts nothing."""
        return self.root / "hold.json"

    @property
    def handling(self) -> Path:
        """What the supervisor is handling at this moment, for the next one to read."""
        return self.root / "handling.page"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    def drill(self, name: str) -> Path:
        """Return the record of the newest drill of a job.

        Raises:
            UserError: `name` cannot name a job.
        """
        return self.root / "drills" / f"{check_name(name)}.json"

    def run(self, name: str) -> RunPaths:
        """Return the folder of a job's run.

        Raises:
            UserError: `name` cannot name a job.
        """
        return RunPaths(self.runs / check_name(name))


@dataclass(frozen=True)
class RunPaths:
    """A run folder: all that a run has, readable with no daemon.

    That of one node of several has a link to the folder of what they share, and the attempts of this node.
    """

    root: Path

    @property
    def common_link(self) -> Path:
        """Leads to the folder that all nodes of a job share; not there if it has one node."""
        return self.root / ".common"

    @property
    def common(self) -> Path:
        """Folder of what all nodes of the job share: the run folder itself if it has one node."""
        with contextlib.suppress(OSError):
            return self.common_link.readlink()
        return self.root

    @property
    def node_ends(self) -> Path:
        """Folder of what the nodes of a job say for good; only of a job that has several."""
        return self.common / "nodes"

    def node_end(self, node: int) -> Path:
        """Why a node of the job gave up or left, for the other nodes."""
        return self.node_ends / f"{node:05d}.json"

    @property
    def job(self) -> Path:
        return self.root / "job.json"

    @property
    def record(self) -> Path:
        """Which program it belongs to; only without a supervisor."""
        return self.root / "run.json"

    @property
    def checkpoints(self) -> Path:
        return self.common / "checkpoints"

    @property
    def quarantine(self) -> Path:
        return self.common / "quarantine"

    @property
    def abandoned(self) -> Path:
        return self.common / "abandoned"

    @property
    def metrics(self) -> Path:
        return self.common / "metrics.jsonl"

    @property
    def resume(self) -> Path:
        """How the newest resume went."""
        return self.common / "resume.json"

    @property
    def witness(self) -> Path:
        """What the batch after the newest drained checkpoint contains."""
        return self.common / "witness.json"

    @property
    def finished(self) -> Path:
        return self.common / "finished.json"

    @property
    def retention(self) -> Path:
        """Which checkpoints the newest attempt keeps."""
        return self.common / "retention.json"

    @property
    def modules(self) -> Path:
        """What the newest attempt has imported; only of a job with a standby."""
        return self.common / "modules.json"

    @property
    def standby(self) -> Path:
        """Who prepares the next attempt and in which cgroup; only of a job with a limit of memory."""
        return self.common / "standby.json"

    @property
    def compiled(self) -> Path:
        """What `torch.compile` has compiled, of this node. It stays where a new run begins."""
        return self.root / "compiled"

    @property
    def mirror(self) -> Path:
        """Which line of its mirror the run goes on with. It stays where a new run begins."""
        return self.common / "mirror.json"

    @property
    def attempts(self) -> Path:
        return self.root / "attempts"

    @property
    def departing(self) -> Path:
        """Entries of a run that is being moved aside; not there once that is complete."""
        return self.root / ".departing"

    @property
    def entries(self) -> tuple[Path, ...]:
        """Everything that sessions without a supervisor make in a run folder, but the record.

        The checkpoints are last: their lock guards the others.
        """
        return (
            self.job,
            self.attempts,
            self.metrics,
            self.resume,
            self.witness,
            self.finished,
            self.retention,
            self.quarantine,
            self.abandoned,
            self.checkpoints,
        )

    def rank_log(self, rank: int) -> Path:
        """Standard output and error of one rank, all attempts one after the other."""
        return self.root / "logs" / f"rank-{rank:05d}.log"

    def rank_log_times(self, rank: int) -> Path:
        """When the lines of that log were written."""
        return log_times_path(self.rank_log(rank))

    def attempt_numbers(self) -> list[int]:
        """Return the numbers of the attempts that have a folder, in no order."""
        try:
            names = [path.name for path in self.attempts.iterdir()]
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [int(name) for name in names if name.isascii() and name.isdigit()]

    def newest_attempt(self) -> int:
        """Return the number of the newest attempt that has a folder, 0 if there is none."""
        return max(self.attempt_numbers(), default=0)

    def attempt(self, number: int) -> AttemptPaths:
        """Return the folder of one attempt; numbers begin at 1."""
        return AttemptPaths(self.attempts / f"{number:06d}")


@dataclass(frozen=True)
class AttemptPaths:
    """The folder of one attempt: what supervisor, shim and ranks tell one another."""

    root: Path

    @property
    def launch(self) -> Path:
        """What to start. Written by the supervisor before the shim."""
        return self.root / "launch.json"

    @property
    def lock(self) -> Path:
        """Held by the shim for as long as it lives."""
        return self.root / "shim.lock"

    @property
    def void(self) -> Path:
        """Says, under the lock, that this attempt must never start."""
        return self.root / "void.json"

    @property
    def shim(self) -> Path:
        """Who the shim is."""
        return self.root / "shim.json"

    @property
    def ranks(self) -> Path:
        """Who the ranks are."""
        return self.root / "ranks.json"

    @property
    def stall(self) -> Path:
        """Record of a stall. Written by the supervisor before it ends the attempt for it."""
        return self.root / "stall.json"

    @property
    def exit(self) -> Path:
        """How the ranks ended. Written by the shim when no process is left."""
        return self.root / "exit.json"

    @property
    def shim_log(self) -> Path:
        """What the shim itself has to say."""
        return self.root / "shim.log"

    def heartbeat(self, rank: int) -> Path:
        return self.root / f"heartbeat-{rank:05d}"

    @property
    def requests(self) -> Path:
        """What is asked of the running attempt; made by a rank, or by a shim that asks before one is."""
        return self.root / "requests"

    @property
    def told(self) -> Path:
        """What the supervisor has logged of what the ranks found."""
        return self.root / "told.json"

    def session(self, pid: int) -> Path:
        """Who trains: that a process has opened a session."""
        return self.root / f"session-{pid}.json"

    def outcome(self, rank: int) -> Path:
        """How a rank says that it ended."""
        return self.root / f"outcome-{rank:05d}.json"
