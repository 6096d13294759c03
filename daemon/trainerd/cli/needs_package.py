"""For what needs a package of an extra: a clear message where that is not installed."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

from trainerd.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def needing(package: str, what: str, extra: str) -> Iterator[None]:
    """Import within this what needs a package that `trainerd[extra]` brings.

    Raises:
        UserError: It is not installed beside this trainerd.
    """
    try:
        yield
    except ImportError as error:
        if (error.name or "").partition(".")[0] != package:
            raise
        raise UserError(
            f"{what} needs {package}, which is not installed for {sys.executable}",
            hint=f"{sys.executable} -m pip install 'trainerd[{extra}]'",
        ) from error
