"""What the exit code of a training process says.

85 follows HTCondor, where it asks for the job to be run again from its checkpoint.
"""

from __future__ import annotations

from typing import Final

FINISHED: Final = 0
"""The run is complete. During a drain, believed only together with the finished record."""

FAILED: Final = 1
"""What Python itself exits with after an exception."""

USAGE: Final = 2
"""What argparse exits with after a usage error."""

DRAINED: Final = 85
"""Checkpointed: run me again."""

NEVER_RETRY: Final = 93
"""Running this again cannot help: the program says so itself."""

NOT_EXECUTABLE: Final = 126
NOT_FOUND: Final = 127
"""What a shell, and our shim, use where the command could not be started."""

CANNOT_START: Final = frozenset({USAGE, NOT_EXECUTABLE, NOT_FOUND})
"""Codes of a command that cannot be started as it is written."""
