"""Counts of `enumerate`, `zip(range(n), …)` and `islice`, which begin at 0 in every attempt."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Final

from trainerd.analysis.script_finding import ScriptFinding
from trainerd.analysis.syntax import dotted, walk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trainerd.analysis.loops import SessionLoop
    from trainerd.analysis.script import Script
    from trainerd.analysis.script_views import Views

RULE: Final = "enumerate-count"
_COUNTS: Final = frozenset({"itertools.count", "count", "range"})
_ZIPS: Final = frozenset({"zip", "tqdm.contrib.tzip"})


def deciding_counts(script: Script, views: Views) -> Iterator[ScriptFinding]:
    """Yield counts that stand in a condition or a computation, rather than in output alone."""
    for loop in script.loops:
        if isinstance(loop.node, ast.While) or not loop.sources:
            continue
        for call in walk(loop.node.iter):
            if isinstance(call, ast.Call):
                yield from _limited(script, call, loop)
        display = views.display(loop.scope)
        name = _count(script, loop)
        used = [
            node
            for node in loop.nodes
            if isinstance(node, ast.Name)
            and node.id == name
            and isinstance(node.ctx, ast.Load)
            and not display.is_shown(node)
            and not _is_within_step(script, node, loop)
        ]
        if used:
            yield _finding(name, used[0], loop)


def _is_within_step(script: Script, node: ast.Name, loop: SessionLoop) -> bool:
    """Tell whether a count is taken modulo the batches of a step: attempts begin at the first of them."""
    steps = [ast.dump(each.value) for each in loop.sources[0].keywords if each.arg == "accumulate"]
    return any(
        isinstance(around, ast.BinOp) and isinstance(around.op, ast.Mod) and ast.dump(around.right) in steps
        for around in script.parents.around(node)
    )


def _count(script: Script, loop: SessionLoop) -> str | None:
    """Return the name of the count of a loop over ``enumerate(session.batches(…))`` or the like."""
    assert not isinstance(loop.node, ast.While)
    target = loop.node.target
    if not isinstance(target, ast.Tuple) or not isinstance(target.elts[0], ast.Name):
        return None
    name = dotted(loop.node.iter)
    iterables = [loop.node.iter] if name is None else script.names.values(name, loop.scope)
    for iterable in iterables:
        for each in walk(iterable):
            if not isinstance(each, ast.Call):
                continue
            function = script.names.resolved(each.func)
            if function == "enumerate" or function.endswith(".tenumerate"):
                return target.elts[0].id
            if function in _ZIPS and each.args and _is_count(script, each.args[0]):
                return target.elts[0].id
    return None


def _is_count(script: Script, node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and script.names.resolved(node.func) in _COUNTS


def _limited(script: Script, call: ast.Call, loop: SessionLoop) -> Iterator[ScriptFinding]:
    """Yield a finding if a call ends the loop after a number of batches."""
    function = script.names.resolved(call.func)
    if function == "zip":
        given = [script.names.resolved(each.func) for each in call.args if isinstance(each, ast.Call)]
        ends = "range" in given
    else:
        ends = function in {"itertools.islice", "islice"}
    if ends:
        name = dotted(call.func) or "islice"
        yield ScriptFinding.at(
            call,
            RULE,
            name,
            why=f"{name} counts from 0 again in every attempt, so that a resumed loop is longer",
            instead=f"if {loop.session}.batch + 1 == n: break at the end of the body, or "
            f"{loop.session}.epochs(None, max_steps=n)",
            opened_by=loop.opened_by,
        )


def _finding(name: str | None, node: ast.Name, loop: SessionLoop) -> ScriptFinding:
    return ScriptFinding.at(
        node,
        RULE,
        str(name),
        why=f"{name} counts from 0 again in every attempt, and the run depends on it",
        instead=f"for {name}, … in {loop.session}.enumerate(loader), which counts over all attempts; for "
        f"gradient accumulation, accumulate=k and {loop.session}.ends_step",
        opened_by=loop.opened_by,
    )
