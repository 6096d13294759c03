"""Which objects of a script belong to the state of the run, by the names that its loop has for them."""

from __future__ import annotations

import ast
import itertools
from typing import TYPE_CHECKING

from trainerd.adoption.refusal import refused
from trainerd.adoption.step_rules import kind_of_value
from trainerd.analysis.kinds import OPTIMIZER, SCHEDULER
from trainerd.analysis.syntax import Function, dotted, stored_in, walk

if TYPE_CHECKING:
    from trainerd.adoption.nest import Nest
    from trainerd.adoption.reach import Reach
    from trainerd.analysis.scopes import Scope
    from trainerd.analysis.script import Script


def objects_to_track(script: Script, nest: Nest) -> list[str]:
    """Return the names of models, optimizers, schedulers, scalers and averages, as the outer loop sees them.

    Raises:
        AdoptionRefusedError: One is not visible there, may be None, or has no state that can be saved.
    """
    scope = nest.outer.scope
    visible = _visible(scope, nest.outer.line)
    kinds: dict[str, str] = {}
    models: list[str] = []
    taken: set[ast.AST] = set()
    for name in visible:
        origins = script.names.origins(name, scope)
        made = [(value, kind) for value, _ in origins if (kind := kind_of_value(script, value)) is not None]
        if not made or any(value in taken for value, _ in made):
            continue
        _check_always_made(script, name, [value for value, _ in origins], made)
        taken.update(value for value, _ in made)
        kinds[name] = made[0][1]
    for optimizer, place in _calls_of_kind(script, OPTIMIZER):
        if optimizer not in taken:
            raise refused(optimizer, "an optimizer that the loop over epochs has no name for")
        found = [
            _name_for(script, model, place, scope, visible) for model in _trained(script, optimizer, place)
        ]
        if not found:
            raise refused(optimizer, "which model this optimizer trains is not understood")
        for model, name_here in zip(_trained(script, optimizer, place), found, strict=True):
            if name_here is None:
                raise refused(optimizer, f"{model} is trained, and the loop over epochs has no name for it")
            if name_here not in models:
                models.append(name_here)
    parts = _parts_of_schedulers(script)
    return [*models, *(name for name in kinds if name not in models and name not in parts)]


def check_bound_once(script: Script, nest: Nest, reach: Reach, names: list[str]) -> None:
    """Check that the loop goes on with the objects that it began with.

    Raises:
        AdoptionRefusedError: A name of one is bound again in the loop, or stands for another object after it.
    """
    outer = nest.outer
    holders = {name: outer.scope.holder(name) for name in names}
    head = [] if isinstance(outer.node, ast.While) else walk(outer.node.target)
    inside = itertools.chain(((node, outer.scope) for node in head), reach.code(outer.node.body, outer.scope))
    for node, place in inside:
        name = _bound(node)
        if name in holders and holders[name] is place.holder(name):
            assert isinstance(node, ast.expr | ast.stmt)
            raise refused(
                node,
                f"{name} is bound again in the training loop: the object that is saved is the first one",
                "make it once, before the loop, and change it in place",
            )
    for node in outer.scope.nodes:
        if not isinstance(node, ast.Assign) or node.lineno <= (outer.node.end_lineno or 0):
            continue
        if kind_of_value(script, node.value) is None:
            continue
        for name in stored_in(node.targets[0]):
            if name in holders and holders[name] is outer.scope.holder(name):
                raise refused(
                    node,
                    f"{name} stands for another object after the training loop",
                    "another name for that one",
                )


def _bound(node: ast.AST) -> str:
    """Return the name that a node binds or deletes, empty if it does neither."""
    if isinstance(node, ast.Name):
        return "" if isinstance(node.ctx, ast.Load) else node.id
    return node.name if isinstance(node, Function | ast.ClassDef) else ""


def _visible(scope: Scope, line: int) -> list[str]:
    """Return the variables that a scope has before a line, and those of the scopes around it."""
    found: dict[str, None] = {}
    around: Scope | None = scope
    while around is not None:
        places = {
            node.id: node.lineno
            for node in reversed(around.nodes)
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        }
        for name in around.values:
            if "." not in name and (around is not scope or places.get(name, 0) < line):
                found.setdefault(name)
        around = around.parent
    return list(found)


def _check_always_made(
    script: Script, name: str, values: list[ast.expr], made: list[tuple[ast.expr, str]]
) -> None:
    for value in values:
        if not isinstance(value, ast.Call):
            raise refused(value, f"{name} may be {ast.unparse(value)[:40]}, which has no state")
    call = made[0][0]
    assert isinstance(call, ast.Call)
    owner = script.names.classes.get(dotted(call.func) or "")
    if owner is None or script.names.is_module(owner):
        return
    methods = {each.name for each in owner.body if isinstance(each, Function)}
    if not {"state_dict", "load_state_dict"} <= methods and not owner.bases:
        raise refused(
            call,
            f"{name} is an object of {owner.name}, which has no state_dict and load_state_dict",
            f"give {owner.name} both",
        )


def _calls_of_kind(script: Script, kind: str) -> list[tuple[ast.Call, Scope]]:
    return [
        (call, scope)
        for call, scope in script.names.calls
        if kind_of_value(script, call) == kind and _is_maker(call)
    ]


def _is_maker(call: ast.Call) -> bool:
    """Tell whether a call makes the object itself, rather than calls a method of one that is made there."""
    return not (isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.Call))


def _trained(script: Script, optimizer: ast.Call, scope: Scope) -> list[str]:
    """Return the models whose parameters an optimizer is given, as its own scope names them."""
    given = [*optimizer.args[:1], *(each.value for each in optimizer.keywords if each.arg == "params")]
    values = [value for each in given for value in script.names.values(dotted(each) or "", scope) or [each]]
    found: dict[str, None] = {}
    for node in (node for value in values for node in walk(value)):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in {"parameters", "named_parameters"}
            and (name := dotted(node.func.value)) is not None
        ):
            found.setdefault(name)
    return list(found)


def _name_for(script: Script, model: str, place: Scope, scope: Scope, visible: list[str]) -> str | None:
    """Return what the loop calls a model, or the object whose part it is."""
    origins = {value for value, _ in script.names.origins(model, place)}
    if model in visible and (place is scope or place.holder(model) is scope.holder(model)):
        return model
    for name in visible:
        if origins & {value for value, _ in script.names.origins(name, scope)}:
            return name
    root = model.partition(".")[0]  # model.fc.parameters()
    return _name_for(script, root, place, scope, visible) if root != model else None


def _parts_of_schedulers(script: Script) -> set[str]:
    """Return the schedulers that are given to another scheduler, with which they are saved."""
    return {
        name
        for call, _ in _calls_of_kind(script, SCHEDULER)
        for argument in (*call.args, *(each.value for each in call.keywords))
        if isinstance(argument, ast.List | ast.Tuple)
        for each in argument.elts
        if (name := dotted(each)) is not None
    }
