"""Settings of runs that keep copies in memory, and a folder there for a test."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

NEEDS_SHM = pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="there is no /dev/shm")

SELDOM = {"TRAINERD_CHECKPOINT_EVERY_STEPS": 1000, "TRAINERD_CHECKPOINT_EVERY_EPOCHS": "never"}
"""No checkpoint on disk before the end."""

ALWAYS = {"TRAINERD_CHECKPOINT_MEMORY": "auto", "TRAINERD_MEMORY_SHARE": 1e9}
"""A copy whenever none is on its way: the steps of tests are far shorter than a copy is worth."""


@contextlib.contextmanager
def memory_folder() -> Iterator[Path]:
    """Make a folder in memory, for `TRAINERD_MEMORY_DIR`, and remove it."""
    folder = Path(f"/dev/shm/trainerd-test-{os.getpid()}")
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
