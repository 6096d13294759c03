"""Every error that trainerd raises on purpose.

What a caller does about an error is what decides its class::

    TrainerdError
    ├── UserError                 a mistake of the user's: says how to fix it, never shown as a traceback
    │   ├── SpecError             a job spec: names file, line, field and the nearest valid name
    │   ├── UntrustedError        a file or folder that another user could have written
    │   ├── MismatchError         a sound checkpoint that does not fit the live objects
    │   ├── UnknownVariableError  a name that session.variables does not have
    │   └── UnsupportedValueError a value that a checkpoint cannot represent: names its path in the tree
    ├── TryAgainError             may work later, nothing is lost
    │   ├── LockedError           another process holds it: names the process
    │   ├── RankLostError         another rank of the attempt has ended or does not answer
    │   ├── SpaceError            the disk is full or read-only
    │   └── DeviceCopyError       what arrived from a CUDA device is not what the device holds
    ├── FencedError               another attempt has taken over this run: this one may not write any more
    ├── NonFiniteLossError        the loss is NaN or infinite, and the job's spec says to end there
    ├── CorruptError              what is on disk is not what was written: quarantine it, never use it
    └── InternalError             a bug of ours: crash loudly
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = [
    "CorruptError",
    "DeviceCopyError",
    "FencedError",
    "InternalError",
    "LockedError",
    "MismatchError",
    "NonFiniteLossError",
    "RankLostError",
    "SpaceError",
    "SpecError",
    "TrainerdError",
    "TryAgainError",
    "UnknownVariableError",
    "UnsupportedValueError",
    "UntrustedError",
    "UserError",
]


class TrainerdError(Exception):
    """The root of the tree. `hint` is one sentence that says what to do about it."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class UserError(TrainerdError):
    """A mistake of the user's. Shown as a message, never as a traceback."""


class SpecError(UserError):
    """A job spec that cannot be accepted.

    Args:
        message: What is wrong, without the place.
        file: The spec.
        line: 1-based line in it, if one can be named.
        field: Dotted name of the field, if one can be named.
        hint: How to fix it.
    """

    def __init__(
        self,
        message: str,
        *,
        file: Path,
        line: int | None = None,
        field: str | None = None,
        hint: str | None = None,
    ) -> None:
        place = f"{file}:{line}" if line is not None else f"{file}"
        super().__init__(f"{place}: {field}: {message}" if field else f"{place}: {message}", hint=hint)
        self.file = file
        self.line = line
        self.field = field
        self.reason = message


class UntrustedError(UserError):
    """A file or folder that a user other than the daemon's and root could have written."""


class MismatchError(UserError):
    """A checkpoint that is sound and does not fit the live objects. Nothing was changed.

    Args:
        message: Which checkpoint, which objects.
        differences: One line a difference: path, what the checkpoint has, what the program has.
    """

    def __init__(self, message: str, differences: Sequence[str], *, hint: str | None = None) -> None:
        super().__init__("\n".join([message, *(f"    {line}" for line in differences)]), hint=hint)
        self.differences = tuple(differences)


class UnknownVariableError(UserError, AttributeError):
    """A name that the namespace made by ``session.variables`` does not have."""


class UnsupportedValueError(UserError):
    """A value that a checkpoint cannot represent exactly.

    Args:
        path: Where in the tree of state it is, such as ``optimizer.state[0].callback``.
        value: The value itself; only its type is shown.
    """

    def __init__(self, path: str, value: object, *, hint: str | None = None) -> None:
        kind = type(value)
        super().__init__(
            f"cannot checkpoint {path}: a {kind.__module__}.{kind.__qualname__} has no exact form on disk",
            hint=hint
            or "keep numbers, strings, bytes, lists, tuples, dicts, sets and tensors in the state, "
            "or give the object state_dict() and load_state_dict() and track it",
        )
        self.path = path


class TryAgainError(TrainerdError):
    """May work later. Nothing is lost by having tried."""


class LockedError(TryAgainError):
    """A lock that another process holds."""


class RankLostError(TryAgainError):
    """Another rank of this attempt has ended, or does not answer within a limit.

    Alone this one cannot go on.
    """


class FencedError(TrainerdError):
    """Another attempt has taken over the run. This process may not write to it any more."""


class SpaceError(TryAgainError):
    """The disk is full, over quota or read-only."""


class DeviceCopyError(TryAgainError):
    """A tensor arrived in host memory with other bytes than the CUDA device holds. Nothing was saved."""


class NonFiniteLossError(TrainerdError):
    """The loss is NaN or infinite, and the job's spec says to end there."""


class CorruptError(TrainerdError):
    """What is on disk is not what was written. Quarantine it, never use it."""


class InternalError(TrainerdError):
    """An invariant of ours does not hold. Never caught: crash loudly."""
