"""Jobs and outcomes as text for the journal, each with its format version."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, Final

from trainerd.contract import codec, resolved
from trainerd.contract.safe_text import safe_line, safe_value
from trainerd.errors import CorruptError
from trainerd.supervisor.machine.outcome import Outcome
from trainerd.supervisor.machine.states import STATES, Job

JOB_FORMAT: Final = f"trainerd.journal-job/1+{resolved.FORMAT}"
"""The job's spec is part of the record, so both versions count."""

OUTCOME_FORMAT: Final = "trainerd.journal-outcome/1"

_STATES_BY_NAME: Final = {state.NAME: state for state in STATES}


def encode_job(job: Job) -> str:
    """Encode a job; its state is named, so that two states with equal data stay two."""
    plain = codec.to_plain(job)
    plain["state"] = {"name": job.state.NAME, **plain["state"]}
    return json.dumps({"format": JOB_FORMAT, **plain}, allow_nan=False)


def decode_job(text: str, *, source: str) -> Job:
    """Decode what `encode_job` wrote.

    Raises:
        CorruptError: It is not such a record.
    """
    plain = _record(text, JOB_FORMAT, source)
    state = plain.get("state")
    kind = _STATES_BY_NAME.get(str(state.get("name", ""))) if isinstance(state, dict) else None
    if kind is None:
        raise CorruptError(f"{source}: there is no such state: {safe_line(str(state), characters_max=60)}")
    # The state is decoded by its name; to the codec, one without data would look like any other.
    job = codec.from_plain({**plain, "state": {}}, Job, source=source)
    return replace(job, state=codec.from_plain(plain["state"], kind, source=f"{source}: state"))


def is_of_another_version(text: str) -> bool:
    """Return whether a record that `decode_job` refuses was written by another version, and not damaged."""
    try:
        plain = codec.parse(text, source="a job")
    except CorruptError:
        return False
    found = plain.get("format") if isinstance(plain, dict) else None
    return isinstance(found, str) and found != JOB_FORMAT


def encode_outcome(outcome: Outcome) -> str:
    """Encode an outcome."""
    return json.dumps({"format": OUTCOME_FORMAT, **codec.to_plain(safe_value(outcome))}, allow_nan=False)


def decode_outcome(text: str, *, source: str) -> Outcome:
    """Decode what `encode_outcome` wrote.

    Raises:
        CorruptError: It is not such a record.
    """
    return codec.from_plain(_record(text, OUTCOME_FORMAT, source), Outcome, source=source)


def _record(text: str, format_name: str, source: str) -> dict[str, Any]:
    plain = codec.parse(text, source=source)
    if not isinstance(plain, dict) or plain.get("format") != format_name:
        found = plain.get("format") if isinstance(plain, dict) else plain
        raise CorruptError(f"{source}: expected format {format_name!r}, found {found!r:.60}")
    return plain
