"""YAML specs, read event by event.

Not by the usual loader, for four reasons: duplicate keys must be an error, every value needs its line, an
alias must cost what it stands for, and nesting must not reach the parser's stack. YAML 1.1 reads ``no`` as
false, ``010`` as eight and ``1:30`` as ninety; what was written is kept, so that an error can say so.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NoReturn

import yaml

from trainerd.supervisor.specs.document import (
    DEPTH_MAX,
    INT_BITS_MAX,
    NODES_MAX,
    Document,
    kind_name,
    too_large_a_number,
    too_many,
)
from trainerd.supervisor.specs.problems import FieldPath, Problem, ProblemsError
from trainerd.supervisor.specs.processor_limit import PROCESSOR_S_MAX, too_slow

if TYPE_CHECKING:
    from collections.abc import Iterator

_LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml where PyYAML was built with it: some ten times faster, with the same events."""

NUMBER_CHARACTERS_MAX: Final = 100
"""Longest text that is read as a number: base 60 takes time that grows with the square of its length."""

_EVENTS_A_LOOK: Final = 64
"""How many events are read between two looks at the processor's clock."""

_TAG: Final = "tag:yaml.org,2002:"
_AS_TEXT: Final = frozenset({f"{_TAG}str", f"{_TAG}timestamp"})
_AS_VALUE: Final = frozenset(f"{_TAG}{kind}" for kind in ("null", "bool", "int", "float"))
_MERGE: Final = f"{_TAG}merge"
_DECEPTIVE_NUMBER: Final = re.compile(r"[-+]?0[0-7_]+|[^:]+(:[0-9]+)+(\.[0-9_]*)?")


@dataclass(frozen=True)
class _Node:
    value: Any
    nodes: int


def parse_yaml(text: str) -> Document:
    """Parse YAML.

    Raises:
        ProblemsError: It is not valid, or uses what a spec has no use for.
    """
    reader = _Reader(text)
    try:
        return reader.document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = min(mark.line, text.rstrip("\n").count("\n")) + 1 if mark else None
        raise ProblemsError(_syntax_problem(error, line)) from error
    except yaml.YAMLError as error:
        position = getattr(error, "position", None)
        line = text.count("\n", 0, position) + 1 if isinstance(position, int) else None
        reason = getattr(error, "reason", None) or str(error).splitlines()[0]
        raise ProblemsError(Problem(f"not valid YAML: {reason}", line=line)) from error


def _syntax_problem(error: yaml.MarkedYAMLError, line: int | None) -> Problem:
    reason = " ".join(filter(None, [error.problem, error.context]))
    hint = None
    if "\\t" in reason or "tab" in reason or "cannot start any token" in reason:
        hint = "indent by spaces, never by tabs, and quote text that begins with a special character"
    elif "mapping values are not allowed" in reason:
        hint = "look for a colon inside unquoted text, or for wrong indentation"
    return Problem(f"not valid YAML: {reason}", line=line, hint=hint)


class _Reader:
    """Consumes the events of one file; `_take` always stands before the next one."""

    def __init__(self, text: str) -> None:
        self._events: Iterator[yaml.Event] = yaml.parse(text, Loader=_LOADER)
        self._resolver: Any = yaml.resolver.Resolver()
        self._constructor = yaml.constructor.SafeConstructor()
        self._anchors: dict[str, _Node] = {}
        self._open_anchors: set[str] = set()
        self._seen = Document({})
        self._deadline_s = time.thread_time() + PROCESSOR_S_MAX
        self._events_left = _EVENTS_A_LOOK

    def document(self) -> Document:
        self._take()  # the stream begins
        if isinstance(self._take(), yaml.StreamEndEvent):
            raise ProblemsError(
                Problem("the file holds only comments", hint="a spec needs at least a command")
            )
        node = self._node(self._take(), ())
        self._take()  # the document ends
        after = self._take()
        if not isinstance(after, yaml.StreamEndEvent):
            raise ProblemsError(
                Problem("a second document begins here", line=_line(after), hint="one file holds one job")
            )
        self._seen.root = node.value
        return self._seen

    def _take(self) -> yaml.Event:
        event = next(self._events)
        self._events_left -= 1
        if not self._events_left:
            self._events_left = _EVENTS_A_LOOK
            if time.thread_time() > self._deadline_s:
                raise ProblemsError(too_slow(line=_line(event)))
        return event

    def _node(self, event: yaml.Event, place: FieldPath) -> _Node:
        self._seen.lines.setdefault(place, _line(event))
        if isinstance(event, yaml.AliasEvent):
            return self._aliased(event)
        if len(place) > DEPTH_MAX:
            self._refuse(event, place, f"values are nested more than {DEPTH_MAX} deep")
        anchor: str | None = getattr(event, "anchor", None)
        if anchor:
            self._open_anchors.add(anchor)
        if isinstance(event, yaml.MappingStartEvent):
            node = self._mapping(event, place)
        elif isinstance(event, yaml.SequenceStartEvent):
            node = self._sequence(event, place)
        else:
            assert isinstance(event, yaml.ScalarEvent)
            node = _Node(self._scalar(event, place), 1)
        if anchor:
            self._open_anchors.discard(anchor)
            self._anchors[anchor] = node
        return node

    def _aliased(self, event: yaml.AliasEvent) -> _Node:
        if event.anchor in self._open_anchors:
            self._refuse(event, (), f"the alias *{event.anchor} stands inside what it refers to")
        if event.anchor not in self._anchors:
            self._refuse(event, (), f"the alias *{event.anchor} refers to nothing above it")
        return self._anchors[event.anchor]

    def _sequence(self, start: yaml.SequenceStartEvent, place: FieldPath) -> _Node:
        self._check_tag(start, place, "seq")
        items: list[Any] = []
        nodes = 1
        while not isinstance(event := self._take(), yaml.SequenceEndEvent):
            node = self._node(event, (*place, len(items)))
            items.append(node.value)
            nodes += node.nodes
            if nodes > NODES_MAX:
                raise ProblemsError(too_many(_line(event)))
        return _Node(items, nodes)

    def _mapping(self, start: yaml.MappingStartEvent, place: FieldPath) -> _Node:
        self._check_tag(start, place, "map")
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        nodes = 1
        while not isinstance(event := self._take(), yaml.MappingEndEvent):
            key = self._key(event, place)
            if key is None:
                node = self._node(self._take(), (*place, "<<"))
                for source in node.value if isinstance(node.value, list) else [node.value]:
                    if not isinstance(source, dict):
                        self._refuse(event, place, "the key << takes a mapping or a list of mappings")
                    merged = {**source, **merged}
            else:
                if key in own:
                    first = self._seen.lines[(*place, key)]
                    self._refuse(
                        event, (*place, key), f"the key stands here a second time; first on line {first}"
                    )
                self._seen.lines[(*place, key)] = _line(event)
                node = self._node(self._take(), (*place, key))
                own[key] = node.value
            nodes += node.nodes
            if nodes > NODES_MAX:
                raise ProblemsError(too_many(_line(event)))
        return _Node({**merged, **own}, nodes)

    def _key(self, event: yaml.Event, place: FieldPath) -> str | None:
        """Return a mapping's key, None for the merge key."""
        if isinstance(event, yaml.AliasEvent):
            key: Any = self._aliased(event).value
        elif isinstance(event, yaml.ScalarEvent):
            if self._tag(event) == _MERGE:
                return None
            key = self._scalar(event, place)
            if not isinstance(key, str):
                self._refuse(
                    event,
                    place,
                    f"YAML reads the key {event.value[:60] or '(empty)'} as {kind_name(key)}",
                    "put it in quotes",
                )
        else:
            key = None
        if not isinstance(key, str):
            self._refuse(event, place, "a key must be text", "write NAME: value")
        return key

    def _scalar(self, event: yaml.ScalarEvent, place: FieldPath) -> Any:
        tag = self._tag(event)
        if tag in _AS_TEXT:
            return event.value
        if tag not in _AS_VALUE:
            self._refuse(
                event, place, f"the tag {event.tag or event.value} has no meaning in a spec", "leave it out"
            )
        if len(event.value) > NUMBER_CHARACTERS_MAX:
            raise ProblemsError(too_large_a_number(place, _line(event)))
        try:
            value = self._constructor.construct_object(yaml.ScalarNode(tag, event.value))
        except Exception:  # noqa: BLE001 - the constructors of PyYAML raise whatever their text makes them
            self._refuse(event, place, f"YAML cannot read {event.value!r:.40} as {tag.removeprefix(_TAG)}")
        if isinstance(value, int) and value.bit_length() > INT_BITS_MAX:
            raise ProblemsError(too_large_a_number(place, _line(event)))
        if isinstance(value, int | float) and _DECEPTIVE_NUMBER.fullmatch(event.value):
            self._refuse(
                event,
                place,
                f"YAML reads {event.value} as {value}",
                f'write {value}, or "{event.value}" if it is text',
            )
        if value is not None:
            self._seen.written[place] = event.value
        return value

    def _tag(self, event: yaml.ScalarEvent) -> str:
        if event.tag and event.tag != "!":
            return str(event.tag)
        return str(self._resolver.resolve(yaml.ScalarNode, event.value, event.implicit))

    def _check_tag(self, event: Any, place: FieldPath, kind: str) -> None:
        if event.tag not in {None, "!", f"{_TAG}{kind}"}:
            self._refuse(event, place, f"the tag {event.tag} has no meaning in a spec", "leave it out")

    def _refuse(self, event: yaml.Event, place: FieldPath, message: str, hint: str | None = None) -> NoReturn:
        raise ProblemsError(Problem(message, place, _line(event), hint))


def _line(event: yaml.Event) -> int:
    mark = event.start_mark
    return int(mark.line) + 1 if mark else 1
