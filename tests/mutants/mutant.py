"""A mutant: a one-line break of one file, and the test file that must fail with it."""

from __future__ import annotations

from dataclasses import dataclass

PACKAGE = "daemon/trainerd"


class StaleMutantError(Exception):
    """The code has changed: the text to be replaced is not there exactly once."""


@dataclass(frozen=True)
class Mutant:
    """A break.

    Attributes:
        what: What goes wrong, for the table.
        file: File to be changed, below daemon/trainerd.
        old: Text that occurs in it exactly once. More than one line where one alone is not unique.
        new: Text in its place.
        caught_by: Test file that must fail.
    """

    what: str
    file: str
    old: str
    new: str
    caught_by: str

    @property
    def path(self) -> str:
        """The file to be changed, from the root of the tree."""
        return f"{PACKAGE}/{self.file}"

    def applied_to(self, text: str) -> str:
        """Return the text of the file with the break in it.

        Raises:
            StaleMutantError: The old text is not in it exactly once.
        """
        times = text.count(self.old)
        if times != 1:
            raise StaleMutantError(f"{self.path} has the old text {times} times, not once: {self.old!r}")
        return text.replace(self.old, self.new)
