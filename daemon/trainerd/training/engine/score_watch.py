"""Says once that a metric of `keep_best` is not reported, so that no best checkpoint is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from trainerd.contract.nearest import nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

CHECKPOINTS_MIN: Final = 2
"""After how many checkpoints of an attempt a score that is still missing is said, if nothing was reported."""


class ScoreWatch:
    """Watches for the scores by which checkpoints are kept.

    The user is told at the first boundary at which an epoch or the run ends with other scores, or without any
    after two checkpoints of this attempt, or at which the run ends: once in an attempt.

    Args:
        metrics: Names of these scores; empty watches for nothing.
        find_unscored: Returns those of them that no checkpoint has.
        say: Tells the user.

    Attributes:
        missing: Those that were neither reported nor said to be missing.
    """

    def __init__(
        self,
        metrics: Iterable[str],
        *,
        find_unscored: Callable[[], Collection[str]],
        say: Callable[[str], None],
    ) -> None:
        self.missing = frozenset(metrics)
        self._find_unscored = find_unscored
        self._say = say
        self._reported: set[str] = set()
        self._logged: set[str] = set()

    def logged(self, names: Iterable[str]) -> None:
        """Note what was given to ``session.log``. Only needed while something is missing."""
        self._logged |= self.missing.intersection(names)

    def reported(self, names: Collection[str]) -> None:
        """Note what was given to ``session.report``."""
        self._reported.update(names)
        self.missing -= self._reported

    def boundary(self, checkpoints: int, *, is_end: bool = False) -> None:
        """An epoch has ended, or a step after which a checkpoint was begun.

        Args:
            checkpoints: How many this attempt has made or begun.
            is_end: Whether the run ends.
        """
        if not self.missing or not (is_end or self._reported or checkpoints >= CHECKPOINTS_MIN):
            return
        unscored = self._find_unscored()
        missing, self.missing = sorted(self.missing.intersection(unscored)), frozenset()
        for name in missing:
            missed = f"{name} was not reported so far, so no checkpoint is kept by it"
            self._say(f"trainerd: warning: keep_best: {missed}; {self._remedy(name)}")

    def _remedy(self, name: str) -> str:
        if name in self._logged:
            return f"session.log is given it: give it to session.report({name}=…) too, at the end of an epoch"
        if self._reported:
            given = ", ".join(sorted(self._reported))
            close = nearest(name, self._reported)
            guess = f"did you mean {close}? " if close is not None else ""
            return f"session.report is given {given}: {guess}name in keep_best what the script reports"
        return f"call session.report({name}=…) at the end of an epoch"
