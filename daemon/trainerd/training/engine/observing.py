"""Looking at the user's objects: an error in their code ends no training, and is a reason not to be exact.

A property, an ``__eq__`` or a ``__repr__`` may raise anything, and so may proxies and lazy objects. What
could not be looked at may be state that no checkpoint holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

from trainerd.contract.verdict import Reason
from trainerd.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

_KIND: Final = "not-observed"
_HINT: Final = "keep what raises it out of the variables of the code that trains"
_TEXT_MAX: Final = 160

Found = TypeVar("Found")


def observed(look: Callable[[], Found], suspect: Callable[[Reason], None]) -> Found | None:
    """Return what a look at objects finds, None if code of theirs raises an error.

    Args:
        look: The look.
        suspect: Takes in that it failed.

    Raises:
        UserError: It is what the look found.
    """
    try:
        return look()
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001 - see above
        suspect(_reason(error))
        return None


def unseen(expression: str, place: str) -> Reason:
    """Return the reason for an object that raises an error whatever it is asked.

    Args:
        expression: What the user's code calls it.
        place: File and line of that code.
    """
    return Reason(_KIND, place, f"{expression} raises an error when it is looked into", _HINT)


def _reason(error: Exception) -> Reason:
    try:
        text = f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - an error of others, too
        text = type(error).__name__
    return Reason(
        _KIND,
        _place_of(error),
        f"looking for state that is not tracked met an error: {text[:_TEXT_MAX]}",
        _HINT,
    )


def _place_of(error: Exception) -> str:
    """Return the file and line that raised an error."""
    traceback = error.__traceback__
    if traceback is None:
        return ""
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    name = traceback.tb_frame.f_code.co_filename.rpartition("/")[2]
    return f"{name}:{traceback.tb_lineno}"
