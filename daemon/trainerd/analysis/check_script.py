"""All rules over one script."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from trainerd.analysis.after_loop import read_after_loops
from trainerd.analysis.carried import carried_variables, finding_of
from trainerd.analysis.counters import deciding_counts
from trainerd.analysis.entropy import folder_changes, undetermined
from trainerd.analysis.gathered import gathered_values
from trainerd.analysis.script import Script
from trainerd.analysis.script_finding import ScriptFinding, ScriptSyntaxError
from trainerd.analysis.script_views import Views
from trainerd.analysis.two_loops import loops_open_at_once
from trainerd.analysis.untracked import changed_objects, untracked_objects

if TYPE_CHECKING:
    from collections.abc import Collection

_TOO_DEEP: Final = "nested too deeply to be analysed"


def check_source(source: str, sessions: Collection[str] = ()) -> tuple[ScriptFinding, ...]:
    """Return what a resume of a training script would not restore, in order of the lines.

    A line with the comment ``# trainerd: ok`` has no findings. A script without a session has none either: it
    has nothing that could be resumed.

    Args:
        source: Text of the script. It is not run.
        sessions: Names that it has for a session, beside those that it shows.

    Raises:
        ScriptSyntaxError: It is not valid Python.
    """
    return check(Script(source, sessions))


def check(script: Script) -> tuple[ScriptFinding, ...]:
    """Return what a resume of a parsed script would not restore, in order of the lines.

    Raises:
        ScriptSyntaxError: Its expressions are nested too deeply.
    """
    try:
        return _findings(script)
    except RecursionError as error:
        raise ScriptSyntaxError(_TOO_DEEP, 1) from error


def _findings(script: Script) -> tuple[ScriptFinding, ...]:
    if not script.has_session:
        return ()
    views = Views(script)
    carried = carried_variables(script, views)
    made = [*untracked_objects(script)]
    named = {(finding.line, finding.name) for finding in made}
    found = [
        *(finding_of(script, each) for each in carried if each.holder is None),
        *read_after_loops(script, views, {each.key for each in carried}),
        *made,
        *(
            finding
            for finding in changed_objects(script, [each for each in carried if each.holder is not None])
            if (finding.line, finding.name) not in named
        ),
        *deciding_counts(script, views),
        *undetermined(script, views),
        *folder_changes(script),
        *loops_open_at_once(script),
        *gathered_values(script),
    ]
    return tuple(sorted({finding for finding in found if finding.line not in script.silenced}))
