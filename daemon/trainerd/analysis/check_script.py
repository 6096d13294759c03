"""All rules over one script."""

from __future__ import annotations

import ast

from trainerd.analysis.after_loop import read_after_loops
from trainerd.analysis.carried import carried_variables, finding_of
from trainerd.analysis.counters import deciding_counts
from trainerd.analysis.entropy import folder_changes, undetermined
from trainerd.analysis.finding import Finding
from trainerd.analysis.parents import Parents
from trainerd.analysis.script import Script
from trainerd.analysis.two_loops import loops_open_at_once
from trainerd.analysis.untracked import untracked_objects


def check_source(source: str) -> tuple[Finding, ...]:
    """Return what a resume of a training script would not restore, in order of the lines.

    A line with the comment ``# trainerd: ok`` has no findings. A script without a session has none either: it
    has nothing that could be resumed.

    Args:
        source: Text of the script. It is not run.

    Raises:
        ScriptSyntaxError: It is not valid Python.
    """
    return check(Script(source))


def check(script: Script) -> tuple[Finding, ...]:
    """Return what a resume of a parsed script would not restore, in order of the lines."""
    parents = Parents(script.tree)
    carried = list(carried_variables(script, parents))
    after = dict(read_after_loops(script, parents, {each.key for each in carried if each.is_innermost}))
    found = [
        # What an inner loop leaves for the code after it looks carried to the loop around both.
        *(finding_of(each) for each in carried if each.key not in after),
        *after.values(),
        *untracked_objects(script),
        *deciding_counts(script, parents),
        *undetermined(script, parents),
        *folder_changes(script),
        *loops_open_at_once(script),
    ]
    return tuple(sorted({finding for finding in found if finding.line not in script.silenced}))
