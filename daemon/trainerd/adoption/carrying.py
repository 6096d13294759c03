"""Variables that a loop carries or leaves behind: they become variables of the session."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from trainerd.adoption.refusal import refused
from trainerd.adoption.wording import text_of
from trainerd.analysis.syntax import Comprehension, Function, parameters, stored_in, walk, walk_scope

if TYPE_CHECKING:
    from trainerd.analysis.scopes import Scope
    from trainerd.analysis.script import Script

_LIMITS: Final = frozenset({"float('inf')", "-float('inf')", "math.inf", "-math.inf", "torch.inf", "np.inf"})
_SIMPLE: Final = (ast.Constant, ast.UnaryOp, ast.List, ast.Dict, ast.Tuple, ast.Load, ast.USub, ast.operator)


@dataclass
class CarriedNames:
    """Variables of one function, or of the module, that become variables of the session.

    Attributes:
        scope: The function or the module.
        names: Names, each with the text of its first value.
    """

    scope: Scope
    names: dict[str, str] = field(default_factory=dict)

    @property
    def line(self) -> int:
        """Line of the function, 0 for the module."""
        return self.scope.node.lineno if isinstance(self.scope.node, Function) else 0


def scope_at(script: Script, line: int) -> Scope:
    """Return the innermost function that has a line, else the module."""
    around = [
        scope
        for scope in script.scopes
        if isinstance(scope.node, Function) and scope.node.lineno <= line <= (scope.node.end_lineno or 0)
    ]
    return around[-1] if around else script.scopes[0]


def check_can_carry(script: Script, scope: Scope, name: str, line: int) -> None:
    """Check that each use of a variable may become an attribute.

    Raises:
        AdoptionRefusedError: It belongs to another function, is a parameter, is bound in a way in which an
            attribute cannot be, is used by a function within, or is an object rather than a value.
    """
    if name not in scope.own or name in scope.shared:
        raise refused(line, f"{name} is carried from one batch to the next, and belongs to another function")
    if isinstance(scope.node, Function) and name in parameters(scope.node):
        raise refused(line, f"the parameter {name} is carried from one batch to the next")
    for node in walk_scope(scope.body):
        _check_use(node, name)
    for function in walk(scope.node):
        if function is not scope.node and isinstance(
            function, Function | ast.ClassDef | ast.Lambda | Comprehension
        ):
            _check_inner(function, name)
    for value in scope.values.get(name, []):
        call = value.value if isinstance(value, ast.Subscript) else value
        if isinstance(call, ast.Call) and _makes_object(script, call):
            raise refused(
                value,
                f"{name} is an object that the loop changes, and no plain value",
                "an object with state_dict and load_state_dict, to be tracked",
            )


def first_value(script: Script, scope: Scope, name: str) -> str:
    """Return the text of what a variable is set to first, if that is a literal; else ``None``."""
    values = scope.values.get(name, [])
    if values and all(isinstance(each, _SIMPLE) for each in walk(values[0])):
        return text_of(script, values[0])
    if values and ast.unparse(values[0]) in _LIMITS:
        return text_of(script, values[0])
    return "None"


def _check_use(node: ast.AST, name: str) -> None:
    bound: str | None = None
    match node:
        case ast.NamedExpr(target=ast.Name(id=found)):
            bound = ":="
        case ast.Delete():
            found, bound = name if name in {n for t in node.targets for n in stored_in(t)} else "", "del"
        case ast.ExceptHandler(name=str(found)):
            bound = "except"
        case ast.For() if name in set(stored_in(node.target)):
            found, bound = name, "for"
        case _:
            return
    if found == name:
        assert isinstance(node, ast.expr | ast.stmt | ast.ExceptHandler)
        raise refused(
            node.lineno, f"{name} is bound by {bound}, and needed after the loop or in the next iteration"
        )


def _check_inner(node: ast.AST, name: str) -> None:
    if isinstance(node, Comprehension):
        if any(name in set(stored_in(each.target)) for each in node.generators):
            raise refused(node, f"{name} is the variable of a comprehension and of the loop as well")
        return
    if isinstance(node, ast.Lambda):
        if name in {each.arg for each in node.args.args}:
            raise refused(node, f"{name} is a parameter here and a variable of the loop as well")
        return
    assert isinstance(node, Function | ast.ClassDef)
    if isinstance(node, Function) and name in parameters(node):
        return
    if any(isinstance(each, ast.Name) and each.id == name for each in walk(node)) and not _is_local(
        node, name
    ):
        raise refused(node, f"{node.name} uses the variable {name}, which the loop carries")


def _is_local(node: Function | ast.ClassDef, name: str) -> bool:
    return (
        isinstance(node, Function)
        and any(
            isinstance(each, ast.Name) and each.id == name and isinstance(each.ctx, ast.Store)
            for each in walk_scope(node.body)
        )
        and not any(isinstance(each, ast.Global | ast.Nonlocal) and name in each.names for each in walk(node))
    )


def _makes_object(script: Script, call: ast.Call) -> bool:
    name = script.names.resolved(call.func).rpartition(".")[2]
    return name[:1].isupper() or name in {"iter", "open", "defaultdict", "OrderedDict"}
