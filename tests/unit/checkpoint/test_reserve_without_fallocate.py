"""The reserve on filesystems that cannot allocate, where the C library reads and writes each block."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from trainerd.checkpoint.checkpoint_names import RESERVE_NAME
from trainerd.checkpoint.space import make_reserve

SIZE_BYTES = 64 * 1024

IN_A_RAMFS = f"""
import pathlib, subprocess, sys
from trainerd.checkpoint.space import make_reserve
folder = pathlib.Path(sys.argv[1])
subprocess.run(["mount", "-t", "ramfs", "none", folder], check=True)
made = [make_reserve(folder, {SIZE_BYTES}) for _ in range(2)]
print(made, (folder / "{RESERVE_NAME}").stat().st_size)
"""


def test_a_reserve_that_is_there_is_made_again_without_fallocate(tmp_path, monkeypatch):
    """Every later attempt completes the reserve of the one before."""

    def emulated(descriptor, offset, length):
        """As glibc has it: what exists is read before a byte is written."""
        for block in range(offset, offset + length, 4096):
            if block < os.fstat(descriptor).st_size:
                os.pread(descriptor, 1, block)
            os.pwrite(descriptor, b"\0", min(block + 4095, offset + length - 1))

    monkeypatch.setattr(os, "posix_fallocate", emulated)
    assert [make_reserve(tmp_path, SIZE_BYTES) for _ in range(2)] == [True, True]
    assert (tmp_path / RESERVE_NAME).stat().st_size == SIZE_BYTES


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs to be root: mounts a ramfs")
def test_a_reserve_is_made_again_on_a_ramfs(tmp_path):
    shell = ["unshare", "-m", sys.executable, "-c", IN_A_RAMFS, str(tmp_path)]
    done = subprocess.run(shell, capture_output=True, text=True, timeout=60, check=False)
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"no mounts here: {done.stderr.strip()}")
    assert done.stdout.strip() == f"[True, True] {SIZE_BYTES}", done.stderr
