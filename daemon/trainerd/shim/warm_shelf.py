"""Modules that a standby process has imported in advance, until the script imports them.

`warm_program` loads this file by its path: it needs the standard library alone.
"""

from __future__ import annotations

import builtins
import contextlib
import copy
import importlib
import os
import sys
import warnings
from typing import Any

HELD = "TRAINERD_SIGNALS_HELD"
OF_NO_EFFECT = ("TRAINERD_", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "_TORCHINDUCTOR_PYOBJECT")
"""How variables begin that trainerd sets, or torch when it compiles."""
MISSING = object()


class ShelfError(Exception):
    """What an import does cannot be taken back; the message says why."""


class LateImport:
    """Modules that came with an import of the last attempt's after its first ones: of a library, perhaps.

    Attributes:
        modules: By name.
        replaced: Functions, classes and modules that it has set in modules that were there before: module,
            name, what was there, what is.
        filters: Filters of warnings that it has added, in the order in which to put them in front.
        changed: Variables that it has changed.
        uses: Other modules that it imports.
    """

    def __init__(self) -> None:
        self.modules: dict[str, Any] = {}
        self.replaced: list[tuple[Any, str, Any, Any]] = []
        self.filters: list[Any] = []
        self.changed: list[tuple[str, str | None]] = []
        self.uses: set[str] = set()


class Shelf:
    """Modules that are loaded and not imported yet, by package, with what else their import changes.

    That is the filters of warnings and the environment.

    The first import of a package takes it off the shelf, together with the packages that it imports itself.
    What was imported late is not taken with its package, but by an import of one of its modules.
    """

    def __init__(self) -> None:
        self._at_start = set(sys.modules)
        self._filters = list(warnings.filters)
        self._packages: dict[str, dict[str, Any]] = {}
        self._imports: dict[str, set[str]] = {}
        self._added: list[tuple[str, Any]] = []
        self._changed: list[tuple[str, str, str | None]] = []
        self._before: dict[str, str | None] = {}
        self._late: list[LateImport] = []
        self._late_by_name: dict[str, LateImport] = {}
        self._being_late: LateImport | None = None
        self._contents: dict[str, dict[str, Any]] = {}
        self._environment: dict[str, str] = {}
        self._has_warned = False

    @contextlib.contextmanager
    def noting(self) -> Any:
        """Note which package imports which, while the context lasts."""
        own = builtins.__import__

        def noted(
            name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0
        ) -> Any:
            if self._being_late is not None:
                self._being_late.uses.add(name)
            else:
                importer = (globals or {}).get("__name__") or ""
                self._imports.setdefault(importer.partition(".")[0], set()).add(name.partition(".")[0])
            return own(name, globals, locals, fromlist, level)

        builtins.__import__ = noted
        try:
            yield
        finally:
            builtins.__import__ = own

    @contextlib.contextmanager
    def taking(self, name: str, *, is_late: bool) -> Any:
        """Take what is changed meanwhile as changed by the import of `name`."""
        before, known, environment = list(warnings.filters), set(sys.modules), dict(os.environ)
        top = name.partition(".")[0]
        late = self._being_late = LateImport() if is_late else None
        if is_late and not self._contents:
            self._contents = contents()
        try:
            yield
        finally:
            self._being_late = None
        filters = list(reversed(added(before, list(warnings.filters))))
        new = [each for each in sys.modules if each not in known]
        now = dict(os.environ)
        changed = [
            (variable, now.get(variable))
            for variable in {*environment, *now}
            if environment.get(variable) != now.get(variable)
        ]
        for variable, _ in changed:
            self._before.setdefault(variable, environment.get(variable))
        if late is not None:
            late.filters, late.changed = filters, changed
            late.modules = {each: sys.modules[each] for each in new if not is_standard(each)}
            self._note_replaced(late)
            self._late.append(late)
            return
        self._added += [(top, each) for each in filters]
        self._changed += [(top, variable, value) for variable, value in changed]
        self._imports.setdefault(top, set()).update(each.partition(".")[0] for each in new)

    def _note_replaced(self, late: LateImport) -> None:
        before, self._contents = self._contents, contents()
        for name, was in before.items():
            now = self._contents.get(name, was)
            for attribute in {*was, *now}:
                old, new = was.get(attribute, MISSING), now.get(attribute, MISSING)
                if old is not new and name in sys.modules:
                    late.replaced.append((sys.modules[name], attribute, old, new))

    @property
    def variables(self) -> set[str]:
        """Variables of the environment that importing changes."""
        return set(self._before)

    @property
    def before(self) -> dict[str, str | None]:
        """What was there of these variables; None is nothing."""
        return self._before

    def names(self) -> list[str]:
        """Return the names of all modules that were imported."""
        return [name for name in sys.modules if name not in self._at_start]

    def modules(self) -> list[Any]:
        """Return these modules."""
        return [sys.modules[name] for name in self.names()]

    def early_tops(self) -> set[str]:
        """Return the packages that were not imported late."""
        late = {name for each in self._late for name in each.modules}
        return {name.partition(".")[0] for name in self.names() if name not in late and not is_standard(name)}

    def close(self) -> None:
        """Leave in `sys.modules` and in the filters what is there when a process starts."""
        for late in reversed(self._late):
            for module, attribute, old, new in late.replaced:
                replace(module, attribute, new, old)
            for name in late.modules:
                sys.modules.pop(name, None)
                self._late_by_name[name] = late
        for name in self.names():
            if not is_standard(name):
                self._packages.setdefault(name.partition(".")[0], {})[name] = sys.modules.pop(name)
        set_filters(self._filters)
        for variable, value in self._before.items():
            set_variable(variable, value)
        self._environment = dict(os.environ)
        sys.meta_path.insert(0, self)

    def find_spec(self, name: str, path: object = None, target: object = None) -> Any:
        """Return how to import what is on the shelf: by taking it off."""
        late = self._late_by_name.get(name)
        # A package that was there at the start may have modules on the shelf.
        modules = late.modules if late is not None else self._packages.get(name.partition(".")[0])
        if modules is None or name not in modules:
            return None
        spec = copy.copy(modules[name].__spec__)
        spec.loader = self
        return spec

    def create_module(self, spec: Any) -> None:
        """Leave it to the importer: that module is thrown away."""

    def exec_module(self, placeholder: Any) -> None:
        """Put the module and what it imports into `sys.modules`."""
        name = placeholder.__name__
        del sys.modules[name]
        late = self._late_by_name.get(name)
        if late is not None:
            self._take_late(late)
        else:
            self._warn_of_changes(name)
            self._take(self.needed_by(name.partition(".")[0]))
        if not self._packages and not self._late_by_name and self in sys.meta_path:
            sys.meta_path.remove(self)

    def _take(self, taken: set[str]) -> None:
        for each in [each for each in self._packages if each in taken]:
            for module_name, module in self._packages.pop(each).items():
                sys.modules.setdefault(module_name, module)
        put_in_front([each for top, each in self._added if top in taken])
        self._added = [entry for entry in self._added if entry[0] not in taken]
        self._change([entry[1:] for entry in self._changed if entry[0] in taken])
        self._changed = [entry for entry in self._changed if entry[0] not in taken]
        if "trainerd" in taken and HELD in os.environ:  # what importing it does, it does now
            importlib.reload(sys.modules["trainerd"])

    def _take_late(self, late: LateImport) -> None:
        self._warn_of_changes(next(iter(late.modules)))
        for name, module in late.modules.items():
            self._late_by_name.pop(name, None)
            sys.modules.setdefault(name, module)
        for module, attribute, old, new in late.replaced:
            replace(module, attribute, old, new)
        self._take({each for use in late.uses for each in self.needed_by(use.partition(".")[0])})
        for other in [self._late_by_name.get(use) for use in late.uses]:
            if other is not None and other is not late:
                self._take_late(other)
        put_in_front(late.filters)
        self._change(late.changed)

    def _change(self, changed: list[tuple[str, str | None]]) -> None:
        for variable, value in changed:
            set_variable(variable, value)
            if value is None:
                self._environment.pop(variable, None)
            else:
                self._environment[variable] = value

    def _warn_of_changes(self, name: str) -> None:
        """Say that the program has changed its environment before an import that was made in advance.

        It had not in the last attempt, and its own code does not: a library that it did not call then has.
        """
        if self._has_warned:
            return
        now, was = dict(os.environ), self._environment
        names = [each for each in {*now, *was} if not each.startswith(OF_NO_EFFECT)]
        if changed := sorted(each for each in names if now.get(each) != was.get(each)):
            self._has_warned = True
            sys.stderr.write(
                f"trainerd: {name} was imported in advance, and the program has changed {changed[0]} since: "
                "this attempt may differ from a cold start; those after it start cold\n"
            )

    def needed_by(self, name: str) -> set[str]:
        """Return the packages that a package imports, and the package."""
        found, new = set(), {name}
        while new:
            found |= new
            new = {each for package in new for each in self._imports.get(package, ())} - found
            new -= sys.stdlib_module_names
        return found


def contents() -> dict[str, dict[str, Any]]:
    """Return the functions, classes and modules that each module holds by name."""
    return {
        name: {key: value for key, value in vars(module).items() if callable(value) or is_module(value)}
        for name, module in list(sys.modules.items())
        if is_module(module) and name != "__main__"
    }


def is_module(value: object) -> bool:
    return issubclass(type(value), type(sys))  # `isinstance` would ask the object, which may answer at length


def replace(module: Any, attribute: str, old: Any, new: Any) -> None:
    """Put `new` in the place of `old` in a module, unless something else is there."""
    found = vars(module)
    if found.get(attribute, MISSING) is not old:
        return
    if new is MISSING:
        del found[attribute]
    else:
        found[attribute] = new


def is_standard(name: str) -> bool:
    return name.partition(".")[0] in sys.stdlib_module_names


def put_in_front(filters: list[Any]) -> None:
    for each in filters:
        set_filters([each, *[other for other in warnings.filters if other != each]])


def added(before: list[Any], after: list[Any]) -> list[Any]:
    """Return the filters that were put in front.

    Raises:
        ShelfError: They were changed in another way.
    """
    for count in range(len(after) + 1):
        if after[count:] == [each for each in before if each not in after[:count]]:
            return after[:count]
    raise ShelfError("importing its modules changes the filters of warnings")


def set_variable(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


def set_filters(filters: list[Any]) -> None:
    warnings.filters[:] = filters  # type: ignore[index] # it is a list
    warnings._filters_mutated()  # type: ignore[attr-defined] # as `simplefilter` does
