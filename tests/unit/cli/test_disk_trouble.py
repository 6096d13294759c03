"""A filesystem that fails is an error in a line, and a bug of the program is a traceback."""

from __future__ import annotations

import errno
import os

import pytest
from click.testing import CliRunner

from trainerd.cli.main import group
from trainerd.contract.paths import RunPaths, StatePaths


def invoked(tmp_path, monkeypatch, error):
    """Ask for a verdict on a run whose attempts cannot be listed."""
    StatePaths(tmp_path).run("ant").root.mkdir(parents=True)

    def fails(self):
        raise error

    monkeypatch.setattr(RunPaths, "attempt_numbers", fails)
    return CliRunner().invoke(group, ["verdict", "ant", "--state-dir", str(tmp_path)])


@pytest.mark.parametrize(
    ("number", "hint"),
    [
        (errno.EIO, "dmesg"),
        (errno.ESTALE, "dmesg"),
        (errno.EROFS, "read-only"),
        (errno.ENOSPC, "make room"),
        (errno.ELOOP, "another path"),
    ],
)
def test_a_filesystem_that_fails_is_named(tmp_path, monkeypatch, number, hint):
    result = invoked(tmp_path, monkeypatch, OSError(number, os.strerror(number), "/mnt/runs/ant"))
    assert result.exit_code == 1
    assert result.output.startswith(f"error: /mnt/runs/ant: {os.strerror(number)}\n")
    assert hint in result.output


@pytest.mark.parametrize(
    "error", [OSError(errno.EBADF, "bad descriptor", "/mnt/x"), OSError(errno.EIO, "no file is named")]
)
def test_other_errors_are_left_alone(tmp_path, monkeypatch, error):
    assert invoked(tmp_path, monkeypatch, error).exception is error
