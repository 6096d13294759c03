"""The mark of a value depends on the value, and not on where in memory it is looked at."""

import functools

import pytest
import torch  # noqa: F401 - what is marked may hold tensors

from trainerd.training.data.attribute_marks import mark_of

pytestmark = pytest.mark.torch


def functions():
    """Return functions, partials and methods, each with parts that are made when they are looked at."""

    def made(number):
        def function(x, scale=(number, [number])):
            return x * scale[0] + number

        return function

    found = [made(number) for number in range(40)]
    return found + [functools.partial(each, number) for number, each in enumerate(found)]


def test_a_value_whose_structure_is_marked_has_one_mark():
    value = {each: number for number, each in enumerate(functions())}
    held, marks = [], set()
    for number in range(30):
        marks.add(mark_of(value))
        held.append([[number] for _ in range(number)])  # other lists, where those of the last look were
        del held[:: 2 + number % 3]
    assert len(marks) == 1
