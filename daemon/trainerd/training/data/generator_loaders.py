"""Loaders that a generator draws from, which the script makes for each pass: ``batches(prefetch(loader))``.

The generator ends with the pass, and with it what was noted of the loader. So what such a loader remembers
from pass to pass is in no checkpoint, and is named.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Final

from torch.utils.data import DataLoader

from trainerd.contract.verdict import Reason
from trainerd.training.data.loader_memory import LoaderMemory

_LOCALS_MAX: Final = 64


class GeneratorLoaders:
    """The loaders among the variables of a generator that has not begun.

    Args:
        iterable: Anything; what is no such generator has none.
        suspect: Takes in that one remembers something.
    """

    def __init__(self, iterable: Any, suspect: Callable[[Reason], None]) -> None:
        self._suspect = suspect
        self._code = getattr(iterable, "gi_code", None)
        frame = getattr(iterable, "gi_frame", None) if inspect.isgenerator(iterable) else None
        variables = list(frame.f_locals.items())[:_LOCALS_MAX] if frame is not None else []
        loaders = {name: each for name, each in variables if isinstance(each, DataLoader)}
        self._memory = LoaderMemory(loaders, tuple(loaders)) if loaders else None

    def look(self) -> None:
        """Look for what has changed since the generator was made. To be called at boundaries."""
        saved = self._memory.saved() if self._memory is not None else {}
        names = sorted({*saved.get("attributes", ()), *saved.get("generators", ())})
        if not names or self._code is None:
            return
        self._memory = None
        self._suspect(
            Reason(
                "iterator-not-restartable",
                f"generator ({self._code.co_filename}:{self._code.co_firstlineno})",
                f"it is made for each pass, and {', '.join(names)}, which goes on from pass to pass, is in "
                "no checkpoint",
                "pass batches() the loader itself, or an object whose __iter__ begins again",
            )
        )
