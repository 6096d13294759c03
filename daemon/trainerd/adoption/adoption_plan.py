"""The edits that make a session of a script's loops, and of the variables that they carry."""

from __future__ import annotations

import ast
import functools
import itertools
from typing import TYPE_CHECKING, Final

from trainerd.adoption.carrying import CarriedNames, check_can_carry, first_value, scope_at
from trainerd.adoption.edit_plan import EditPlan, Renaming, Span, Wrapping
from trainerd.adoption.emptied_files import truncating_opens
from trainerd.adoption.head_edits import edit_count, edit_loader, edit_passes, edit_pull, edit_steps
from trainerd.adoption.refusal import refused
from trainerd.adoption.session_place import session_place
from trainerd.adoption.state_of_run import check_bound_once, objects_to_track
from trainerd.adoption.step_rules import losses_of
from trainerd.adoption.waiting_gradients import accumulation_of
from trainerd.adoption.wording import lines_of, text_of
from trainerd.analysis.syntax import Function, walk, walk_scope

if TYPE_CHECKING:
    from trainerd.adoption.nest import Nest
    from trainerd.adoption.reach import Reach
    from trainerd.analysis.scopes import Scope
    from trainerd.analysis.script import Script

_SESSIONS: Final = ("session", "run_session", "trainerd_session")
_SHARED: Final = "this statement shares its line with another statement, and would be moved or left out alone"
_OWN_LINE: Final = "one statement a line"
_CARRIES: Final = ("carry", "carried", "trainerd_carry")


class AdoptionPlan:
    """Collects what is to be changed in a script.

    Args:
        script: The script.
        nest: Its loops.
        reach: Which code runs which.
    """

    def __init__(self, script: Script, nest: Nest, reach: Reach) -> None:
        self._script, self._nest = script, nest
        self._lines = lines_of(script.source)
        self._names = {each.id for each in walk(script.tree) if isinstance(each, ast.Name)} | {
            each.arg for each in walk(script.tree) if isinstance(each, ast.arg)
        }
        self._session = self._free(_SESSIONS)
        self._carry = self._free(_CARRIES)
        self._to_outer = reach.calls_to(nest.outer.scope, script.scopes[0])
        for call, _ in self._to_outer:
            around = script.parents.loops_around(call)
            if around:
                assert isinstance(around[0], ast.stmt)
                raise refused(around[0], "a loop around the run: one session is one run")
        if self._to_outer == [] and script.parents.loops_around(nest.outer.node):
            raise refused(nest.outer.node, "a loop around the run: one session is one run")
        top = self._to_outer[0][0] if self._to_outer else nest.outer.node
        self._place = session_place(script, top)
        self._tracked = objects_to_track(script, nest)
        check_bound_once(script, nest, reach, self._tracked)
        self._carried: dict[Scope, CarriedNames] = {}
        self._losses = losses_of(nest)
        self._accumulation = accumulation_of(nest)
        self._has_session = {script.scopes[0], nest.outer.scope, *(scope for _, scope in self._to_outer)}
        if nest.inner is not None:
            self._has_session |= {nest.inner.scope, *(scope for _, scope in nest.calls)}

    @property
    def notes(self) -> tuple[str, ...]:
        """What to know about the changed script."""
        found = []
        if self._losses is None:
            found.append(
                "no loss is logged, as the loop does not name it: add session.log(loss=loss), so that a "
                "resume can be compared"
            )
        saves = [
            each
            for each, _ in self._script.names.calls
            if self._script.names.resolved(each.func) == "torch.save"
        ]
        if saves:
            found.append(
                f"torch.save in line {saves[0].lineno} stays as it is: the session has checkpoints of its own"
            )
        found += [
            f'line {each.lineno} opens a file with mode "w" before the loop: each resume empties it; '
            'open it with mode "a"'
            for each in truncating_opens(self._script, self._nest)
        ]
        return tuple(found)

    def carry(self, name: str, line: int) -> bool:
        """Make a variable one of the session; False if it is one already.

        Raises:
            AdoptionRefusedError: It cannot be one.
        """
        scope = scope_at(self._script, line)
        carried = self._carried.setdefault(scope, CarriedNames(scope))
        if name in carried.names:
            return False
        check_can_carry(self._script, scope, name, line)
        if scope not in self._has_session:
            raise refused(line, f"{name} is carried by a function that the training loop calls")
        carried.names[name] = first_value(self._script, scope, name)
        return True

    def track(self, name: str) -> bool:
        """Track one more object; False if it is tracked, or the loop has no name for it."""
        scope = self._nest.outer.scope
        around: Scope | None = scope
        while around is not None and name not in around.values:
            around = around.parent
        if name in self._tracked or around is None:
            return False
        self._tracked.append(name)
        return True

    def edits(self) -> EditPlan:
        """Return all edits."""
        plan, nest = EditPlan(), self._nest
        self._import(plan)
        self._pass_session(plan)
        tracked = ", ".join(f"{name}={name}" for name in self._tracked)
        plan.before.setdefault(nest.outer.line, []).append(f"{self._session}.track({tracked})")
        self._check_heads()
        self._edit_heads(plan)
        if self._losses is not None:
            statement, names = self._losses
            known = {name: self._name_in(nest.step_loop.scope, name) for name in names}
            logged = [f"{'loss' if len(names) == 1 else name}={known[name]}" for name in names]
            plan.after.setdefault(statement.lineno, []).append(f"{self._session}.log({', '.join(logged)})")
        first = self._place.block[self._place.index].lineno
        for carried in self._carried.values():
            first = min(first, self._declare(plan, carried))
        header = f"with trainerd.session({'' if self._place.seed is None else f'seed={self._place.seed}'})"
        self._check_apart(plan, first)
        plan.wrapping = Wrapping(first, self._place.block[-1].lineno, f"{header} as {self._session}")
        return plan

    # ------------------------------------------------------------------ within

    def _check_apart(self, plan: EditPlan, first: int) -> None:
        """Check that no statement that is left out, or the first of the session, shares a line with another.

        Raises:
            AdoptionRefusedError: One does: lines are moved as a whole.
        """
        block = self._place.block
        for above, below in itertools.pairwise(block):
            if below.lineno == first and (above.end_lineno or 0) >= first:
                raise refused(below, _SHARED, _OWN_LINE)
        for node in walk(self._script.tree):
            for name in ("body", "orelse", "finalbody"):
                statements = getattr(node, name, None)
                if not isinstance(statements, list):
                    continue
                for each in statements:
                    if each.lineno in plan.removed and self._shares_line(each, statements):
                        raise refused(each, _SHARED, _OWN_LINE)

    def _free(self, names: tuple[str, ...]) -> str:
        for name in names:
            if name not in self._names:
                return name
        raise refused(1, f"the script uses the names {', '.join(names)} already")

    def _span(self, node: ast.expr) -> Span:
        """Return the place of an expression in characters; the parser counts bytes."""
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return (
            node.lineno,
            self._column(node.lineno, node.col_offset),
            node.end_lineno,
            self._column(node.end_lineno, node.end_col_offset),
        )

    def _column(self, line: int, offset: int) -> int:
        return len(self._lines[line - 1].encode()[:offset].decode())

    def _import(self, plan: EditPlan) -> None:
        imports = [each for each in self._script.tree.body if isinstance(each, ast.Import | ast.ImportFrom)]
        plain = [each for each in imports if each.lineno < self._place.block[self._place.index].lineno]
        if plain:
            plan.after.setdefault(plain[-1].lineno, []).append("import trainerd")
        else:
            raise refused(1, "the script imports nothing before it trains")

    def _pass_session(self, plan: EditPlan) -> None:
        calls = [*self._to_outer, *self._nest.calls]
        targets = [
            *(scope for _, scope in self._to_outer[1:]),
            *([self._nest.outer.scope] if self._to_outer else []),
        ]
        targets += [*(scope for _, scope in self._nest.calls[1:])]
        if self._nest.calls:
            assert self._nest.inner is not None
            targets.append(self._nest.inner.scope)
        for call, _ in calls:
            plan.first_arguments[self._span(call)] = self._session
        for scope in targets:
            assert isinstance(scope.node, Function)
            plan.first_parameters[scope.node.lineno] = self._session

    def _edit_heads(self, plan: EditPlan) -> None:
        nest, text = self._nest, functools.partial(text_of, self._script)
        if nest.pull is not None:
            assert nest.count is not None
            edit_pull(
                plan, nest, self._session, text, is_counted=self._is_used(nest.count.target, nest.outer.node)
            )
            return
        if nest.steps is not None:
            edit_passes(plan, nest, self._session)
        elif nest.count is not None and nest.inner is None:
            edit_steps(plan, nest, self._session, self._span, text)
        elif nest.count is not None:
            edit_count(plan, nest, self._session, self._span, text)
        if nest.inner is not None:
            edit_loader(plan, nest, self._session, self._span, text, accumulation=self._accumulation)

    def _check_heads(self) -> None:
        """Check that no head that is written again has a variable that becomes one of the session.

        Raises:
            AdoptionRefusedError: One has.
        """
        nest = self._nest
        heads: list[tuple[ast.AST, Scope]] = []
        for placed in filter(None, (nest.outer, nest.inner)):
            node = placed.node
            heads.append((node.test if isinstance(node, ast.While) else node.iter, placed.scope))
        if nest.loader is not None and nest.inner is not None:
            heads += [(each, nest.inner.scope) for each in nest.loader.loaders]
        counted = (
            nest.outer.node.test.left
            if isinstance(nest.outer.node, ast.While) and isinstance(nest.outer.node.test, ast.Compare)
            else None
        )
        for head, scope in heads:
            carried = self._carried.get(scope)
            for each in walk(head):
                if (
                    isinstance(each, ast.Name)
                    and each is not counted
                    and carried
                    and each.id in carried.names
                ):
                    raise refused(each, f"{each.id} is carried by the loop, and says how far it goes")

    def _name_in(self, scope: Scope, name: str) -> str:
        """Return what a variable of a scope is called in the changed script."""
        carried = self._carried.get(scope)
        if carried is None or name not in carried.names:
            return name
        return f"{self._carry}.{self._box(carried, name)}"

    def _is_used(self, name: str, loop: ast.stmt) -> bool:
        return any(
            isinstance(each, ast.Name) and each.id == name and isinstance(each.ctx, ast.Load)
            for each in walk(loop)
        )

    def _declare(self, plan: EditPlan, carried: CarriedNames) -> int:
        """Declare the variables of a scope before their first use; return the line of that statement."""
        block = self._place.block if not isinstance(carried.scope.node, Function) else carried.scope.body
        texts, uses = [], []
        for name, first in carried.names.items():
            box = self._box(carried, name)
            texts.append(f"{box}={first}")
            plan.renamings.append(Renaming(carried.line, name, f"{self._carry}.{box}"))
            uses += [
                index
                for index, statement in enumerate(block)
                if any(isinstance(each, ast.Name) and each.id == name for each in walk_scope([statement]))
            ]
        declared = block[min(uses)]
        self._check_before(carried, block)
        if carried.scope is self._nest.outer.scope:
            # One that shares its line stays: it sets the same value before the loop restores another value.
            plan.removed |= {
                each.lineno
                for each in block
                if self._is_first_value(each, carried) and not self._shares_line(each, block)
            }
        plan.before.setdefault(declared.lineno, []).insert(
            0, f"{self._carry} = {self._session}.variables({', '.join(texts)})"
        )
        is_module = not isinstance(carried.scope.node, Function)
        return declared.lineno if is_module else self._place.block[self._place.index].lineno

    def _is_first_value(self, statement: ast.stmt, carried: CarriedNames) -> bool:
        """Tell whether a statement before the loop says what the declaration of the variables says."""
        return (
            isinstance(statement, ast.Assign)
            and len(statement.targets) == 1
            and isinstance(name := statement.targets[0], ast.Name)
            and carried.names.get(name.id) == text_of(self._script, statement.value)
            and carried.scope.values[name.id][0] is statement.value
            and self._is_before_uses(statement, name.id, carried.scope)
        )

    @staticmethod
    def _shares_line(statement: ast.stmt, block: list[ast.stmt]) -> bool:
        return any(
            other is not statement
            and other.lineno <= (statement.end_lineno or 0)
            and statement.lineno <= (other.end_lineno or 0)
            for other in block
        )

    @staticmethod
    def _is_before_uses(statement: ast.stmt, name: str, scope: Scope) -> bool:
        uses = [each for each in scope.nodes if isinstance(each, ast.Name) and each.id == name]
        return min(each.lineno for each in uses) == statement.lineno

    def _check_before(self, carried: CarriedNames, block: list[ast.stmt]) -> None:
        """Check that a variable of the module is not used outside of the block of the session.

        Raises:
            AdoptionRefusedError: It is.
        """
        if isinstance(carried.scope.node, Function):
            return
        inside = set(walk_scope(block))
        for node in walk_scope(carried.scope.body):
            if isinstance(node, ast.Name) and node.id in carried.names and node not in inside:
                raise refused(node, f"{node.id} is carried by the loop, and used outside of the session")

    def _box(self, carried: CarriedNames, name: str) -> str:
        """Return the name of a variable in the session: with the function's, where two have the same one."""
        if any(name in other.names for other in self._carried.values() if other is not carried):
            return f"{getattr(carried.scope.node, 'name', 'script')}_{name}"
        return name
