"""What a call of a function of the script does to the variables of its caller."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from trainerd.analysis.elements import element_changes
from trainerd.analysis.reads import Reads
from trainerd.analysis.syntax import (
    Function,
    chains,
    container_of,
    dotted,
    parameters,
    passed,
    stored_in,
    walk_scope,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trainerd.analysis.name_meanings import Names
    from trainerd.analysis.scopes import Scope
    from trainerd.analysis.syntax import Place

MUTATORS: Final = frozenset(
    {
        "append", "appendleft", "extend", "extendleft", "add", "insert", "update", "pop", "popleft",
        "popitem", "clear", "remove", "discard", "setdefault", "rotate", "put", "push", "add_",
        "mul_", "copy_", "lerp_",
    }
)  # fmt: skip
REORDERED: Final = "reordered"
"""How a list or an array is changed that is shuffled, or computed from what it was."""
ALL_OF_A_MODULE: Final = frozenset(
    {"parameters", "named_parameters", "buffers", "named_buffers", "state_dict"}
)


@dataclass(frozen=True)
class Change:
    """A change of an object in place.

    Attributes:
        name: The name or chain of the object.
        node: Where.
        how: ``item`` for ``x[k] = …``, ``count`` for ``x[k] += …``, ``element`` or ``filled`` for a change of
            a tensor in it, ``reordered`` for ``shuffle(x)`` and ``x[:] = f(x)``, else the name of the method.
        call: The call in the caller's code that leads to it, None where it is the caller's own.
        scope: Scope in which the name is meant.
    """

    name: str
    node: Place
    how: str
    call: ast.Call | None
    scope: Scope


@dataclass(frozen=True)
class Effects:
    """What a call reads and assigns, in the caller's names.

    Attributes:
        first: What it reads before it has assigned it, and where.
        stored: What it may assign.
        sure: What it assigns on every path.
        changes: What it changes in place.
    """

    first: dict[str, Place]
    stored: frozenset[str]
    sure: frozenset[str]
    changes: tuple[Change, ...]


_NONE: Final = Effects({}, frozenset(), frozenset(), ())


class CallEffects:
    """The effects of the calls of one script, each function looked at once."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._known: dict[Scope, Effects] = {}

    def of(self, call: ast.Call, caller: Scope) -> Effects:
        """Return what a call does to the names of the scope that it stands in."""
        found = self._names.called(call, caller)
        if found is None:
            return _NONE
        function, receiver = found
        own = self._of_function(function)
        renamed = self._renaming(call, function, receiver)

        def seen(name: str) -> str | None:
            """Return what the caller calls a variable of the function, None if it has no name for it."""
            first, dot, rest = name.partition(".")
            if first in renamed:
                return f"{renamed[first]}.{rest}" if dot else None
            if first in function.own:
                return None
            return name if function.holder(first) is caller.holder(first) else None

        def seen_object(name: str) -> str | None:
            return renamed.get(name) or seen(name)

        return Effects(
            {new: node for name, node in own.first.items() if (new := seen(name)) is not None},
            frozenset(new for name in own.stored if (new := seen(name)) is not None),
            frozenset(new for name in own.sure if (new := seen(name)) is not None),
            tuple(
                Change(new, each.node, each.how, call, caller)
                for each in own.changes
                if (new := seen_object(each.name)) is not None
            ),
        )

    def reads(self, statements: list[ast.stmt], scope: Scope, assigned: frozenset[str]) -> Reads:
        """Analyse code of a scope; what the calls in it do counts as done there."""
        return Reads.of(statements, assigned, lambda call: self.of(call, scope))

    def changes(self, nodes: list[ast.AST], scope: Scope) -> Iterator[Change]:
        """Yield the changes in place that code makes, by itself and through the functions that it calls."""
        for node in nodes:
            for name, how in (*_changes_in_place(node), *_reordered(node)):
                assert isinstance(node, ast.expr | ast.stmt)
                yield Change(name, node, how, None, scope)
            if isinstance(node, ast.Call):
                yield from self.of(node, scope).changes
        yield from (Change(name, node, how, None, scope) for name, node, how in element_changes(nodes))

    def _of_function(self, function: Scope) -> Effects:
        if function not in self._known:
            self._known[function] = _NONE  # one that calls itself adds nothing to itself
            assert isinstance(function.node, Function)
            locals_ = frozenset(function.own) - frozenset(parameters(function.node))
            reads = self.reads(function.body, function, frozenset())
            self._known[function] = Effects(
                {name: node for name, node in reads.first.items() if name not in locals_},
                frozenset(reads.stored),
                reads.sure,
                tuple(self.changes(function.nodes, function)),
            )
        return self._known[function]

    @staticmethod
    def _renaming(call: ast.Call, function: Scope, receiver: str | None) -> dict[str, str]:
        assert isinstance(function.node, Function)
        renamed = {
            parameter: name
            for parameter, argument in passed(call, function.node, is_bound=receiver is not None)
            if (name := dotted(argument)) is not None
        }
        if receiver is not None and function.self_name is not None:
            renamed[function.self_name] = receiver
        return renamed


def _changes_in_place(node: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield the names and chains that a statement or a call changes in place, and how."""
    match node:
        case ast.Call(func=ast.Attribute(value=value, attr="load_state_dict")):
            if (name := dotted(value)) is not None:
                yield name, "load_state_dict"
        case ast.Call(func=ast.Attribute(value=value, attr=attribute)) if attribute in MUTATORS:
            if (name := container_of(value)) is not None:
                yield name, attribute
        case ast.Call(func=ast.Name(id="next"), args=[iterator, *_]):
            if (name := dotted(iterator)) is not None:
                yield name, "next"
        case ast.Assign(targets=[ast.Subscript(slice=ast.Slice(lower=None, upper=None))]):
            pass  # all of it is assigned
        case ast.Assign(targets=[ast.Subscript() as target]):
            if (name := container_of(target)) is not None:
                yield name, "item"
        case ast.AugAssign(target=ast.Subscript() as target):
            if (name := container_of(target)) is not None:
                yield name, "count"
        case ast.For():
            yield from ((name, "weights") for name in _weights_changed(node))


def _reordered(node: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield what a statement computes in place from what it was, as `_changes_in_place` does."""
    changed: ast.expr | None = None
    match node:
        case ast.Expr(value=ast.Call() as call):
            changed = _shuffled_by(call)
        case ast.Assign(targets=[ast.Subscript(value=target, slice=ast.Slice(lower=None, upper=None))]):
            changed = target if container_of(target) in set(chains(node.value)) else None
    if changed is not None and (name := container_of(changed)) is not None:
        yield name, REORDERED


def _shuffled_by(call: ast.Call) -> ast.expr | None:
    """Return what a call such as ``np.random.shuffle(x)`` puts into another order, None if nothing."""
    match call:
        case ast.Call(func=ast.Name(id="shuffle") | ast.Attribute(attr="shuffle"), args=[shuffled]):
            return shuffled
        case ast.Call(func=ast.Attribute(value=value, attr="reverse"), args=[]):
            return value
    return None


def _weights_changed(loop: ast.For) -> Iterator[str]:
    """Yield the models whose parameters a loop over them changes in place."""
    iterables, targets = [loop.iter], [loop.target]
    if (
        isinstance(loop.iter, ast.Call)
        and dotted(loop.iter.func) == "zip"
        and isinstance(loop.target, ast.Tuple)
    ):
        iterables, targets = loop.iter.args, loop.target.elts
    for iterable, target in zip(iterables, targets, strict=False):
        if (
            isinstance(iterable, ast.Call)
            and isinstance(iterable.func, ast.Attribute)
            and iterable.func.attr in ALL_OF_A_MODULE
            and (model := dotted(iterable.func.value)) is not None
            and any(_is_changed(name, loop.body) for name in stored_in(target))
        ):
            yield model


def _is_changed(name: str, statements: list[ast.stmt]) -> bool:
    for node in walk_scope(statements):
        changed: ast.AST | None = None
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr.endswith("_")
        ):
            changed = node.func.value
        elif isinstance(node, ast.Assign):
            changed = node.targets[0]
        if changed is not None and name in {dotted(changed), (dotted(changed) or "").removesuffix(".data")}:
            return True
    return False
