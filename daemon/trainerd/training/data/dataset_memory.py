"""What a script changes in a dataset, its transforms and a collate function while a run goes on.

Hard examples, pseudo labels, a size that grows: attributes of the dataset that the script replaces or changes
in place decide the samples from there on, and are in no ``state_dict``.

Invariants:
    What did not change since the run first used the loader is configuration, and stays as the program has it.
    What reading a sample changes is state if it is small, such as a counter or the sample before. A large
    cache, or a file that is opened, is none.
    At the beginning of a loop, what the code before the loop has changed already in this attempt is left
    alone: that code runs again. Inside a loop, everything is put back.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import types
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch.utils.data import Dataset, Sampler

from trainerd.contract.verdict import Reason
from trainerd.training.data.attribute_marks import ABSENT, NONE, can_be_saved, is_small, mark_of
from trainerd.training.data.code_variables import (
    attributes_of,
    is_of_code,
    object_variables,
    variables_below,
)
from trainerd.training.data.earlier_parts import EarlierParts
from trainerd.training.data.found_generators import is_of_user
from trainerd.training.data.loader_memory import FORMS, FirstSight, plain_form, set_attribute
from trainerd.training.data.root_identity import IDENTITIES, IS_BACK, identity_of, root_of
from trainerd.training.state.copied_state import copied_state
from trainerd.training.state.generators import is_generator

_OWNERS_MAX: Final = 64
_DEPTH_MAX: Final = 4
_SEEN_MAX: Final = 256
"""With more datasets and samplers than these, none is looked at before it is used."""
_PLAIN: Final = (str, bytes, int, float, complex, type(None), torch.Tensor)
_TRANSFORMS: Final = ("torchvision", "torchaudio", "albumentations")
"""Libraries whose objects hold transforms of the script's own."""
_PLACES: Final = (list, tuple)


class FirstMarks:
    """What there was when the run first used each dataset and collate function, for all its loaders.

    A script may make a new loader for each epoch, over a dataset that it has changed.
    """

    def __init__(self) -> None:
        self._by_id: dict[int, tuple[weakref.ref[Any], _Seen]] = {}
        self.samplers = FirstSight()
        self.parts = EarlierParts()

    def look_around(self, kinds: Collection[str] = ()) -> None:
        """Note what the datasets and samplers that there are look like, before the first epoch.

        Args:
            kinds: Classes of loaders that are noted to be there, too.
        """
        marked = [each for each in self.parts.look_around(kinds) if isinstance(each, Dataset | Sampler)]
        if len(marked) > _SEEN_MAX:
            return
        for each in marked:
            if isinstance(each, Sampler):
                self.samplers.look_at(each)
            elif not type(each).__module__.startswith("trainerd."):
                DatasetMemory({"dataset": each}, lambda _: None, self)

    def of(self, root: Any, now: Mapping[str, str]) -> _Seen:
        """Return what is known of an object whose marks are these now."""
        known = self._by_id.get(id(root))
        if known is not None and known[0]() is root:
            return known[1]
        own = {path: mark for path, mark in now.items() if not is_of_code(path)}
        seen = _Seen(dict(now), identity_of(root, own))
        with contextlib.suppress(TypeError):  # one without weak references is new each time
            self._by_id[id(root)] = (weakref.ref(root), seen)
        return seen


@dataclass
class _Seen:
    """What was seen of a dataset or collate function.

    Attributes:
        marks: Of its attributes when the run first used it, by path.
        identity: What it is told by in another attempt.
        by_reading: Paths of attributes that reading a batch changed.
    """

    marks: dict[str, str]
    identity: str
    by_reading: set[str] = field(default_factory=set)


class DatasetMemory:
    """The attributes of a dataset, and of what it and a collate function consist of.

    Args:
        roots: The dataset and the collate function, by name.
        suspect: Takes in what changed and could not be put back.
        first: What the run has seen of them before.
    """

    def __init__(
        self, roots: Mapping[str, Any], suspect: Callable[[Reason], None], first: FirstMarks
    ) -> None:
        self._roots = dict(roots)
        self._suspect = suspect
        now = self._marked()
        self._seen = {
            name: first.of(root, {path: mark for path, mark in now.items() if root_of(path) == name})
            for name, root in self._roots.items()
        }

    @property
    def identities(self) -> dict[str, str]:
        """What each root is told by in another attempt, by its name."""
        return {name: seen.identity for name, seen in self._seen.items()}

    def saved(self) -> dict[str, Any]:
        """Return what changed since the run first used the loader, as a tree; empty if nothing did."""
        values = dict(self._values())
        changed: dict[str, Any] = {}
        unsaved: dict[str, str] = {}
        opened: list[str] = []
        marks = {path: mark for seen in self._seen.values() for path, mark in seen.marks.items()}
        for path in {**marks, **values}:
            if self._is_of_reading(path) and not (is_small(values.get(path)) or is_counted(values.get(path))):
                continue  # before its mark, which is the larger part of the work for a cache
            mark = mark_of(values[path]) if path in values else ABSENT
            if mark == marks.get(path, ABSENT):
                continue
            if can_be_saved(mark) and not is_container_made_late(values[path], marks.get(path, ABSENT)):
                changed[path] = copied_state(plain_form(values[path]))
            elif self._is_of_reading(path) and not is_counted(values.get(path)):
                continue
            elif path in values and not callable(values[path]) and marks.get(path, ABSENT) in _NOTHING:
                opened.append(path.rpartition(".")[0])  # a file, say: opened again when it is needed
            elif path in values or not is_of_code(path):
                unsaved[path] = mark
        if not (changed or unsaved):
            return {}
        first = {path: marks.get(path, ABSENT) for path in (*changed, *unsaved)}
        roots = set(map(root_of, first))
        of = {name: each for name, each in self.identities.items() if name in roots}
        return {"first": first, "changed": changed, "unsaved": unsaved, "opened": opened, IDENTITIES: of}

    def put_back(self, saved: Mapping[str, Any], *, is_inside: bool) -> None:
        """Make the changes that `saved` returned.

        Args:
            saved: What it returned.
            is_inside: Whether the loop goes on in the middle.
        """
        if not saved:
            return
        owners, now = dict(self._owners()), dict(self._values())
        first, opened = saved["first"], set(saved["opened"])
        is_back = () if is_inside else saved.get(IS_BACK, ())
        for name, identity in saved.get(IDENTITIES, {}).items():
            self._seen[name].identity = identity
        for path, mark in first.items():
            self._seen[root_of(path)].marks[path] = mark
        for path, value in saved["changed"].items():
            mark = mark_of(now[path]) if path in now else ABSENT
            if root_of(path) in is_back or (not is_inside and mark != first[path]):
                continue
            owner, _, name = path.rpartition(".")
            if owner not in owners:
                self._report(path, "is not there any more")
            elif mark != mark_of(value) and not (owner in opened and isinstance(value, bool)):
                set_attribute(owners[owner], name, copied_state(value))
        for path, mark in saved["unsaved"].items():
            current = mark_of(now[path]) if path in now else ABSENT
            if current != mark and (is_inside or current == first[path]):
                self._report(path, "is too large for a checkpoint, or of a kind that it cannot hold")

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Note what reading a batch in this process changes."""
        before = self._marked()
        yield
        after = self._marked()
        for path in {**before, **after}:
            if before.get(path, ABSENT) != after.get(path, ABSENT):
                self._seen[root_of(path)].by_reading.add(path)

    def _is_of_reading(self, path: str) -> bool:
        return path in self._seen[root_of(path)].by_reading

    def _report(self, path: str, why: str) -> None:
        self._suspect(
            Reason(
                "dataset-changed",
                path,
                f"the script changed this before the checkpoint, and it could not be put back: it {why}",
                "set it before the loop, from the number of the epoch or what session.value(…) keeps",
            )
        )

    def _marked(self) -> dict[str, str]:
        return {path: mark_of(value) for path, value in self._values()}

    def _values(self) -> Iterator[tuple[str, Any]]:
        return values_below(self._roots)[1]

    def _owners(self) -> Iterator[tuple[str, Any]]:
        return owners_of(self._roots)


def values_below(roots: Mapping[str, Any]) -> tuple[dict[str, Any], Iterator[tuple[str, Any]]]:
    """Return the objects whose attributes count, and these attributes, by path."""
    owners = dict(owners_of(roots))
    return owners, _values_of(owners)


def _values_of(owners: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the attributes that count. What has attributes that count itself is not one."""
    known = {id(owner) for owner in owners.values()}
    for path, owner in owners.items():
        for name, value in list(attributes_of(owner).items()):
            if id(value) in known:
                yield f"{path}.{name}", type(value)  # its attributes are looked at by themselves
            elif not (is_generator(value) or _is_datasets(value)):
                yield f"{path}.{name}", value


def owners_of(roots: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the objects whose attributes count, and variables of the code of loading, with their paths."""
    seen: dict[int, Any] = {}
    for name, root in roots.items():
        for path, owner in _owners_below(name, root, seen, 0):
            yield path, owner
            yield from variables_below(path, owner)
        if id(root) not in seen:  # a function, say
            yield from variables_below(name, root)


_NOTHING: Final = (ABSENT, NONE)


def is_counted(value: Any) -> bool:
    """Tell whether a value is of a kind that reading uses to count or remember, and never a file or cache."""
    return type(value) in FORMS or type(value).__module__ == "itertools"


def is_container_made_late(value: Any, first: str) -> bool:
    """Tell whether this is a container of ``collections`` for which a new attempt has none to put it into."""
    return type(value) in FORMS and first in _NOTHING


def holds_handles(value: Any) -> bool:
    """Tell whether a container holds objects of libraries, such as files that were opened."""
    if not isinstance(value, dict | list | tuple | set) or not value:
        return False
    parts = itertools.islice(value.values() if isinstance(value, dict) else value, 16)
    modules = {type(each).__module__ for each in parts} - {"builtins", "collections", "itertools"}
    return not all(map(is_of_user, modules))


def _is_datasets(value: Any) -> bool:
    return type(value) in _PLACES and 0 < len(value) <= _OWNERS_MAX and isinstance(value[0], Dataset)


def _owners_below(path: str, value: Any, seen: dict[int, Any], depth: int) -> Iterator[tuple[str, Any]]:
    if id(value) in seen or len(seen) >= _OWNERS_MAX:
        return
    if not _is_owner(value):
        yield from _others_below(path, value, seen, depth)
        return
    seen[id(value)] = value
    yield path, value
    if depth >= _DEPTH_MAX:
        return
    for name, each in list(vars(value).items()):
        yield from _owners_below(f"{path}.{name}", each, seen, depth + 1)
        if _is_datasets(each):
            for number, inner in enumerate(each):
                yield from _owners_below(f"{path}.{name}[{number}]", inner, seen, depth + 1)


def _others_below(path: str, value: Any, seen: dict[int, Any], depth: int) -> Iterator[tuple[str, Any]]:
    """Yield what counts below a list, a library's transform, a function or an object with slots."""
    parts: dict[Any, Any] = {}
    if type(value) in {list, tuple, dict}:
        if len(value) <= _OWNERS_MAX and not _is_datasets(value):
            parts = value if type(value) is dict else dict(enumerate(value))
    elif _is_function(value):
        seen[id(value)] = value
        yield from variables_below(path, value)
    elif (variables := object_variables(value)) is not None:
        seen[id(value)] = value
        yield path, variables
        yield from variables_below(path, value)
    elif type(value).__module__.partition(".")[0] in _TRANSFORMS:
        parts = getattr(value, "__dict__", None) or {}
    if depth < _DEPTH_MAX:
        for name, each in list(parts.items()):
            if not isinstance(each, _PLAIN):
                yield from _owners_below(f"{path}({str(name).replace('.', '/')})", each, seen, depth + 1)


def _is_function(value: Any) -> bool:
    return isinstance(value, types.FunctionType | types.MethodType | functools.partial)


def _is_owner(value: Any) -> bool:
    """Tell whether the attributes of an object are looked at: a dataset, or what the user's code defines."""
    if not isinstance(getattr(value, "__dict__", None), dict) or isinstance(value, type | torch.nn.Module):
        return False
    if isinstance(value, Dataset):
        return True
    return is_of_user(type(value).__module__)
