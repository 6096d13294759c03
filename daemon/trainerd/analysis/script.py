"""A training script as the rules see it: its scopes, its sessions, what is tracked, and its loops.

A name counts as a session if it is bound to one, is passed one by a call in the same file, is annotated as one,
or says so ("session"). Nothing is imported or run.
"""

from __future__ import annotations

import ast
import io
import tokenize
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from trainerd.analysis.finding import ScriptSyntaxError

if TYPE_CHECKING:
    from collections.abc import Iterator

Function = ast.FunctionDef | ast.AsyncFunctionDef
ScopeNode = ast.Module | ast.FunctionDef | ast.AsyncFunctionDef
LoopNode = ast.For | ast.AsyncFor | ast.While

SILENCED: Final = "trainerd: ok"
LOOP_CALLS: Final = frozenset({"batches", "enumerate", "steps", "epochs"})
_BOX_CALLS: Final = frozenset({"value", "variables"})


@dataclass(frozen=True)
class Loop:
    """A loop that the session drives.

    Attributes:
        node: The statement.
        kind: Name of the session's method that drives it; ``batches`` if a loop calls `next` by itself.
        sources: Calls of that method: more than one if several are drawn from at once.
        scope: Scope that it stands in.
    """

    node: LoopNode
    kind: str
    sources: tuple[ast.Call, ...]
    scope: Scope

    @property
    def unit(self) -> str:
        """What one iteration is."""
        return {"epochs": "epoch", "steps": "step"}.get(self.kind, "batch")


@dataclass(eq=False)
class Scope:
    """A function, or the module.

    Attributes:
        node: The function or the module.
        parent: Scope around it, None for the module.
        is_method_of_module: Whether it is a method of a class that derives from ``nn.Module``.
        values: What is assigned to each name, in order.
        loops: Its loops that a session drives, outer ones first.
    """

    node: ScopeNode
    parent: Scope | None
    is_method_of_module: bool = False
    values: dict[str, list[ast.expr]] = field(default_factory=dict)
    loops: list[Loop] = field(default_factory=list)

    @property
    def body(self) -> list[ast.stmt]:
        """Its statements."""
        return self.node.body

    def value_of(self, name: str) -> list[ast.expr]:
        """Return what is assigned to a name here or, if nothing is, in the scopes around."""
        if name in self.values or self.parent is None:
            return self.values.get(name, [])
        return self.parent.value_of(name)


class Script:
    """A parsed script.

    Args:
        source: Its text.

    Attributes:
        scopes: The module and all functions.
        tracked: Names, and attribute chains such as ``self.model``, that are given to ``track``.
        tracks_unknown: Whether objects are tracked that cannot be told here, such as ``track(**objects)``.
        track_calls: Calls of ``track``.
        session_calls: Calls that open a session.
        boxes: Names of values that belong to the session: `session.value` and `session.variables`.
        has_session: Whether it opens a session, or is passed one.

    Raises:
        ScriptSyntaxError: It is not valid Python.
    """

    def __init__(self, source: str) -> None:
        try:
            self.tree = ast.parse(source)
        except SyntaxError as error:
            raise ScriptSyntaxError(error.msg or "invalid syntax", error.lineno or 1) from error
        except (ValueError, RecursionError, MemoryError) as error:  # null bytes, or nested too deeply
            raise ScriptSyntaxError(str(error) or type(error).__name__, 1) from error
        self.silenced = _silenced_lines(source)
        self.imported: dict[str, str] = _imports(self.tree)
        self.scopes = list(_scopes(self.tree, None, is_module_class=False))
        self.track_calls: list[ast.Call] = []
        self.session_calls: list[ast.Call] = []
        self.boxes: set[str] = set()
        self.tracked: set[str] = set()
        self.tracks_unknown = False
        self._sessions: set[str] = set()
        self._find_sessions()
        self._find_tracked()
        for scope in self.scopes:
            scope.loops = list(self._loops(scope))

    @property
    def has_session(self) -> bool:
        return bool(self.session_calls or any(scope.loops for scope in self.scopes))

    def is_session(self, expression: ast.expr) -> bool:
        """Tell whether an expression is a session, as far as names show it."""
        name = dotted(expression)
        if name is None:
            return isinstance(expression, ast.Call) and self._opens_session(expression)
        return name in self._sessions or "session" in name.rpartition(".")[2].lower()

    def session_loop_calls(self, expression: ast.expr, scope: Scope) -> tuple[ast.Call, ...]:
        """Return the calls such as ``session.batches(…)`` that an iterable draws from, wrappers looked through."""
        found: list[ast.Call] = []
        self._collect(expression, scope, found, set())
        return tuple(found)

    def resolved(self, expression: ast.expr) -> str:
        """Return the dotted name of a class or function with its import spelled out, empty if it has none."""
        name = dotted(expression)
        if name is None:
            return ""
        first, dot, rest = name.partition(".")
        return self.imported.get(first, first) + dot + rest

    # ------------------------------------------------------------------ within

    def _collect(self, node: ast.expr, scope: Scope, found: list[ast.Call], seen: set[str]) -> None:
        if isinstance(node, ast.Name):
            if node.id not in seen:
                seen.add(node.id)
                for value in scope.value_of(node.id):
                    self._collect(value, scope, found, seen)
        elif isinstance(node, ast.Call):
            function = node.func
            if (
                isinstance(function, ast.Attribute)
                and function.attr in LOOP_CALLS
                and self.is_session(function.value)
            ):
                found.append(node)
                return
            for argument in (*node.args, *(keyword.value for keyword in node.keywords)):
                self._collect(argument, scope, found, seen)
        elif isinstance(node, ast.Starred):
            self._collect(node.value, scope, found, seen)
        elif isinstance(node, ast.Tuple | ast.List):
            for element in node.elts:
                self._collect(element, scope, found, seen)

    def _opens_session(self, call: ast.Call) -> bool:
        return self.resolved(call.func) in {"trainerd.session", "trainerd.training.session.session"}

    def _find_sessions(self) -> None:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Call) and self._opens_session(node):
                self.session_calls.append(node)
            if isinstance(node, ast.withitem) and node.optional_vars is not None:
                self._bind(node.optional_vars, node.context_expr)
            elif isinstance(node, ast.Assign):
                for target in node.targets:
                    self._bind(target, node.value)
            elif isinstance(node, ast.AnnAssign | ast.NamedExpr) and node.value is not None:
                self._bind(node.target, node.value)
            elif isinstance(node, ast.arg) and node.annotation is not None:
                if self.resolved(node.annotation) in {
                    "trainerd.Session",
                    "trainerd.training.session.Session",
                }:
                    self._sessions.add(node.arg)
        functions = {node.name: node for node in ast.walk(self.tree) if isinstance(node, Function)}
        is_new = True
        while is_new:  # a session may be passed on by a function that was passed it
            is_new = False
            for call, function in self._local_calls(functions):
                for parameter, argument in passed(call, function):
                    if parameter not in self._sessions and self.is_session(argument):
                        self._sessions.add(parameter)
                        is_new = True

    def _bind(self, target: ast.expr, value: ast.expr) -> None:
        name = dotted(target)
        if name is not None and isinstance(value, ast.Call) and self._opens_session(value):
            self._sessions.add(name)

    def _find_tracked(self) -> None:
        for scope in self.scopes:
            self.boxes |= {name for name, values in scope.values.items() if any(map(self._is_box, values))}
        for node in ast.walk(self.tree):
            if not isinstance(node, ast.Call):
                continue
            is_track = isinstance(node.func, ast.Attribute) and node.func.attr == "track"
            if is_track or self.resolved(node.func) == "trainerd.Checkpointer":
                if is_track:
                    self.track_calls.append(node)
                self._note_tracked(node)
        functions = {node.name: node for node in ast.walk(self.tree) if isinstance(node, Function)}
        for call, function in self._local_calls(functions):
            for parameter, argument in passed(call, function):
                if parameter in self.tracked and (name := dotted(argument)) is not None:
                    self.tracked.add(name)

    def _note_tracked(self, call: ast.Call) -> None:
        for keyword in call.keywords:
            if keyword.arg is None and not isinstance(keyword.value, ast.Dict):
                self.tracks_unknown = True
            self.tracked.update(_chains(keyword.value))

    def _is_box(self, value: ast.expr) -> bool:
        """Tell whether a value is `session.value(…)`, its ``.value``, or `session.variables(…)`."""
        if isinstance(value, ast.Attribute) and value.attr == "value":
            value = value.value
        return (
            isinstance(value, ast.Call)
            and isinstance(value.func, ast.Attribute)
            and value.func.attr in _BOX_CALLS
            and self.is_session(value.func.value)
        )

    def _local_calls(self, functions: dict[str, Function]) -> Iterator[tuple[ast.Call, Function]]:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Call):
                name = (dotted(node.func) or "").rpartition(".")[2]
                if name in functions:
                    yield node, functions[name]

    def _loops(self, scope: Scope) -> Iterator[Loop]:
        for node in walk_scope(scope.body):
            if isinstance(node, ast.For | ast.AsyncFor):
                calls = self.session_loop_calls(node.iter, scope)
                calls = tuple(call for call in calls if is_training(call))
                if calls:
                    yield Loop(node, _method(calls[0]), calls, scope)
            elif isinstance(node, ast.While):
                calls = self._pulled(node, scope)
                if calls:
                    yield Loop(node, _method(calls[0]), calls, scope)

    def _pulled(self, loop: ast.While, scope: Scope) -> tuple[ast.Call, ...]:
        """Return the sources of the iterators on which the body of a ``while`` loop calls `next`."""
        found: list[ast.Call] = []
        for node in walk_scope(loop.body):
            if isinstance(node, ast.For | ast.AsyncFor) and self.session_loop_calls(node.iter, scope):
                return ()
            if isinstance(node, ast.Call) and dotted(node.func) == "next" and node.args:
                calls = self.session_loop_calls(node.args[0], scope)
                found += [call for call in calls if is_training(call) and call not in found]
        return tuple(found[:1]) if found else ()


def is_training(call: ast.Call) -> bool:
    """Tell whether a call of ``batches`` is of a loop that trains: an evaluation is run again as a whole."""
    for keyword in call.keywords:
        if keyword.arg == "train":
            return not (isinstance(keyword.value, ast.Constant) and keyword.value.value is False)
    return True


def dotted(node: ast.AST) -> str | None:
    """Return ``a.b.c`` for a name or a chain of attributes, None for anything else."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return None
    return ".".join([node.id, *reversed(parts)])


def _chains(node: ast.AST) -> Iterator[str]:
    """Yield the names and chains of attributes in an expression, each as long as it is."""
    name = dotted(node)
    if name is not None:
        yield name
        return
    for child in ast.iter_child_nodes(node):
        yield from _chains(child)


def root_name(node: ast.AST) -> str | None:
    """Return the name that an expression such as ``a.b[c].d`` begins with."""
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Starred):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def passed(call: ast.Call, function: Function) -> Iterator[tuple[str, ast.expr]]:
    """Yield the parameters of a function that a call gives arguments to, with the arguments."""
    parameters = [argument.arg for argument in (*function.args.posonlyargs, *function.args.args)]
    if parameters and parameters[0] in {"self", "cls"} and isinstance(call.func, ast.Attribute):
        parameters = parameters[1:]
    yield from zip(parameters, call.args, strict=False)
    for keyword in call.keywords:
        if keyword.arg is not None:
            yield keyword.arg, keyword.value


def walk_scope(statements: list[ast.stmt]) -> Iterator[ast.AST]:
    """Walk statements in order of their text, without the bodies of functions and classes in them."""
    for statement in statements:
        yield from _walk(statement)


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
        return
    for child in ast.iter_child_nodes(node):
        yield from _walk(child)


def _scopes(node: ast.AST, parent: Scope | None, *, is_module_class: bool) -> Iterator[Scope]:
    if isinstance(node, ast.Module | ast.FunctionDef | ast.AsyncFunctionDef):
        parent = Scope(node, parent, is_module_class, _values(node))
        yield parent
        is_module_class = False
    for child in ast.iter_child_nodes(node):
        if isinstance(node, ast.ClassDef):
            is_module_class = any("Module" in (dotted(base) or "") for base in node.bases)
        yield from _scopes(child, parent, is_module_class=is_module_class)


def _values(node: ScopeNode) -> dict[str, list[ast.expr]]:
    found: dict[str, list[ast.expr]] = {}
    for each in walk_scope(node.body):
        if isinstance(each, ast.Assign):
            for target in each.targets:
                _note(found, target, each.value)
        elif isinstance(each, ast.AnnAssign | ast.NamedExpr) and each.value is not None:
            _note(found, each.target, each.value)
        elif isinstance(each, ast.withitem) and each.optional_vars is not None:
            _note(found, each.optional_vars, each.context_expr)
    return found


def _note(found: dict[str, list[ast.expr]], target: ast.expr, value: ast.expr) -> None:
    if isinstance(target, ast.Tuple | ast.List):
        if isinstance(value, ast.Tuple | ast.List) and len(value.elts) == len(target.elts):
            for each, its_value in zip(target.elts, value.elts, strict=True):
                _note(found, each, its_value)
        return
    name = dotted(target)
    if name is not None:
        found.setdefault(name, []).append(value)


def _imports(tree: ast.Module) -> dict[str, str]:
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                found[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                found[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return found


def _method(call: ast.Call) -> str:
    assert isinstance(call.func, ast.Attribute)
    return "batches" if call.func.attr == "enumerate" else call.func.attr


def _silenced_lines(source: str) -> frozenset[int]:
    lines: set[int] = set()
    try:
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type == tokenize.COMMENT and SILENCED in token.string:
                lines.add(token.start[0])
    except (tokenize.TokenError, IndentationError):
        pass
    return frozenset(lines)
