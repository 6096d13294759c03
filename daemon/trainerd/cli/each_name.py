"""Requests for several jobs: each is made, and what is refused is said at the end of the verb."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from trainerd.contract.counted import counted
from trainerd.errors import InternalError, TrainerdError, UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Answer = TypeVar("Answer")


class EachName:
    """Names of jobs, and the errors of those for which a request was refused.

    Args:
        names: Of the jobs; one that is given twice counts once.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = list(dict.fromkeys(names))
        self._errors: dict[str, TrainerdError] = {}

    @property
    def granted(self) -> tuple[str, ...]:
        """Names for which nothing was refused so far."""
        return tuple(name for name in self._names if name not in self._errors)

    def ask(self, request: Callable[[str], Answer]) -> list[Answer]:
        """Make a request for each name for which nothing was refused so far; return the answers.

        Raises:
            TrainerdError: It was refused for the only name.
        """
        answers = []
        for name in self.granted:
            try:
                answers.append(request(name))
            except InternalError:
                raise
            except TrainerdError as error:
                if len(self._names) == 1:
                    raise
                self._errors[name] = error
        return answers

    def finish(self, *, is_done: bool = True) -> None:
        """Raise one error that holds all refusals, if there was one.

        Args:
            is_done: Whether anything was done for the names for which nothing was refused.

        Raises:
            UserError: At least one was refused. The message has a line for each, with its hint.
        """
        if not self._errors:
            return
        refusals = [f"{name}: {error}" for name, error in self._errors.items()]
        done = ", ".join(self.granted) if is_done else ""
        hint = f"done for {done}" if done else "nothing was done"
        heading = f"refused for {len(refusals)} of {counted(len(self._names), 'job')}:"
        raise UserError("\n".join([heading, *refusals]), hint=hint)
