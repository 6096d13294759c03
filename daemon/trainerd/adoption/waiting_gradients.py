"""Gradients that wait over k batches for a step: where they do so in a shape that a session can keep.

``if (i + 1) % k == 0 or i + 1 == len(loader):`` around the optimizer's step becomes ``accumulate=k`` and
``if session.ends_step:``. Without the second half, gradients may wait beyond the end of the loop: refused.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from trainerd.adoption.reach import is_backward
from trainerd.adoption.refusal import Refusal
from trainerd.analysis.syntax import dotted, stored_in, walk, walk_scope

if TYPE_CHECKING:
    from trainerd.adoption.nest import Nest

WAITS: Final = "gradients wait over several batches for a step, and are in no checkpoint"
_INSTEAD: Final = "session.batches(loader, accumulate=k) and session.ends_step"


@dataclass(frozen=True)
class Accumulation:
    """Gradients of so many batches make a step.

    Attributes:
        batches: How many batches.
        conditions: The conditions of the loop that become ``session.ends_step``.
        blocks: The statements under them.
        takes_rest: Whether the script itself makes a step of the batches that are left at the end of a loop.
    """

    batches: ast.expr
    conditions: tuple[ast.expr, ...]
    blocks: tuple[ast.If, ...]
    takes_rest: bool


def accumulation_of(nest: Nest) -> Accumulation | None:
    """Return how the loop over batches accumulates gradients; None if it does not, or not in a known shape.

    Known is a loop over `enumerate` whose body computes gradients in each batch, and then steps and resets
    them under one condition on the count: every k-th batch, or that and the last one.
    """
    head, inner = nest.loader, nest.inner
    if head is None or inner is None or head.count is None or nest.steps is not None or nest.pull is not None:
        return None
    body = inner.node.body
    loaders = [ast.unparse(each) for each in head.loaders]
    found = [
        (statement, known)
        for statement in body
        if isinstance(statement, ast.If) and not statement.orelse
        if (known := _every(statement.test, head.count, head.first, loaders)) is not None
    ]
    stepping = [(each, known) for each, known in found if _steps_and_resets(each)]
    if len(stepping) != 1:
        return None
    block, (batches, takes_rest) = stepping[0]
    same = [each for each, _ in found if ast.dump(each.test) == ast.dump(block.test)]
    if not _is_known_body(body, block, head.count) or _is_changed(batches, nest):
        return None
    return Accumulation(batches, tuple(each.test for each in same), tuple(same), takes_rest)


def accumulation_refusal(line: int) -> Refusal:
    """Return the refusal of gradients that wait in another shape."""
    return Refusal(line, WAITS, _INSTEAD)


def rest_refusal(nest: Nest, accumulation: Accumulation) -> Refusal:
    """Return the refusal of gradients that are left at the end of a loop, without a step of the script.

    A session makes one, so the changed script would not train what the plain one does.
    """
    head, condition = nest.loader, accumulation.conditions[0]
    assert head is not None
    text, loader = ast.unparse(condition), ast.unparse(head.loaders[0])
    ordinal = head.count if head.first == 1 else f"{head.count} + 1"
    instead = f"if {text} or {ordinal} == len({loader}):" if len(head.loaders) == 1 else _INSTEAD
    return Refusal(
        condition.lineno,
        f"gradients of fewer than {ast.unparse(accumulation.batches)} batches may be left at the end of the "
        "loop without a step, and are in no checkpoint",
        instead,
    )


def _every(test: ast.expr, count: str, first: int, loaders: list[str]) -> tuple[ast.expr, bool] | None:
    """Return k of a condition that holds at each k-th batch, and whether it holds at the last one as well."""
    if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.Or) and len(test.values) == 2:
        for one, other in (test.values, test.values[::-1]):
            if (batches := _kth(one, count, first)) is not None and _is_last(other, count, first, loaders):
                return batches, True
        return None
    batches = _kth(test, count, first)
    return None if batches is None else (batches, False)


def _kth(test: ast.expr, count: str, first: int) -> ast.expr | None:
    """Return k of ``(i + 1) % k == 0`` and its like."""
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        rest: ast.expr = test.operand
    elif isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], ast.Eq):
        if not _is_number(test.comparators[0], 0):
            return None
        rest = test.left
    else:
        return None
    if not isinstance(rest, ast.BinOp) or not isinstance(rest.op, ast.Mod):
        return None
    is_plain = isinstance(rest.right, ast.Name | ast.Attribute | ast.Constant)
    return rest.right if is_plain and _ordinal(rest.left, count, first) else None


def _is_last(test: ast.expr, count: str, first: int, loaders: list[str]) -> bool:
    """Tell whether ``i + 1 == len(loader)``, or its like: a condition that holds at the last batch."""
    if not isinstance(test, ast.Compare) or len(test.ops) != 1 or not isinstance(test.ops[0], ast.Eq):
        return False
    for one, other in ((test.left, test.comparators[0]), (test.comparators[0], test.left)):
        if _ordinal(one, count, first) and _is_length(other, loaders):
            return True
        is_one_less = (
            isinstance(other, ast.BinOp)
            and isinstance(other.op, ast.Sub)
            and _is_number(other.right, 1)
            and _is_length(other.left, loaders)
        )
        if is_one_less and first == 0 and isinstance(one, ast.Name) and one.id == count:
            return True
    return False


def _ordinal(node: ast.expr, count: str, first: int) -> bool:
    """Tell whether an expression is the number of the batch, counted from 1."""
    if first == 1:
        return isinstance(node, ast.Name) and node.id == count
    if not isinstance(node, ast.BinOp) or not isinstance(node.op, ast.Add):
        return False
    return any(
        isinstance(one, ast.Name) and one.id == count and _is_number(other, 1)
        for one, other in ((node.left, node.right), (node.right, node.left))
    )


def _is_length(node: ast.expr, loaders: list[str]) -> bool:
    return (
        isinstance(node, ast.Call)
        and dotted(node.func) == "len"
        and len(node.args) == 1
        and [ast.unparse(node.args[0])] == loaders
    )


def _is_number(node: ast.expr, number: int) -> bool:
    return isinstance(node, ast.Constant) and type(node.value) is int and node.value == number


def _steps_and_resets(block: ast.If) -> bool:
    """Tell whether a block steps one optimizer, and then sets its gradients to zero."""
    stepped: str | None = None
    was_reset = False
    for statement in block.body:
        call = statement.value if isinstance(statement, ast.Expr) else None
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
            continue
        owner = dotted(call.func.value)
        if call.func.attr == "step" and owner is not None:
            argument = dotted(call.args[0]) if len(call.args) == 1 else None
            if _is_optimizer(argument):
                owner = argument
            elif not _is_optimizer(owner):
                continue
            if stepped is not None:
                return False
            stepped = owner
        elif call.func.attr == "zero_grad" and stepped is not None:
            was_reset = was_reset or owner == stepped
    return was_reset


def _is_optimizer(name: str | None) -> bool:
    return name is not None and ("optim" in name.lower() or name.lower() in {"opt", "optimiser"})


def _is_known_body(body: list[ast.stmt], block: ast.If, count: str) -> bool:
    """Tell whether each batch computes gradients, all of them before the block, and none leaves the loop."""
    at = body.index(block)
    before = [node for each in body[:at] for node in walk_scope([each]) if is_backward(node)]
    always = [
        each
        for each in body[:at]
        if isinstance(each, ast.Expr | ast.With) and any(is_backward(node) for node in walk_scope([each]))
    ]
    inside = [node for each in always for node in walk_scope([each]) if is_backward(node)]
    if not before or len(before) != len(inside):
        return False
    for statement in [*body[:at], *body[at + 1 :]]:
        for node in walk(statement):
            if isinstance(node, ast.Continue | ast.Break | ast.Return | ast.Raise | ast.Try | ast.If) and (
                not isinstance(node, ast.If) or any(is_backward(each) for each in walk(node))
            ):
                return False
            if isinstance(node, ast.Attribute) and node.attr == "zero_grad":
                return False
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id == count:
                return False
    return not any(
        isinstance(node, ast.Continue | ast.Return | ast.Try) or is_backward(node)
        for each in [*block.body, *body[at + 1 :]]
        for node in walk(each)
    )


def _is_changed(batches: ast.expr, nest: Nest) -> bool:
    """Tell whether k is changed by the loops."""
    names = {each.id for each in walk(batches) if isinstance(each, ast.Name)}
    if isinstance(batches, ast.Constant) and (type(batches.value) is not int or batches.value < 1):
        return True
    for loop in {nest.outer.node, nest.inner.node if nest.inner is not None else nest.outer.node}:
        if not isinstance(loop, ast.While) and names & set(stored_in(loop.target)):
            return True
        for node in walk(loop):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id in names:
                return True
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.ctx, ast.Store)
                and ast.unparse(node) == ast.unparse(batches)
            ):
                return True
    return False
