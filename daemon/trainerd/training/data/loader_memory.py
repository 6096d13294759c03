"""What loading remembers from batch to batch and is in no ``state_dict``: generators and plain attributes.

A sampler whose weights follow the losses, a counter of epochs, a generator that the script draws from as
well: what has changed since the run first used the loader is saved, and put back where its loop goes on.

Invariants:
    What did not change is configuration, and stays as the program has it.
    At the beginning of a loop, what the code before the loop has changed already in this attempt is left
    alone: that code runs again. Inside a loop, everything is put back.
"""

from __future__ import annotations

import contextlib
import functools
import json
import marshal
import types
import weakref
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

import torch
import xxhash
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    RandomSampler,
    SequentialSampler,
)

from trainerd.errors import UnsupportedValueError
from trainerd.training.data.code_variables import (
    attributes_of,
    is_of_code,
    is_variable,
    store,
    variables_below,
)
from trainerd.training.data.found_generators import find_generators
from trainerd.training.data.root_identity import IDENTITIES, IS_BACK, identity_of, root_of
from trainerd.training.state.copied_state import copied_state
from trainerd.training.state.generators import generator_state, is_generator, set_generator_state
from trainerd.training.state.tensor_layouts import TensorTable
from trainerd.training.state.tensors import encode_state

ELEMENTS_MAX: Final = 1 << 17
"""A list or dict that is longer is data, and not looked at."""
_DEPTH_MAX: Final = 3
FORMS: Final[Mapping[type, Any]] = {deque: list, Counter: dict, OrderedDict: dict, defaultdict: dict}
"""What a checkpoint holds in place of a container that it cannot hold; put back into the same container."""
_STAGES_MAX: Final = 64
_SCALARS: Final = frozenset({type(None), bool, int, float, complex, str, bytes})
_NUMBERS: Final = frozenset({bool, int, float})
_FIXED: Final = (SequentialSampler, RandomSampler, DistributedSampler)
"""Nothing that these remember decides an order: the session makes it, or they are told the epoch."""
_SKIPPED: Final = frozenset({"_iterator", "multiprocessing_context"})
_UNMARKED: Final = ""
_SIGHT: Final = "sampler"


@dataclass(frozen=True)
class Owner:
    """An object whose plain attributes are looked at.

    Attributes:
        path: Where it hangs.
        value: The object.
        takes_numbers_only: Whether only its numbers and flags are looked at, as of a dataset.
    """

    path: str
    value: Any
    takes_numbers_only: bool


class FirstSight:
    """Plain attributes of samplers before the first epoch, at the top of which the script may change them."""

    def __init__(self) -> None:
        self._by_id: dict[int, tuple[weakref.ref[Any], dict[str, str]]] = {}

    def look_at(self, sampler: Any) -> None:
        """Note what a sampler is like now."""
        memory = LoaderMemory({_SIGHT: sampler}, (_SIGHT,))
        with contextlib.suppress(TypeError):  # one without weak references
            self._by_id[id(sampler)] = (weakref.ref(sampler), memory.plain_marks())

    def marks_of(self, root: Any, name: str) -> dict[str, str]:
        """Return the marks of a sampler that was looked at, under the name that it has as a root."""
        reference, marks = self._by_id.get(id(root), (None, {}))
        if reference is None or reference() is not root:
            return {}
        return {name + path.removeprefix(_SIGHT): mark for path, mark in marks.items()}


class LoaderMemory:
    """The generators and plain attributes of what a loader consists of.

    Args:
        roots: The objects below which generators are looked for, by name.
        owners: Names of those among them whose plain attributes count too.
        first: What was seen of them before the first epoch.
        is_small: Whether only small values count: others are what a hook was shown, say.

    Attributes:
        generators: Those that were found, by path.
        unseedable: Paths of generators that have no state.
        identities: What each owner is told by in another attempt, by its name.
    """

    def __init__(
        self,
        roots: Mapping[str, Any],
        owners: tuple[str, ...] = (),
        first: FirstSight | None = None,
        *,
        is_small: bool = False,
    ) -> None:
        self._is_small = is_small
        self._roots = {name: value for name, value in roots.items() if value is not None}
        self._owners = [name for name in owners if name in self._roots]
        self.find()
        self._marks = {path: content_mark(value) for path, value in self._values()}
        stock = [owner.path for owner in self._owning() if type(owner.value) is BatchSampler]
        self._of_stock = {path for path in self._marks if path.rpartition(".")[0] in stock}
        for name in self._owners:
            self._marks |= first.marks_of(self._roots[name], name) if first is not None else {}
        plain = self.plain_marks()
        self.identities = {
            name: identity_of(
                self._roots[name],
                {p: m for p, m in plain.items() if root_of(p) == name and not is_of_code(p)},
            )
            for name in self._owners
        }

    def plain_marks(self) -> dict[str, str]:
        """Return the marks that plain attributes had first."""
        return {path: mark for path, mark in self._marks.items() if path not in self.generators}

    def find(self) -> None:
        """Look for generators again: one may have been replaced."""
        found = find_generators(**self._roots)
        self.generators, self.unseedable = found.by_path, found.unseedable

    def saved(self) -> dict[str, Any]:
        """Return digests of what there was at the beginning of the run, and what changed since, as a tree.

        Empty if there is nothing to remember.
        """
        self.find()
        attributes: dict[str, Any] = {}
        generators: dict[str, Any] = {}
        for path, value in self._values():
            if content_mark(value) == self._marks.get(path, _UNMARKED):
                continue
            if is_generator(value):
                generators[path] = generator_state(value)
            else:
                attributes[path] = copied_state(plain_form(value))
        first = {
            path: mark
            for path, mark in self._marks.items()
            if mark != _UNMARKED and (path not in self._of_stock or path in attributes)
        }
        if not (first or attributes or generators):
            return {}
        roots = set(map(root_of, (*attributes, *generators)))
        of = {name: each for name, each in self.identities.items() if name in roots}
        return {"first": first, "attributes": attributes, "generators": generators} | (
            {IDENTITIES: of} if of else {}
        )

    @contextlib.contextmanager
    def unchanged(self) -> Iterator[None]:
        """Undo what a block changes in plain attributes."""
        before = {path: copied_state(plain_form(value)) for path, value in self._plain()}
        try:
            yield
        finally:
            owners = {owner.path: owner.value for owner in self._owning()}
            for path, value in list(self._plain()):
                owner, _, name = path.rpartition(".")
                if path not in before:
                    vars(owners[owner]).pop(name, None)
                elif content_mark(value) != content_mark(before[path]):
                    set_attribute(owners[owner], name, before[path])

    def _plain(self) -> Iterator[tuple[str, Any]]:
        return ((path, value) for path, value in self._values() if path not in self.generators)

    def put_back(self, saved: Mapping[str, Any], *, is_inside: bool) -> None:
        """Make the changes that `saved` returned, as far as the same objects are there.

        Args:
            saved: What it returned, or nothing.
            is_inside: Whether the loop goes on in the middle.
        """
        if not saved:
            return
        self.find()
        owners = {owner.path: owner.value for owner in self._owning()}
        now = dict(self._values())
        first = saved["first"]
        self.identities |= {
            name: each for name, each in saved.get(IDENTITIES, {}).items() if name in self.identities
        }
        is_back = () if is_inside else saved.get(IS_BACK, ())
        for path, value in (*saved["attributes"].items(), *saved["generators"].items()):
            if root_of(path) in is_back:
                continue
            mark = content_mark(now[path]) if path in now else _UNMARKED
            if not is_inside and mark != first.get(path, _UNMARKED):
                continue
            owner, _, name = path.rpartition(".")
            if path in saved["generators"]:
                _set_generator(self.generators.get(path), value)
            elif owner in owners:
                set_attribute(owners[owner], name, copied_state(value))
        # A stock batch sampler has its size from the program, which counts unless the script changes it.
        self._marks = {path: mark for path, mark in self._marks.items() if path in self._of_stock} | first

    def _values(self) -> Iterator[tuple[str, Any]]:
        yield from self.generators.items()
        for owner in self._owning():
            for name, value in list(attributes_of(owner.value).items()):
                path = f"{owner.path}.{name}"
                if path in self.generators or name in _SKIPPED:
                    continue
                if _counts(owner, name, value) and (is_variable(value) or not self._is_small):
                    yield path, value

    def _owning(self) -> Iterator[Owner]:
        seen: set[int] = set()
        for name in self._owners:
            for owner in _owners_below(name, self._roots[name], seen, 0):
                yield owner
                for path, code in variables_below(owner.path, owner.value):
                    yield Owner(path, code, takes_numbers_only=False)


def _owners_below(path: str, value: Any, seen: set[int], depth: int) -> Iterator[Owner]:
    if id(value) in seen or not hasattr(value, "__dict__") or isinstance(value, type | torch.nn.Module):
        return
    seen.add(id(value))
    if type(value) in _FIXED:
        return
    is_dataset = isinstance(value, Dataset)
    yield Owner(path, value, is_dataset)
    if depth >= _DEPTH_MAX:
        return
    if isinstance(value, DataLoader):
        yield from _owners_below(f"{path}.dataset", value.dataset, seen, depth + 1)
    for name, each in list(vars(value).items()):
        if name not in _SKIPPED and isinstance(each, Dataset) == is_dataset and _is_of_loading(each):
            yield from _owners_below(f"{path}.{name}", each, seen, depth + 1)
        for number, stage in (
            enumerate(each) if type(each) in {list, tuple} and len(each) <= _STAGES_MAX else ()
        ):
            yield from _stage(f"{path}.{name}[{number}]", stage, seen, depth)


def _stage(path: str, value: Any, seen: set[int], depth: int) -> Iterator[Owner]:
    """Yield a part of a pipeline, such as WebDataset's, whose numbers count; of a loader its dataset."""
    if id(value) in seen or not hasattr(value, "__dict__") or is_generator(value):
        return
    if isinstance(value, type | types.FunctionType | types.ModuleType | torch.Tensor | torch.nn.Module):
        return
    if isinstance(value, DataLoader):
        yield from _owners_below(path, value, seen, depth + 1)
        return
    seen.add(id(value))
    if type(value) not in _FIXED:
        yield Owner(path, value, takes_numbers_only=True)


def _counts(owner: Owner, name: str, value: Any) -> bool:
    """Tell whether an attribute is looked at: it can change, and a checkpoint can hold it."""
    if isinstance(owner.value, DataLoader) and name in _loader_fields():
        return False
    if owner.takes_numbers_only:
        return type(value) in _NUMBERS
    return type(value) in _SCALARS or is_plain(value)


@functools.cache
def _loader_fields() -> frozenset[str]:
    return frozenset(vars(DataLoader(cast("Any", [0]))))


def _is_of_loading(value: Any) -> bool:
    kind = type(value)
    return hasattr(kind, "__iter__") and kind.__module__ != "builtins" and not isinstance(value, torch.Tensor)


def is_plain(value: Any) -> bool:
    """Tell whether a value is a container, tensor or array that a checkpoint can hold."""
    kind = type(value)
    if kind in {list, dict, tuple, set} or kind in FORMS:
        return len(value) <= ELEMENTS_MAX
    return kind is torch.Tensor or (
        kind.__module__ == "numpy" and kind.__name__ in {"ndarray", "float64", "int64"}
    )


def plain_form(value: Any) -> Any:
    """Return a container of the module ``collections`` as a list or dict, anything else as it is."""
    form = FORMS.get(type(value))
    return value if form is None else form(value)


def content_mark(value: Any) -> str:
    """Return a digest of a value; an empty one if a checkpoint could not hold it."""
    value = generator_state(value) if is_generator(value) else plain_form(value)
    try:
        return xxhash.xxh3_64_hexdigest(marshal.dumps(value, 2))
    except ValueError:
        pass
    table = TensorTable(takes_shards=False)
    try:
        document = encode_state(value, table, root="value")
        digest = xxhash.xxh3_64(json.dumps(document).encode())
        for tensor in table.tensors.values():
            digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    except (UnsupportedValueError, RuntimeError, TypeError):
        return _UNMARKED
    return digest.hexdigest()


def _set_generator(generator: Any, state: Any) -> None:
    with contextlib.suppress(ValueError):  # one of another kind is not the one that was saved
        if generator is not None:
            set_generator_state(generator, state)


def set_attribute(owner: Any, name: str, value: Any) -> None:
    """Set an attribute, in place if it can be: the script may hold the same list or tensor."""
    former: Any = attributes_of(owner).get(name)
    if type(value) is FORMS.get(type(former)):
        former.clear()
        former.extend(value) if isinstance(former, deque) else former.update(value)
        return
    if type(former) is type(value):
        if isinstance(former, torch.Tensor) and former.shape == value.shape and former.dtype == value.dtype:
            with torch.no_grad():
                former.copy_(value)
            return
        if type(value).__name__ == "ndarray" and former.shape == value.shape and former.flags.writeable:
            former[...] = value
            return
        if isinstance(value, list):
            former[:] = value
            return
        if isinstance(value, tuple) and _are_alike(former, value):
            with torch.no_grad():
                for own, each in zip(former, value, strict=True):
                    own.copy_(each)
            return
        if isinstance(value, dict | set):
            former.clear()
            former.update(value)
            return
    store(owner, name, value)


def _are_alike(former: tuple[Any, ...], value: tuple[Any, ...]) -> bool:
    """Tell whether all are tensors that can take over the values of the others in place."""
    return len(former) == len(value) and all(
        isinstance(own, torch.Tensor)
        and isinstance(each, torch.Tensor)
        and (own.shape, own.dtype) == (each.shape, each.dtype)
        for own, each in zip(former, value, strict=True)
    )
