"""For the verb that changes scripts: a clear message where the package that it needs is not installed."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

from trainerd.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def needing_libcst(verb: str) -> Iterator[None]:
    """Import within this what needs libcst.

    Raises:
        UserError: It is not installed beside this trainerd.
    """
    try:
        yield
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "libcst":
            raise
        raise UserError(
            f"trainerd {verb} needs libcst, which is not installed for {sys.executable}",
            hint=f"{sys.executable} -m pip install 'trainerd[adopt]'",
        ) from error
