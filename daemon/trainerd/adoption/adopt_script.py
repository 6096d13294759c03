"""Changes a plain training script so that it resumes. Nothing of it is imported or run."""

from __future__ import annotations

import ast
import difflib
from dataclasses import dataclass
from typing import Final

from trainerd.adoption.adoption_plan import AdoptionPlan
from trainerd.adoption.hazards import hazards, loop_hazards
from trainerd.adoption.nest import nest_of
from trainerd.adoption.reach import Reach
from trainerd.adoption.refusal import AdoptionRefusedError, Refusal
from trainerd.adoption.rewriting import rewritten
from trainerd.adoption.step_rules import step_refusals
from trainerd.adoption.wording import lines_of
from trainerd.analysis.check_script import check
from trainerd.analysis.script import Script
from trainerd.analysis.script_finding import ScriptFinding

CHANGED_LINES_MAX: Final = 16
"""Most lines of a script that are changed; more is a rewrite, which a person should do."""

_ROUNDS_MAX: Final = 8
"""A variable that becomes one of the session may reveal the next; so often the result is looked at again."""

_CARRIED: Final = frozenset({"carried-variable", "read-after-loop"})
_UNTRACKED: Final = frozenset({"untracked-object", "untracked-generator"})


@dataclass(frozen=True)
class Adoption:
    """A changed script.

    Attributes:
        text: Its text.
        changed: Number of lines of the script that are changed or left out, other than by their indentation.
        added: Number of lines that are new.
        indented: Number of lines that are only indented.
        notes: What to know about it.
    """

    text: str
    changed: int
    added: int
    indented: int
    notes: tuple[str, ...]


def adopt_source(source: str) -> Adoption:
    """Return the changed text of a training script.

    Args:
        source: Text of the script.

    Raises:
        AdoptionRefusedError: Something in it is not understood. All reasons that can be told are given.
        ScriptSyntaxError: It is not valid Python.
    """
    script = Script(source)
    found = list(hazards(script))
    if found:
        raise AdoptionRefusedError(found)
    reach = Reach(script)
    nest = nest_of(script, reach)
    found = [*loop_hazards(script, reach, nest), *step_refusals(script, reach, nest)]
    if found:
        raise AdoptionRefusedError(found)
    plan = AdoptionPlan(script, nest, reach)
    for _ in range(_ROUNDS_MAX):
        text = rewritten(source, plan.edits())
        findings = check(Script(text))
        if not findings:
            return _measured(source, text, plan.notes)
        for finding in findings:
            _take_up(plan, finding, _original_line(source, text, finding.line))
    raise AdoptionRefusedError(
        [_refusal_of(each, _original_line(source, text, each.line)) for each in findings]
    )


def _take_up(plan: AdoptionPlan, finding: ScriptFinding, line: int) -> None:
    """Change the plan so that a finding goes.

    Raises:
        AdoptionRefusedError: Nothing simple helps.
    """
    is_simple = finding.name.isidentifier()
    if finding.rule in _CARRIED and is_simple and plan.carry(finding.name, line):
        return
    if finding.rule in _UNTRACKED and is_simple and plan.track(finding.name):
        return
    raise AdoptionRefusedError([_refusal_of(finding, line)])


def _refusal_of(finding: ScriptFinding, line: int) -> Refusal:
    return Refusal(line, finding.why, finding.instead)


def _original_line(source: str, text: str, line: int) -> int:
    """Return the line of the unchanged script that a line of the changed one comes from."""
    old, new = _bare_lines(source), _bare_lines(text)
    best = 1
    for tag, old_first, old_last, new_first, new_last in difflib.SequenceMatcher(
        None, old, new, autojunk=False
    ).get_opcodes():
        if new_first <= line - 1 < new_last:
            offset = line - 1 - new_first
            return (
                min(old_first + offset, max(old_last - 1, old_first)) + 1
                if tag != "insert"
                else old_first + 1
            )
        best = old_last
    return max(best, 1)


def _measured(source: str, text: str, notes: tuple[str, ...]) -> Adoption:
    old, new = _bare_lines(source), _bare_lines(text)
    changed = added = indented = 0
    old_lines, new_lines = lines_of(source), lines_of(text)
    for tag, old_first, old_last, new_first, new_last in difflib.SequenceMatcher(
        None, old, new, autojunk=False
    ).get_opcodes():
        if tag == "equal":
            indented += sum(
                before != after
                for before, after in zip(
                    old_lines[old_first:old_last], new_lines[new_first:new_last], strict=True
                )
            )
        else:
            changed += old_last - old_first
            added += max(new_last - new_first - (old_last - old_first), 0)
    if changed > CHANGED_LINES_MAX:
        raise AdoptionRefusedError(
            [
                Refusal(
                    1,
                    f"{changed} lines would have to change, more than {CHANGED_LINES_MAX}",
                    "docs/training-api.md by hand, and trainerd check",
                )
            ]
        )
    ast.parse(text)
    return Adoption(text, changed, added, indented, notes)


def _bare_lines(text: str) -> list[str]:
    return [line.strip() for line in lines_of(text)]
