"""Importing Lightning where the torchvision beside it was built for another torch."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

_COMPAT = Path(__file__).parents[2] / "jobs" / "examples" / "mnist" / "torchvision_compat.py"


def import_torchvision_first() -> None:
    """Declare the operators that torchvision lacks, if and only if its import fails: Lightning imports it."""
    if importlib.util.find_spec("torchvision") is None:
        return
    spec = importlib.util.spec_from_file_location("torchvision_compat", _COMPAT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.import_torchvision()


def lightning_or_skip(name: str) -> ModuleType:
    """Return the package, or skip the module of tests."""
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed", allow_module_level=True)
    import_torchvision_first()
    return importlib.import_module("lightning.pytorch" if name == "lightning" else name)
