"""The reference of the training API is made from docstrings: each names every argument that it takes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import trainerd

pytestmark = pytest.mark.torch


def public_callables() -> Iterator[tuple[str, Callable[..., Any]]]:
    for name in trainerd.__all__:
        thing = getattr(trainerd, name)
        if inspect.isclass(thing):
            for part, member in vars(thing).items():
                if not part.startswith("_") and isinstance(member, (staticmethod, classmethod)):
                    yield f"{name}.{part}", member.__func__
                elif not part.startswith("_") and inspect.isfunction(member):
                    yield f"{name}.{part}", member
        elif callable(thing):
            yield name, thing


CALLABLES = dict(public_callables())


def test_there_are_callables():
    assert {"session", "Session.batches", "Checkpointer.resume"} <= set(CALLABLES)


@pytest.mark.parametrize("name", CALLABLES)
def test_a_docstring_names_every_argument(name):
    docstring = inspect.getdoc(CALLABLES[name]) or ""
    parameters = set(inspect.signature(CALLABLES[name]).parameters) - {"self", "cls"}
    assert docstring, "it has none"
    assert {each for each in parameters if each not in docstring} == set()
