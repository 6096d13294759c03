"""Small questions about syntax trees: dotted names, scopes, arguments."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef
ScopeNode: TypeAlias = ast.Module | ast.FunctionDef | ast.AsyncFunctionDef
LoopNode: TypeAlias = ast.For | ast.AsyncFor | ast.While
Comprehension: TypeAlias = ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp
Place: TypeAlias = ast.expr | ast.stmt

_AST: Final = ast.AST
_LEAVES: Final = frozenset({ast.Name, ast.Constant})
_NOTHING: Final[list[ast.AST]] = []
_WITHOUT_NODES: Final = frozenset(
    {"arg", "asname", "attr", "conversion", "ctx", "id", "is_async", "kind", "level", "module", "op", "ops"}
    | {"simple", "type_comment", "type_ignores"}
)
"""Fields of text, numbers and tokens, of whatever kind of node."""
_FIELDS: Final[dict[type[ast.AST], list[str]]] = {}
"""The other fields of each kind of node."""
_NAME: Final = ast.Name
_ATTRIBUTE: Final = ast.Attribute
_KNOWN: Final = "trainerd_children"
_KNOWN_NAME: Final = "trainerd_dotted"
_NOT_WALKED: Final = _LEAVES | {ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef}


def dotted(node: ast.AST) -> str | None:
    """Return ``a.b.c`` for a name or a chain of attributes, None for anything else."""
    kind = node.__class__
    if kind is _NAME:
        return node.id  # type: ignore[attr-defined, no-any-return] # it is a Name
    if kind is not _ATTRIBUTE:
        return None
    known: dict[str, Any] = node.__dict__
    if _KNOWN_NAME not in known:
        above = dotted(known["value"])
        known[_KNOWN_NAME] = None if above is None else f"{above}.{known['attr']}"
    found: str | None = known[_KNOWN_NAME]
    return found


def last_part(name: str) -> str:
    """Return ``c`` of ``a.b.c``."""
    return name.rpartition(".")[2]


def prefixes(name: str) -> list[str]:
    """Return ``a``, ``a.b`` and ``a.b.c`` of ``a.b.c``."""
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts) + 1)]


def container_of(node: ast.expr) -> str | None:
    """Return the name or chain below the subscripts of ``a.b[c][d]``."""
    while isinstance(node, ast.Subscript):
        node = node.value
    return dotted(node)


def chains(node: ast.AST) -> Iterator[str]:
    """Yield the names and chains of attributes in an expression, each at its full length."""
    name = dotted(node)
    if name is not None:
        yield name
        return
    for child in ast.iter_child_nodes(node):
        yield from chains(child)


def stored_in(target: ast.AST) -> Iterator[str]:
    """Yield the names and chains that an assignment to a target sets."""
    if isinstance(target, ast.Tuple | ast.List):
        for element in target.elts:
            yield from stored_in(element)
    elif isinstance(target, ast.Starred):
        yield from stored_in(target.value)
    elif (name := dotted(target)) is not None:
        yield name


def target_names(node: ast.AST) -> frozenset[str]:
    """Return what the head of a loop assigns."""
    return frozenset(stored_in(node.target)) if isinstance(node, ast.For | ast.AsyncFor) else frozenset()


def parameters(function: Function) -> list[str]:
    """Return the names of the parameters of a function."""
    given = function.args
    names = [each.arg for each in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    return names + [each.arg for each in (given.vararg, given.kwarg) if each is not None]


def passed(call: ast.Call, function: Function, *, is_bound: bool) -> Iterator[tuple[str, ast.expr]]:
    """Yield the parameters of a function that a call gives arguments to, with the arguments.

    Args:
        call: The call.
        function: The function that it calls.
        is_bound: Whether the first parameter is the object that the method is called on.
    """
    positional = [argument.arg for argument in (*function.args.posonlyargs, *function.args.args)]
    yield from zip(positional[1:] if is_bound else positional, call.args, strict=False)
    for keyword in call.keywords:
        if keyword.arg is not None:
            yield keyword.arg, keyword.value


def walk_scope(statements: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """Walk code in the order of its text, without the bodies of functions and classes in it."""
    waiting = list(statements)[::-1]
    while waiting:
        node = waiting.pop()
        yield node
        if node.__class__ not in _NOT_WALKED and (below := children(node)):
            waiting += below[::-1]


def children(node: ast.AST) -> list[ast.AST]:
    """Return the nodes directly below a node. Names and literals, of which there are most, have none.

    They are kept at the node, as each rule walks over the same tree, which none of them changes.
    """
    if node.__class__ in _LEAVES:
        return _NOTHING
    known: list[ast.AST] | None = node.__dict__.get(_KNOWN)
    if known is not None:
        return known
    kind = node.__class__
    fields = _FIELDS.get(kind)
    if fields is None:
        fields = _FIELDS[kind] = [field for field in node._fields if field not in _WITHOUT_NODES]
    found: list[ast.AST] = []
    own = node.__dict__
    for field in fields:
        value = own.get(field)
        if value.__class__ is list:
            found += [each for each in value if isinstance(each, _AST)]
        elif value is not None and isinstance(value, _AST):
            found.append(value)
    own[_KNOWN] = found
    return found


def walk(node: ast.AST) -> Iterator[ast.AST]:
    """Walk a tree in the order of its text."""
    waiting = [node]
    while waiting:
        node = waiting.pop()
        yield node
        if node.__class__ not in _LEAVES and (below := children(node)):
            waiting += below[::-1]


def is_constant(node: ast.AST, value: object) -> bool:
    """Tell whether an expression is the literal of a value."""
    return isinstance(node, ast.Constant) and node.value is value
