"""Changes of the elements of containers under other names: ``for v in velocities: v.mul_(0.9)``.

They count if the elements are tensors that the script has made for it, and if the change depends on what was
there: a buffer that each iteration fills first carries nothing.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Final

from trainerd.analysis.syntax import chains, container_of, dotted, last_part, stored_in, walk, walk_scope

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from trainerd.analysis.syntax import Place

ELEMENT: Final = "element"
"""How an element is changed that depends on what it was."""
FILLED: Final = "filled"
"""How an element is changed that does not."""

_MAKERS: Final = frozenset(
    {"zeros_like", "ones_like", "full_like", "empty_like", "zeros", "ones", "full", "empty", "clone"}
    | {"deepcopy", "new_zeros", "new_ones", "new_full", "new_empty"}
)
_FILLS: Final = frozenset(
    {"copy_", "zero_", "fill_", "normal_", "uniform_", "random_", "bernoulli_", "exponential_"}
)
_KEEPS_VALUE: Final = frozenset({"requires_grad_", "detach_", "share_memory_", "retain_graph_"})
_VIEWS: Final = frozenset({"enumerate", "list", "tuple", "reversed", "sorted", "iter"})
_METHODS: Final = frozenset({"items", "values"})


def element_changes(nodes: list[ast.AST]) -> Iterator[tuple[str, Place, str]]:
    """Yield the containers whose elements code changes in place, where, and how; in the order of the text."""
    assigned = dict(_assigned_elements(nodes))
    for node in nodes:
        if isinstance(node, ast.For | ast.AsyncFor):
            inside = list(walk_scope(node.body))
            for target, container in _iterated(node.iter, node.target):
                yield from _changes_of(target, container, inside)
        elif isinstance(node, ast.Call) and (name := _changed_by(node)) is not None:
            yield name, node, ELEMENT
    for name, container in assigned.items():
        yield from _changes_of(name, container, nodes)


def makes_tensors(value: ast.expr) -> bool:
    """Tell whether an expression makes new tensors, such as ``[torch.zeros_like(p) for p in parameters]``."""
    names = (node.attr if isinstance(node, ast.Attribute) else dotted(node) for node in walk(value))
    return not _MAKERS.isdisjoint(names)


def appended_to(name: str, nodes: Iterable[ast.AST]) -> Iterator[ast.expr]:
    """Yield what code appends to a container."""
    for node in nodes:
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "append"
            and node.args
            and dotted(node.func.value) == name
        ):
            yield node.args[0]


def _iterated(iterable: ast.expr, target: ast.expr) -> Iterator[tuple[str, str]]:
    """Yield the names in the head of a loop that stand for elements of containers, with these."""
    if isinstance(iterable, ast.Call):
        function = dotted(iterable.func)
        if function in {"zip", "itertools.zip_longest"} and isinstance(target, ast.Tuple):
            for each, own in zip(iterable.args, target.elts, strict=False):
                yield from _iterated(each, own)
        elif function == "enumerate" and iterable.args and isinstance(target, ast.Tuple):
            yield from _iterated(iterable.args[0], target.elts[-1])
        elif function in _VIEWS and iterable.args:
            yield from _iterated(iterable.args[0], target)
        elif isinstance(iterable.func, ast.Attribute) and iterable.func.attr in _METHODS:
            container = container_of(iterable.func.value)
            own_target = target.elts[-1] if isinstance(target, ast.Tuple) else target
            if container is not None:
                yield from ((name, container) for name in stored_in(own_target))
    elif (container := container_of(iterable)) is not None:
        yield from ((name, container) for name in stored_in(target))


def _assigned_elements(nodes: list[ast.AST]) -> Iterator[tuple[str, str]]:
    """Yield the names that are assigned an entry of a container and nothing else, with the container."""
    found: dict[str, set[str | None]] = {}
    for node in nodes:
        if not isinstance(node, ast.Assign):
            continue
        for target in node.targets:
            pairs = [(target, node.value)]
            if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                pairs = list(zip(target.elts, node.value.elts, strict=False))
            for each, value in pairs:
                for name in stored_in(each):
                    is_entry = isinstance(value, ast.Subscript) and isinstance(each, ast.Name)
                    found.setdefault(name, set()).add(container_of(value) if is_entry else None)
    for name, containers in found.items():
        container = next(iter(containers))
        if len(containers) == 1 and container is not None and container != name:
            yield name, container


def _changes_of(name: str, container: str, nodes: list[ast.AST]) -> Iterator[tuple[str, Place, str]]:
    """Yield the changes in place of what a name stands for, as changes of its container."""
    is_read = False
    for node in nodes:
        if isinstance(node, ast.AugAssign) and dotted(node.target) == name:
            yield container, node, ELEMENT
        elif isinstance(node, ast.Call) and (how := _change_by(node, name)) is not None:
            is_own = (
                how in _FILLS
                and not is_read
                and name not in {each for argument in node.args for each in chains(argument)}
            )
            yield container, node, FILLED if is_own else ELEMENT
        elif isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Load):
            is_read = True


def _change_by(call: ast.Call, name: str) -> str | None:
    """Return the method that changes what a name stands for, None if the call does not."""
    if not isinstance(call.func, ast.Attribute):
        return None
    method = call.func.attr
    if not method.endswith("_") or method.endswith("__") or method in _KEEPS_VALUE:
        return None
    return method if container_of(call.func.value) == name else None


def _changed_by(call: ast.Call) -> str | None:
    """Return the list whose tensors a call such as ``torch._foreach_mul_(velocities, 0.9)`` changes."""
    function = last_part(dotted(call.func) or "")
    is_for_each = function.startswith("_foreach_") and function.endswith("_")
    if not is_for_each or function.removeprefix("_foreach_") in _FILLS or not call.args:
        return None
    return dotted(call.args[0])
