"""A version of a framework without the methods that an integration replaces is refused by name."""

from __future__ import annotations

import pytest

from trainerd.errors import UserError
from trainerd.training.integrations.replaced_methods import check_methods

pytestmark = pytest.mark.torch


class Engine:
    def run(self) -> None: ...


def test_a_missing_method_is_named_with_the_extra_that_has_it():
    with pytest.raises(
        UserError, match=r"this version of Ignite has no Engine\._fire, which attach"
    ) as found:
        check_methods(Engine(), ["run", "_fire"], framework="Ignite", by="attach()")
    assert "pip install 'trainerd[ignite]'" in found.value.hint


def test_an_object_with_all_methods_is_taken():
    check_methods(Engine(), ["run"], framework="Ignite", by="attach()")
