"""What a drill found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from trainerd.contract import codec
from trainerd.contract.drill_record import DrillVerdict
from trainerd.drill.diagnosis import DrillCause
from trainerd.drill.run_comparison import Compared

FORMAT: Final = "trainerd.drill/1"

FaultVerdict = Literal["exact", "different", "refused", "not-run"]


@dataclass(frozen=True)
class FaultResult:
    """What became of a run that was struck.

    Attributes:
        name: Short name of the fault; ``undisturbed`` is the run that was not struck, made a second time.
        title: What happened, in words.
        verdict: ``exact``: everything that was compared is equal, the whole state at the end among it.
            ``different``; ``refused``: an attempt after the fault failed; ``not-run``.
        steps_lost: Steps that were run again, None if that is not known.
        return_s: From the start of the attempt after the fault to its first new step, in seconds; the longest
            one of several.
        compared: What was compared.
        causes: Why it differs, the likeliest first.
        message: Why it was refused or not run, in words.
        lacks_budget: Whether it was not run because it did not fit the budget.
    """

    name: str
    title: str
    verdict: FaultVerdict
    steps_lost: int | None = None
    return_s: float | None = None
    compared: Compared = field(default_factory=Compared)
    causes: tuple[DrillCause, ...] = ()
    message: str = ""
    lacks_budget: bool = False


@dataclass(frozen=True)
class DrillReport:
    """What a drill found.

    Attributes:
        command: What was drilled.
        verdict: ``exact`` if every fault that was run is, and at least one was; ``unchecked`` if none was and
            the undisturbed runs are equal; otherwise ``different``. Faults that did not fit the budget are
            not among them: `unfit` counts them.
        faults: The second undisturbed run first.
        steps: Steps of the undisturbed run.
        horizon: What decided how many, in words.
        took_s: How long the drill took, in seconds.
        wall_s: When it ended, in seconds since the epoch.
        left_out: Names of logged numbers that differ between undisturbed runs of equal state: measurements.
        unseen: What no run of this job shows, so that it is not compared, in words.
        losses: Step and loss of the undisturbed run, if it logs one.
        spec_digest: Of the spec that was drilled, empty for a command.
    """

    command: tuple[str, ...]
    verdict: DrillVerdict
    faults: tuple[FaultResult, ...]
    steps: int
    horizon: str
    took_s: float
    wall_s: float
    left_out: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()
    losses: tuple[tuple[float, ...], ...] = ()
    spec_digest: str = ""

    @property
    def struck(self) -> int:
        """How many faults were run."""
        return sum(each.verdict != "not-run" and each.name != "undisturbed" for each in self.faults)

    @property
    def unfit(self) -> int:
        """How many faults were not run because they did not fit the budget."""
        return sum(each.lacks_budget for each in self.faults)


def overall(faults: tuple[FaultResult, ...]) -> DrillVerdict:
    """Return the verdict on a drill: exact only if something was struck and all that ran is exact."""
    ran = [each for each in faults if each.verdict != "not-run"]
    if any(each.verdict != "exact" for each in ran):
        return "different"
    return "exact" if any(each.name != "undisturbed" for each in ran) else "unchecked"


def encode_report(report: DrillReport) -> bytes:
    """Encode a report as JSON."""
    return codec.to_json(report, FORMAT)
