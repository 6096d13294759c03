"""The docstring of each public callable names the errors of trainerd that it can raise.

An error that a callable raises itself is in its own `Raises` section. An error of a function that it calls
may be in that of its class instead: `Session` says once what each of its methods raises outside of its block.
"""

from __future__ import annotations

import ast
import builtins

import pytest

from tests.support.raised_errors import (
    ERRORS,
    PublicCallable,
    documented,
    is_named,
    public_callables,
    raised_by_helpers,
    raised_in,
)
from tests.support.source_calls import definition

CALLABLES = {each.name: each for each in public_callables()}
NOT_REACHED = {
    ("Drive.put_back", "UserError"),  # asked of the engine only if it has kept a state
}


def unnamed(public: PublicCallable) -> dict[str, str]:
    """Return the errors that no docstring names, each with the function whose `raise` or docstring has it."""
    own = documented(public.docstring)
    missing = {
        error: by
        for error, by in raised_by_helpers(public.place).items()
        if not is_named(error, own | documented(public.class_docstring))
    }
    missing |= {error: "itself" for error in raised_in(public.place) if not is_named(error, own)}
    return {error: by for error, by in missing.items() if (public.name, error) not in NOT_REACHED}


@pytest.mark.parametrize("name", CALLABLES)
def test_a_docstring_names_the_errors_that_are_raised(name):
    assert unnamed(CALLABLES[name]) == {}


@pytest.mark.parametrize("name", CALLABLES)
def test_what_a_docstring_names_is_an_error(name):
    known = ERRORS.keys() | set(dir(builtins))
    assert documented(CALLABLES[name].docstring) - known == set()


def test_sessions_checkpointers_and_integrations_are_public():
    assert {
        "session",
        "Session.batches",
        "Checkpointer.save",
        "exact",
        "Variables.__getattr__",
        "ignite.attach",
        "lightning.TrainerdCallback.setup",
        "wandb.follow",
    } <= CALLABLES.keys()


def test_no_exception_is_left_over():
    for name, error in NOT_REACHED:
        public = CALLABLES[name]
        assert error in raised_by_helpers(public.place), f"{name} no longer calls what raises {error}"


def error_of(name: str) -> set[str]:
    return raised_in(CALLABLES[name].place) | raised_by_helpers(CALLABLES[name].place).keys()


def test_errors_are_found_in_the_body_in_helpers_and_through_attributes():
    assert "UserError" in raised_in(CALLABLES["Session.on_leave"].place)
    assert "LockedError" in error_of("Checkpointer.save")  # self._save → self._manager.open
    assert "CorruptError" in error_of("Checkpointer.resume")  # an imported function
    assert "SpaceError" in error_of("Session.__exit__")  # self._engine.close, of an annotated parameter


def test_an_error_that_is_caught_is_not_counted():
    tree = ast.parse(
        "def f():\n try:\n  raise UserError()\n except TrainerdError:\n  pass\n raise SpaceError()\n"
    )
    place = CALLABLES["session"].place._replace(node=tree.body[0])
    assert raised_in(place) == {"SpaceError"}


def test_an_error_is_named_by_its_base_class_but_not_by_the_root():
    assert is_named("MismatchError", {"UserError"})
    assert not is_named("MismatchError", {"TrainerdError"})
    assert not is_named("UserError", {"MismatchError"})


def test_only_the_raises_section_names_errors():
    text = (
        "Raises:\n    SpaceError: Full.\n        OSError: No.\n    LockedError: It.\n\nReturns:\n    X: No.\n"
    )
    assert documented(text) == {"SpaceError", "LockedError"}


def test_definitions_are_found_through_imports():
    found = definition("trainerd.training.session", "KeepBest")
    assert found is not None
    assert found.module == "trainerd.contract.policy"
