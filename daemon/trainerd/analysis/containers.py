"""Lists, dictionaries, meters and copies of models that a loop changes in place and that are not saved."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Final

from trainerd.analysis.effects import ALL_OF_A_MODULE, MUTATORS, REORDERED
from trainerd.analysis.elements import ELEMENT, FILLED, appended_to, makes_tensors
from trainerd.analysis.syntax import chains, dotted, last_part, prefixes, stored_in, walk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trainerd.analysis.effects import Change
    from trainerd.analysis.loops import SessionLoop
    from trainerd.analysis.script import Script
    from trainerd.analysis.script_views import Views

_MAKERS: Final = frozenset(
    {
        "list", "dict", "set", "deque", "defaultdict", "Counter", "OrderedDict", "array", "tensor", "zeros",
        "ones", "full", "empty", "zeros_like", "ones_like", "eye", "SimpleNamespace", "clone",
    }
)  # fmt: skip
_GROWS: Final = frozenset({"append", "appendleft", "extend"})
_ITERATORS: Final = frozenset({"iter", "aiter"})
WEIGHTS: Final = frozenset({"weights", "load_state_dict"})
_LITERALS: Final = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp, ast.BinOp)


def changed_containers(script: Script, views: Views, loop: SessionLoop) -> Iterator[Change]:
    """Yield the changes in place of what is made outside of the loop, and read somewhere."""
    fresh = views.fresh(loop)
    cleared: set[str] = set()
    for change in script.effects.changes(loop.nodes, loop.scope):
        name = change.name
        if change.how == "clear" or (change.how == FILLED and not _is_conditional(script, loop, change)):
            cleared.add(name)
        is_filled = _fills_all(loop, change) and not _is_conditional(script, loop, change)
        if is_filled or _is_begun_again(loop, change):
            continue
        if (
            name in cleared
            or any(prefix in fresh for prefix in prefixes(name))
            or script.tracking.keeps(name, change.scope)
        ):
            continue
        if not _is_container(script, views, change):
            continue
        if "." in name and script.keeps_attributes_of(name.partition(".")[0], change.scope):
            continue
        if (
            change.how in WEIGHTS
            or change.how == "next"
            or (not _takes_times(views, loop, change) and _is_read(script, name))
        ):
            yield change


def _is_begun_again(loop: SessionLoop, change: Change) -> bool:
    """Tell whether each iteration resets an object, or sets an entry of it before it is read."""
    for statement in loop.node.body:
        match statement:
            case ast.Expr(value=ast.Call(func=ast.Attribute(value=value, attr="reset" | "clear"))):
                if dotted(value) == change.name:
                    return True
            case ast.Assign(targets=[ast.Subscript(slice=ast.Constant())]) if statement is change.node:
                return not any(
                    dotted(node) == change.name and node.lineno < statement.lineno
                    for node in loop.nodes
                    if isinstance(node, ast.Name | ast.Attribute)
                ) and change.name not in set(chains(statement.value))
    return False


def _fills_all(loop: SessionLoop, change: Change) -> bool:
    """Tell whether a loop over all parameters fills an entry for each, before the iteration reads any."""
    match change.node:
        case ast.Call(func=ast.Attribute(value=ast.Subscript(slice=ast.Name(id=key)), attr="copy_")) as call:
            places = [each for each in loop.nodes if isinstance(each, ast.Name | ast.Attribute)]
            is_read = any(dotted(each) == change.name and each.lineno < call.lineno for each in places)
            is_own = any(change.name in set(chains(each)) for each in call.args)
            return not (is_read or is_own) and any(
                isinstance(each, ast.For)
                and call in [statement.value for statement in each.body if isinstance(statement, ast.Expr)]
                and key in stored_in(each.target)
                and any(getattr(node, "attr", "") in ALL_OF_A_MODULE for node in walk(each.iter))
                for each in loop.nodes
            )
    return False


def _is_conditional(script: Script, loop: SessionLoop, change: Change) -> bool:
    """Tell whether an iteration may do without a change."""
    for around in script.parents.around(change.call or change.node):
        if around is loop.node:
            return False
        if isinstance(around, ast.If | ast.While | ast.Try | ast.Match):
            return True
    return False


def _name_node(name: str) -> ast.expr:
    return ast.parse(name, mode="eval").body


def _is_container(script: Script, views: Views, change: Change) -> bool:
    if change.how == "count":
        return True
    if change.how in WEIGHTS:
        return bool(script.names.values(change.name, change.scope))
    values = script.names.values(change.name, change.scope)
    if change.how == REORDERED:
        return not values or not all(isinstance(each, ast.Constant) for each in values)
    if change.how in {ELEMENT, FILLED}:
        appended = [each for scope in script.scopes for each in appended_to(change.name, scope.nodes)]
        return change.how == ELEMENT and any(map(makes_tensors, (*values, *appended)))
    if change.how == "next":
        begun = any(_begins_iterator(script, value) for value in values)
        return begun and not script.sources.sources(_name_node(change.name), change.scope)
    if any(_makes_container(value) for value in values):
        return True
    if change.how == "item":
        return False
    return views.is_meter(change.name, change.scope) or (change.how in _GROWS and not values)


def _begins_iterator(script: Script, value: ast.expr) -> bool:
    """Tell whether an expression makes an iterator: by ``iter``, of itertools, or a generator."""
    if not isinstance(value, ast.Call):
        return isinstance(value, ast.GeneratorExp)
    name = dotted(value.func) or ""
    if name in script.names.functions:
        return any(isinstance(node, ast.Yield | ast.YieldFrom) for node in script.names.functions[name].nodes)
    return name in _ITERATORS or script.names.resolved(value.func).startswith("itertools.")


def _makes_container(value: ast.expr) -> bool:
    return isinstance(value, _LITERALS) or (
        isinstance(value, ast.Call)
        and isinstance(value.func, ast.Name | ast.Attribute)
        and (value.func.attr if isinstance(value.func, ast.Attribute) else value.func.id) in _MAKERS
    )


def _takes_times(views: Views, loop: SessionLoop, change: Change) -> bool:
    """Tell whether a meter is given times alone."""
    call = change.call or change.node
    if not isinstance(call, ast.Call) or not call.args:
        return False
    return views.clock(loop.scope).shows_in(call.args[0])


def _is_read(script: Script, name: str) -> bool:
    """Tell whether a container is read anywhere, beyond being changed."""
    changed: set[ast.AST] = set()
    for node in walk(script.tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr in MUTATORS:
                changed.add(node.func.value)
        elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
            changed.add(node.value)
    short = last_part(name)
    return any(
        isinstance(node, ast.Name | ast.Attribute)
        and isinstance(node.ctx, ast.Load)
        and node not in changed
        and (dotted(node) == name or (isinstance(node, ast.Attribute) and "." in name and node.attr == short))
        for node in walk(script.tree)
    )
