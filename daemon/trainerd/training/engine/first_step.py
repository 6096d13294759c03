"""The first steps of an attempt: audited, and what is not tracked is an error or a suspicion."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from trainerd.contract.verdict import Reason
from trainerd.errors import UserError
from trainerd.training.state.audit import Audit, Untracked
from trainerd.training.state.loaders_beside import LoadersBeside

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trainerd.training.engine.run_state import RunState
    from trainerd.training.engine.suspicions import Suspicions

_SHOWN_MAX: Final = 6


class FirstStep:
    """Audits the first step of one attempt, and looks in the second one for loaders that go on beside it.

    Args:
        state: State of the run.
        suspicions: Take what is found if it is no error.
        is_strict: Whether what is found is an error.

    Attributes:
        is_over: Whether nothing is looked at any more.
    """

    def __init__(self, state: RunState, suspicions: Suspicions, *, is_strict: bool) -> None:
        self._audit: Audit | None = Audit(state.objects, state.values.state_dict)
        self._suspicions = suspicions
        self._is_strict = is_strict
        self._is_watching = False
        self._beside: LoadersBeside | None = None
        self.is_over = False

    def begin(self) -> None:
        """The body of a step begins. Only the first call counts."""
        if self._audit is not None and not self._is_watching:
            self._is_watching = True
            self._audit.watch()

    def end(self) -> None:
        """A step is done, the first or the second one.

        Raises:
            UserError: Something that decides the rest of the run is in no checkpoint.
        """
        audit, self._audit = self._audit, None
        if audit is None:
            for reason in self._beside.reasons() if self._beside is not None else ():
                self._suspicions.add(reason)
            self.is_over = True
            return
        found = audit.findings() if self._is_watching else []
        if found and self._is_strict:
            raise audit_error(found)
        for each in found:
            self._suspicions.add(Reason(each.kind, each.where, each.detail, each.hint))
        self._beside = LoadersBeside()

    def close(self) -> None:
        """The attempt is over."""
        if self._audit is not None:
            self._audit.close()


def audit_error(found: Sequence[Untracked]) -> UserError:
    """Return the error that names what was found, with the line to add."""
    shown = [f"    {each.where}: {each.detail}" for each in found[:_SHOWN_MAX]]
    more = [f"    and {len(found) - _SHOWN_MAX} more"] if len(found) > _SHOWN_MAX else []
    arguments = list(dict.fromkeys(each.argument for each in found if each.argument))
    hints = list(dict.fromkeys(each.hint for each in found if not each.argument))
    if arguments:
        session = (
            next(each.hint for each in found if each.argument).removeprefix("add ").partition(".track(")[0]
        )
        hints.insert(0, f"add before the loop: {session}.track({', '.join(arguments)})")
    hints.append("or open session(strict=False), and the resume is called suspect")
    lines = ["the first step shows what no checkpoint would hold:", *shown, *more]
    return UserError("\n".join(lines), hint="\n  ".join(hints))
