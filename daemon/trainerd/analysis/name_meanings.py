"""What names stand for: imports spelled out, classes and functions of the script, values from elsewhere."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Final

from trainerd.analysis.syntax import Function, dotted, last_part, passed, prefixes, walk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trainerd.analysis.scopes import Scope

_PUBLIC: Final = ("session", "Session", "Checkpointer")
_RETURN_THEMSELVES: Final = frozenset(
    {"to", "cpu", "cuda", "train", "eval", "float", "half", "double", "bfloat16", "requires_grad_", "apply"}
)
_DEPTH_MAX: Final = 8
"""Names are followed over so many calls: a function may pass its own parameter to itself."""


class Names:
    """The names of a script.

    Args:
        tree: The script.
        scopes: Its scopes.
    """

    def __init__(self, tree: ast.Module, scopes: list[Scope]) -> None:
        self._imported = _imports(tree)
        self._scopes = scopes
        self._of_node = {scope.node: scope for scope in scopes}
        self.classes = {node.name: node for node in walk(tree) if isinstance(node, ast.ClassDef)}
        self.functions = {
            scope.node.name: scope
            for scope in scopes
            if isinstance(scope.node, Function) and scope.owner is None
        }
        self._methods: dict[ast.ClassDef, dict[str, Scope]] = {node: {} for node in self.classes.values()}
        for scope in scopes:
            if scope.owner is not None and isinstance(scope.node, Function):
                self._methods.setdefault(scope.owner, {})[scope.node.name] = scope
        self._arguments: dict[ast.expr, Scope] = {}
        self._origins: dict[tuple[str, Scope], list[tuple[ast.expr, Scope]]] = {}
        self.calls = [(node, scope) for scope in scopes for node in scope.nodes if isinstance(node, ast.Call)]
        for call, scope in self.calls:
            self._note_arguments(call, scope)

    def resolved(self, expression: ast.expr) -> str:
        """Return the dotted name of a class or function with its import spelled out, empty if it has none."""
        name = dotted(expression)
        if name is None:
            return ""
        first, dot, rest = name.partition(".")
        return self._imported.get(first, first) + dot + rest

    def values(self, name: str, scope: Scope, depth: int = 0) -> list[ast.expr]:
        """Return what is assigned to a name or a chain, here or in the scopes around.

        Names, parameters and what functions of the script return are followed to where the object is made.
        """
        return [value for value, _ in self.origins(name, scope, depth)]

    def origins(self, name: str, scope: Scope, depth: int = 0) -> list[tuple[ast.expr, Scope]]:
        """Return the values of a name or a chain, as `values` does, each with the scope that it stands in."""
        key = (name, scope)
        if key not in self._origins:
            self._origins[key] = []  # a name that leads back to itself adds nothing
            found: list[tuple[ast.expr, Scope]] = []
            for value, place in self._direct_values(name, scope):
                # A parameter often has its argument's name: that is another variable.
                is_itself = dotted(value) == name and place is scope
                found += [(value, place)] if is_itself else self._followed(value, place, depth)
            self._origins[key] = found
        return self._origins[key]

    def _followed(self, value: ast.expr, scope: Scope, depth: int) -> list[tuple[ast.expr, Scope]]:
        if depth >= _DEPTH_MAX:
            return [(value, scope)]
        other = dotted(value)
        if other is not None:
            return self.origins(other, scope, depth + 1) or [(value, scope)]
        call, index = value, None
        if isinstance(value, ast.Subscript) and isinstance(value.slice, ast.Constant):
            call, index = value.value, value.slice.value
        function = self.functions.get(dotted(call.func) or "") if isinstance(call, ast.Call) else None
        if function is None:
            return [(value, scope)]
        found: list[tuple[ast.expr, Scope]] = []
        for node in function.nodes:
            if isinstance(node, ast.Return) and node.value is not None:
                returned = node.value
                if isinstance(index, int) and isinstance(returned, ast.Tuple) and index < len(returned.elts):
                    returned = returned.elts[index]
                found += self._followed(returned, function, depth + 1)
        return found or [(value, scope)]

    def class_of(self, name: str, scope: Scope) -> ast.ClassDef | None:
        """Return the class of the script that a name or a chain is an object of, None if it is of none."""
        if name == scope.self_name:
            return scope.owner
        for value in map(_itself, self.values(name, scope)):
            if isinstance(value, ast.Call) and (made := dotted(value.func)) in self.classes:
                return self.classes[made]
        return None

    def called(self, call: ast.Call, scope: Scope) -> tuple[Scope, str | None] | None:
        """Return the function of the script that a call runs, and for a method the name of its object."""
        name = dotted(call.func)
        if name is None:
            return None
        if name in self.functions:
            return self.functions[name], None
        receiver, _, method = name.rpartition(".")
        if receiver and (owner := self.class_of(receiver, scope)) is not None:
            found = self._method(owner, method)
            return (found, receiver) if found is not None else None
        if (owner := self.class_of(name, scope)) is not None:
            found = self._method(owner, "__call__") or self._method(owner, "forward")
            return (found, name) if found is not None else None
        return None

    def is_module(self, owner: ast.ClassDef | None) -> bool:
        """Tell whether a class derives from ``nn.Module``, whose plain attributes are saved with it."""
        return owner is not None and any(
            "Module" in (dotted(base) or "") or self.is_module(self.classes.get(dotted(base) or ""))
            for base in owner.bases
            if dotted(base) != owner.name
        )

    # ------------------------------------------------------------------ within

    def _method(self, owner: ast.ClassDef, name: str) -> Scope | None:
        if name in self._methods[owner]:
            return self._methods[owner][name]
        for base in owner.bases:
            parent = self.classes.get(dotted(base) or "")
            if parent is not None and parent is not owner:
                return self._method(parent, name)
        return None

    def _direct_values(self, name: str, scope: Scope) -> Iterator[tuple[ast.expr, Scope]]:
        around: Scope | None = scope
        while around is not None:
            if name in around.values:
                for value in around.values[name]:
                    yield value, self._arguments.get(value, around)
                return
            around = around.parent
        for prefix in prefixes(name)[:-1]:
            owner = self.class_of(prefix, scope)
            if owner is not None:
                yield from self._of_attribute(owner, name[len(prefix) + 1 :])
                return

    def _of_attribute(self, owner: ast.ClassDef, attribute: str) -> Iterator[tuple[ast.expr, Scope]]:
        for method in self._methods[owner].values():
            for value in method.values.get(f"{method.self_name}.{attribute}", ()):
                yield value, method

    def _note_arguments(self, call: ast.Call, scope: Scope) -> None:
        """Note what a function of the script is passed as values of its parameters."""
        name = dotted(call.func)
        if name is None:
            return
        function = self.functions.get(name)
        is_bound = False
        if function is None:
            found = [each[last_part(name)] for each in self._methods.values() if last_part(name) in each]
            if name in self.classes:
                found = [each for each in [self._method(self.classes[name], "__init__")] if each is not None]
            if len(found) != 1:
                return
            function, is_bound = found[0], True
        assert isinstance(function.node, Function)
        for parameter, argument in passed(call, function.node, is_bound=is_bound):
            function.values.setdefault(parameter, []).append(argument)
            self._arguments[argument] = scope


def _imports(tree: ast.Module) -> dict[str, str]:
    found: dict[str, str] = {}
    for node in walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                first = alias.name.partition(".")[0]
                found[alias.asname or first] = alias.name if alias.asname else first
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                if alias.name != "*":
                    found[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                elif node.module == "trainerd":
                    found |= {name: f"trainerd.{name}" for name in _PUBLIC}
    return found


def _itself(value: ast.expr) -> ast.expr:
    """Look through methods of modules that return the module: ``Net().to(device).eval()``."""
    while (
        isinstance(value, ast.Call)
        and isinstance(value.func, ast.Attribute)
        and value.func.attr in _RETURN_THEMSELVES
        and isinstance(value.func.value, ast.Call)
    ):
        value = value.func.value
    return value
