"""A small filesystem of its own for one run, so that a full disk is full for that run alone. Root only."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def mount(folder: Path, size_bytes: int) -> None:
    """Put an empty filesystem in memory at `folder`."""
    folder.mkdir(parents=True)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size_bytes},mode=0755", "chaos", str(folder)], check=True
    )


def unmount(folder: Path, *, keep_in: Path | None = None) -> None:
    """Take it away; what is on it is copied to `keep_in` first."""
    if not folder.is_mount():
        return
    if keep_in is not None:
        shutil.copytree(folder, keep_in, symlinks=True, ignore=shutil.ignore_patterns("filler"))
    subprocess.run(["umount", str(folder)], check=True)
