"""The links ``last`` and ``best-<metric>``: conveniences for people. Nothing of ours reads them.

They are relative, so that a moved run folder keeps them, and replaced by one rename, so that they always lead
somewhere. A filesystem without links has none, and nothing else changes.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from typing import TYPE_CHECKING, Final

from trainerd.contract.durable import TEMPORARY_INFIX
from trainerd.contract.failpoints import declare

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["LAST", "best_link_name", "update_links"]

LAST: Final = "last"
BEST_PREFIX: Final = "best-"

MADE = declare("link.made", "a temporary link beside the old one; swept at the next start")
REPLACED = declare("link.replaced", "the new link, or after a power cut the old one, which may lead nowhere")

_UNSUITABLE: Final = re.compile(r"[^A-Za-z0-9._-]")
_serial = itertools.count()


def best_link_name(metric: str) -> str:
    """Return the name of the link to the best checkpoint by a metric.

    ``val/accuracy`` is ``best-val_accuracy``.
    """
    return BEST_PREFIX + _UNSUITABLE.sub("_", metric)


def update_links(directory: Path, links: Mapping[str, str | None]) -> None:
    """Let each link lead to the checkpoint of that name; None takes it away. Those that lead nowhere go too.

    A foreign file or folder of such a name is left alone. What the filesystem refuses is left undone.
    """
    for name, target in links.items():
        with contextlib.suppress(OSError):
            _point(directory / name, target)
    with contextlib.suppress(OSError):
        for path in directory.iterdir():
            is_ours = path.name == LAST or path.name.startswith(BEST_PREFIX)
            if is_ours and path.is_symlink() and not path.exists():
                path.unlink(missing_ok=True)


def _point(link: Path, target: str | None) -> None:
    if os.path.lexists(link) and not link.is_symlink():
        return
    if target is None:
        link.unlink(missing_ok=True)
        return
    if link.is_symlink() and str(link.readlink()) == target:
        return
    temporary = link.with_name(f".{link.name}{TEMPORARY_INFIX}{os.getpid()}-{next(_serial)}")
    temporary.symlink_to(target)
    MADE.hit()
    temporary.replace(link)
    REPLACED.hit()
