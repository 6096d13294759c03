"""Loops over steps that go round a loader again and again: by an iterator that does not end, or by passes."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainerd.adoption.loop_heads import is_loader
from trainerd.adoption.refusal import refused
from trainerd.adoption.wording import target_text
from trainerd.analysis.syntax import dotted, walk, walk_scope

if TYPE_CHECKING:
    from trainerd.adoption.loop_heads import RangeHead
    from trainerd.adoption.reach import PlacedLoop
    from trainerd.analysis.scopes import Scope
    from trainerd.analysis.script import Script


@dataclass(frozen=True)
class Pull:
    """Batches that a loop over steps takes by `next` from an iterator that begins again when it is exhausted.

    Attributes:
        statement: The statement of the loop that takes a batch.
        target: Text of what it assigns.
        loader: The loader.
        iterator: Line of the statement that makes the iterator.
    """

    statement: ast.stmt
    target: str
    loader: ast.expr
    iterator: int


def pull_of(script: Script, loop: PlacedLoop, count: RangeHead) -> Pull | None:
    """Return how a loop takes its batches, None if it does so in no way that is known.

    Raises:
        AdoptionRefusedError: It takes them from an iterator, in a way that is not understood.
    """
    nexts = [node for node in walk_scope(loop.node.body) if _next_of(node) is not None]
    if not nexts:
        return None
    position, statement = next(
        pair for pair in enumerate(loop.node.body) if any(node in nexts for node in walk_scope([pair[1]]))
    )
    taken = _taken(statement)
    if taken is None:
        raise refused(
            statement, "batches are taken by next() in a shape that is not understood", "batch = next(data)"
        )
    assign, name, begins_again = taken
    makers = [
        node
        for node in loop.scope.nodes
        if isinstance(node, ast.Assign)
        and len(node.targets) == 1
        and dotted(node.targets[0]) == name
        and node not in set(walk_scope(loop.node.body))
    ]
    uses = [node for node in walk(script.tree) if isinstance(node, ast.Name) and node.id == name]
    allowed = 1 + sum(isinstance(n, ast.Name) and n.id == name for n in walk(statement))
    if len(makers) != 1 or len(uses) != allowed:
        raise refused(statement, f"{name} is made or used in other places as well")
    loader = _endless(script, makers[0].value, loop.scope, is_begun_again=begins_again)
    if loader is None:
        raise refused(
            statement,
            f"{name} is not known to go round a DataLoader",
            "a generator function with while True around one loop over a loader",
        )
    _check_rest(loop, position, assign, count)
    return Pull(statement, target_text(script, assign.targets[0]), loader, makers[0].lineno)


def passes_bound(outer: ast.While, inner: ast.For, scope: Scope) -> str:
    """Return the number of steps after which ``while step < n`` around a loop over a loader ends.

    Raises:
        AdoptionRefusedError: It does not end so, or does not count each batch.
    """
    test = outer.test
    if (
        not isinstance(test, ast.Compare)
        or not isinstance(test.left, ast.Name)
        or len(test.ops) != 1
        or not isinstance(test.ops[0], ast.Lt)
    ):
        raise refused(
            outer, "a while loop that does not end by step < n", "while step < n, or for epoch in range(n)"
        )
    name, bound = test.left.id, ast.unparse(test.comparators[0])
    counts = [
        node
        for node in scope.nodes
        if isinstance(node, ast.AugAssign | ast.Assign | ast.AnnAssign | ast.For)
        and any(
            isinstance(each, ast.Name) and each.id == name and isinstance(each.ctx, ast.Store)
            for target in _targets(node)
            for each in walk(target)
        )
    ]
    starts = [node for node in counts if isinstance(node, ast.Assign) and _is_number(node.value, 0)]
    added = [node for node in counts if isinstance(node, ast.AugAssign) and _is_number(node.value, 1)]
    if len(counts) != 2 or len(starts) != 1 or len(added) != 1 or added[0] not in inner.body:
        raise refused(outer, f"{name} does not count each batch once, from 0", f"{name} = 0 and {name} += 1")
    after = inner.body[inner.body.index(added[0]) + 1 :]
    limits = [
        node
        for node in after
        if isinstance(node, ast.If)
        and not node.orelse
        and ast.unparse(node.test) in {f"{name} >= {bound}", f"{name} == {bound}"}
        and len(node.body) == 1
        and isinstance(node.body[0], ast.Break)
    ]
    if len(limits) != 1:
        raise refused(
            inner,
            f"the loop goes on until the end of the loader after {bound} steps",
            f"if {name} >= {bound}: break",
        )
    leaves = [
        node
        for node in walk_scope(inner.body)
        if isinstance(node, ast.Break | ast.Continue) and node is not limits[0].body[0]
    ]
    if leaves:
        raise refused(leaves[0], f"the batch may be left before {name} counts it, or the pass before its end")
    return bound


def _targets(node: ast.stmt) -> list[ast.expr]:
    if isinstance(node, ast.Assign):
        return node.targets
    assert isinstance(node, ast.AugAssign | ast.AnnAssign | ast.For)
    return [node.target]


def _is_number(node: ast.AST, number: int) -> bool:
    return isinstance(node, ast.Constant) and type(node.value) is int and node.value == number


def _next_of(node: ast.AST) -> str | None:
    """Return the name of the iterator of ``next(iterator)``."""
    if isinstance(node, ast.Call) and dotted(node.func) == "next" and len(node.args) == 1:
        return dotted(node.args[0])
    return None


def _taken(statement: ast.stmt) -> tuple[ast.Assign, str, ast.expr | None] | None:
    """Return the assignment of a batch, the iterator, and what the exhausted one is replaced by."""
    if isinstance(statement, ast.Assign):
        name = _next_of(statement.value)
        return (statement, name, None) if name is not None and len(statement.targets) == 1 else None
    if (
        not isinstance(statement, ast.Try)
        or statement.orelse
        or statement.finalbody
        or len(statement.body) != 1
    ):
        return None
    taken = _taken(statement.body[0])
    if taken is None or len(statement.handlers) != 1:
        return None
    handler = statement.handlers[0]
    if handler.type is None or dotted(handler.type) != "StopIteration" or len(handler.body) != 2:
        return None
    again, second = handler.body
    if (
        not isinstance(again, ast.Assign)
        or dotted(again.targets[0]) != taken[1]
        or ast.dump(second) != ast.dump(statement.body[0])
    ):
        return None
    return taken[0], taken[1], again.value


def _endless(
    script: Script, value: ast.expr, scope: Scope, *, is_begun_again: ast.expr | None
) -> ast.expr | None:
    """Return the loader that an iterator goes round, None if it does not go round one for ever."""
    if is_begun_again is not None:
        if ast.dump(value) != ast.dump(is_begun_again) or not isinstance(value, ast.Call):
            return None
        given = value.args[0] if dotted(value.func) == "iter" and len(value.args) == 1 else None
        return given if given is not None and is_loader(script, given, scope) else None
    if isinstance(value, ast.Call) and dotted(value.func) == "iter" and len(value.args) == 1:
        value = value.args[0]
    if not isinstance(value, ast.Call) or len(value.args) != 1 or value.keywords:
        return None
    function = script.names.functions.get(dotted(value.func) or "")
    if function is None or not is_loader(script, value.args[0], scope):
        return None
    return value.args[0] if _goes_round(function) else None


def _goes_round(function: Scope) -> bool:
    """Tell whether a generator function yields the batches of its parameter again and again, and no more."""
    assert isinstance(function.node, ast.FunctionDef | ast.AsyncFunctionDef)
    body = [each for each in function.body if not _is_text(each)]
    parameter = function.node.args.args[0].arg if function.node.args.args else ""
    if len(body) != 1 or not isinstance(body[0], ast.While) or len(body[0].body) != 1:
        return False
    if not isinstance(body[0].test, ast.Constant) or not body[0].test.value:
        return False
    only = body[0].body[0]
    if isinstance(only, ast.Expr) and isinstance(only.value, ast.YieldFrom):
        return dotted(only.value.value) == parameter
    return (
        isinstance(only, ast.For)
        and dotted(only.iter) == parameter
        and isinstance(only.target, ast.Name)
        and len(only.body) == 1
        and isinstance(only.body[0], ast.Expr)
        and isinstance(only.body[0].value, ast.Yield)
        and only.body[0].value.value is not None
        and dotted(only.body[0].value.value) == only.target.id
    )


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _check_rest(loop: PlacedLoop, position: int, assign: ast.Assign, count: RangeHead) -> None:
    """Check that the batch may be taken first in the body, and that nothing leaves it early.

    Raises:
        AdoptionRefusedError: It may not.
    """
    names = {node.id for node in walk(assign.targets[0]) if isinstance(node, ast.Name)}
    if count.target in names:
        raise refused(assign, f"{count.target} is the batch and the count of steps at once")
    for node in walk_scope(loop.node.body[:position]):
        if isinstance(node, ast.Continue | ast.Return):
            raise refused(
                node, "a step may end before its batch is taken", "take the batch first in the body"
            )
        if isinstance(node, ast.Name) and node.id in names:
            raise refused(
                node, f"{node.id} is used before the batch is taken", "take the batch first in the body"
            )
    inner_loops = [node for node in walk_scope(loop.node.body) if isinstance(node, ast.For | ast.While)]
    nested = {node for each in inner_loops for node in walk_scope(each.body)}
    for node in walk_scope(loop.node.body):
        if isinstance(node, ast.Break) and node not in nested:
            raise refused(
                node, "the loop over steps may end early", "for step in range(n), with n known before"
            )
