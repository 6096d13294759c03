"""Objects that decide how training goes on and are made and never tracked."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Final

from trainerd.analysis.finding import Finding
from trainerd.analysis.script import dotted, walk_scope

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trainerd.analysis.script import Scope, Script

RULE: Final = "untracked-object"
GENERATOR_RULE: Final = "untracked-generator"

_NAMES: Final = {
    "GradScaler": "a gradient scaler",
    "AveragedModel": "an average of the model's weights",
    "ExponentialMovingAverage": "an average of the model's weights",
    "ModelEma": "an average of the model's weights",
    "ModelEmaV2": "an average of the model's weights",
    "ModelEmaV3": "an average of the model's weights",
    "EMA": "an average of the model's weights",
    "SWALR": "a learning-rate scheduler",
}
_OPTIMIZERS: Final = frozenset(
    {
        "SGD", "Adam", "AdamW", "Adamax", "Adadelta", "Adafactor", "Adagrad", "ASGD", "LBFGS", "NAdam", "RAdam", "RMSprop",
        "Rprop", "SparseAdam", "Muon", "Lion", "Lamb", "LAMB", "LARS", "SAM", "Sophia", "FusedAdam",
    }
)  # fmt: skip
_GENERATORS: Final = frozenset(
    {
        "torch.Generator",
        "numpy.random.default_rng",
        "numpy.random.RandomState",
        "numpy.random.Generator",
        "random.Random",
    }
)


def untracked_objects(script: Script) -> Iterator[Finding]:
    """Yield optimizers, schedulers, scalers, averages, models and generators that are not tracked."""
    if script.tracks_unknown or not script.has_session:
        return
    if not script.track_calls:
        # Objects may be tracked by another file that this one is imported by.
        if script.session_calls:
            call = script.session_calls[0]
            yield Finding(
                call.lineno,
                call.col_offset + 1,
                RULE,
                "track",
                "the session tracks nothing: a resume restores no weights",
                "session.track(model=model, optimizer=optimizer) before the first loop",
            )
        return
    for scope in script.scopes:
        for name, values in scope.values.items():
            if name in script.tracked or _is_covered(script, scope, name):
                continue
            for value in values:
                if isinstance(value, ast.Call):
                    yield from _of_call(script, scope, name, value)


def _of_call(script: Script, scope: Scope, name: str, call: ast.Call) -> Iterator[Finding]:
    made = call
    while isinstance(made.func, ast.Attribute) and isinstance(made.func.value, ast.Call):
        made = made.func.value  # torch.Generator().manual_seed(1), Model(…).to(device)
    resolved = script.resolved(made.func)
    kind = kind_of(resolved)
    short = name.rpartition(".")[2]
    session = _session(script)
    if kind is not None and not _is_off(made):
        yield Finding(
            call.lineno,
            call.col_offset + 1,
            RULE,
            name,
            f"{name} is {kind} and is not tracked: after a resume it begins again",
            f"{session}.track({short}={name})",
        )
        if kind == "an optimizer" and (model := _model_of(made)) and not _is_kept(script, model):
            yield Finding(
                call.lineno,
                call.col_offset + 1,
                RULE,
                model,
                f"{model} is trained and is not tracked: after a resume it begins again",
                f"{session}.track({model.rpartition('.')[2]}={model})",
            )
    elif resolved in _GENERATORS and _is_drawn_in_a_loop(script, name, call):
        yield Finding(
            call.lineno,
            call.col_offset + 1,
            GENERATOR_RULE,
            name,
            f"{name} is a random generator that a training loop draws from, and is not tracked: after a resume it "
            "begins again",
            f"{session}.track({short}={name})",
        )


def kind_of(resolved: str) -> str | None:
    """Return what an object of a class, or made by a function, is; None if it needs no tracking as far as is known."""
    package, _, last = resolved.rpartition(".")
    if last in _NAMES:
        return _NAMES[last]
    if "lr_scheduler" in package.split(".") or (
        last.startswith("get_") and last.endswith(("_scheduler", "_warmup"))
    ):
        return "a learning-rate scheduler"
    if last.endswith(("LR", "Scheduler", "WarmRestarts", "OnPlateau")) and last[:1].isupper():
        return "a learning-rate scheduler"
    if last in _OPTIMIZERS or (package.rpartition(".")[2] == "optim" and last[:1].isupper()):
        return "an optimizer"
    return None


def _is_off(call: ast.Call) -> bool:
    return any(
        keyword.arg == "enabled" and isinstance(keyword.value, ast.Constant) and keyword.value.value is False
        for keyword in call.keywords
    )


def _model_of(call: ast.Call) -> str | None:
    """Return the object whose ``parameters()`` an optimizer is given."""
    for argument in call.args[:1]:
        if (
            isinstance(argument, ast.Call)
            and isinstance(argument.func, ast.Attribute)
            and argument.func.attr in {"parameters", "named_parameters"}
        ):
            return dotted(argument.func.value)
    return None


def _is_kept(script: Script, name: str) -> bool:
    parts = name.split(".")
    return any(".".join(parts[:end]) in script.tracked for end in range(1, len(parts) + 1))


def _is_covered(script: Script, scope: Scope, name: str) -> bool:
    """Tell whether an object is part of one that is tracked, such as a scheduler in a `SequentialLR`.

    Also one that is wrapped or renamed: what becomes of it is not followed further.
    """
    for other, values in scope.values.items():
        if other == name or other not in script.tracked:
            continue
        for value in values:
            if isinstance(value, ast.Call) and kind_of(script.resolved(value.func)) == "an optimizer":
                continue
            kind = kind_of(script.resolved(value.func)) if isinstance(value, ast.Call) else None
            arguments = value.args if kind is not None and isinstance(value, ast.Call) else [value]
            for argument in arguments if kind != "a learning-rate scheduler" else _schedulers(arguments):
                if any(dotted(each) == name for each in ast.walk(argument)):
                    return True
    return any(
        isinstance(node, ast.Return)
        and node.value is not None
        and any(dotted(e) == name for e in ast.walk(node.value))
        for node in walk_scope(scope.body)
    )  # the caller has it, under a name of its own


def _schedulers(arguments: list[ast.expr]) -> list[ast.expr]:
    """Return the arguments of a scheduler that may be schedulers: the optimizer beside them does not count."""
    return [argument for argument in arguments if isinstance(argument, ast.List | ast.Tuple)]


def _is_drawn_in_a_loop(script: Script, name: str, made: ast.Call) -> bool:
    """Tell whether a training loop uses a generator that was made outside of it."""
    for scope in script.scopes:
        for loop in scope.loops:
            nodes = list(walk_scope(loop.node.body))
            if loop.unit == "epoch" or made in nodes:
                continue
            if any(isinstance(node, ast.Name | ast.Attribute) and dotted(node) == name for node in nodes):
                return True
    return False


def _session(script: Script) -> str:
    function = script.track_calls[0].func
    assert isinstance(function, ast.Attribute)
    return dotted(function.value) or "session"
