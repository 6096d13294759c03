"""For the few verbs that need torch: a clear word where it is not installed."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Final

from trainerd.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

_PACKAGES: Final = frozenset({"torch", "numpy"})


@contextlib.contextmanager
def needing_torch(verb: str) -> Iterator[None]:
    """Import within this what needs torch.

    Raises:
        UserError: It is not installed beside this trainerd.
    """
    try:
        yield
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in _PACKAGES:
            raise
        raise UserError(
            f"trainerd {verb} needs {error.name}, which is not installed for {sys.executable}",
            hint=f"{sys.executable} -m pip install 'trainerd[torch]'; or, in the environment that trains, "
            f"pip install 'trainerd[daemon]' and /path/to/its/python -m trainerd {verb} …",
        ) from error
