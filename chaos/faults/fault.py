"""What a fault is, and where it strikes."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import psutil

from chaos.waiting import NotNowError
from trainerd.contract import records
from trainerd.contract.process import ProcessIdentity, is_alive
from trainerd.contract.records import RanksRecord, ShimRecord

if TYPE_CHECKING:
    from collections.abc import Callable

    from chaos.harness import Harness
    from trainerd.contract.paths import AttemptPaths, RunPaths


@dataclass(frozen=True)
class Attempt:
    """A live attempt, by its own records, which can be read with no supervisor.

    Attributes:
        number: From 1.
        shim: Its shim.
        ranks: By rank.
        paths: Its folder.
    """

    number: int
    shim: ProcessIdentity
    ranks: tuple[ProcessIdentity, ...]
    paths: AttemptPaths


@dataclass
class Context:
    """Where a fault strikes.

    Attributes:
        harness: The supervisor and all its folders.
        job: Which job.
        rank: Which rank of it.
        random: Makes what is random in a fault repeatable.
    """

    harness: Harness
    job: str
    rank: int = 0
    random: random.Random = field(default_factory=random.Random)

    @property
    def run(self) -> RunPaths:
        return self.harness.state.run(self.job)

    def attempt(self) -> Attempt:
        """Return the live attempt.

        Raises:
            NotNowError: There is none, or its ranks are not on record yet.
        """
        found = live_attempt(self.run)
        if found is None:
            raise NotNowError(f"{self.job} has no live attempt")
        return found

    def rank_pid(self) -> int:
        return self.attempt().ranks[self.rank].pid

    def worker_pids(self) -> list[int]:
        """Return the loader workers of the rank.

        Raises:
            NotNowError: There are none.
        """
        try:
            pids = [child.pid for child in psutil.Process(self.rank_pid()).children()]
        except psutil.NoSuchProcess:
            pids = []
        if not pids:
            raise NotNowError(f"rank {self.rank} of {self.job} has no loader workers")
        return pids


def live_attempt(run: RunPaths) -> Attempt | None:
    """Return the attempt of a run that is alive by its records, None if there is none."""
    for folder in sorted(run.attempts.glob("*"), reverse=True):
        paths = run.attempt(int(folder.name))
        shim, ranks = records.read(paths.shim, ShimRecord), records.read(paths.ranks, RanksRecord)
        if shim is None or ranks is None or paths.exit.exists():
            return None
        alive = is_alive(shim.process) and all(is_alive(one) for one in ranks.processes)
        return Attempt(int(folder.name), shim.process, ranks.processes, paths) if alive else None
    return None


@dataclass(frozen=True)
class Struck:
    """A fault has struck.

    Attributes:
        detail: What exactly was done.
        action: What a rank that waits at a point is to do itself (`chaos.actions`).
    """

    detail: str
    action: str = "go"


@dataclass(frozen=True)
class Fault:
    """One kind of fault.

    Attributes:
        name: As scenarios and reports call it.
        what: One sentence.
        strike: Does it.
        verdicts: How the attempt may be judged that was struck; empty if it must go on as if nothing had
            been.
        costs_checkpoints: How many of the newest checkpoints it makes unusable at most.
        soak_weight: How often the soak chooses it, relative to the others; 0 is never.
        needs_point: Whether it is done by a rank itself, which must wait at a point for it.
        hits_all_jobs: Whether every job of the harness is struck.
    """

    name: str
    what: str
    strike: Callable[[Context], Struck]
    verdicts: tuple[str, ...] = ()
    costs_checkpoints: int = 0
    soak_weight: float = 0.0
    needs_point: bool = False
    hits_all_jobs: bool = False

    @property
    def ends_attempt(self) -> bool:
        return bool(self.verdicts)


REGISTRY: Final[dict[str, Fault]] = {}


def register(fault: Fault) -> Fault:
    """Add a fault to those that scenarios can name."""
    assert fault.name not in REGISTRY, f"fault {fault.name} is there twice"
    REGISTRY[fault.name] = fault
    return fault
