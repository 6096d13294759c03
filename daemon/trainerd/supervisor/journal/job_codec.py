"""Jobs and outcomes as text for the journal, each with its format version."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, Final

from trainerd.contract import codec, resolved
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
    kind = _STATES_BY_NAME.get(state.get("name", "")) if isinstance(state, dict) else None
    if kind is None:
        raise CorruptError(f"{source}: there is no such state: {state!r:.60}")
    # The state is decoded by its name; to the codec, one without data would look like any other.
    job = codec.from_plain({**plain, "state": {}}, Job, source=source)
    return replace(job, state=codec.from_plain(plain["state"], kind, source=f"{source}: state"))


def encode_outcome(outcome: Outcome) -> str:
    """Encode an outcome."""
    return json.dumps({"format": OUTCOME_FORMAT, **codec.to_plain(outcome)}, allow_nan=False)


def decode_outcome(text: str, *, source: str) -> Outcome:
    """Decode what `encode_outcome` wrote.

    Raises:
        CorruptError: It is not such a record.
    """
    return codec.from_plain(_record(text, OUTCOME_FORMAT, source), Outcome, source=source)


def _record(text: str, format_name: str, source: str) -> dict[str, Any]:
    try:
        plain = json.loads(text)
    except ValueError as error:
        raise CorruptError(f"{source}: not valid JSON: {error}") from error
    if not isinstance(plain, dict) or plain.get("format") != format_name:
        found = plain.get("format") if isinstance(plain, dict) else plain
        raise CorruptError(f"{source}: expected format {format_name!r}, found {found!r:.60}")
    return plain
