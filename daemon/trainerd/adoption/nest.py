"""The loops of a script that train, and which of the usual shapes they have."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainerd.adoption.loop_heads import LoaderHead, RangeHead, loader_head, range_head
from trainerd.adoption.pulls import Pull, passes_bound, pull_of
from trainerd.adoption.reach import PlacedLoop, is_backward
from trainerd.adoption.refusal import AdoptionRefusedError, refused
from trainerd.analysis.syntax import walk

if TYPE_CHECKING:
    from trainerd.adoption.reach import Reach
    from trainerd.analysis.scopes import Scope
    from trainerd.analysis.script import Script


@dataclass(frozen=True)
class Nest:
    """The loops of one run.

    Attributes:
        outer: The outermost loop that trains.
        count: What its head says, if it is over a range.
        inner: The loop over batches, `outer` itself where there is none around it; None without a loader.
        loader: What the head of `inner` says.
        calls: The calls by which the outer loop reaches the inner one.
        pull: How a loop over a range takes its batches from an iterator that does not end.
        steps: Number of steps after which a ``while`` loop around the loader ends.
    """

    outer: PlacedLoop
    count: RangeHead | None = None
    inner: PlacedLoop | None = None
    loader: LoaderHead | None = None
    calls: tuple[tuple[ast.Call, Scope], ...] = ()
    pull: Pull | None = None
    steps: str | None = None

    @property
    def step_loop(self) -> PlacedLoop:
        """The loop of which each iteration is a step."""
        return self.inner or self.outer


def nest_of(script: Script, reach: Reach) -> Nest:
    """Return the loops of a script that train.

    Raises:
        AdoptionRefusedError: There are none, there are several runs, or they have another shape.
    """
    loops = reach.training_loops()
    roots = [
        loop
        for loop in loops
        if not any(loop in reach.within(other, loops) for other in loops if other != loop)
    ]
    if not roots:
        for node in walk(script.tree):
            if is_backward(node):
                assert isinstance(node, ast.Call)
                raise refused(node, "backward() is not called by a loop, nor by a function that a loop calls")
        raise refused(
            1,
            "no training loop found: no loop calls backward(), nor do functions of this file that it calls",
            "name the file that has the loop; for frameworks, see docs/training-api.md",
        )
    if len(roots) > 1:
        raise refused(
            roots[1].node,
            f"a second training loop, beside that of line {roots[0].line}: one session is one run",
            "docs/loop-shapes.md, several loops over epochs",
        )
    outer = roots[0]
    for loop in [outer, *reach.within(outer, loops)]:
        if loop.node.orelse:
            raise refused(loop.node.orelse[0], "a training loop with else: a skipped loop would run it")
        if isinstance(loop.node, ast.AsyncFor):
            raise refused(loop.node, "the training loop is asynchronous")
        if loop.node.body[0].lineno == loop.line:
            raise refused(
                loop.node, "a training loop with its body in the same line", "the body on lines of its own"
            )
    if isinstance(outer.node, ast.While):
        return _around_passes(script, reach, outer, loops)
    assert isinstance(outer.node, ast.For)
    count = range_head(script, outer.node)
    if count is None:
        loader = _needed_loader_head(script, outer)
        _check_no_loader_within(script, reach, outer, loops)
        return Nest(outer, None, outer, loader)
    return _over_range(script, reach, outer, count, loops)


def _over_range(
    script: Script, reach: Reach, outer: PlacedLoop, count: RangeHead, loops: list[PlacedLoop]
) -> Nest:
    inside = reach.within(outer, loops)
    placed = [(loop, _head(script, loop)) for loop in inside]
    over_loaders = [(loop, head) for loop, head in placed if head is not None]
    if not over_loaders:
        pull = pull_of(script, outer, count)
        if pull is not None:
            return Nest(outer, count, pull=pull)
        if inside:
            raise _unknown_loop(inside[0])
        return Nest(outer, count)
    inner, loader = over_loaders[0]
    assert loader is not None
    _check_no_loader_within(script, reach, inner, loops)
    below = reach.within(inner, loops)
    for loop in inside:
        if loop == inner or loop in below:
            continue
        if inner in reach.within(loop, loops):
            raise refused(
                loop.node, "a third loop around the loop over batches: one session is one run of epochs"
            )
        raise refused(loop.node, f"a second training loop in the epoch, beside that of line {inner.line}")
    return Nest(outer, count, inner, loader, _calls(script, reach, outer, inner))


def _around_passes(script: Script, reach: Reach, outer: PlacedLoop, loops: list[PlacedLoop]) -> Nest:
    inside = reach.within(outer, loops)
    over_loaders = [(loop, head) for loop in inside if (head := _head(script, loop)) is not None]
    if len(over_loaders) != 1 or over_loaders[0][0].scope is not outer.scope or len(inside) != 1:
        raise refused(
            outer.node,
            "a while loop that trains, in a shape that is not understood",
            "for epoch in range(n), or while step < n around one loop over a loader",
        )
    inner, loader = over_loaders[0]
    assert isinstance(outer.node, ast.While)
    assert isinstance(inner.node, ast.For)
    return Nest(outer, None, inner, loader, steps=passes_bound(outer.node, inner.node, outer.scope))


def _calls(
    script: Script, reach: Reach, outer: PlacedLoop, inner: PlacedLoop
) -> tuple[tuple[ast.Call, Scope], ...]:
    if inner.scope is outer.scope:
        around = script.parents.loops_around(inner.node)
        _check_between(around[: around.index(outer.node)])
        return ()
    calls = tuple(reach.calls_to(inner.scope, outer.scope))
    for call, scope in calls:
        around = script.parents.loops_around(call)
        _check_between(around[: around.index(outer.node)] if scope is outer.scope else around)
    _check_between(script.parents.loops_around(inner.node))
    return calls


def _check_between(loops: list[ast.AST]) -> None:
    for loop in loops:
        assert isinstance(loop, ast.stmt)
        raise refused(loop, "a third loop around the loop over batches: one session is one run of epochs")


def _check_no_loader_within(script: Script, reach: Reach, inner: PlacedLoop, loops: list[PlacedLoop]) -> None:
    for loop in reach.within(inner, loops):
        if _head(script, loop) is not None:
            raise refused(loop.node, f"a training loop over a loader within that of line {inner.line}")


def _head(script: Script, loop: PlacedLoop) -> LoaderHead | None:
    return loader_head(script, loop.node, loop.scope) if isinstance(loop.node, ast.For) else None


def _needed_loader_head(script: Script, loop: PlacedLoop) -> LoaderHead:
    head = _head(script, loop)
    if head is None:
        raise _unknown_loop(loop)
    return head


def _unknown_loop(loop: PlacedLoop) -> AdoptionRefusedError:
    text = ast.unparse(loop.node.iter) if isinstance(loop.node, ast.For) else ast.unparse(loop.node)
    text = text.splitlines()[0]
    return refused(
        loop.node,
        f"the loop trains over {text[:60]}, which is not known to be a DataLoader",
        "a torch DataLoader that is made in this file, or a name with loader in it",
    )
