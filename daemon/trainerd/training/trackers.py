"""Experiment trackers by name: `session(trackers=["tensorboard"])`.

Each is an integration of its own. It is imported when it is asked for, and by name: the packages of a tracker
are an extra, and integrations stand above the session.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from trainerd.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def tracker_calls(names: Iterable[str]) -> tuple[Callable[[Any], None], ...]:
    """Return the function of each tracker that lets it follow a session.

    Raises:
        UserError: The package of a tracker is not installed.
    """
    return tuple([_tracker_call(name) for name in names])


def _tracker_call(name: str) -> Callable[[Any], None]:
    try:
        found: Callable[[Any], None] = importlib.import_module(f"trainerd.integrations.{name}").follow
    except ImportError as error:
        raise UserError(
            f"the tracker {name} cannot be imported: {error}",
            hint=f"pip install 'trainerd[{name}]', or leave it out of trackers",
        ) from error
    return found
