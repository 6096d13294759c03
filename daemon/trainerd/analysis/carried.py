"""Variables that one iteration leaves for the next, and a checkpoint does not hold."""

from __future__ import annotations

import ast
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from trainerd.analysis.containers import WEIGHTS, changed_containers
from trainerd.analysis.effects import REORDERED
from trainerd.analysis.loops import opened_by_either
from trainerd.analysis.scopes import assigned_values
from trainerd.analysis.script_finding import ScriptFinding
from trainerd.analysis.syntax import dotted, last_part, walk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trainerd.analysis.loops import Opening, SessionLoop
    from trainerd.analysis.scopes import Scope
    from trainerd.analysis.script import Script
    from trainerd.analysis.script_views import Views
    from trainerd.analysis.syntax import Place

RULE: Final = "carried-variable"


@dataclass(frozen=True)
class Carried:
    """A variable that is carried from one iteration to the next.

    Attributes:
        name: The variable, or the attribute chain.
        node: Where it is read or changed first.
        loop: The loop.
        holder: Object of a class of the script whose method changes it, None if other code does.
        is_iterator: Whether it is an iterator that goes on.
        is_reordered: Whether it is put into another order in place.
        opened_by: Code that opens the loops that carry it: of both branches of an ``if``, say.
    """

    name: str
    node: Place
    loop: SessionLoop
    holder: str | None = None
    is_iterator: bool = False
    is_reordered: bool = False
    opened_by: tuple[Opening, ...] = ()

    @property
    def key(self) -> tuple[Scope, str]:
        """The scope and the name."""
        return self.loop.scope, self.name


def carried_variables(script: Script, views: Views) -> list[Carried]:
    """Return the variables that are carried, of each function those of inner loops first.

    One that an inner loop carries is not named again for the loop around it.
    """
    found: list[Carried] = []
    numbers: dict[object, int] = {}
    for loop in sorted(script.loops, key=lambda loop: -loop.node.lineno):
        for each in _of_loop(script, views, loop):
            if script.loading.keeps(each.name, loop.scope):
                continue
            if each.is_reordered and script.loading.keeps_order(each.name, loop):
                continue
            number = numbers.get(each.key, numbers.get(each.node))
            if number is None:
                numbers[each.key] = numbers[each.node] = len(found)
                found.append(replace(each, opened_by=loop.opened_by))
            elif each.node not in found[number].loop.node_set:
                opened_by = opened_by_either(found[number].opened_by, loop.opened_by)
                found[number] = replace(found[number], opened_by=opened_by)
    return found


def _of_loop(script: Script, views: Views, loop: SessionLoop) -> Iterator[Carried]:
    for name, node in _read_first(script, views, loop):
        holder = views.holder(name, node, loop)
        if holder is None or not views.is_meter(holder, loop.scope):
            yield Carried(name, node, loop, holder)
        elif (call := _update_of(holder, loop, views)) is not None:
            yield Carried(holder, call, loop)
    for change in changed_containers(script, views, loop):
        holder = views.holder(change.name, change.node, loop)
        if change.how in WEIGHTS:
            holder = change.name
        elif holder is not None and change.call is not None and views.is_meter(holder, loop.scope):
            yield Carried(holder, change.call, loop)
            continue
        yield Carried(
            change.name,
            change.node,
            loop,
            holder,
            is_iterator=change.how == "next",
            is_reordered=change.how == REORDERED,
        )
    yield from _called_meters(script, views, loop)


def _called_meters(script: Script, views: Views, loop: SessionLoop) -> Iterator[Carried]:
    """Yield meters that a loop over batches updates by calling them, and that are used outside of it."""
    if loop.unit == "epoch" or (loop.is_ours and not loop.is_skipped):
        return
    for node in loop.nodes:
        if not isinstance(node, ast.Call) or not node.args:
            continue
        name = dotted(node.func)
        if (
            name is not None
            and not script.tracking.keeps(name, loop.scope)
            and views.is_meter(name, loop.scope)
            and any(
                isinstance(each, ast.Attribute) and each not in loop.node_set and dotted(each.value) == name
                for each in loop.scope.nodes
            )
        ):
            yield Carried(name, node, loop)


def _update_of(meter: str, loop: SessionLoop, views: Views) -> ast.Call | None:
    """Return the first call on a meter that gives it something other than a time."""
    for node in loop.nodes:
        if (
            isinstance(node, ast.Call)
            and node.args
            and (dotted(node.func) or "").rpartition(".")[0] == meter
            and not views.clock(loop.scope).shows_in(node.args[0])
        ):
            return node
    return None


def finding_of(script: Script, carried: Carried) -> ScriptFinding:
    """Return what is said of a carried variable."""
    name, loop = carried.name, carried.loop
    short = last_part(name)
    if not loop.is_ours:
        instead = (
            f"keep {short} in an object with state_dict and load_state_dict, and give it to {loop.session}"
        )
    elif carried.is_iterator:
        instead = (
            f"compute its items from {loop.session}.step, or count them in a {loop.session}.value and begin "
            "it at that place"
        )
    elif _is_count(carried):
        session = loop.session
        instead = f"{session}.step counts steps over all attempts, {session}.batch the batches of the loop"
    elif script.names.class_of(name, loop.scope) is not None:  # an object, which no value can be
        instead = (
            f"give its class state_dict and load_state_dict, and write {loop.session}.track({short}={name})"
        )
    elif "." in name:
        instead = (
            f'{short} = {loop.session}.value("{short}", …) and {short}.value, or give the object '
            "a state_dict and track it"
        )
    else:
        instead = f"carry = {loop.session}.variables({name}=…) before the loop, and carry.{name} in its place"
        if carried.is_reordered:
            instead = f"{instead}; or make {name} again at the top of each {loop.unit}"
    return ScriptFinding.at(
        carried.node,
        RULE,
        name,
        why=f"{name} is carried from one {loop.unit} to the next and is not in the checkpoint: a resume "
        "begins with the value that the code before the loop gives it",
        instead=instead,
        opened_by=carried.opened_by,
    )


def _is_count(carried: Carried) -> bool:
    return any(
        name == carried.name and is_added and isinstance(value, ast.Constant) and value.value == 1
        for name, value, is_added in assigned_values(carried.loop.nodes)
    )


def _read_first(script: Script, views: Views, loop: SessionLoop) -> Iterator[tuple[str, Place]]:
    """Yield the variables that the body reads before it assigns them, and where."""
    reads = views.reads(loop)
    for name, node in reads.first.items():
        if name not in reads.stored or name in loop.targets or script.tracking.keeps(name, loop.scope):
            continue
        if "." in name and script.keeps_attributes_of(name.partition(".")[0], loop.scope):
            continue
        if _is_left_out(script, views, loop, name):
            continue
        yield name, node if node in loop.node_set else _own_place(loop, name) or node


def _own_place(loop: SessionLoop, name: str) -> Place | None:
    """Return where the loop's own code has a variable that it assigns and a function reads first."""
    if name not in {found for found, _, _ in assigned_values(loop.nodes)}:
        return None
    places = [
        node for node in loop.nodes if isinstance(node, ast.Name | ast.Attribute) and dotted(node) == name
    ]
    reads = [node for node in places if isinstance(node.ctx, ast.Load)]
    return min(reads or places, key=lambda node: (node.lineno, node.col_offset))


def _is_left_out(script: Script, views: Views, loop: SessionLoop, name: str) -> bool:
    """Tell whether the value is a time, an iterator that is begun again, or a count for output."""
    scope = loop.scope
    if views.clock(scope).has(name):
        return True  # where it decides something, the rule on clocks says so
    assigned = [(value, is_added) for found, value, is_added in assigned_values(loop.nodes) if found == name]
    if not assigned:
        return False
    if all(script.sources.sources(value, scope) for value, is_added in assigned if not is_added) and not any(
        is_added for _, is_added in assigned
    ):
        return True
    if not loop.is_ours and name in _given_to_save(loop):
        return True
    return is_shown_count(views, loop, name)


def is_shown_count(views: Views, loop: SessionLoop, name: str) -> bool:
    """Tell whether a loop gives a variable constants, or adds such, and it is read for output alone."""
    scope = loop.scope
    values = [value for found, value, _ in assigned_values(loop.nodes) if found == name]
    return (
        bool(values)
        and all(isinstance(value, ast.Constant) for value in values)
        and "." not in name
        and name not in scope.shared
        and views.display(scope).is_harmless(name)
    )


def _given_to_save(loop: SessionLoop) -> set[str]:
    """Return the variables that a `Checkpointer` saves as the step, the epoch or a score."""
    found: set[str] = set()
    for node in loop.nodes:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "save":
            for keyword in node.keywords:
                if keyword.arg in {"step", "epoch"}:
                    found |= {name for each in walk(keyword.value) if (name := dotted(each)) is not None}
    return found
