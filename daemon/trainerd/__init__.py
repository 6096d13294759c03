"""trainerd: fault-tolerant, preemption-safe training for PyTorch.

`import trainerd` alone loads no torch: the names of the training API are imported when they are first used.
"""

from __future__ import annotations

import importlib
import os as _os
from typing import TYPE_CHECKING, Any

from trainerd.contract import start_folder as _start_folder  # noqa: F401 - notes the folder before it changes
from trainerd.version import VERSION

if TYPE_CHECKING:
    from trainerd.contract.policy import KeepBest, KeepEvery
    from trainerd.training.checkpointer import Checkpointer
    from trainerd.training.data.exact_loader import exact
    from trainerd.training.drive import Drive
    from trainerd.training.session import Session, driven, session
    from trainerd.training.state.files import Files
    from trainerd.training.state.plain_tree import plain_tree

__version__ = VERSION

__all__ = [
    "Checkpointer",
    "Drive",
    "Files",
    "KeepBest",
    "KeepEvery",
    "Session",
    "__version__",
    "driven",
    "exact",
    "plain_tree",
    "session",
]

_HOME = {
    "Checkpointer": "trainerd.training.checkpointer",
    "Drive": "trainerd.training.drive",
    "Files": "trainerd.training.state.files",
    "KeepBest": "trainerd.contract.policy",
    "KeepEvery": "trainerd.contract.policy",
    "Session": "trainerd.training.session",
    "driven": "trainerd.training.session",
    "exact": "trainerd.training.data.exact_loader",
    "plain_tree": "trainerd.training.state.plain_tree",
    "session": "trainerd.training.session",
}


if "TRAINERD_SIGNALS_HELD" in _os.environ:  # the shim has held them for the session that follows
    from trainerd.training.interruption.early_signals import EARLY as _EARLY

    _EARLY.take_over()


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
