"""Edits of the heads of loops: over epochs, steps and batches of a session."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from trainerd.adoption.edit_plan import EditPlan, Span
    from trainerd.adoption.nest import Nest
    from trainerd.adoption.waiting_gradients import Accumulation

    Spans = Callable[[ast.expr], Span]
    Texts = Callable[[ast.expr], str]


def edit_count(plan: EditPlan, nest: Nest, session: str, span: Spans, text_of: Texts) -> None:
    """Make a loop over ``range(n)`` one over the epochs of a session."""
    assert nest.count is not None
    _edit_range(plan, nest, f"{session}.epochs({nest.count.count})", span, text_of)


def edit_steps(plan: EditPlan, nest: Nest, session: str, span: Spans, text_of: Texts) -> None:
    """Make a loop over ``range(n)`` one over the steps of a session."""
    assert nest.count is not None
    _edit_range(plan, nest, f"{session}.steps({nest.count.count})", span, text_of)


def edit_passes(plan: EditPlan, nest: Nest, session: str) -> None:
    """Make ``while step < n`` around a loop over a loader a loop over epochs that ends after n steps."""
    plan.headers[nest.outer.line] = f"for _ in {session}.epochs(None, max_steps={nest.steps})"


def edit_pull(plan: EditPlan, nest: Nest, session: str, text_of: Texts, *, is_counted: bool) -> None:
    """Make a loop over steps that calls `next` one over epochs, with a loop over batches in it."""
    assert nest.pull is not None
    assert nest.count is not None
    line = nest.outer.line
    plan.headers[line] = f"for _ in {session}.epochs(None, max_steps={nest.count.count})"
    plan.nested[line] = f"for {nest.pull.target} in {session}.batches({text_of(nest.pull.loader)})"
    if is_counted:
        first = f" + {nest.count.first}" if nest.count.first else ""
        plan.at_start.setdefault(line, []).append(f"{nest.count.target} = {session}.step{first}")
    plan.removed |= {nest.pull.statement.lineno, nest.pull.iterator}


def edit_loader(
    plan: EditPlan,
    nest: Nest,
    session: str,
    span: Spans,
    text_of: Texts,
    *,
    accumulation: Accumulation | None,
) -> None:
    """Make a loop over loaders one over the batches of a session."""
    head, inner = nest.loader, nest.inner
    assert head is not None
    assert inner is not None
    loaders = ", ".join(map(text_of, head.loaders))
    if accumulation is not None:
        loaders += f", accumulate={text_of(accumulation.batches)}"
        for condition in accumulation.conditions:
            plan.expressions[span(condition)] = f"{session}.ends_step"
    text = f"{session}.{'batches' if head.count is None else 'enumerate'}({loaders})"
    if head.bar is not None:
        rest = [text_of(each) for each in head.bar.args[1:]]
        rest += [_keyword(each, text_of) for each in head.bar.keywords]
        text = f"{text_of(head.bar.func)}({', '.join([text, *rest])})"
    plan.expressions[span(head.whole)] = text
    if head.bared is not None:
        plan.expressions[span(head.bared)] = text_of(head.bared.args[0])
    if head.first:
        plan.at_start.setdefault(inner.line, []).append(f"{head.count} += {head.first}")


def _edit_range(plan: EditPlan, nest: Nest, text: str, span: Spans, text_of: Texts) -> None:
    head = nest.count
    assert head is not None
    if head.bar is not None and not any(each.arg == "total" for each in head.bar.keywords):
        rest = [text_of(each) for each in head.bar.args[1:]]
        rest += [_keyword(each, text_of) for each in head.bar.keywords]
        text = f"{text_of(head.bar.func)}({', '.join([text, f'total={head.count}', *rest])})"
        plan.expressions[span(head.bar)] = text
    else:
        plan.expressions[span(head.call)] = text
    if head.first:
        plan.at_start.setdefault(nest.outer.line, []).append(f"{head.target} += {head.first}")


def _keyword(keyword: ast.keyword, text_of: Texts) -> str:
    return f"**{text_of(keyword.value)}" if keyword.arg is None else f"{keyword.arg}={text_of(keyword.value)}"
