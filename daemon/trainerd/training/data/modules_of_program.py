"""Variables that functions of the program's other files change in training, and that are in no checkpoint.

A ``global`` count, a list or a tensor of a module, a generator that goes on, attributes of a class or a
function, a mutable default. What the script itself does with its variables is found in its source. Variables
of the code that loads data are saved with its loop.
"""

from __future__ import annotations

import contextlib
import itertools
import linecache
import re
import sys
import types
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from torch.utils.data import DataLoader, Dataset, Sampler

from trainerd.analysis.module_state import deciding_variables
from trainerd.analysis.source_text import decoded
from trainerd.contract.verdict import Reason
from trainerd.training.data.attribute_marks import mark_of
from trainerd.training.data.code_variables import (
    assigned_globals,
    code_below,
    global_names,
    is_variable,
    mutable_defaults,
)
from trainerd.training.data.found_generators import is_of_user
from trainerd.training.data.objects_beside import is_data
from trainerd.training.state.caller_names import Known, place_of_code, user_frames
from trainerd.training.state.class_reads import reads_own
from trainerd.training.state.in_place import changeable_in
from trainerd.training.state.live_objects import live_instances

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from trainerd.training.state.caller_names import CallerNames

_MODULES_MAX: Final = 200
_FUNCTIONS_MAX: Final = 2000
_VARIABLES_MAX: Final = 2000
_SOURCE_BYTES_MAX: Final = 1 << 18
_REMEMBERS: Final = re.compile(r"cache|memo", re.IGNORECASE)
"""Variables with such names hold what was computed once, and would be the same if it were computed again."""


@dataclass(frozen=True, eq=False)
class _ModuleVariable:
    """A variable, and what it held before the first step.

    Attributes:
        owner: The module, class or function.
        name: Its name there; the number of a default argument, None for all attributes of a function.
        expression: What it is called.
        module: Name of the module.
        mark: What it held.
    """

    owner: Any
    name: str | int | None
    expression: str
    module: str
    mark: str

    @property
    def where(self) -> str:
        """File and line where the function is, or where the variable is assigned."""
        if isinstance(self.owner, types.FunctionType):
            return place_of_code(self.owner.__code__)
        file = getattr(sys.modules.get(self.module), "__file__", None) or self.module
        prefix = self.expression.removesuffix(str(self.name))
        return Known(self.expression, None, file, len(linecache.getlines(file)) or 1, prefix).where

    def value(self) -> Any:
        if self.name is None:
            return _attributes_of(self.owner)
        if isinstance(self.name, int):
            defaults = mutable_defaults(self.owner)
            return defaults[self.name] if self.name < len(defaults) else None
        return vars(self.owner).get(self.name)

    def is_of(self, code: set[int]) -> bool:
        """Tell whether functions or classes with these identities have it."""
        if not isinstance(self.owner, types.ModuleType):
            return id(self.owner) in code
        functions = [each for each in _functions_of(self.owner) if id(each) in code]
        return any(self.name in global_names(each.__code__) for each in functions)

    def decides(self) -> bool:
        """Tell whether it is read for more than output, as far as the source shows."""
        if isinstance(self.owner, types.ModuleType):
            return self.name in _deciding_in(self.owner)
        return not isinstance(self.owner, type) or reads_own(self.owner, str(self.name))


class ModulesOfProgram:
    """Watches the variables of the program's modules, other than the script.

    Args:
        modules: What `modules_of_program` returned, before the first step.
        session: What the script calls its session.
    """

    def __init__(self, modules: Sequence[types.ModuleType], session: str) -> None:
        self._session = session
        self._watched: list[_ModuleVariable] = []
        for module in modules:
            for variable in _variables_of(module):
                if len(self._watched) >= _VARIABLES_MAX:
                    return
                self._watched.append(variable)

    def reasons(self, is_kept: Callable[[Any], bool], sources: Iterable[Any]) -> Iterator[tuple[str, Reason]]:
        """Yield each variable that has changed since the first step began, once: its name, and the reason.

        Args:
            is_kept: Tells whether a checkpoint holds an object.
            sources: What the training loops draw from.
        """
        changed = [each for each in self._watched if _mark(each.value()) != each.mark]
        if not changed:
            return
        self._watched = [each for each in self._watched if each not in changed]
        of_loading = _code_of_loading(sources)
        for each in changed:
            value = each.value()
            if _is_state(value) and each.decides() and not (is_kept(value) or each.is_of(of_loading)):
                yield each.expression, self._reason(each)

    def _reason(self, variable: _ModuleVariable) -> Reason:
        hint = (
            f"keep it in a {self._session}.value(…) that its functions are given, or in an object with "
            "state_dict() and load_state_dict() that is tracked"
        )
        if (
            isinstance(variable.owner, types.ModuleType)
            and next(changeable_in(variable.value()), None) is not None
        ):
            name = variable.expression
            hint = f'before the loop: {name} = {self._session}.value("{variable.name}", {name}).value'
        return Reason(
            "untracked-variable",
            variable.where,
            f"training changes {variable.expression}, and it is in no checkpoint: a resume begins with the "
            "value that the program gives it",
            hint,
        )


def modules_of_program(names: CallerNames) -> list[types.ModuleType]:
    """Return the files of the program whose code is being run or is led to, other than the script."""
    found: dict[int, types.ModuleType] = {}
    level = [_module_of(known.value) for known in names]
    frames = user_frames(sys._getframe(1))  # noqa: SLF001 - the documented way to it
    level += [sys.modules.get(each.f_globals.get("__name__", "")) for each in frames]
    while level and len(found) < _MODULES_MAX:
        new = {id(each): each for each in level if each is not None and id(each) not in found}
        own = [each for each in new.values() if is_of_user(each.__name__)]
        found |= {id(each): each for each in own}
        level = [_module_of(value) for each in own for value in list(vars(each).values())]
    return [each for each in found.values() if _is_watched(each)]


def _module_of(value: Any) -> types.ModuleType | None:
    """Return the module that a value is, or that it or its class is defined in."""
    if isinstance(value, types.ModuleType):
        return value
    has_own = isinstance(value, type | types.FunctionType)
    return sys.modules.get(value.__module__ if has_own else type(value).__module__)


def _is_watched(module: types.ModuleType) -> bool:
    """Tell whether a module is a file of the program, other than the script."""
    name, file = module.__name__, getattr(module, "__file__", None)
    if not isinstance(file, str):
        return False
    is_main = name in {"__main__", "__mp_main__"} or file == getattr(
        sys.modules["__main__"], "__file__", None
    )
    return file.endswith(".py") and not is_main and is_of_user(name)


def _code_of_loading(sources: Iterable[Any]) -> set[int]:
    """Return the identities of the functions and classes that loading consists of."""
    found: set[int] = set()
    roots = live_instances(lambda kind: issubclass(kind, Dataset | Sampler | DataLoader))
    for each in (*roots, *sources):
        found |= code_below(each)
        for part in list(getattr(each, "__dict__", {}).values()):
            found |= code_below(part)
    return found


def _variables_of(module: types.ModuleType) -> Iterator[_ModuleVariable]:
    name, variables = module.__name__, vars(module)
    used: dict[str, None] = {}
    for function in _functions_of(module):
        used |= {each: None for each in global_names(function.__code__) if each in variables}
        used |= dict.fromkeys(assigned_globals(function.__code__))
        title = f"{name}.{function.__qualname__}"
        attributes = _mark(_attributes_of(function))
        yield _ModuleVariable(function, None, f"attributes of {title}", name, attributes)
        for number, each in enumerate(mutable_defaults(function)):
            yield _ModuleVariable(function, number, f"a default argument of {title}", name, _mark(each))
    yield from _watched(module, {each: variables.get(each) for each in used}, name, name)
    for kind in _classes_of(module):
        yield from _watched(kind, dict(vars(kind)), name, f"{name}.{kind.__qualname__}")


def _classes_of(module: types.ModuleType) -> list[type]:
    values = list(vars(module).values())
    return [each for each in values if isinstance(each, type) and each.__module__ == module.__name__]


def _functions_of(module: types.ModuleType) -> list[types.FunctionType]:
    """Return the functions that a module defines, and the methods of its classes."""
    values = [
        each for each in list(vars(module).values()) if getattr(each, "__module__", None) == module.__name__
    ]
    values += [each for kind in _classes_of(module) for each in list(vars(kind).values())]
    return [each for each in values if isinstance(each, types.FunctionType)][:_FUNCTIONS_MAX]


def _watched(owner: Any, variables: dict[str, Any], module: str, title: str) -> Iterator[_ModuleVariable]:
    for name, value in variables.items():
        if not name.startswith("__") and not _REMEMBERS.search(name) and _is_state(value):
            yield _ModuleVariable(owner, name, f"{title}.{name}", module, _mark(value))


def _attributes_of(function: types.FunctionType) -> dict[str, Any]:
    return {name: each for name, each in vars(function).items() if is_variable(each)}


def _is_state(value: Any) -> bool:
    is_iterator = isinstance(value, types.GeneratorType) or type(value) is itertools.count
    return is_iterator or is_data(value)


def _mark(value: Any) -> str:
    if isinstance(value, types.GeneratorType):
        frame = value.gi_frame
        variables = {} if frame is None else {n: v for n, v in frame.f_locals.items() if is_variable(v)}
        return f"{None if frame is None else frame.f_lasti} {mark_of(variables)}"
    return mark_of(value)


def _deciding_in(module: types.ModuleType) -> frozenset[str]:
    """Return the variables of a module that decide something; all of them if its source does not tell."""
    with contextlib.suppress(Exception):  # it must not keep a script from training
        path = Path(str(module.__file__))
        if path.stat().st_size <= _SOURCE_BYTES_MAX:
            return deciding_variables(decoded(path.read_bytes()))
    return frozenset(vars(module))
