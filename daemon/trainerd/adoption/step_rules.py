"""What happens in one step: which optimizers step, whether each batch is a step, which losses there are."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Final

from trainerd.adoption.reach import is_backward
from trainerd.adoption.refusal import Refusal
from trainerd.adoption.waiting_gradients import accumulation_of, accumulation_refusal, rest_refusal
from trainerd.analysis.kinds import OPTIMIZER, kind_of
from trainerd.analysis.syntax import dotted, last_part, stored_in, walk, walk_scope

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trainerd.adoption.nest import Nest
    from trainerd.adoption.reach import Reach
    from trainerd.analysis.scopes import Scope
    from trainerd.analysis.script import Script

_OUTPUT: Final = ("prof", "bar", "timer", "writer")


def step_refusals(script: Script, reach: Reach, nest: Nest) -> Iterator[Refusal]:
    """Yield what of the steps is not understood: optimizers that cannot be told, accumulated gradients."""
    loop = nest.step_loop
    changing = _assigned(loop.node) | _assigned(nest.outer.node)
    accumulation = accumulation_of(nest)
    # Under its condition a step is one of the session's, and nothing that is computed before it waits longer.
    known = set(walk_scope(list(accumulation.blocks))) if accumulation is not None else set()
    optimizers = resets = 0
    for node, scope in reach.code(loop.node.body, loop.scope):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        if node.func.attr == "zero_grad":
            resets += 1
            if node not in known and _waits(script, node, changing):
                yield accumulation_refusal(node.lineno)
        elif node.func.attr == "step":
            stepped = _optimizer_of(script, node, scope)
            if stepped is None:
                yield Refusal(
                    node.lineno, f"{ast.unparse(node.func)}(): what steps here is not an object of this file"
                )
            elif stepped:
                optimizers += 1
                if node.args and kind_at(script, node.func.value, scope) == OPTIMIZER:
                    yield Refusal(node.lineno, "the optimizer gets a closure, whose steps are not followed")
                waits = _waits(script, node, changing) if accumulation is None else node not in known
                if waits:
                    yield accumulation_refusal(node.lineno)
    yield from _left_before_step(script, reach, nest)
    if accumulation is not None and not accumulation.takes_rest:
        yield rest_refusal(nest, accumulation)
    if not optimizers:
        yield Refusal(loop.line, "no optimizer of this file steps in the loop")
    elif not resets:
        yield Refusal(
            loop.line,
            "no zero_grad() in the loop: gradients are added up over all batches, and are in no checkpoint",
            "optimizer.zero_grad()",
        )


def _left_before_step(script: Script, reach: Reach, nest: Nest) -> Iterator[Refusal]:
    """Yield what leaves a batch between backward() and the step, with gradients that the next one adds to."""
    loop = nest.step_loop
    if _resets_first(reach, loop.node.body, loop.scope):
        return
    parts: dict[Scope, list[ast.AST]] = {loop.scope: list(walk_scope(loop.node.body))}
    for _, scope in reach.code(loop.node.body, loop.scope):
        if scope is not loop.scope and not _resets_first(reach, scope.body, scope):
            parts.setdefault(scope, scope.nodes)

    def runs(node: ast.AST, scope: Scope) -> Iterator[tuple[ast.AST, Scope]]:
        called = script.names.called(node, scope) if isinstance(node, ast.Call) else None
        yield from ((node, scope),) if called is None else reach.code(called[0].body, called[0])

    def steps(node: ast.AST, scope: Scope) -> bool:
        return (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "step"
            and _optimizer_of(script, node, scope) is True
        )

    for scope, nodes in parts.items():
        computed = [
            i for i, each in enumerate(nodes) if any(is_backward(one) for one, _ in runs(each, scope))
        ]
        stepped = [i for i, each in enumerate(nodes) if any(steps(*one) for one in runs(each, scope))]
        for node in nodes[min(computed, default=len(nodes)) : max(stepped, default=0)]:
            if scope is loop.scope:
                leaves = isinstance(node, ast.Continue) and script.parents.loops_around(node)[0] is loop.node
            else:
                leaves = isinstance(node, ast.Return)
            if leaves:
                assert isinstance(node, ast.stmt)
                yield accumulation_refusal(node.lineno)


def _resets_first(reach: Reach, statements: list[ast.stmt], scope: Scope) -> bool:
    """Tell whether code sets all gradients to zero before it computes any, each time that it runs."""
    for statement in statements:
        if isinstance(statement, ast.Expr) and _is_reset(statement.value):
            return True
        if reach.trains([statement], scope):
            return isinstance(statement, ast.With) and _resets_first(reach, statement.body, scope)
    return False


def _is_reset(node: ast.expr) -> bool:
    return (
        isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "zero_grad"
    )


def kind_at(script: Script, node: ast.expr, scope: Scope) -> str | None:
    """Return what kind of object an expression stands for, by where it is made."""
    kinds = {
        kind
        for value in script.names.values(dotted(node) or "", scope)
        if (kind := kind_of_value(script, value))
    }
    return kinds.pop() if len(kinds) == 1 else None


def kind_of_value(script: Script, value: ast.expr) -> str | None:
    """Return what kind of object a call makes."""
    while (
        isinstance(value, ast.Call)
        and isinstance(value.func, ast.Attribute)
        and isinstance(value.func.value, ast.Call)
    ):
        value = value.func.value
    return kind_of(script.names.resolved(value.func)) if isinstance(value, ast.Call) else None


def losses_of(nest: Nest) -> tuple[ast.stmt, list[str]] | None:
    """Return the losses of a step by name, and the statement after which all of them are known.

    None if the loop itself does not say so on every path.
    """
    found: list[str] = []
    last: ast.stmt | None = None
    for statement in nest.step_loop.node.body:
        names = _losses_in(statement)
        if names is None:
            return None
        if names:
            found += [name for name in names if name not in found]
            last = statement
    return (last, found) if last is not None else None


def _losses_in(statement: ast.stmt) -> list[str] | None:
    """Return the losses of a statement that runs in each step; None if they are not plain names."""
    calls = [node for node in walk_scope([statement]) if is_backward(node)]
    if not calls:
        return []
    if isinstance(statement, ast.With):
        inside = [_losses_in(each) for each in statement.body]
        return None if None in inside else [name for names in inside for name in names or ()]
    if isinstance(statement, ast.If):
        branches = []
        for branch in (statement.body, statement.orelse):
            inside = [_losses_in(each) for each in branch]
            branches.append(None if None in inside else [name for names in inside for name in names or ()])
        return branches[0] if branches[0] == branches[1] else None
    if not isinstance(statement, ast.Expr) or len(calls) != 1 or statement.value is not calls[0]:
        return None
    call = calls[0]
    assert isinstance(call, ast.Call)
    assert isinstance(call.func, ast.Attribute)
    value = call.func.value
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute) and value.func.attr == "scale":
        value = value.args[0] if len(value.args) == 1 else value
    if call.args or not isinstance(value, ast.Name):
        return None
    return [value.id]


def _optimizer_of(script: Script, call: ast.Call, scope: Scope) -> bool | None:
    """Tell whether a call of ``step`` updates weights; None if that cannot be told."""
    assert isinstance(call.func, ast.Attribute)
    receiver = dotted(call.func.value)
    if receiver is None:
        return None
    kind = kind_at(script, call.func.value, scope)
    if kind is None:
        return False if any(part in last_part(receiver).lower() for part in _OUTPUT) else None
    if kind == "a gradient scaler":
        return True if call.args and kind_at(script, call.args[0], scope) == OPTIMIZER else None
    return kind == OPTIMIZER


def _waits(script: Script, call: ast.Call, changing: set[str]) -> bool:
    """Tell whether a call is under a condition that changes from batch to batch, without its backward()."""
    child: ast.AST = call
    for around in script.parents.around(call):
        if isinstance(around, ast.For | ast.While | ast.FunctionDef | ast.AsyncFunctionDef):
            return False
        if isinstance(around, ast.If) and child is not around.test:
            branch = around.body if child in around.body else around.orelse
            named = {each.id for each in walk(around.test) if isinstance(each, ast.Name)}
            if named & changing and not any(is_backward(each) for each in walk_scope(branch)):
                return True
        child = around
    return False


def _assigned(loop: ast.For | ast.AsyncFor | ast.While) -> set[str]:
    found = set(stored_in(loop.target)) if not isinstance(loop, ast.While) else set()
    for node in walk_scope(loop.body):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return found
