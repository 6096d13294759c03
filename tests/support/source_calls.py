"""Definitions of the package, and what a call in it calls, found in the source, without importing it.

A call is followed if the source says which function of the package it is: by an import, by the class of
`self`, by an annotation, or by the class from which an attribute was made.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import trainerd

PACKAGE = Path(trainerd.__file__).parent
Function = ast.FunctionDef | ast.AsyncFunctionDef


class Place(NamedTuple):
    """A definition in the package: a function, a method or a class.

    Attributes:
        module: Dotted name of the module that has it.
        owner: The class whose method it is, None for others.
        node: Its syntax tree.
    """

    module: str
    owner: ast.ClassDef | None
    node: Function | ast.ClassDef


@cache
def tree_of(module: str) -> ast.Module | None:
    """Return the syntax tree of a module of the package, None if there is no such module."""
    path = PACKAGE.parent / Path(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return ast.parse(candidate.read_text("utf-8"))
    return None


@cache
def imports_of(module: str) -> dict[str, tuple[str, str]]:
    """Return, for each name that a module imports from the package, the module and the name there."""
    tree = tree_of(module)
    return {
        alias.asname or alias.name: (node.module, alias.name)
        for node in (ast.walk(tree) if tree is not None else ())
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("trainerd")
        for alias in node.names
    }


def definition(module: str, name: str) -> Place | None:
    """Return what a name stands for in a module, if it is a function or a class of the package."""
    tree = tree_of(module)
    for node in tree.body if tree is not None else ():
        if isinstance(node, (Function, ast.ClassDef)) and node.name == name:
            return Place(module, None, node)
    found = imports_of(module).get(name)
    return definition(*found) if found is not None and found != (module, name) else None


def bases(place: Place) -> Iterator[Place]:
    """Yield a class and the classes of the package from which it inherits."""
    yield place
    for base in place.node.bases if isinstance(place.node, ast.ClassDef) else ():
        found = definition(place.module, ast.unparse(base).partition("[")[0])
        if found is not None:
            yield from bases(found)


def method(place: Place, name: str) -> Place | None:
    """Return a method of a class."""
    for base in bases(place):
        for node in base.node.body:
            if isinstance(node, Function) and node.name == name:
                assert isinstance(base.node, ast.ClassDef)
                return Place(base.module, base.node, node)
    return None


def _annotated(module: str, annotation: ast.expr | None) -> Place | None:
    """Return the class that an annotation names, also as ``X | None``."""
    if annotation is None:
        return None
    text = annotation.value if isinstance(annotation, ast.Constant) else ast.unparse(annotation)
    for part in str(text).split("|"):
        found = definition(module, part.strip().partition("[")[0])
        if found is not None and isinstance(found.node, ast.ClassDef):
            return found
    return None


def _attribute(place: Place, name: str) -> Place | None:
    """Return the class of an attribute of the instances of a class."""
    for base in bases(place):
        owner = base.node
        assert isinstance(owner, ast.ClassDef)
        for node in ast.walk(owner):
            if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) in (name, f"self.{name}"):
                return _annotated(base.module, node.annotation)
            if isinstance(node, Function) and node.name == name and node.decorator_list:
                return _annotated(base.module, node.returns)
        for function in (each for each in owner.body if isinstance(each, Function)):
            for node in ast.walk(function):
                targets = node.targets if isinstance(node, ast.Assign) else ()
                if f"self.{name}" in map(ast.unparse, targets):
                    assert isinstance(node, ast.Assign)
                    return _class_of(node.value, Place(base.module, owner, function))
    return None


def _class_of(value: ast.expr, within: Place) -> Place | None:
    """Return the class of an expression in a function."""
    match value:
        case ast.Name(id="self" | "cls") if within.owner is not None:
            return Place(within.module, None, within.owner)
        case ast.Name(id=name) if isinstance(within.node, Function):
            arguments = within.node.args
            for argument in (*arguments.args, *arguments.kwonlyargs):
                if argument.arg == name:
                    return _annotated(within.module, argument.annotation)
            for node in ast.walk(within.node):
                if isinstance(node, ast.Assign) and [name] == list(map(ast.unparse, node.targets)):
                    return None if _names(node.value, name) else _class_of(node.value, within)
            found = definition(within.module, name)
            return found if found is not None and isinstance(found.node, ast.ClassDef) else None
        case ast.Attribute(value=inner, attr=name):
            owner = _class_of(inner, within)
            return _attribute(owner, name) if owner is not None else None
        case ast.Call(func=called):
            found = called_by(called, within)
            if found is None:
                return None
            if isinstance(found.node, ast.ClassDef):
                return found
            if ast.unparse(found.node.returns or ast.Constant(None)) == "Self" and found.owner is not None:
                return Place(found.module, None, found.owner)
            return _annotated(found.module, found.node.returns)
    return None


def _names(value: ast.expr, name: str) -> bool:
    return any(isinstance(node, ast.Name) and node.id == name for node in ast.walk(value))


def _module(name: str, within: Place) -> str:
    """Return the module of the package for which a name stands, empty if it stands for something else."""
    found = ".".join(imports_of(within.module).get(name, ()))
    return found if found and tree_of(found) is not None else ""


def called_by(called: ast.expr, within: Place) -> Place | None:
    """Return the function or class that is called."""
    match called:
        case ast.Name(id=name):
            return definition(within.module, name)
        case ast.Attribute(value=ast.Name(id=owner_name), attr=name) if module := _module(owner_name, within):
            return definition(module, name)
        case ast.Attribute(value=inner, attr=name):
            owner = _class_of(inner, within)
            return method(owner, name) if owner is not None else None
    return None
