"""Files that a script empties when it starts and writes in its loop: a resume would lose what they had."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from trainerd.analysis.syntax import last_part, walk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trainerd.adoption.nest import Nest
    from trainerd.analysis.script import Script


def truncating_opens(script: Script, nest: Nest) -> Iterator[ast.Call]:
    """Yield the calls that open a file with mode ``w`` outside of the training loop, and keep it open."""
    inside = set(walk(nest.outer.node))
    reaches = {nest.outer.node, *(call for call, _ in nest.calls)}
    for call, scope in script.names.calls:
        if call in inside or not _empties(call):
            continue
        if nest.outer.scope is scope and call.lineno > nest.outer.line:
            continue
        around = next(script.parents.around(call), None)
        if isinstance(around, ast.withitem):
            block = next(each for each in script.parents.around(around) if isinstance(each, ast.With))
            if not reaches & set(walk(block)):
                continue  # closed before the loop: each attempt writes the same
        elif isinstance(around, ast.Attribute):
            continue  # open(…).write(…)
        yield call


def _empties(call: ast.Call) -> bool:
    name = call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")
    if last_part(name) != "open":
        return False
    given = [*call.args[:2], *(each.value for each in call.keywords if each.arg == "mode")]
    return any(
        isinstance(each, ast.Constant) and each.value in {"w", "wt", "wb", "w+", "wb+", "w+b"}
        for each in given
    )
