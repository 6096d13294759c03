"""Variables of a loop that are read after it: a resume that skips the loop does not set them."""

from __future__ import annotations

import ast
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from trainerd.analysis.carried import is_shown_count
from trainerd.analysis.loops import opened_by_either
from trainerd.analysis.reads import Reads
from trainerd.analysis.script_finding import ScriptFinding, lines_of
from trainerd.analysis.syntax import Function

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trainerd.analysis.loops import Opening, SessionLoop
    from trainerd.analysis.scopes import Scope
    from trainerd.analysis.script import Script
    from trainerd.analysis.script_views import Views
    from trainerd.analysis.syntax import Place

RULE: Final = "read-after-loop"


def read_after_loops(script: Script, views: Views, known: set[tuple[Scope, str]]) -> Iterator[ScriptFinding]:
    """Yield what is read after a loop that assigned it.

    Args:
        script: The script.
        views: Views of its loops.
        known: Variables, with their scope, that other rules have named.
    """
    found: dict[tuple[Scope, str], ScriptFinding] = {}
    opened_by: dict[tuple[Scope, str], tuple[Opening, ...]] = {}
    for loop in sorted(script.loops, key=lambda loop: -loop.node.lineno):
        if not loop.is_skipped:
            continue
        fresh, display = views.fresh(loop), views.display(loop.scope)
        for name, node in _first_reads(script, loop).items():
            key = (loop.scope, name)
            if name not in fresh or key in known or script.tracking.keeps(name, loop.scope) or "." in name:
                continue
            is_for_show = views.clock(loop.scope).has(name) or is_shown_count(views, loop, name)
            if is_for_show and _is_set_before(loop, name):
                continue
            if not loop.is_ours and name in loop.targets and display.is_shown(node):
                continue
            calls = loop.opened_by
            opened_by[key] = opened_by_either(opened_by[key], calls) if key in opened_by else calls
            finding = found.get(key) or _finding(name, node, loop)
            found[key] = replace(finding, loops=lines_of(opened_by[key]))
    yield from found.values()


def _is_set_before(loop: SessionLoop, name: str) -> bool:
    return any(
        isinstance(node, ast.Name)
        and isinstance(node.ctx, ast.Store)
        and node.id == name
        and node.lineno < loop.node.lineno
        for node in loop.scope.nodes
    )


def _first_reads(script: Script, loop: SessionLoop) -> dict[str, Place]:
    """Return the first reads after the loop, of names that nothing assigns in between."""
    found: dict[str, Place] = {}
    assigned: set[str] = set()
    child: ast.AST = loop.node
    around_it = {other.node for other in script.loops if other.is_skipped}
    for around in script.parents.around(loop.node):
        rest = _statements_after(around, child)
        reads = Reads.of(rest, assigned)
        for name, node in reads.first.items():
            found.setdefault(name, node)
        assigned |= reads.sure
        if isinstance(around, Function) or around in around_it:
            break  # what the next iteration of the loop around it reads is its own matter
        child = around
    return found


def _statements_after(around: ast.AST, child: ast.AST) -> list[ast.stmt]:
    """Return the statements of a node that run after one of its statements."""
    rest: list[ast.stmt] = []
    for name in ("body", "orelse", "handlers", "finalbody"):
        block = getattr(around, name, None)
        if isinstance(block, list) and child in block:
            rest += block[block.index(child) + 1 :]
            if isinstance(around, ast.Try | ast.TryStar) and name != "finalbody":
                rest += around.finalbody
            elif isinstance(around, ast.For | ast.AsyncFor | ast.While) and name == "body":
                rest += around.orelse
    return [statement for statement in rest if isinstance(statement, ast.stmt)]


def _finding(name: str, node: Place, loop: SessionLoop) -> ScriptFinding:
    if not loop.is_ours:
        instead = (
            f"keep {name} in an object with state_dict and load_state_dict, and give it to {loop.session}"
        )
    elif loop.unit == "epoch":
        instead = f'{name} = {loop.session}.value("{name}", …), set in the loop through {name}.value'
    else:
        instead = f"carry = {loop.session}.variables({name}=…) before the loop, and carry.{name} in its place"
    return ScriptFinding.at(
        node,
        RULE,
        name,
        why=f"{name} is assigned in the loop of line {loop.node.lineno} and read after it: a resume after "
        f"the loop skips it, and {name} is not set or has another value",
        instead=instead,
    )
