"""A pytest plugin that puts trainerd into each trainer of Lightning's own tests.

In a clone of Lightning, at a version near the one that is installed:

    cd pytorch-lightning/tests
    PYTHONPATH=.:TRAINERD/daemon:TRAINERD python -m pytest -p tests.support.upstream_lightning \
        tests_pytorch/checkpointing tests_pytorch/models/test_restore.py ...

``UPSTREAM=io`` adds only `StoreCheckpointIO`, ``UPSTREAM=callback`` only `TrainerdCallback`, and
``UPSTREAM=none`` neither. docs/integrations.md names the tests that fail with them, each with the reason.
"""

from __future__ import annotations

import functools
import os
import tempfile
from typing import Any

import pytest

from tests.support.lightning_packages import import_torchvision_first

import_torchvision_first()

import lightning.pytorch as pl  # noqa: E402
from lightning.pytorch.plugins import CheckpointIO  # noqa: E402

from trainerd.integrations.lightning import StoreCheckpointIO, TrainerdCallback  # noqa: E402

_ADDED = {"io", "callback"} if (only := os.environ.get("UPSTREAM")) is None else {only}
_former = pl.Trainer.__init__


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value] if value is not None else []


@functools.wraps(_former)
def _init(self: Any, *arguments: Any, **named: Any) -> None:
    plugins = _listed(named.get("plugins"))
    if "io" in _ADDED and not any(isinstance(each, CheckpointIO) for each in plugins):
        named["plugins"] = [*plugins, StoreCheckpointIO()]
    if "callback" in _ADDED and not named.get("fast_dev_run"):
        # A run of its own for each trainer. The signals stay with Lightning: a process that was asked to stop
        # goes on being so, and all later tests would be drained at their first step.
        callback = TrainerdCallback(tempfile.mkdtemp(), seed=None, strict=False, signals=False)
        named["callbacks"] = [*_listed(named.get("callbacks")), callback]
    _former(self, *arguments, **named)


pl.Trainer.__init__ = _init


def pytest_configure(config: pytest.Config) -> None:
    """Know the mark of pytest-rerunfailures, which these tests use."""
    config.addinivalue_line("markers", "flaky(**settings): tried again by pytest-rerunfailures")
