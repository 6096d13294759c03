"""A class name and a file name each lead to one place."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import trainerd

PACKAGE = Path(trainerd.__file__).parent
OF_EVERY_PACKAGE = {"__init__.py", "__main__.py"}


def repeated(places: dict[str, list[str]]) -> dict[str, list[str]]:
    return {name: found for name, found in sorted(places.items()) if len(found) > 1}


def test_no_class_name_occurs_twice():
    """Private ones included: a traceback and a search show them without their module."""
    places = defaultdict(list)
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(f"{path.relative_to(PACKAGE)}:{node.lineno}")
    assert repeated(places) == {}


def test_no_file_name_occurs_twice():
    places = defaultdict(list)
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.name not in OF_EVERY_PACKAGE:
            places[path.name].append(str(path.relative_to(PACKAGE)))
    assert repeated(places) == {}
