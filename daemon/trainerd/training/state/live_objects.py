"""The live objects of a kind, found without a reference to any other.

`gc.get_objects()` refers to everything, also to a tuple that another thread is just filling, and
``tuple(generator)`` there then fails with a SystemError. So a list of everything exists only within one call
into C, during which no other thread runs.
"""

from __future__ import annotations

import gc
import itertools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def live_instances(is_wanted: Callable[[type], bool]) -> list[Any]:
    """Return the live objects of wanted types, of those that the garbage collector knows.

    Args:
        is_wanted: Decides about a type. It is asked once for each type that has instances, in no order.
    """
    # Nothing but the inner iterator holds the list of all objects, and `dict` consumes it in one go. By
    # identity: a class may have a metaclass with a hash of its own, in Python. A collection
    # in the middle would run finalizers and callbacks, and with them other threads.
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        kinds = dict(_types_by_identity())
    finally:
        if was_enabled:
            gc.enable()
    wanted = {identity: kind for identity, kind in kinds.items() if is_wanted(kind)}
    if not wanted:
        return []
    # An instance of a class refers to its class; so do dictionaries and tuples, which are left out.
    return [each for each in gc.get_referrers(*wanted.values()) if id(type(each)) in wanted]


def _types_by_identity() -> Iterator[tuple[int, type]]:
    objects = itertools.chain.from_iterable(map(gc.get_objects, (None,)))
    once, again = itertools.tee(map(type, objects))
    return zip(map(id, once), again, strict=False)
