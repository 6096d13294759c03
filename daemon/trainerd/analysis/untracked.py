"""Objects that decide how training goes on and are made and never tracked."""

from __future__ import annotations

import ast
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from trainerd.analysis.drawn import is_drawn_in_a_loop
from trainerd.analysis.kinds import OPTIMIZER, is_generator, kind_of
from trainerd.analysis.loops import opened_by_either, session_of
from trainerd.analysis.script_finding import ScriptFinding
from trainerd.analysis.syntax import dotted, last_part, walk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trainerd.analysis.carried import Carried
    from trainerd.analysis.coverage import TrackedCoverage
    from trainerd.analysis.loops import Opening
    from trainerd.analysis.scopes import Scope
    from trainerd.analysis.script import Script

RULE: Final = "untracked-object"
GENERATOR_RULE: Final = "untracked-generator"
_DEPTH_MAX: Final = 6
_PICKING: Final = frozenset({"list", "tuple", "next", "iter", "reversed", "getattr"})
_FORGOTTEN: Final = "is not tracked: a resume begins with a new one"


def untracked_objects(script: Script) -> Iterator[ScriptFinding]:
    """Yield optimizers, schedulers, scalers, averages, models and generators that are not tracked."""
    if script.tracking.is_unknown or not script.has_session:
        return
    if not script.tracking.calls:
        yield from _nothing_tracked(script)
        return
    coverage = script.coverage
    for scope in script.scopes:
        for name, values in scope.values.items():
            for value in values:
                if isinstance(value, ast.Call):
                    is_tracked = script.tracking.keeps(name, scope) or coverage.has(value)
                    yield from _of_call(script, coverage, scope, name, value, is_tracked=is_tracked)


def changed_objects(script: Script, carried: list[Carried]) -> Iterator[ScriptFinding]:
    """Yield objects of the script's classes, and copies of models, that a loop changes: not tracked."""
    made: dict[ast.expr, Carried] = {}
    for each in carried:
        assert each.holder is not None
        for value in script.names.values(each.holder, each.loop.scope):
            first = made.setdefault(value, each)
            if first is not each:
                opened_by = opened_by_either(first.opened_by, each.opened_by)
                made[value] = replace(first, opened_by=opened_by)
    for value, each in made.items():
        assert each.holder is not None
        name = next(
            (name for scope in script.scopes for name, values in scope.values.items() if value in values),
            each.holder or "",
        )
        if each.holder == each.name:
            why = f"{name} gets other weights in the loop of line {each.loop.node.lineno} and {_FORGOTTEN}"
            instead = _track(script, name)
        else:
            attribute = last_part(each.name)
            why = (
                f"{name} keeps {attribute} (line {each.node.lineno}) from one {each.loop.unit} to the next "
                f"and {_FORGOTTEN}"
            )
            instead = _track(script, name)
            if not script.names.is_module(script.names.class_of(each.holder, each.loop.scope)):
                instead = f"give its class state_dict and load_state_dict, and write {instead}"
        yield ScriptFinding.at(value, RULE, name, why=why, instead=instead, opened_by=each.opened_by)


def _nothing_tracked(script: Script) -> Iterator[ScriptFinding]:
    if not script.sessions.calls or script.tracking.is_passed_on:
        return  # objects may be tracked by the file that passes the session, or by one that gets it
    call = script.sessions.calls[0]
    yield ScriptFinding.at(
        call,
        RULE,
        "track",
        why="the session tracks nothing: a resume restores no weights",
        instead="session.track(model=model, optimizer=optimizer) before the first loop",
    )


def _of_call(
    script: Script, coverage: TrackedCoverage, scope: Scope, name: str, call: ast.Call, *, is_tracked: bool
) -> Iterator[ScriptFinding]:
    made = call
    while isinstance(made.func, ast.Attribute) and isinstance(made.func.value, ast.Call):
        made = made.func.value  # torch.Generator().manual_seed(1), Model(…).to(device)
    resolved = script.names.resolved(made.func)
    kind = kind_of(resolved)
    if kind is not None and not _is_off(made):
        if not is_tracked:
            yield ScriptFinding.at(
                call,
                RULE,
                name,
                why=f"{name} is {kind} and {_FORGOTTEN}",
                instead=_track(script, name),
                opened_by=_loops_of(script, scope),
            )
        if kind == OPTIMIZER:
            yield from _untracked_models(script, coverage, scope, made)
    elif not is_tracked and is_generator(resolved) and is_drawn_in_a_loop(script, scope, name, call):
        yield ScriptFinding.at(
            call,
            GENERATOR_RULE,
            name,
            why=f"{name} is a random generator that a training loop draws from, and {_FORGOTTEN}",
            instead=_track(script, _from_outside(script, scope, name)),
            opened_by=_loops_of(script, scope),
        )


def _untracked_models(
    script: Script, coverage: TrackedCoverage, scope: Scope, optimizer: ast.Call
) -> Iterator[ScriptFinding]:
    for model in _models_of(script, scope, optimizer):
        origins = script.names.values(model, scope)
        if (
            not origins
            or script.tracking.keeps(model, scope)
            or script.tracking.tracks_part_of(model, scope)
            or any(
                coverage.has(origin) or _is_part_of_tracked(script, scope, origin, 0) for origin in origins
            )
        ):
            continue
        yield ScriptFinding.at(
            optimizer,
            RULE,
            model,
            why=f"{model} is trained by this optimizer and {_FORGOTTEN}",
            instead=_track(script, model),
            opened_by=_loops_of(script, scope),
        )


def _is_part_of_tracked(script: Script, scope: Scope, value: ast.expr, depth: int) -> bool:
    """Tell whether an expression takes a part out of something tracked, such as ``m[4]``."""
    inner = value
    while (name := dotted(inner)) is None:
        if isinstance(inner, ast.Subscript | ast.Attribute | ast.Starred):
            inner = inner.value
        elif isinstance(inner, ast.Call) and isinstance(inner.func, ast.Attribute):
            inner = inner.func.value
        elif isinstance(inner, ast.Call) and dotted(inner.func) in _PICKING and inner.args:
            inner = inner.args[0]
        else:
            return False
    if script.tracking.keeps(name, scope):
        return True
    origins = script.names.values(name, scope) if depth < _DEPTH_MAX else []
    return any(_is_part_of_tracked(script, scope, each, depth + 1) for each in origins)


def _models_of(script: Script, scope: Scope, optimizer: ast.Call) -> list[str]:
    """Return the objects whose ``parameters()`` an optimizer is given."""
    given = [*optimizer.args[:1], *(each.value for each in optimizer.keywords if each.arg == "params")]
    values = [
        value
        for argument in given
        for value in script.names.values(dotted(argument) or "", scope) or [argument]
    ]
    called = [node.func for value in values for node in walk(value) if isinstance(node, ast.Call)]
    models = [
        dotted(function.value)
        for function in called
        if isinstance(function, ast.Attribute) and function.attr in {"parameters", "named_parameters"}
    ]
    return list(dict.fromkeys(model for model in models if model is not None))


def _loops_of(script: Script, scope: Scope) -> list[Opening]:
    """Return what opens the loops of a function that makes an object: without them it trained nothing.

    None for the module, and for a function without loops: what it makes may be trained elsewhere.
    """
    if isinstance(scope.node, ast.Module) or scope.owner is not None:
        return []
    return [call for loop in script.loops if loop.scope is scope for call in loop.opened_by]


def _is_off(call: ast.Call) -> bool:
    return any(
        keyword.arg == "enabled" and isinstance(keyword.value, ast.Constant) and keyword.value.value is False
        for keyword in call.keywords
    )


def _from_outside(script: Script, scope: Scope, name: str) -> str:
    """Return what the code that makes the object calls its attribute ``self.x``, if it gives it a name."""
    first, _, attribute = name.partition(".")
    if scope.owner is None or first != scope.self_name:
        return name
    named = (
        other
        for each in script.scopes
        for other, values in each.values.items()
        if any(isinstance(value, ast.Call) and dotted(value.func) == scope.owner.name for value in values)
    )
    return f"{next(named, first)}.{attribute}"


def _track(script: Script, name: str) -> str:
    """Return the line that tracks an object."""
    short = last_part(name)
    call = script.tracking.calls[0] if script.tracking.calls else None
    if call is not None and call in script.sessions.checkpointer_calls:
        return f'trainerd.Checkpointer(folder, {{"{short}": {name}, …}})'
    session = session_of(call) if call is not None else "session"
    return f"{session}.track({short}={name})"
