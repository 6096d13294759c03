"""What will happen when a spec is placed, changed or removed: pure, and in the words of the table.

The machine decides (`trainerd.supervisor.machine.specs`); this says beforehand what it will decide for a job
as it is now. A test holds the two together.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from trainerd.supervisor.api.control import JobView
    from trainerd.supervisor.specs.model import JobSpec

LIVE: Final = frozenset({"starting", "running", "draining"})
"""Names of the states in which an attempt may have processes."""

_AFTER_A_CHANGE: Final = {
    "queued": "it keeps its place in the queue, under the new spec",
    "starting": "it drains, and goes on from its newest checkpoint under the new spec",
    "running": "it drains, and goes on from its newest checkpoint under the new spec",
    "draining": "it is draining; the new spec counts from then on",
    "backing-off": "it is tried again at once under the new spec, with a full restart budget",
    "paused": "it is tried again at once under the new spec, with a full restart budget",
    "faulted": "it is handled again under the new spec",
    "parked": "it is tried again under the new spec, with a full restart budget",
    "rejected": "it is tried again under the new spec",
    "stopped": "it stays stopped; the new spec counts when it is resumed",
    "finished": "it goes on from its last checkpoint under the new spec",
}


def field_changes(before: JobSpec | None, after: JobSpec) -> tuple[str, ...]:
    """Return a line for each field that says something else: ``grace: 30.0 -> 60.0``.

    Args:
        before: What the spec said, None if there was none or it could not be read.
        after: What it is going to say.
    """
    if before is None:
        return ()
    old, new = _flat(before), _flat(after)
    lines = []
    for name in sorted(old.keys() | new.keys()):
        if name not in old:
            lines.append(f"+ {name}: {new[name]}")
        elif name not in new:
            lines.append(f"- {name}: {old[name]}")
        elif old[name] != new[name]:
            lines.append(f"~ {name}: {old[name]} -> {new[name]}")
    return tuple(lines)


def after_placing(job: JobView | None, *, digest: str) -> str:
    """Say what becomes of a job when its spec is placed.

    Args:
        job: As it is now, None if no job has that name.
        digest: Of the spec that is placed.
    """
    if job is None:
        return "a new job: it starts when there is a slot for it"
    if job.spec_digest == digest and job.state != "rejected":
        return "nothing: this is the spec that is in force"
    held = "; it is held, and starts when it is resumed" if job.is_held else ""
    return _AFTER_A_CHANGE.get(job.state, f"it is {job.state}, and takes note of the new spec") + held


def after_removing(job: JobView) -> str:
    """Say what becomes of a job when its spec is removed."""
    if job.state in LIVE:
        return "it drains, and is then forgotten"
    return "it is forgotten"


def _flat(spec: JobSpec) -> dict[str, str]:
    found: dict[str, str] = {}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, dict) and value:
            for key, item in value.items():
                walk(f"{prefix}.{key}" if prefix else key, item)
        elif value is not None and value != {}:
            found[prefix] = json.dumps(value, ensure_ascii=False)

    walk("", spec.model_dump(mode="json"))
    return found
