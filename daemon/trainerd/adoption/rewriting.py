"""Applies a plan of edits to the text of a script; comments and formatting of all else stay."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, TypeVar, cast

import libcst as cst
from libcst.metadata import MetadataWrapper, PositionProvider

from trainerd.adoption.refusal import refused
from trainerd.adoption.renaming import Renamer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trainerd.adoption.edit_plan import EditPlan

_Statement = cst.SimpleStatementLine | cst.BaseCompoundStatement
_Block = TypeVar("_Block", cst.Module, cst.IndentedBlock)
_Edit = tuple[str, tuple[int, ...]]
_NO_LINES: tuple[cst.EmptyLine, ...] = ()


def rewritten(source: str, plan: EditPlan) -> str:
    """Return the text of a script with the edits of a plan."""
    rewriter = _Rewriter(plan)
    text = MetadataWrapper(cst.parse_module(source)).visit(rewriter).code
    missing = planned_edits(plan) - rewriter.applied
    if missing:
        kind, place = min(missing, key=lambda each: (each[1], each[0]))
        raise refused(
            place[0], f"this line has a form in which it cannot be changed: {kind}", "one statement a line"
        )
    return text


def planned_edits(plan: EditPlan) -> set[_Edit]:
    """Return the edits of a plan: each with its kind and its place."""
    found: set[_Edit] = {("expression", span) for span in plan.expressions}
    found |= {("argument", span) for span in plan.first_arguments}
    found |= {("before", (line,)) for line in plan.before}
    found |= {("after", (line,)) for line in plan.after}
    found |= {("start of a loop", (line,)) for line in plan.at_start}
    found |= {("left out", (line,)) for line in plan.removed}
    found |= {("parameter", (line,)) for line in plan.first_parameters}
    found |= {("head of a loop", (line,)) for line in plan.headers}
    found |= {("inner loop", (line,)) for line in plan.nested}
    if plan.wrapping is not None:
        found |= {("session", (plan.wrapping.first, plan.wrapping.last))}
    return found


class _Rewriter(cst.CSTTransformer):
    METADATA_DEPENDENCIES = (PositionProvider,)

    def __init__(self, plan: EditPlan) -> None:
        super().__init__()
        self._plan = plan
        self.applied: set[_Edit] = set()
        self._renamer = Renamer(plan.renamings)

    def on_visit(self, node: cst.CSTNode) -> bool:
        self._renamer.enter(node, self._line(node) if isinstance(node, cst.FunctionDef) else 0)
        return super().on_visit(node)

    def on_leave(self, original_node: Any, updated_node: Any) -> Any:
        node: Any = super().on_leave(original_node, updated_node)
        self._renamer.leave(original_node)
        if isinstance(original_node, cst.Name):
            node = self._renamer.renamed(original_node, node)
        if isinstance(original_node, cst.BaseExpression):
            return self._expression(original_node, node)
        if isinstance(original_node, cst.FunctionDef):
            return self._function(original_node, node)
        if isinstance(original_node, cst.For | cst.While):
            return self._loop(original_node, node)
        if isinstance(original_node, cst.Module | cst.IndentedBlock):
            return self._block(original_node, node)
        return node

    # ------------------------------------------------------------------ within

    def _line(self, node: cst.CSTNode) -> int:
        named = node.name if isinstance(node, cst.FunctionDef | cst.ClassDef) else node
        return int(self.get_metadata(PositionProvider, named).start.line)

    def _expression(self, original: cst.BaseExpression, node: Any) -> Any:
        place = self.get_metadata(PositionProvider, original)
        span = (place.start.line, place.start.column, place.end.line, place.end.column)
        if span in self._plan.expressions:
            self.applied.add(("expression", span))
            new = cst.parse_expression(self._plan.expressions[span])
            return new.with_changes(lpar=node.lpar, rpar=node.rpar)
        if isinstance(original, cst.Call) and span in self._plan.first_arguments:
            self.applied.add(("argument", span))
            first = cst.Arg(cst.parse_expression(self._plan.first_arguments[span]))
            if node.args:
                first = first.with_changes(comma=cst.Comma(whitespace_after=cst.SimpleWhitespace(" ")))
            return node.with_changes(args=[first, *node.args])
        return node

    def _function(self, original: cst.FunctionDef, node: cst.FunctionDef) -> cst.FunctionDef:
        name = self._plan.first_parameters.get(self._line(original))
        if name is None:
            return node
        self.applied.add(("parameter", (self._line(original),)))
        first = cst.Param(cst.Name(name))
        kind = "posonly_params" if node.params.posonly_params else "params"
        rest: Sequence[cst.Param] = getattr(node.params, kind)
        return node.with_changes(params=node.params.with_changes(**{kind: [first, *rest]}))

    def _loop(self, original: cst.For | cst.While, node: cst.For | cst.While) -> cst.BaseCompoundStatement:
        line = self._line(original)
        plan = self._plan
        if not (line in plan.at_start or line in plan.nested or line in plan.headers):
            return node
        self.applied |= {(kind, (line,)) for kind in ("start of a loop", "inner loop", "head of a loop")}
        body = cst.ensure_type(node.body, cst.IndentedBlock)
        statements = [
            *map(_statement, self._plan.at_start.get(line, ())),
            *cast("Sequence[_Statement]", body.body),
        ]
        if line in self._plan.nested:
            inner = _compound(self._plan.nested[line])
            body = body.with_changes(body=[inner.with_changes(body=_plain_block(statements))])
        else:
            body = body.with_changes(body=statements)
        header = self._plan.headers.get(line)
        if header is None:
            return node.with_changes(body=body)
        new = cast("cst.For", _compound(header))
        return new.with_changes(body=body, leading_lines=node.leading_lines)

    def _block(self, original: _Block, node: _Block) -> _Block:
        plan = self._plan
        found: list[_Statement] = []
        wrapped: list[_Statement] = []
        left: list[cst.EmptyLine] = []  # comments of statements that are left out, for the next one
        statements = _statements(node)
        lines = [self._line(each) for each in original.body]
        wrapping = plan.wrapping if plan.wrapping is not None and plan.wrapping.first in lines else None
        for line, statement in zip(lines, statements, strict=True):
            into = wrapped if wrapping and wrapping.first <= line <= wrapping.last else found
            into += self._placed(line, _after_comments(statement, left))
            left = []
            if line in plan.removed and line not in plan.before:
                left = _comments(statement)
            if wrapping and line == wrapping.last:
                self.applied |= {("session", (wrapping.first, wrapping.last))}
                found.append(_wrapped(wrapping.header, wrapped))
        return node.with_changes(body=found)

    def _placed(self, line: int, statement: _Statement) -> list[_Statement]:
        """Return a statement with those that are put around it."""
        plan = self._plan
        self.applied |= {(kind, (line,)) for kind in ("before", "after", "left out")}
        new = [_statement(text) for text in plan.before.get(line, ())]
        after = [_statement(text) for text in plan.after.get(line, ())]
        if line in plan.removed:
            if new:
                kept = [*_blank_lines(statement), *_comments(statement)]
                new[0] = new[0].with_changes(leading_lines=kept)
            return [*new, *after]
        if new and not any(each.comment for each in statement.leading_lines):
            new[0] = new[0].with_changes(leading_lines=statement.leading_lines)
            return [*new, statement.with_changes(leading_lines=_NO_LINES), *after]
        return [*new, statement, *after]


def _wrapped(header: str, statements: list[_Statement]) -> cst.BaseCompoundStatement:
    first = statements[0]
    blank = list(itertools.takewhile(lambda line: line.comment is None, first.leading_lines))
    first = first.with_changes(leading_lines=first.leading_lines[len(blank) :])
    body = _plain_block([_without_blanks(each) for each in (first, *statements[1:])])
    return _compound(header).with_changes(body=body, leading_lines=blank)


def _without_blanks(statement: _Statement) -> _Statement:
    """Return a statement before which no empty line gets blanks for its indentation."""
    lines = [line if line.comment else line.with_changes(indent=False) for line in statement.leading_lines]
    return statement.with_changes(leading_lines=lines)


def _after_comments(statement: _Statement, comments: list[cst.EmptyLine]) -> _Statement:
    return (
        statement.with_changes(leading_lines=[*comments, *statement.leading_lines]) if comments else statement
    )


def _comments(statement: _Statement) -> list[cst.EmptyLine]:
    """Return the comments of a statement that is left out, each on a line of its own."""
    found = [line for line in statement.leading_lines if line.comment]
    if isinstance(statement, cst.SimpleStatementLine) and statement.trailing_whitespace.comment:
        comment = statement.trailing_whitespace.comment
        # The type of a variable that is left out belongs to no other line.
        found += [] if comment.value.startswith("# type:") else [cst.EmptyLine(comment=comment)]
    return found


def _statements(block: cst.Module | cst.IndentedBlock) -> list[_Statement]:
    return [
        each for each in block.body if isinstance(each, cst.SimpleStatementLine | cst.BaseCompoundStatement)
    ]


def _blank_lines(statement: _Statement) -> list[cst.EmptyLine]:
    return list(itertools.takewhile(lambda line: line.comment is None, statement.leading_lines))


def _plain_block(statements: Sequence[_Statement]) -> cst.IndentedBlock:
    return cst.IndentedBlock(body=list(statements))


def _statement(text: str) -> _Statement:
    return cst.parse_statement(text)


def _compound(header: str) -> cst.BaseCompoundStatement:
    return cast("cst.BaseCompoundStatement", cst.parse_statement(f"{header}:\n    pass\n"))
