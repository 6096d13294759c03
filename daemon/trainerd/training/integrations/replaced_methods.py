"""The methods of a framework that an integration replaces on an instance must be there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trainerd.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable


def check_methods(owner: Any, names: Iterable[str], *, framework: str, by: str) -> None:
    """Check that an object has all methods that are replaced.

    Args:
        owner: The object of the framework.
        names: The methods.
        framework: Its name; in small letters it is the name of our extra.
        by: What replaces them.

    Raises:
        UserError: One is missing.
    """
    for name in names:
        if not hasattr(owner, name):
            raise UserError(
                f"this version of {framework} has no {type(owner).__name__}.{name}, which {by} replaces",
                hint="install a version that trainerd is tested with: "
                f"pip install 'trainerd[{framework.lower()}]'",
            )
