"""Makes a class look as if it came with an installed package: its module has a file below site-packages."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest


def install(monkeypatch: pytest.MonkeyPatch, kind: type[Any], package: str = "agents") -> type[Any]:
    """Return the class, as one of a module of a package."""
    module = ModuleType(package)
    module.__file__ = f"/usr/lib/python3/site-packages/{package}/__init__.py"
    monkeypatch.setitem(sys.modules, package, module)
    monkeypatch.setattr(kind, "__module__", package)
    return kind
