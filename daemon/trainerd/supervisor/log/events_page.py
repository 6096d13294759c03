"""Writes ``docs/events.md`` from the catalogue.

``python -m trainerd.supervisor.log.events_page > docs/events.md`` brings the page up to date.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from trainerd.supervisor.log.catalogue import CATALOGUE
from trainerd.supervisor.log.event_fields import ALWAYS, FIELDS, SOMETIMES
from trainerd.supervisor.log.journal_stream import PRIORITIES
from trainerd.supervisor.log.repetition import SAY_AGAIN_S

if TYPE_CHECKING:
    from trainerd.supervisor.log.catalogue import LogEvent

_HEAD: Final = """\
# Events

This page is generated from the code and compared with it in a test; to renew it:
`python -m trainerd.supervisor.log.events_page > docs/events.md`.

The supervisor logs one JSON object a line: to standard output unless that is a terminal, and to
`logs/trainerd.jsonl` in the state folder. A start that fails and a reload that is refused are such lines as
well. Every line has {always}. `reason` and `hint` are one line each.

    journalctl -u trainerd -p warning                                     # what went wrong
    journalctl -u trainerd -o cat | jq 'select(.event == "attempt.failed")'

## Priorities

Under systemd each level has a priority in the journal:

| level | priority |
|---|---|
{priorities}

An *info* is a notice, since the units keep what is at least that (`LogLevelMax=notice`) and leave out what
systemd says of an ordinary start. For *debug* in the journal, a drop-in raises `LogLevelMax=` as well; the
file has it in any case.

## Who wrote a line

Any program of the machine can write to the journal under the name `trainerd` (`logger -t trainerd`), so `-t`
tells nothing of the origin. `-u trainerd` compares `_SYSTEMD_UNIT`, which journald itself takes from the
cgroup of the sender. Jobs run in cgroups below the unit, so a job that writes to the journal itself is in the
unit as well; but its lines have another `_PID` (what a job prints goes to its own log, never to the journal):

    journalctl _SYSTEMD_UNIT=trainerd.service _PID=$(systemctl show -P MainPID trainerd)

The file `logs/trainerd.jsonl` belongs to the service's user, as jobs do: it is no evidence against them.

## A bounded rate

An event that is marked ↻ is logged at once; while the same lasts, it is logged again every {again_s} s at
most, with `repeated`, the number of lines that were held back.

"""


def page() -> str:
    """Return the page."""
    rows = [
        f"| {level} | {number} ({_NAMES[number]}) |"
        for level, number in PRIORITIES.items()
        if level != "critical"
    ]
    head = _HEAD.format(
        always=", ".join(f"`{name}`" for name in ALWAYS),
        priorities="\n".join(rows),
        again_s=f"{SAY_AGAIN_S:.0f}",
    )
    return "\n".join([head + _events(), _fields()])


_NAMES: Final = {3: "err", 4: "warning", 5: "notice", 7: "debug"}


def _events() -> str:
    rows = [_row(event) for _, event in sorted(CATALOGUE.items())]
    return "\n".join(
        ["## All events", "", "| event | level | logged when | fields |", "|---|---|---|---|", *rows, ""]
    )


def _row(event: LogEvent) -> str:
    mark = " ↻" if event.is_bounded else ""
    fields = ", ".join(f"`{name}`" for name in event.fields)
    return f"| `{event.name}`{mark} | {event.level} | {event.when} | {fields} |"


def _fields() -> str:
    known = {**ALWAYS, **SOMETIMES, **FIELDS}
    rows = [f"| `{name}` | {meaning} |" for name, meaning in known.items()]
    return "\n".join(["## Fields", "", "| field | meaning |", "|---|---|", *rows, ""])


if __name__ == "__main__":
    sys.stdout.write(page())
