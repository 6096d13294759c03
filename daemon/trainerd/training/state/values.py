"""Plain values that belong to the state of a run: counters, best scores so far, patience left."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Value(Generic[T]):
    """A box for one plain value, saved with every checkpoint and restored with it.

    Read and set it through ``.value``. It may hold anything that a checkpoint can represent: numbers,
    strings, lists, tuples, dicts, sets, tensors.
    """

    def __init__(self, name: str, value: T) -> None:
        self.name = name
        self.value = value

    def __repr__(self) -> str:
        return f"Value({self.name!r}, {self.value!r})"


class Values:
    """All values of a session, by name."""

    def __init__(self) -> None:
        self._boxes: dict[str, Value[Any]] = {}
        self._restored: dict[str, Any] = {}

    def box(self, name: str, default: Any) -> Value[Any]:
        """Return the box of that name, made with what was restored, else with `default`."""
        if name not in self._boxes:
            self._boxes[name] = Value(name, self._restored.pop(name, default))
        return self._boxes[name]

    def state_dict(self) -> dict[str, Any]:
        # What was restored and not asked for yet is carried along, not dropped.
        return {**self._restored, **{name: box.value for name, box in self._boxes.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._restored = {}
        for name, value in state.items():
            if name in self._boxes:
                self._boxes[name].value = value
            else:
                self._restored[name] = value
