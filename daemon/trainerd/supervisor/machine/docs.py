"""Writes ``docs/state-machine.md`` from the table.

``python -m trainerd.supervisor.machine.docs > docs/state-machine.md`` brings the page up to date.
"""

from __future__ import annotations

import inspect
import sys
from typing import TYPE_CHECKING, Final

from trainerd.supervisor.machine import TABLE, Absent
from trainerd.supervisor.machine.job_events import EVENTS
from trainerd.supervisor.machine.states import LIVE, STATES

if TYPE_CHECKING:
    from trainerd.supervisor.machine import AnyState

_ALL_STATES: Final[tuple[type[AnyState], ...]] = (Absent, *STATES)

_HEAD: Final = """\
# The state machine

This page is generated from the code and compared with it in a test; to renew it:
`python -m trainerd.supervisor.machine.docs > docs/state-machine.md`.

The supervisor is a pure function `decide(name, job, event, now) -> decision` (`trainerd.supervisor.machine`)
with a loop around it (`trainerd.supervisor.loop`). A decision is recorded in the journal, durably, before
anything is done about it; what it asks to be done can be told again from the state alone, so a supervisor
may die at any moment.

Three rules hold for every cell below:

* An event about another attempt than the newest one is old news and changes nothing.
* At most one attempt of a job may have processes on this machine. It is launched from *queued* only, and the
  live states (*{live}*) are left only on an event that says that none of them is left, or for *faulted*,
  where an attempt that may live keeps its slot. An attempt on another machine cannot be observed: it is
  fenced before this event, so that its session saves nothing more.
* Nothing is launched under a spec whose file is refused now.
"""


def document() -> str:
    """Return the page."""
    live = ", ".join(state.NAME for state in _ALL_STATES if state in LIVE)
    parts = [_HEAD.format(live=live), _states(), _events(), _diagram(), _answers()]
    return "\n".join(parts)


def _states() -> str:
    rows = [f"| {state.NAME} | {_first_line(state)} |" for state in _ALL_STATES]
    return "\n".join(["## States", "", "| state | a job in it |", "|---|---|", *rows, ""])


def _events() -> str:
    rows = [f"| {_spoken(event)} | {_first_line(event)} |" for event in EVENTS]
    return "\n".join(["## Events", "", "| event | says |", "|---|---|", *rows, ""])


def _diagram() -> str:
    """Draw who leads to whom; each arrow names the events that may cause it."""
    arrows: dict[tuple[str, str], list[str]] = {}
    for state in _ALL_STATES:
        for event in EVENTS:
            for target in TABLE[state, event].leads_to:
                if target is not state:
                    arrows.setdefault((state.NAME, target.NAME), []).append(_spoken(event))
    lines = [f"    {_node(a)} --> {_node(b)}: {', '.join(why)}" for (a, b), why in arrows.items()]
    return "\n".join(["## Diagram", "", "```mermaid", "stateDiagram-v2", *lines, "```", ""])


def _answers() -> str:
    """List the answers of every state to the events: those that change something, then the ignored ones."""
    parts = ["## Answers", ""]
    for state in _ALL_STATES:
        parts += [f"### {state.NAME}", "", "| event | answer | may lead to |", "|---|---|---|"]
        for event in EVENTS:
            cell = TABLE[state, event]
            targets = ", ".join(target.NAME for target in cell.leads_to if target is not state)
            answer = f"*ignored: {cell.summary}*" if cell.is_ignored else cell.summary
            parts.append(f"| {_spoken(event)} | {answer} | {targets} |")
        parts.append("")
    return "\n".join(parts)


def _node(name: str) -> str:
    return "[*]" if name == Absent.NAME else name.replace("-", "_")


def _first_line(thing: type) -> str:
    return (inspect.getdoc(thing) or "").partition("\n")[0]


def _spoken(event: type) -> str:
    """Write a class name as words."""
    return "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in event.__name__).strip()


if __name__ == "__main__":
    sys.stdout.write(document())
