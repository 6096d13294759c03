"""The global generators' memory: copied out and in, it leaves them as the public functions would."""

import random

import numpy as np
import pytest

from trainerd.training.state import generator_memory
from trainerd.training.state.generator_memory import (
    NumpyCalls,
    NumpyMemory,
    PythonCalls,
    PythonMemory,
    numpy_state,
    python_state,
)


def drawn():
    return [random.random(), random.gauss(0, 1), np.random.rand(), np.random.normal()]


@pytest.fixture(autouse=True)
def seeded():
    random.seed(1)
    np.random.seed(1)
    random.gauss(0, 1)  # both keep the second of two normal deviates
    np.random.normal()


def test_the_memory_is_found_in_the_versions_that_we_are_tested_with():
    assert isinstance(python_state(), PythonMemory)
    assert isinstance(numpy_state(), NumpyMemory)


@pytest.mark.parametrize(
    ("python", "numpy"),
    [(python_state(), numpy_state()), (PythonCalls(), NumpyCalls())],
    ids=["memory", "calls"],
)
@pytest.mark.parametrize("is_kept", [True, False], ids=["with a kept deviate", "without"])
def test_what_was_saved_is_put_back(python, numpy, is_kept):
    if not is_kept:
        random.gauss(0, 1)
        np.random.normal()
    states = python.saved(), numpy.saved()
    public = random.getstate(), repr(np.random.get_state(legacy=False))
    expected = drawn()
    drawn()
    random.seed(5)
    np.random.seed(5)
    python.put_back(states[0])
    numpy.put_back(states[1])
    assert (random.getstate(), repr(np.random.get_state(legacy=False))) == public
    assert drawn() == expected


def test_another_bit_generator_is_handled_by_the_public_functions(monkeypatch):
    monkeypatch.setattr(generator_memory.NumpyMemory, "is_current", lambda self: False)
    assert isinstance(numpy_state(), NumpyCalls)


def test_where_the_memory_looks_otherwise_the_public_functions_are_used(monkeypatch):
    monkeypatch.setattr(generator_memory, "_only_place", lambda *_: None)
    assert generator_memory._python_offset() is None
    assert generator_memory._numpy_offset() is None
    monkeypatch.setattr(generator_memory, "_only_place", lambda *_: 64)  # some other place: the proof fails
    assert generator_memory._numpy_offset() is None


def test_where_python_or_numpy_hides_its_generator_the_public_functions_are_used(monkeypatch):
    monkeypatch.delattr(random, "_inst")
    monkeypatch.delattr(np.random.mtrand, "_rand")
    assert isinstance(generator_memory.python_state.__wrapped__(), PythonCalls)
    assert isinstance(generator_memory._numpy_state.__wrapped__(), NumpyCalls)
