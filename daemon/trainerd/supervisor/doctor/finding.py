"""What a check found."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Status(enum.Enum):
    """How bad it is."""

    OK = "ok"
    SKIPPED = "skipped"
    WARNING = "warning"
    BROKEN = "broken"


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        check: What was looked at, in a word or three.
        status: How bad it is.
        message: What was found, one sentence.
        remedy: What to do about it; empty where nothing is wrong.
    """

    check: str
    status: Status
    message: str
    remedy: str = ""


def ok(check: str, message: str) -> Finding:
    """Say that all is well."""
    return Finding(check, Status.OK, message)


def skipped(check: str, message: str) -> Finding:
    """Say why it was not looked at, which is no fault."""
    return Finding(check, Status.SKIPPED, message)


def warning(check: str, message: str, remedy: str) -> Finding:
    """Say what may become a problem."""
    return Finding(check, Status.WARNING, message, remedy)


def broken(check: str, message: str, remedy: str) -> Finding:
    """Say what does not work."""
    return Finding(check, Status.BROKEN, message, remedy)
