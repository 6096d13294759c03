"""Errors of `trainerd.errors` that the public callables can raise, found in the source.

Counted are the `raise` statements in the body of a callable, and those in the bodies and the docstrings of
the functions that it calls directly.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import NamedTuple

from tests.support.source_calls import (
    PACKAGE,
    Function,
    Place,
    bases,
    called_by,
    definition,
    imports_of,
    method,
    tree_of,
)
from trainerd import errors

ERRORS = {name: getattr(errors, name) for name in errors.__all__}
RAISES = re.compile(r"^Raises:\n((?:(?: {4,}.*)?(?:\n|\Z))*)", re.MULTILINE)


class PublicCallable(NamedTuple):
    """A function or method that users call.

    Attributes:
        name: As users write it, such as ``Session.track`` or ``ignite.attach``.
        place: Where it is defined.
        docstring: Its docstring; of a method that users do not call by name, that of its class.
        class_docstring: The docstring of its class, empty for functions.
    """

    name: str
    place: Place
    docstring: str
    class_docstring: str


def is_named(error: str, names: set[str]) -> bool:
    """Tell whether an error, or a class between it and the root of the tree, is among some names."""
    return any(each.__name__ in names for each in ERRORS[error].__mro__ if each is not errors.TrainerdError)


def documented(docstring: str) -> set[str]:
    """Return the errors that the `Raises` section of a docstring names."""
    found = RAISES.search(docstring)
    return set(re.findall(r"^ {4}(\w+):", found[1], re.MULTILINE)) if found is not None else set()


def _handled(node: ast.Try) -> set[str]:
    """Return what a try statement catches and does not raise again as it is."""
    return {
        name
        for handler in node.handlers
        if not any(isinstance(each, ast.Raise) and each.exc is None for each in ast.walk(handler))
        for name in re.findall(r"\w+", ast.unparse(handler.type) if handler.type else "TrainerdError")
    }


def _walk(node: ast.AST, caught: frozenset[str] = frozenset()) -> Iterator[tuple[ast.AST, frozenset[str]]]:
    """Yield what a function executes, each node with the errors that are caught around it."""
    for field, value in ast.iter_fields(node):
        around = caught
        if isinstance(node, ast.Try) and field == "body":
            around = caught | _handled(node)
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not isinstance(child, (Function, ast.ClassDef, ast.Lambda)):
                yield child, around
                yield from _walk(child, around)


def _is_caught(error: str, caught: frozenset[str]) -> bool:
    return any(each.__name__ in caught for each in ERRORS[error].__mro__)


def raised_in(place: Place) -> set[str]:
    """Return the errors that a function raises in its own body."""
    found = set()
    for node, caught in _walk(place.node):
        if isinstance(node, ast.Raise) and node.exc is not None:
            exc = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            name = exc.id if isinstance(exc, ast.Name) else ""
            if name in ERRORS and not _is_caught(name, caught):
                found.add(name)
    return found


def raised_by_helpers(place: Place, seen: tuple[ast.AST, ...] = ()) -> dict[str, str]:
    """Return the errors of the functions that a function calls, each with the name of one of them.

    Private functions of the same module count as parts of the function: what they call is followed too.
    """
    found: dict[str, str] = {}
    for node, caught in _walk(place.node):
        helper = called_by(node.func, place) if isinstance(node, ast.Call) else None
        if helper is not None and isinstance(helper.node, ast.ClassDef):
            helper = method(helper, "__init__")
        if helper is None or helper.node in (place.node, *seen):
            continue
        names = raised_in(helper) | documented(ast.get_docstring(helper.node) or "")
        errors_of_helper = dict.fromkeys(names & ERRORS.keys(), helper.node.name)
        if helper.module == place.module and helper.node.name.startswith("_"):
            errors_of_helper |= raised_by_helpers(helper, (*seen, place.node))
        found |= {name: by for name, by in errors_of_helper.items() if not _is_caught(name, caught)}
    return found


def public_callables() -> Iterator[PublicCallable]:
    """Yield the functions and methods that `docs/api.md` shows, and those of the integrations."""
    page = (PACKAGE.parents[1] / "docs" / "api.md").read_text("utf-8")
    names = [
        (name, module, name)
        for module, name in re.findall(r"^::: (trainerd\.[\w.]+)\.(\w+)$", page, re.MULTILINE)
        if tree_of(module) is not None and not module.startswith("trainerd.training.integrations.")
    ]
    for path in sorted((PACKAGE / "integrations").glob("[!_]*.py")):
        for name, (module, inner) in imports_of(f"trainerd.integrations.{path.stem}").items():
            names.append((f"{path.stem}.{name}", module, inner))
    for shown, module, name in names:
        place = definition(module, name)
        assert place is not None, f"{shown} is not defined in {module}"
        yield from _callables_of(shown, place)


def _callables_of(shown: str, place: Place) -> Iterator[PublicCallable]:
    docstring = ast.get_docstring(place.node) or ""
    if not isinstance(place.node, ast.ClassDef):
        yield PublicCallable(shown, place, docstring, "")
        return
    seen: set[str] = set()
    for base in bases(place):
        assert isinstance(base.node, ast.ClassDef)
        for node in (each for each in base.node.body if isinstance(each, Function)):
            is_special = node.name.startswith("__")
            if node.name in seen or (node.name.startswith("_") and not is_special):
                continue
            seen.add(node.name)
            own = docstring if is_special else ast.get_docstring(node) or ""
            yield PublicCallable(f"{shown}.{node.name}", Place(base.module, base.node, node), own, docstring)
