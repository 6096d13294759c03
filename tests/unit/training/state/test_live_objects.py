"""Live objects are found without a reference to what other threads are making."""

from __future__ import annotations

import ast
import gc
import sys
import threading
from pathlib import Path

import pytest

import trainerd
from trainerd.training.state import live_objects
from trainerd.training.state.live_objects import hide_imported, instances_of, live_instances


class Wanted:
    pass


class Special(Wanted):
    pass


class Proxy:
    """Raises when its `__class__` is read, as `isinstance` does."""

    @property
    def __class__(self):
        raise RuntimeError("asked")


def is_wanted(kind):
    return issubclass(kind, Wanted)


def test_the_instances_of_a_class_and_of_its_subclasses_are_found():
    kept = [Wanted(), Special(), Proxy()]
    assert {id(each) for each in live_instances(is_wanted)} == set(map(id, kept[:2]))
    del kept
    gc.collect()
    assert live_instances(is_wanted) == []


@pytest.fixture
def shown_again():
    """Show again what a test hides: this process goes on with other tests."""
    yield
    live_objects._hidden.clear()
    gc.unfreeze()


@pytest.mark.usefixtures("shown_again")
def test_hidden_objects_are_passed_over_unless_one_of_them_is_wanted():
    hidden = [Wanted(), {"a": Wanted()}]
    hide_imported()
    count = gc.get_freeze_count()
    later = [Special()]
    assert count > len(gc.get_objects()), "looks pass over what was imported"

    assert live_instances(lambda kind: kind is Special) == later
    # Some of it may be freed meanwhile; what is shown again is all of it.
    assert gc.get_freeze_count() > count / 2, "nothing hidden was wanted: it stays hidden"

    found = live_instances(is_wanted)
    assert {id(each) for each in found} == {id(hidden[0]), id(hidden[1]["a"]), id(later[0])}
    assert gc.get_freeze_count() == 0


@pytest.mark.usefixtures("shown_again")
@pytest.mark.parametrize("is_hidden", [False, True])
def test_the_instances_of_one_type_are_found_wherever_they_are(is_hidden):
    kept = [Wanted(), Special()]
    if is_hidden:
        hide_imported()
    kept.append(Wanted())
    assert {id(each) for each in instances_of(Wanted)} == {id(kept[0]), id(kept[2])}


@pytest.mark.usefixtures("shown_again")
def test_what_is_garbage_is_freed_before_the_rest_is_hidden():
    cycle = [Wanted()]
    cycle.append(cycle)
    del cycle
    hide_imported()
    assert live_instances(is_wanted) == []


def test_nothing_else_is_referred_to():
    other, wanted = ([],), Wanted()
    assert gc.is_tracked(other)
    before = sys.getrefcount(other)
    found = live_instances(is_wanted)
    assert found == [wanted]
    assert sys.getrefcount(other) == before


def test_a_tuple_that_another_thread_is_making_is_not_disturbed():
    is_over, failures = threading.Event(), []

    def make_tuples():
        while not is_over.is_set():
            try:
                tuple(number for number in range(100))
            except SystemError as error:
                failures.append(error)

    interval = sys.getswitchinterval()
    gc.callbacks.append(lambda *_: None)  # as some libraries have: Python code within a collection
    sys.setswitchinterval(1e-5)
    thread = threading.Thread(target=make_tuples)
    thread.start()
    try:
        for _ in range(10):
            live_instances(is_wanted)
    finally:
        is_over.set()
        thread.join()
        gc.callbacks.pop()
        sys.setswitchinterval(interval)
    assert failures == []


@pytest.mark.parametrize("package", ["checkpoint", "contract", "training"])
def test_what_runs_beside_a_training_script_makes_no_tuple_from_an_iterator(package):
    """A script may go through gc.get_objects() at any moment, which breaks such a tuple in another thread."""
    lazy = {"map", "filter", "zip", "reversed", "enumerate", "chain"}
    found = []
    for file in sorted((Path(trainerd.__file__).parent / package).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "tuple" and node.args:
                value = node.args[0]
                is_lazy = isinstance(value, ast.Call) and getattr(value.func, "id", "") in lazy
                if is_lazy or isinstance(value, ast.GeneratorExp):
                    found.append(f"{file.name}:{node.lineno}")
    assert found == []
