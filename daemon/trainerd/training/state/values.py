"""Plain values that belong to the state of a run: counters, best scores so far, hidden states."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from trainerd.errors import UnknownVariableError, UserError
from trainerd.training.state.in_place import InPlaceRestore, Mark, devices_in, on_devices

if TYPE_CHECKING:
    from trainerd.training.state.in_place import Path

T = TypeVar("T")


class Value(Generic[T]):
    """A box for one plain value, saved with every checkpoint and restored with it.

    Read and set it through ``.value``. It may hold anything that a checkpoint can represent: numbers,
    strings, lists, tuples, dicts, sets, tensors. A resume fills the lists, dicts, sets, tensors and arrays
    that it held from the beginning where they are; what the script had replaced comes back as a new object.
    """

    def __init__(self, name: str, value: T) -> None:
        self.name = name
        self.value = value

    def __repr__(self) -> str:
        return f"Value({self.name!r}, {self.value!r})"


class Variables:
    """Attributes that belong to the state of a run. Made by `Session.variables`.

    Each is a `Value`, read and set without ``.value``. There are those that were named when it was made, and
    no others.

    Raises:
        UnknownVariableError: A name that was not declared is read, set or deleted.
        UserError: A variable is deleted.
    """

    __slots__ = ("_boxes",)

    def __init__(self, boxes: dict[str, Value[Any]]) -> None:
        object.__setattr__(self, "_boxes", boxes)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_boxes":
            raise AttributeError(name)  # asked for by copy, pickle and the like
        return self._box(name).value

    def __setattr__(self, name: str, value: Any) -> None:
        self._box(name).value = value

    def __delattr__(self, name: str) -> None:
        self._box(name)
        raise UserError(f"variable {name!r} is a part of the state of the run: set it to None instead")

    def __dir__(self) -> list[str]:
        return list(self._boxes)

    def __repr__(self) -> str:
        items = ", ".join(f"{name}={box.value!r}" for name, box in self._boxes.items())
        return f"Variables({items})"

    def _box(self, name: str) -> Value[Any]:
        boxes: dict[str, Value[Any]] = self._boxes
        if name in boxes:
            return boxes[name]
        near = difflib.get_close_matches(name, boxes, n=1)
        raise UnknownVariableError(
            f"no variable {name!r}" + (f"; did you mean {near[0]}?" if near else ""),
            hint=f"there are: {', '.join(boxes) or 'none'}; name all in session.variables(…), with their "
            "first values",
        )


class Values:
    """All values of a session, by name."""

    def __init__(self) -> None:
        self._boxes: dict[str, Value[Any]] = {}
        self._first: dict[str, Any] = {}
        self._since_start: dict[str, Mark] = {}
        self._since_loop: dict[str, Mark] | None = None
        self._restored: dict[str, Any] = {}
        self._objects = _ObjectNotes()
        self._filling = InPlaceRestore()

    def box(self, name: str, default: Any) -> Value[Any]:
        """Return the box of that name, made with what was restored, else with `default`."""
        if name not in self._boxes:
            self._boxes[name] = Value(name, default)
            self._first[name] = default
            self._since_start[name] = Mark(default)
            if name in self._restored:
                self._fill(name, default, self._restored.pop(name), self._objects.since_start)
        return self._boxes[name]

    def loop_begins(self, *, goes_on: bool = False) -> None:
        """Note which objects the values are where a loop that trains begins.

        Args:
            goes_on: Whether it is the interrupted one: what was replaced in it before, is.
        """
        former = self._objects.since_loop if goes_on else {}
        self._since_loop = {name: Mark(box.value, former.get(name, ())) for name, box in self._boxes.items()}
        self._filling = InPlaceRestore()

    def state_dict(self) -> dict[str, Any]:
        # What was restored and not asked for yet is carried along, not dropped.
        return {**self._restored, **{name: box.value for name, box in self._boxes.items()}}

    def objects(self) -> dict[str, Any]:
        """Return what a checkpoint notes about the objects that the values are; empty sections are left out.

        Their devices, and which were replaced by the script since the values were made, and since the loop
        began.
        """
        names = self._boxes
        since_start = {name: self._since_start[name].replaced(box.value) for name, box in names.items()}
        since_loop = (
            {name: self._since_loop[name].replaced(names[name].value) for name in self._since_loop}
            if self._since_loop is not None
            else self._objects.since_loop
        )
        carried = {name: self._objects.since_start.get(name, []) for name in self._restored}
        devices = {name: devices_in(box.value) for name, box in names.items()}
        devices |= {name: self._objects.devices.get(name, {}) for name in self._restored}
        return _ObjectNotes(since_start | carried, since_loop, devices).as_plain()

    def load_state_dict(
        self, state: dict[str, Any], objects: dict[str, Any] | None = None, *, is_at_loop: bool = False
    ) -> None:
        """Put former values back.

        Args:
            state: What `state_dict` returned.
            objects: What `objects` returned at the same moment.
            is_at_loop: Whether the interrupted loop begins here, and the values were put back before.
        """
        notes = self._objects = _ObjectNotes.of_plain(objects or {})
        self._since_loop = None
        self._restored, self._filling = {}, InPlaceRestore()
        for name, value in state.items():
            if name not in self._boxes:
                self._restored[name] = value
            elif is_at_loop:
                self._fill(name, self._boxes[name].value, value, notes.since_loop)
            else:
                self._fill(name, self._first[name], value, notes.since_start)

    def _fill(self, name: str, live: Any, saved: Any, replaced: dict[str, list[Path]]) -> None:
        saved = on_devices(saved, self._objects.devices.get(name, {}))
        self._boxes[name].value = self._filling.restored(live, saved, replaced.get(name, ()))


@dataclass(frozen=True)
class _ObjectNotes:
    """What a checkpoint notes about the objects that the values are, each by name.

    Attributes:
        since_start: Paths of objects that the script replaced since the values were made.
        since_loop: Paths of objects that the script replaced since the last loop began.
        devices: Paths of tensors by device; those in host memory are left out.
    """

    since_start: dict[str, list[Path]] = field(default_factory=dict)
    since_loop: dict[str, list[Path]] = field(default_factory=dict)
    devices: dict[str, dict[str, list[Path]]] = field(default_factory=dict)

    def as_plain(self) -> dict[str, Any]:
        """Return the sections that are not empty, as a tree."""
        sections = {each.name: getattr(self, each.name) for each in fields(self)}
        return {
            name: kept
            for name, section in sections.items()
            if (kept := {key: each for key, each in section.items() if each})
        }

    @classmethod
    def of_plain(cls, plain: dict[str, Any]) -> _ObjectNotes:
        """Return the notes that `as_plain` made a tree of."""
        return cls(*(plain.get(each.name, {}) for each in fields(cls)))
