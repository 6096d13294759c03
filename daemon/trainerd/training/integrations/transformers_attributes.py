"""Attributes in which a subclass of `Trainer`, or a callback, keeps state of its own.

TRL's trainers keep sums that they log, a trainer of the script may keep a centre of its loss. Transformers
saves none of them.

Invariants:
    What `Trainer` itself uses is not looked at: its part of the state is in `TrainerRun`.
    What did not change since training began is configuration, and stays as the program has it.
"""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Any, Final

from transformers.trainer_callback import ExportableState

from trainerd.contract.verdict import Reason
from trainerd.training.data.attribute_marks import can_be_saved, mark_of
from trainerd.training.data.loader_memory import is_plain, plain_form, set_attribute
from trainerd.training.state.copied_state import copied_state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_STOCK: Final = ("transformers", "trainerd", "accelerate")
_SCALARS: Final = (type(None), bool, int, float, complex, str, bytes)


class TrainerAttributes:
    """The attributes of one trainer and of its callbacks.

    Args:
        trainer: The `transformers.Trainer`.
        suspect: Takes in that one changed to a value that no checkpoint can hold.
    """

    def __init__(self, trainer: Any, suspect: Callable[[Reason], None]) -> None:
        self._trainer = trainer
        self._suspect = suspect
        self._own = frozenset(re.findall(r"\bself\.(\w+)", inspect.getsource(_stock_class(trainer))))
        self._marks: dict[str, str] = {}
        self._told: set[str] = set()

    def begin(self) -> None:
        """Training begins: what is there now is configuration."""
        self._marks = {path: mark_of(value) for path, value in self._found()}

    def changed(self) -> dict[str, Any]:
        """Return the values that changed, by path."""
        values = {}
        for path, value in self._found():
            mark = mark_of(value)
            if mark == self._marks.get(path):
                continue
            if can_be_saved(mark):
                values[path] = plain_form(value)
            else:
                self._tell(path)
        return values

    def put_back(self, values: dict[str, Any]) -> None:
        """Give the attributes the values that `changed` returned."""
        owners = dict(self._owners())
        for path, value in values.items():
            place, _, name = path.rpartition(".")
            if place in owners:
                set_attribute(owners[place], name, copied_state(value))

    def _found(self) -> Iterator[tuple[str, Any]]:
        for place, owner in self._owners():
            for name, value in list(vars(owner).items()):
                is_own = owner is self._trainer and name in self._own
                if not is_own and (type(value) in _SCALARS or is_plain(value)):
                    yield f"{place}.{name}", value

    def _owners(self) -> Iterator[tuple[str, Any]]:
        if not _is_stock(self._trainer):
            yield "trainer", self._trainer
        counts: dict[str, int] = {}
        for each in self._trainer.callback_handler.callbacks:
            kind = type(each).__qualname__
            number = counts[kind] = counts.get(kind, 0) + 1
            if not _is_stock(each) and not isinstance(each, ExportableState) and hasattr(each, "__dict__"):
                yield f"{kind}-{number}", each

    def _tell(self, path: str) -> None:
        if path in self._told:
            return
        self._told.add(path)
        self._suspect(
            Reason(
                "trainer-attribute",
                path,
                "it changed during training to a value that no checkpoint can hold: a resume begins with the "
                "one that the program gives it",
                "keep numbers, tensors, lists and dicts of them there, or use session.value",
            )
        )


def _stock_class(trainer: Any) -> type:
    """Return Transformers' own class of a trainer. The script has imported it; here that could fail."""
    stock = (kind for kind in type(trainer).__mro__ if kind.__module__ == "transformers.trainer")
    return next(stock, type(trainer))


def _is_stock(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] in _STOCK
