"""The names inside a checkpoints folder. No other module puts one together or takes one apart."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from itertools import count
from typing import Final

__all__ = ["LOCK_NAME", "MANIFEST_NAME", "CheckpointName", "is_leftover", "is_plain_file_name"]

MANIFEST_NAME: Final = "manifest.json"
LOCK_NAME: Final = ".writer.lock"
RESERVE_NAME: Final = ".reserve"
FORK_NAME: Final = "fork.json"
MEMORY_NAME: Final = ".memory.json"
PIN_SUFFIX: Final = ".pin.json"

STEP_DIGITS: Final = 9
_NAME: Final = re.compile(r"step-(\d{9,18})(?:\.([1-9]\d{0,8}))?")
_ASKED: Final = re.compile(r"(?:step-)?(\d{1,18})(?:\.([1-9]\d{0,8}))?")
_LEFTOVER: Final = re.compile(r"\.(staging|pruned)-step-.+-\d+-\d+|\.fenced-\d{6,}-[0-9a-f]+-\d+-\d+")
_WRITER: Final = re.compile(r"\.writer-(\d{6,18})-([0-9a-f]{8})")

_serial = count()


@dataclass(frozen=True, order=True)
class CheckpointName:
    """Position of a checkpoint in the order of all.

    They are ordered by step, then by the count of boundaries at that step.
    """

    step: int
    ordinal: int = 0

    def __str__(self) -> str:
        suffix = f".{self.ordinal}" if self.ordinal else ""
        return f"step-{self.step:0{STEP_DIGITS}d}{suffix}"

    @classmethod
    def parse(cls, text: str) -> CheckpointName | None:
        """Return the name that `text` is, None if it is none. Each checkpoint has exactly one spelling."""
        found = _NAME.fullmatch(text)
        name = cls(int(found[1]), int(found[2] or 0)) if found else None
        return name if str(name) == text else None

    @classmethod
    def asked(cls, text: str) -> CheckpointName | None:
        """Return the name that a person means by `text`: ``step-120``, ``120`` or the full name."""
        found = _ASKED.fullmatch(text)
        return cls(int(found[1]), int(found[2] or 0)) if found else None


@dataclass(frozen=True, order=True)
class WriterName:
    """Name of the folder in which an attempt stages its checkpoints: those of later attempts are higher.

    Attributes:
        number: One more than the highest that there was.
        nonce: Eight random hexadecimal digits, so that no name is used twice.
    """

    number: int
    nonce: str

    def __str__(self) -> str:
        return f".writer-{self.number:06d}-{self.nonce}"

    @classmethod
    def new(cls, number: int) -> WriterName:
        """Return a name that was never used."""
        return cls(number, os.urandom(4).hex())

    @classmethod
    def parse(cls, text: str) -> WriterName | None:
        """Return the name that `text` is, None if it is none."""
        found = _WRITER.fullmatch(text)
        return cls(int(found[1]), found[2]) if found else None


def staging_name(name: CheckpointName) -> str:
    """Return a name of its own for a folder that becomes the checkpoint `name`."""
    return f".staging-{name}-{os.getpid()}-{next(_serial)}"


def pruned_name(name: str) -> str:
    """Return a name of its own for a checkpoint that is being deleted."""
    return f".pruned-{name}-{os.getpid()}-{next(_serial)}"


def fenced_name(writer: WriterName) -> str:
    """Return a name of its own for the folder of a former attempt."""
    return f".fenced-{str(writer).removeprefix('.writer-')}-{os.getpid()}-{next(_serial)}"


def is_leftover(text: str) -> bool:
    """Return whether an entry is to be swept: half written or half deleted, or of an attempt that is over."""
    return _LEFTOVER.fullmatch(text) is not None


def is_plain_file_name(text: str) -> bool:
    """Return whether `text` names a file inside its folder and nowhere else."""
    return bool(text) and "/" not in text and "\0" not in text and text[0] != "." and text != MANIFEST_NAME
