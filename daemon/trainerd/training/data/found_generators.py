"""Finds the random generators that loading draws from, wherever they hang.

A sampler, a dataset or a collate function may keep a generator of its own: as an attribute under any name, in
a list or dict, in a transform of a dataset that it wraps, as a class attribute, as a default argument, in a
closure, in the arguments of a partial, or as a global variable that its code names. The search follows all of
these and stays out of libraries.

The global generators themselves are left out: they are looked after elsewhere.
"""

from __future__ import annotations

import functools
import inspect
import random
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import torch

from trainerd.training.state.generators import is_generator

DEPTH_MAX: Final = 12
"""How many attributes, elements and variables a path may have."""
NODES_MAX: Final = 20_000
"""How many objects one search looks at."""
ELEMENTS_MAX: Final = 64
"""How many elements of a list or dict are looked at: long ones are data."""

_LEAVES: Final = (int, float, complex, str, bytes, bytearray, type(None), torch.Tensor, types.ModuleType)
_LIBRARIES: Final = frozenset({"torch", "numpy", "torchvision", "torchaudio", "PIL", "pandas", "trainerd"})
_SKIPPED: Final = frozenset({"_iterator", "_parameters", "_buffers", "multiprocessing_context"})


@dataclass
class FoundGenerators:
    """The random generators below some objects.

    Attributes:
        by_path: Each once, under the path at which it was met first.
        unseedable: Paths of generators that have no state, such as `random.SystemRandom`.
    """

    by_path: dict[str, Any] = field(default_factory=dict)
    unseedable: list[str] = field(default_factory=list)


def find_generators(**roots: Any) -> FoundGenerators:
    """Search below the objects given, by the names under which they are given.

    Two programs whose objects hang together alike give equal paths in equal order.
    """
    return _found_below(_Search(), roots)


def find_generators_of_functions(functions: Mapping[str, Any]) -> FoundGenerators:
    """Search below functions of a script, and stay out of the session that they name."""
    return _found_below(_Search(left_out="trainerd."), functions)


def _found_below(search: _Search, roots: Mapping[str, Any]) -> FoundGenerators:
    for name, root in roots.items():
        search.visit(name, root, 0)
    return search.found


class _Search:
    """One search.

    Args:
        left_out: How the modules begin whose objects are not looked into; empty for none.
    """

    def __init__(self, left_out: str = "") -> None:
        self._left_out = left_out
        self.found = FoundGenerators()
        self._seen: dict[int, Any] = {id(each): each for each in _global_generators()}

    def visit(self, path: str, value: Any, depth: int) -> None:
        if isinstance(value, _LEAVES) or id(value) in self._seen or len(self._seen) > NODES_MAX:
            return
        if self._left_out and type(value).__module__.startswith(self._left_out):
            return
        self._seen[id(value)] = value  # kept, or its id could pass to another
        if isinstance(value, random.SystemRandom):
            self.found.unseedable.append(path)
        elif is_generator(value):
            self.found.by_path[path] = value
        elif depth < DEPTH_MAX:
            for name, child in _children(value):
                self.visit(path + name, child, depth + 1)


def _global_generators() -> Iterator[Any]:
    yield torch.default_generator
    yield getattr(random, "_inst", None)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        yield getattr(numpy.random.mtrand, "_rand", None)


def _children(value: Any) -> Iterator[tuple[str, Any]]:
    """Return what hangs on an object directly, with what its path ends with."""
    if isinstance(value, Mapping) and isinstance(value, dict):
        yield from ((f"[{_shown(key, n)}]", each) for n, (key, each) in enumerate(_first(value.items())))
        return
    if isinstance(value, list | tuple | set | frozenset) and type(value).__module__ == "builtins":
        yield from ((f"[{number}]", each) for number, each in enumerate(_first(value)))
        return
    if isinstance(value, functools.partial):
        yield from ((".func", value.func), (".args", value.args), (".keywords", value.keywords))
        return
    if isinstance(value, types.MethodType):
        yield from ((".__self__", value.__self__), (".__func__", value.__func__))
        return
    if isinstance(value, types.FunctionType):
        yield from _variables(value)
        return
    if isinstance(value, types.BuiltinMethodType):
        yield ".__self__", value.__self__
        return
    if isinstance(value, type):
        return
    yield from _attributes(value)
    yield from _class_variables(type(value))


def _shown(key: Any, number: int) -> str:
    """Return what a key of a dictionary is called in a path."""
    try:
        return f"{key!r:.40}"
    except Exception:  # noqa: BLE001 - it is code of others, such as enumerations of an old library
        return f"<{type(key).__qualname__} {number}>"


def _first(values: Any) -> Iterator[Any]:
    for number, each in enumerate(list(values) if len(values) <= ELEMENTS_MAX else values):
        if number >= ELEMENTS_MAX:
            return
        yield each


def _attributes(value: Any) -> Iterator[tuple[str, Any]]:
    own = getattr(value, "__dict__", None)
    if isinstance(own, dict):
        yield from ((f".{name}", each) for name, each in list(own.items()) if name not in _SKIPPED)
    for kind in type(value).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            with_member = kind.__dict__.get(name)
            if isinstance(with_member, types.MemberDescriptorType):
                try:
                    yield f".{name}", with_member.__get__(value)
                except AttributeError:
                    continue


def _class_variables(kind: type) -> Iterator[tuple[str, Any]]:
    """Return the class attributes that may be or hold generators, and what the methods name."""
    for each in kind.__mro__:
        if is_library(each.__module__):
            continue
        for name, value in list(each.__dict__.items()):
            plain = value.__func__ if isinstance(value, staticmethod | classmethod) else value
            if isinstance(value, property):
                plain = value.fget
            if isinstance(plain, types.FunctionType):
                yield from ((f".{name}{path}", child) for path, child in _variables(plain))
            elif is_generator(value) or type(value) in {list, tuple, dict}:
                yield f".{name}", value


def _variables(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """Return what a function refers to: defaults, closure, and global variables that are no library's."""
    for place, defaults in (("defaults", function.__defaults__), ("kwdefaults", function.__kwdefaults__)):
        if defaults:
            yield f".{place}", defaults
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield f".<{name}>", cell.cell_contents
        except ValueError:
            continue  # not assigned yet
    if is_library(function.__module__):
        return
    yield from _globals_of(function.__code__, function.__globals__)
    wrapped = getattr(function, "__wrapped__", None)
    if wrapped is not None:
        yield ".__wrapped__", wrapped


def _globals_of(code: types.CodeType, variables: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name in code.co_names:
        value = variables.get(name)
        is_own_function = isinstance(value, types.FunctionType) and not is_library(value.__module__)
        if (
            is_generator(value)
            or is_own_function
            or isinstance(value, random.SystemRandom)
            or type(value) in {list, tuple, dict}
            or _is_callable_object(value)
        ):
            yield f".<{name}>", value
    for constant in code.co_consts:
        if inspect.iscode(constant):
            yield from _globals_of(constant, variables)


def _is_callable_object(value: Any) -> bool:
    """Tell whether a global variable is a thing such as a transform: called, and of the user's making."""
    return (
        isinstance(value, Callable)  # type: ignore[arg-type]
        and not isinstance(value, type | types.FunctionType | types.BuiltinFunctionType)
        and (not is_library(type(value).__module__) or "transforms" in getattr(value, "__dict__", ()))
    )


def is_library(module: str | None) -> bool:
    """Tell whether a module belongs to a library whose objects the search stays out of."""
    top = (module or "").partition(".")[0]
    return top in _LIBRARIES or (top in sys.stdlib_module_names and top != "__main__")


def is_installed(file: str) -> bool:
    """Tell whether a file lies where packages are installed."""
    return "/site-packages/" in file or "/dist-packages/" in file


def is_of_user(module: str | None) -> bool:
    """Tell whether a module is the user's own code: neither a library nor installed."""
    file = getattr(sys.modules.get(module or ""), "__file__", None) or ""
    return not (is_library(module) or is_installed(file))
