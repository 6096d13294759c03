"""The live objects of a kind, found without a reference to any other.

`gc.get_objects()` refers to everything, also to a tuple that another thread is just filling, and
``tuple(generator)`` there then fails with a SystemError. So a list of everything exists only within one call
into C, during which no other thread runs.

A standby takes what it has imported out of the sight of the garbage collector: a look then passes over some
thousands of objects and not over hundreds of thousands. It notes the types of what it has hidden. If one of
them is ever wanted, everything is shown again: a look finds the same in a standby and in a cold start.
"""

from __future__ import annotations

import gc
import itertools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_hidden: dict[int, type] = {}
"""Types of the objects that `hide_imported` has hidden, by identity."""


def hide_imported() -> None:
    """Hide what is alive now from the garbage collector, and from looks for types that nothing of it has.

    For a process that has imported libraries and has run nothing else.
    """
    gc.collect()  # what is garbage now would never be freed
    _hidden.update(_present_types())
    gc.freeze()


def live_instances(is_wanted: Callable[[type], bool]) -> list[Any]:
    """Return the live objects of wanted types, of those that the garbage collector knows.

    Args:
        is_wanted: Decides about a type. It is asked once for each type that has instances, in no order.
    """
    _show_again(is_wanted)
    wanted = {identity: kind for identity, kind in _present_types().items() if is_wanted(kind)}
    if not wanted:
        return []
    # An instance of a class refers to its class; so do dictionaries and tuples, which are left out.
    return [each for each in gc.get_referrers(*wanted.values()) if id(type(each)) in wanted]


def instances_of(kind: type) -> list[Any]:
    """Return the live objects of one type and of no subclass, in one look at all objects, not in two."""
    _show_again(lambda each: each is kind)
    return [each for each in gc.get_referrers(kind) if type(each) is kind]


def _show_again(is_wanted: Callable[[type], bool]) -> None:
    """Show what was hidden, for good, if there is something wanted among it."""
    if any(map(is_wanted, _hidden.values())):
        _hidden.clear()
        gc.unfreeze()


def _present_types() -> dict[int, type]:
    """Return the types that have instances, by identity: a metaclass may have a hash in Python."""
    # Nothing but the inner iterator holds the list of all objects, and `dict` consumes it in one go. A
    # collection in the middle would run finalizers and callbacks, and with them other threads.
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        return dict(_types_by_identity())
    finally:
        if was_enabled:
            gc.enable()


def _types_by_identity() -> Iterator[tuple[int, type]]:
    objects = itertools.chain.from_iterable(map(gc.get_objects, (None,)))
    once, again = itertools.tee(map(type, objects))
    return zip(map(id, once), again, strict=False)
