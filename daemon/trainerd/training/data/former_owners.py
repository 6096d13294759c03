"""Finds the dataset and the sampler of a checkpoint in a new process, before a loop uses them.

Where a resume begins at an epoch, the script runs code on them before it comes to the loop, such as
``dataset.index = dataset.index[:-10]``: they have to be restored by then. They are recognized by their class
and by what their attributes were before the first epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from trainerd.training.data.dataset_memory import DatasetMemory, FirstMarks
from trainerd.training.data.loader_memory import LoaderMemory
from trainerd.training.data.root_identity import IDENTITIES, IS_BACK, kind_of, root_of
from trainerd.training.state.live_objects import live_instances

if TYPE_CHECKING:
    from trainerd.contract.verdict import Reason


_NOTED: Final = ("data", "now", "memory")


def put_back_early(state: Mapping[str, Any], suspect: Callable[[Reason], None]) -> None:
    """Put the roots of one source into their former state, as far as each can be told from all others.

    Args:
        state: What `Source.saved` returned between two passes. It is noted there which are back.
        suspect: Takes in what could not be put back.
    """
    for inner in state.values():  # of loaders that are drawn from in step
        if isinstance(inner, dict) and not {"data", "memory"}.isdisjoint(inner):
            put_back_early(inner, suspect)
    data = state.get("data", {}).get("now", {})
    for name, root in _found(data, lambda each, name: DatasetMemory({name: each}, suspect, FirstMarks())):
        DatasetMemory({name: root}, suspect, FirstMarks()).put_back(of_root(data, name), is_inside=True)
        data.setdefault(IS_BACK, []).append(name)
    memory = state.get("memory", {})
    for name, root in _found(memory, lambda each, name: LoaderMemory({name: each}, (name,))):
        LoaderMemory({name: root}, (name,)).put_back(of_root(memory, name), is_inside=True)
        memory.setdefault(IS_BACK, []).append(name)


def without_notes(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state of one source without what `put_back_early` noted there."""
    return {
        key: without_notes(part) if isinstance(part, dict) and (key.isdigit() or key in _NOTED) else part
        for key, part in state.items()
        if key != IS_BACK
    }


def of_root(saved: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the part of what a memory saved that belongs to one root."""
    return {
        section: {path: each for path, each in part.items() if root_of(path) == name}
        if isinstance(part, dict)
        else part
        for section, part in saved.items()
    }


def _found(
    saved: Mapping[str, Any], memory_of: Callable[[Any, str], DatasetMemory | LoaderMemory]
) -> Iterator[tuple[str, Any]]:
    for name, identity in saved.get(IDENTITIES, {}).items():
        kind = identity.partition("=")[0]
        alike = [
            each
            for each in live_instances(lambda each, kind=kind: kind_of(each) == kind)  # type: ignore[misc]
            if memory_of(each, name).identities.get(name) == identity
        ]
        if len(alike) == 1:
            yield name, alike[0]
