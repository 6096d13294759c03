"""Variables that one iteration leaves for the next, and a checkpoint does not hold."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from trainerd.analysis.assignments import Reads, target_names
from trainerd.analysis.display import is_clock, only_shows
from trainerd.analysis.finding import Finding
from trainerd.analysis.script import dotted, root_name, walk_scope

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trainerd.analysis.parents import Parents
    from trainerd.analysis.script import Loop, Scope, Script

RULE: Final = "carried-variable"
_MUTATORS: Final = frozenset(
    {
        "append", "appendleft", "extend", "extendleft", "add", "insert", "update", "pop", "popleft", "popitem",
        "clear", "remove", "discard", "setdefault", "rotate", "put", "push",
    }
)  # fmt: skip
_CONTAINERS: Final = frozenset(
    {
        "list",
        "dict",
        "set",
        "deque",
        "defaultdict",
        "Counter",
        "OrderedDict",
        "array",
        "zeros",
        "ones",
        "full",
        "empty",
    }
)
_METER: Final = re.compile(
    r"(Meter|Metric|Average|Accuracy|Precision|Recall|F1|AUROC|Tracker|History|Buffer|Queue)"
)


@dataclass(frozen=True)
class Carried:
    """A variable that is carried from one iteration to the next.

    Attributes:
        name: The variable, or the attribute chain.
        node: Where it is read or changed first.
        loop: The loop.
    """

    name: str
    node: ast.AST
    loop: Loop

    @property
    def key(self) -> tuple[ast.AST, str]:
        """The scope and the name."""
        return self.loop.scope.node, self.name

    @property
    def is_innermost(self) -> bool:
        """Whether no other loop of the session is within the loop."""
        inside = set(walk_scope(self.loop.node.body))
        return not any(other.node in inside for other in self.loop.scope.loops)


def carried_variables(script: Script, parents: Parents) -> Iterator[Carried]:
    """Yield the variables that are carried, of each function those of inner loops first.

    One that an inner loop carries is not named again for the loop around it.
    """
    for scope in script.scopes:
        seen: set[str] = set()
        for loop in reversed(scope.loops):
            for found in (
                *_names(script, parents, loop),
                *_containers(script, loop),
                *_attributes(script, loop),
            ):
                if found.name not in seen:
                    seen.add(found.name)
                    yield found


def finding_of(carried: Carried) -> Finding:
    """Return what is said of a carried variable."""
    name, unit = carried.name, carried.loop.unit
    session = _session_name(carried.loop)
    if _is_count(carried):
        instead = f"{session}.step counts steps over all attempts, {session}.batch the batches of the loop"
    elif "." in name:
        short = name.rpartition(".")[2]
        instead = f'{short} = {session}.value("{short}", …) and {short}.value, or give the object a state_dict and track it'
    else:
        instead = f"carry = {session}.variables({name}=…) before the loop, and carry.{name} in its place"
    return Finding(
        carried.node.lineno,  # type: ignore[attr-defined]
        carried.node.col_offset + 1,  # type: ignore[attr-defined]
        RULE,
        name,
        f"{name} is carried from one {unit} to the next and is not in the checkpoint: after a resume it begins "
        "again with what the code before the loop gives it",
        instead,
    )


def _session_name(loop: Loop) -> str:
    function = loop.sources[0].func
    assert isinstance(function, ast.Attribute)
    return dotted(function.value) or "session"


def _is_count(carried: Carried) -> bool:
    return any(
        isinstance(node, ast.AugAssign)
        and isinstance(node.op, ast.Add)
        and isinstance(node.value, ast.Constant)
        and node.value.value == 1
        and dotted(node.target) == carried.name
        for node in walk_scope(carried.loop.node.body)
    )


def is_kept(name: str, script: Script) -> bool:
    """Tell whether the session restores what a name stands for."""
    root = name.partition(".")[0]
    return (
        name in script.tracked
        or root in script.tracked
        or root in script.boxes
        or name in script.boxes
        or script.is_session(ast.Name(root))
    )


def _names(script: Script, parents: Parents, loop: Loop) -> Iterator[Carried]:
    targets = target_names(loop.node)
    reads = Reads.of(loop.node.body, targets)
    for name, node in reads.first.items():
        if name not in reads.stored or name in targets or is_kept(name, script):
            continue
        values = _assigned_in(loop, name)
        if values and all(_is_timer(script, value) for value in values):
            if not _decides(name, loop, parents):
                continue
        elif values and all(script.session_loop_calls(value, loop.scope) for value in values):
            continue  # the iterator itself, begun again
        yield Carried(name, node, loop)


def _assigned_in(loop: Loop, name: str) -> list[ast.expr]:
    found: list[ast.expr] = []
    for node in walk_scope(loop.node.body):
        if isinstance(node, ast.Assign) and any(dotted(target) == name for target in node.targets):
            found.append(node.value)
        elif isinstance(node, ast.AnnAssign | ast.NamedExpr) and dotted(node.target) == name and node.value:
            found.append(node.value)
        elif isinstance(node, ast.AugAssign) and dotted(node.target) == name:
            return []
        elif isinstance(node, ast.Assign | ast.For) and name in {
            each.id
            for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
            for each in ast.walk(target)
            if isinstance(each, ast.Name)
        }:
            return []
    return found


def _is_timer(script: Script, value: ast.expr) -> bool:
    return isinstance(value, ast.Call) and is_clock(value, script.resolved(value.func))


def _decides(name: str, loop: Loop, parents: Parents) -> bool:
    """Tell whether a variable stands in a condition on which more than output depends."""
    for node in walk_scope(loop.node.body):
        if isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Load):
            test = parents.test_with(node)
            if isinstance(test, ast.If) and not (only_shows(test.body) and only_shows(test.orelse)):
                return True
            if test is not None and not isinstance(test, ast.If):
                return True
    return False


def _containers(script: Script, loop: Loop) -> Iterator[Carried]:
    """Yield containers, and meters, that the body changes in place and that are read somewhere."""
    fresh = Reads.of(loop.node.body, target_names(loop.node)).stored | target_names(loop.node)
    for node in walk_scope(loop.node.body):
        name, change = _changed_in_place(node)
        if name is None or name in fresh or is_kept(name, script):
            continue
        if change == "update" and not _is_made_by(script, loop.scope, name, meters=True, containers=True):
            continue
        if change == "item" and not _is_made_by(script, loop.scope, name, meters=False, containers=True):
            continue
        if change == "method" and not (
            _is_made_by(script, loop.scope, name, meters=True, containers=True)
            or not loop.scope.value_of(name)
        ):
            continue
        if _is_read(loop.scope, name):
            yield Carried(name, node, loop)


def _changed_in_place(node: ast.AST) -> tuple[str | None, str]:
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr=attribute)) if attribute in _MUTATORS:
            return name, "update" if attribute in {"update", "put", "push", "add", "pop"} else "method"
        case ast.Assign(targets=[ast.Subscript(value=ast.Name(id=name))]):
            return name, "item"
        case ast.AugAssign(target=ast.Subscript(value=ast.Name(id=name))):
            return name, "item"
        case _:
            return None, ""


def _is_made_by(script: Script, scope: Scope, name: str, *, meters: bool, containers: bool) -> bool:
    for value in scope.value_of(name):
        if containers and isinstance(
            value, ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp | ast.BinOp
        ):
            return True
        if isinstance(value, ast.Call):
            kind = script.resolved(value.func).rpartition(".")[2]
            if containers and kind in _CONTAINERS:
                return True
            if meters and kind[:1].isupper() and _METER.search(kind):
                return True
    return False


def _is_read(scope: Scope, name: str) -> bool:
    """Tell whether a container is read, beyond being changed."""
    changed = set()
    for node in walk_scope(scope.body):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr in _MUTATORS and isinstance(node.func.value, ast.Name):
                changed.add(node.func.value)
        elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
            changed.add(node.value)  # type: ignore[arg-type]
    return any(
        isinstance(node, ast.Name)
        and node.id == name
        and isinstance(node.ctx, ast.Load)
        and node not in changed
        for node in ast.walk(scope.node)
    )


def _attributes(script: Script, loop: Loop) -> Iterator[Carried]:
    """Yield attributes that the body computes from what they were before."""
    for node in walk_scope(loop.node.body):
        if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Attribute):
            target: ast.Attribute = node.target
        elif (
            isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Attribute)
            and dotted(node.targets[0]) in {dotted(each) for each in ast.walk(node.value)}
        ):
            target = node.targets[0]
        else:
            continue
        name, root = dotted(target), root_name(target)
        if name is None or root is None or is_kept(name, script):
            continue
        if root in target_names(loop.node) or (root == "self" and loop.scope.is_method_of_module):
            continue
        if root in Reads.of(loop.node.body, target_names(loop.node)).stored:
            continue
        yield Carried(name, node, loop)
