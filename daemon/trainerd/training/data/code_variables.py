"""Variables that loading uses and that are attributes of no object: of classes, functions and modules.

``type(self).n += 1``, a ``global``, a list in a closure, a mutable default: code that loads data may keep its
counters in any of these. The search begins at the classes and functions that loading consists of, follows the
functions and classes that they name, and stays out of libraries.

Invariants:
    Only numbers, strings, small containers, tensors and arrays are variables. All else is code or data.
    Of an object that such code names only those attributes count that the code names too.
"""

from __future__ import annotations

import dis
import functools
import itertools
import types
from collections import Counter, OrderedDict, defaultdict, deque
from typing import TYPE_CHECKING, Any, Final

import torch

from trainerd.training.data.found_generators import is_of_user

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OWNERS_MAX: Final = 128
"""How many classes and functions one search looks at."""
_LENGTH_MAX: Final = 4096
_BYTES_MAX: Final = 1 << 20
_SCALARS: Final = frozenset({type(None), bool, int, float, complex, str, bytes})
_CONTAINERS: Final = frozenset({list, dict, tuple, set, deque, Counter, OrderedDict, defaultdict})
_OF_TORCH: Final = frozenset(vars(torch.nn.Module()))
_ROOT: Final = "<"
"""With this begins the last part of the path of an owner of variables."""


class CodeVariables:
    """Variables of one class, function or object, by name.

    Args:
        get: Returns all that there are, whatever their kind.
        put: Sets one.
    """

    def __init__(self, get: Callable[[], dict[str, Any]], put: Callable[[str, Any], None]) -> None:
        self._get = get
        self.put = put

    def everything(self) -> dict[str, Any]:
        """Return all variables, whether they count or not."""
        return self._get()

    def attributes(self) -> dict[str, Any]:
        """Return the variables that count, with their values."""
        return {
            name: value
            for name, value in self._get().items()
            if not name.startswith("__") and is_variable(value)
        }


def attributes_of(owner: Any) -> dict[str, Any]:
    """Return the attributes of an object, or the variables of code."""
    return owner.attributes() if isinstance(owner, CodeVariables) else vars(owner)


def store(owner: Any, name: str, value: Any) -> None:
    """Set an attribute of an object, or a variable of code."""
    if isinstance(owner, CodeVariables):
        owner.put(name, value)
    else:
        vars(owner)[name] = value  # not by setattr: a loader refuses some of its own names


def is_of_code(path: str) -> bool:
    """Tell whether a path leads to a variable of code."""
    return f".{_ROOT}" in path


def is_variable(value: Any) -> bool:
    """Tell whether a value is of a kind that code counts with or remembers in."""
    kind = type(value)
    if kind in _SCALARS or kind is itertools.count:
        return True
    if kind in _CONTAINERS:
        return len(value) <= _LENGTH_MAX
    if kind is torch.Tensor or (kind.__module__ == "numpy" and kind.__name__ == "ndarray"):
        return bool(value.nbytes <= _BYTES_MAX)
    return False


def object_variables(value: Any) -> CodeVariables | None:
    """Return the variables of a script's own module or object with ``__slots__``; None of other objects."""
    kind = type(value)
    if not is_of_user(kind.__module__) or isinstance(value, type | types.ModuleType):
        return None
    if isinstance(value, torch.nn.Module):
        return CodeVariables(
            lambda: {name: each for name, each in vars(value).items() if name not in _OF_TORCH},
            lambda name, each: vars(value).update({name: each}),
        )
    slots = [name for each in kind.__mro__ for name in _slots_of(each)]
    if not slots or hasattr(value, "__dict__"):
        return None
    return CodeVariables(
        lambda: {name: getattr(value, name) for name in slots if hasattr(value, name)},
        functools.partial(setattr, value),
    )


def _slots_of(kind: type) -> tuple[str, ...]:
    slots = vars(kind).get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)


def variables_below(path: str, value: Any) -> Iterator[tuple[str, CodeVariables]]:
    """Yield what has variables among the code of an object, its class, or of a function, with its path."""
    yield from _CodeSearch().below(path, value)


def code_below(value: Any) -> set[int]:
    """Return the identities of the classes and functions that an object, class or function consists of."""
    search = _CodeSearch()
    for _ in search.below("", value):
        pass
    return set(search.seen)


class _CodeSearch:
    """One search. Code that refers to itself is met once."""

    def __init__(self) -> None:
        self.seen: dict[int, Any] = {}

    def below(self, path: str, value: Any) -> Iterator[tuple[str, CodeVariables]]:
        function = _function_of(value)
        if isinstance(value, functools._lru_cache_wrapper):  # noqa: SLF001 - it has no public name
            yield f"{path}.{_ROOT}cached>", CodeVariables(lambda: {"cache": value}, _refuse)
        if function is not None:
            if isinstance(value, types.MethodType):
                yield from self._named_object(f"{path}.{_ROOT}self>", value.__self__, function)
            yield from self._of_function(path, function)
        elif isinstance(value, functools.partial):
            yield from self.below(path, value.func)
            for number, each in enumerate((*value.args, *value.keywords.values())):
                if is_variable(each) and not isinstance(each, tuple(_SCALARS)):
                    yield (
                        f"{path}.{_ROOT}arguments {number}>",
                        CodeVariables(lambda each=each: {"value": each}, _refuse),  # type: ignore[misc]
                    )
        else:
            for kind in type(value).__mro__ if not isinstance(value, type) else value.__mro__:
                yield from self._of_class(path, kind)

    def _is_new(self, value: Any) -> bool:
        if id(value) in self.seen or len(self.seen) >= OWNERS_MAX:
            return False
        self.seen[id(value)] = value  # kept, or its id could pass to another
        return True

    def _of_class(self, path: str, kind: type) -> Iterator[tuple[str, CodeVariables]]:
        if not is_of_user(kind.__module__) or not self._is_new(kind):
            return
        own = f"{path}.{_ROOT}{kind.__name__}>"
        yield own, CodeVariables(lambda: dict(vars(kind)), functools.partial(setattr, kind))
        for name, each in list(vars(kind).items()):
            function = _function_of(each.fget if isinstance(each, property) else each)
            if function is not None:
                yield from self._of_function(f"{own}.{name}", function)

    def _of_function(self, path: str, function: types.FunctionType) -> Iterator[tuple[str, CodeVariables]]:
        if not is_of_user(function.__module__) or not self._is_new(function):
            return
        own = f"{path}.{_ROOT}{function.__name__.strip('<>')}>"
        yield (
            own,
            CodeVariables(
                functools.partial(_variables_of, function), functools.partial(_put_variable, function)
            ),
        )
        for name, each in _named_by(function).items():
            if isinstance(each, type) or _function_of(each) is not None or type(each) is functools.partial:
                yield from self.below(f"{own}.{name}", each)
            else:
                yield from self._named_object(f"{own}.{_ROOT}{name}>", each, function)

    def _named_object(
        self, path: str, value: Any, function: types.FunctionType
    ) -> Iterator[tuple[str, CodeVariables]]:
        """Yield an object that code names, of its attributes those that the code and its methods name."""
        kind = type(value)
        if not is_of_user(kind.__module__) or isinstance(value, torch.nn.Module | types.ModuleType):
            return
        if not isinstance(getattr(value, "__dict__", None), dict) or not self._is_new(value):
            return
        called = ["__call__", *_attribute_names(function.__code__)]
        methods = [each for name in called if (each := _function_of(getattr(kind, name, None))) is not None]
        names = {name for each in (function, *methods) for name in _attribute_names(each.__code__)}
        yield (
            path,
            CodeVariables(
                lambda: {name: each for name, each in vars(value).items() if name in names},
                lambda name, each: vars(value).update({name: each}),
            ),
        )
        for each in methods:
            yield from self._of_function(path, each)


def _function_of(value: Any) -> types.FunctionType | None:
    """Return the function that a value is, or is made of."""
    if isinstance(value, types.MethodType | staticmethod | classmethod):
        value = value.__func__
    if isinstance(value, functools._lru_cache_wrapper):  # noqa: SLF001 - it has no public name
        value = value.__wrapped__
    return value if isinstance(value, types.FunctionType) else None


def _refuse(_name: str, _value: Any) -> None:
    """Leave the arguments of a partial: only what is in them can be changed, in place."""


def _cells_of(function: types.FunctionType) -> dict[str, types.CellType]:
    return dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))


def _named_by(function: types.FunctionType) -> dict[str, Any]:
    """Return what a function names: of its closure, and of the globals of its module."""
    found = {}
    for name, cell in _cells_of(function).items():
        try:
            found[name] = cell.cell_contents
        except ValueError:
            continue  # not assigned yet
    variables = function.__globals__
    return found | {name: variables[name] for name in global_names(function.__code__) if name in variables}


def _variables_of(function: types.FunctionType) -> dict[str, Any]:
    """Return the variables of a function: what it names, its own attributes, and its mutable defaults."""
    defaults = {
        f"default {number}": each
        for number, each in enumerate(_defaults_of(function))
        if type(each) not in _SCALARS
    }
    return _named_by(function) | vars(function) | defaults


def _defaults_of(function: types.FunctionType) -> list[Any]:
    return [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]


def mutable_defaults(function: types.FunctionType) -> list[Any]:
    """Return the default arguments of a function that can be changed in place and hold data."""
    return [each for each in _defaults_of(function) if type(each) not in _SCALARS and is_variable(each)]


def _put_variable(function: types.FunctionType, name: str, value: Any) -> None:
    cells = _cells_of(function)
    if name in cells:
        cells[name].cell_contents = value
    elif name in vars(function):
        vars(function)[name] = value
    elif name in global_names(function.__code__):
        function.__globals__[name] = value


@functools.lru_cache(maxsize=1024)
def global_names(code: types.CodeType) -> tuple[str, ...]:
    """Return the global variables that code names, that of functions within it too."""
    return _names_of(code, frozenset({"LOAD_GLOBAL", "STORE_GLOBAL"}))


@functools.lru_cache(maxsize=1024)
def assigned_globals(code: types.CodeType) -> tuple[str, ...]:
    """Return the global variables that code assigns, that of functions within it too."""
    return _names_of(code, frozenset({"STORE_GLOBAL"}))


@functools.lru_cache(maxsize=1024)
def _attribute_names(code: types.CodeType) -> tuple[str, ...]:
    return _names_of(code, frozenset({"LOAD_ATTR", "STORE_ATTR", "LOAD_METHOD"}))


def _names_of(code: types.CodeType, operations: frozenset[str]) -> tuple[str, ...]:
    names = {each.argval: None for each in dis.get_instructions(code) if each.opname in operations}
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= dict.fromkeys(_names_of(constant, operations))
    return tuple(names)
