"""Imports torchvision also where its compiled operators do not fit the torch beside it.

A torchvision built for CUDA, next to a torch built for the CPU, fails at import: its Python code registers
kernels for operators that its library, which could not be loaded, would have defined. Training needs none of
them. So when, and only when, that import fails, the missing operators are declared, and it is tried again.
"""

from __future__ import annotations

import importlib
import re
import sys
from types import ModuleType

import torch

_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
_MISSING = re.compile(r"operator torchvision::(\w+) does not exist")

# A declaration lasts as long as the object that made it.
_declarations: list[torch.library.Library] = []


def import_torchvision() -> ModuleType:
    """Return torchvision, with its missing operators declared if that is what it takes.

    Raises:
        RuntimeError: It fails for a reason that this does not repair.
    """
    for _ in range(len(_SCHEMAS) + 1):
        try:
            return importlib.import_module("torchvision")
        except RuntimeError as error:
            missing = _MISSING.search(str(error))
            if missing is None or missing[1] not in _SCHEMAS:
                raise
            _declare(_SCHEMAS.pop(missing[1]))
    raise AssertionError("each round declares one operator more")


def _declare(schema: str) -> None:
    library = torch.library.Library("torchvision", "FRAGMENT")
    library.define(schema)
    _declarations.append(library)
    # The failed import left half of the package behind.
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
