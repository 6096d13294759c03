"""What the head of a loop says: a number of epochs or steps, or the loaders that it draws from."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from trainerd.adoption.refusal import refused
from trainerd.adoption.wording import text_of
from trainerd.analysis.syntax import dotted, last_part

if TYPE_CHECKING:
    from trainerd.analysis.scopes import Scope
    from trainerd.analysis.script import Script

_BARS: Final = frozenset({"tqdm", "track", "progress_bar", "auto", "notebook"})
_LOADER_NAMES: Final = ("loader", "_dl", "dataloaders")


@dataclass(frozen=True)
class RangeHead:
    """``range(n)`` or ``range(1, n + 1)``, perhaps within a progress bar.

    Attributes:
        call: The call of `range`.
        bar: The call of the progress bar around it, None if there is none.
        first: The first number, 0 or 1.
        count: Text of the number of iterations.
        target: Variable that counts.
    """

    call: ast.Call
    bar: ast.Call | None
    first: int
    count: str
    target: str


@dataclass(frozen=True)
class LoaderHead:
    """A loader, or several in step, perhaps within `enumerate` and a progress bar.

    Attributes:
        loaders: The loaders.
        whole: Expression that the call of the session takes the place of.
        bar: Call of a progress bar within ``enumerate(…)``, which goes outside; None if there is none.
        count: The target that counts, None without `enumerate`.
        first: The first count.
        bared: The ``enumerate(…)`` of the head, which goes where the bar was made before; None otherwise.
    """

    loaders: tuple[ast.expr, ...]
    whole: ast.expr
    bar: ast.Call | None = None
    count: str | None = None
    first: int = 0
    bared: ast.Call | None = None


def is_bar(script: Script, node: ast.expr) -> bool:
    """Tell whether an expression is a call of a progress bar around an iterable."""
    return (
        isinstance(node, ast.Call)
        and bool(node.args)
        and last_part(script.names.resolved(node.func)) in _BARS
    )


def range_head(script: Script, loop: ast.For) -> RangeHead | None:
    """Return what a loop over a range says, None if it is over something else.

    Raises:
        AdoptionRefusedError: It is over a range that does not begin at 0 or 1, or has another step.
    """
    call: ast.expr = loop.iter
    bar: ast.Call | None = None
    if isinstance(call, ast.Call) and is_bar(script, call):
        bar = call
        call = call.args[0]
    if isinstance(call, ast.Call) and last_part(dotted(call.func) or "") == "trange":
        raise refused(loop, "trange() is not understood", "tqdm(range(n))")
    if not isinstance(call, ast.Call) or dotted(call.func) != "range" or call.keywords:
        return None
    if not isinstance(loop.target, ast.Name):
        raise refused(loop, "the loop over a range sets something other than one variable")
    if len(call.args) > 2:
        raise refused(loop, "the range has a step", "for epoch in range(n)")
    if len(call.args) == 1:
        return RangeHead(call, bar, 0, text_of(script, call.args[0]), loop.target.id)
    first, stop = call.args
    start = _small_number(first)
    if start is None and isinstance(first, ast.Constant):
        raise refused(
            loop, f"the range begins at {ast.unparse(first)}, and not at 0 or 1", "for epoch in range(n)"
        )
    if start is None:
        raise refused(
            loop,
            f"the loop begins at {ast.unparse(first)}: the script resumes by itself",
            "range(n), and leave out the code that loads a checkpoint: the session resumes",
        )
    count = text_of(script, stop) if start == 0 else _one_less(script, stop)
    return RangeHead(call, bar, start, count, loop.target.id)


def loader_head(script: Script, loop: ast.For, scope: Scope) -> LoaderHead | None:
    """Return what a loop over loaders says, None if it is over something else."""
    count, first, node, bar = None, 0, loop.iter, None
    enumerated: ast.Call | None = None
    outer_bar = is_bar(script, node)
    if outer_bar:
        assert isinstance(node, ast.Call)
        node = node.args[0]
    if isinstance(node, ast.Call) and dotted(node.func) == "enumerate" and node.args:
        given = [*node.args[1:2], *(each.value for each in node.keywords if each.arg == "start")]
        start = _small_number(given[0]) if given else 0
        if start is None:
            return None
        first = start
        if not isinstance(loop.target, ast.Tuple) or not isinstance(loop.target.elts[0], ast.Name):
            return None
        count, enumerated, node = loop.target.elts[0].id, node, node.args[0]
        if is_bar(script, node):
            assert isinstance(node, ast.Call)
            if outer_bar:
                return None
            bar, node = node, node.args[0]
    made = _made_before(script, node, scope)
    if made is not None:
        if bar is not None or outer_bar:
            return None
        inner = made.args[0]
        if isinstance(inner, ast.Call) and dotted(inner.func) == "enumerate":
            return None
        loaders = loaders_of(script, inner, scope)
        return None if loaders is None else LoaderHead(loaders, inner, None, count, first, enumerated)
    loaders = loaders_of(script, node, scope)
    if loaders is None:
        return None
    return LoaderHead(loaders, enumerated or node, bar, count, first)


def loaders_of(script: Script, node: ast.expr, scope: Scope) -> tuple[ast.expr, ...] | None:
    """Return the loaders that an expression draws from, None if it is not known to draw from any."""
    if isinstance(node, ast.Call) and dotted(node.func) == "zip" and len(node.args) > 1 and not node.keywords:
        given = tuple(node.args)
        return given if all(is_loader(script, each, scope) for each in given) else None
    return (node,) if is_loader(script, node, scope) else None


def is_loader(script: Script, node: ast.expr, scope: Scope) -> bool:
    """Tell whether an expression is a data loader, by where it is made, else by its name."""
    chain = node.value if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant) else node
    name = dotted(chain)
    if name is None or name.startswith("self."):
        return False
    origins = [_item(script, *origin) for origin in script.names.origins(name, scope)]
    made = [each for each in origins if isinstance(each, ast.Call | ast.Subscript)]
    if any(_makes_loader(script, each) for each in origins):
        return all(_makes_loader(script, each) for each in origins)
    looks_like_one = last_part(name).lower().endswith(_LOADER_NAMES) or "loader" in last_part(name).lower()
    if not looks_like_one or len(made) != len(origins):
        return (
            looks_like_one
            and isinstance(node, ast.Subscript)
            and all(map(_is_dict, origins))
            and bool(origins)
        )
    return not any(_is_of_script(script, each) for each in made)


def _item(script: Script, node: ast.expr, scope: Scope) -> ast.expr:
    """Return the value of ``loaders["train"]`` where the dictionary is a literal of the script."""
    if (
        isinstance(node, ast.Subscript)
        and isinstance(node.slice, ast.Constant)
        and (name := dotted(node.value))
    ):
        found = script.names.values(name, scope)
        if len(found) == 1 and isinstance(found[0], ast.Dict):
            for key, value in zip(found[0].keys, found[0].values, strict=True):
                if isinstance(key, ast.Constant) and key.value == node.slice.value:
                    return value
    return node


def _is_dict(node: ast.expr) -> bool:
    return isinstance(node, ast.Dict | ast.DictComp)


def _makes_loader(script: Script, node: ast.expr) -> bool:
    if isinstance(node, ast.Subscript):
        node = node.value
    if not isinstance(node, ast.Call):
        return False
    name = last_part(script.names.resolved(node.func))
    return name.endswith("DataLoader") and name[:1].isupper()


def _is_of_script(script: Script, node: ast.expr) -> bool:
    """Tell whether a function or class of the script makes an object, which was not followed to a loader."""
    call = node.value if isinstance(node, ast.Subscript) else node
    if not isinstance(call, ast.Call):
        return True
    name = dotted(call.func) or ""
    return (
        name in script.names.functions
        or name in script.names.classes
        or name in {"iter", "zip", "map", "filter", "list", "range", "enumerate", "cycle", "itertools.cycle"}
    )


def _made_before(script: Script, node: ast.expr, scope: Scope) -> ast.Call | None:
    """Return the call that makes the progress bar which a loop names: ``bar = tqdm(loader)``."""
    if not isinstance(node, ast.Name):
        return None
    values = scope.values.get(node.id, [])
    if len(values) == 1 and is_bar(script, values[0]):
        assert isinstance(values[0], ast.Call)
        return values[0]
    return None


def _one_less(script: Script, stop: ast.expr) -> str:
    """Return the text of how many numbers there are from 1 up to before `stop`."""
    if isinstance(stop, ast.Constant) and isinstance(stop.value, int):
        return str(stop.value - 1)
    if isinstance(stop, ast.BinOp) and isinstance(stop.op, ast.Add):
        for one, other in ((stop.right, stop.left), (stop.left, stop.right)):
            if isinstance(one, ast.Constant) and one.value == 1:
                return text_of(script, other)
    return (
        f"{text_of(script, stop)} - 1"
        if isinstance(stop, ast.Name | ast.Attribute | ast.Call)
        else f"({text_of(script, stop)}) - 1"
    )


def _small_number(node: ast.expr) -> int | None:
    """Return 0 or 1 of a literal, None for anything else."""
    value = node.value if isinstance(node, ast.Constant) else None
    return value if isinstance(value, int) and value in {0, 1} else None
