"""What the fields of log lines mean; a field has one meaning in all events."""

from __future__ import annotations

from typing import Final

ALWAYS: Final[dict[str, str]] = {
    "ts": "When, ISO 8601 in UTC, with milliseconds.",
    "level": "`debug`, `info`, `warning` or `error`.",
    "event": "The name of the event.",
}
"""Fields of every line."""

SOMETIMES: Final[dict[str, str]] = {
    "repeated": "How often the same was held back since it was last said, for events of a bounded rate.",
}
"""Fields that are added to a line."""

FIELDS: Final[dict[str, str]] = {
    "job": "Name of the job.",
    "attempt": "Number of the attempt, from 1; 0 before the first.",
    "step": "Last finished step, or the step of the checkpoint that a resume took; null if there is none.",
    "reason": "Why, on one line.",
    "hint": "What to do about it, on one line.",
    "outcome": "How the attempt ended, one of the [outcomes](operations.md#what-an-ending-means).",
    "exit": "Exit code of the rank that decided; null if a signal ended it or nothing is known.",
    "signal": "Name of the signal that ended that rank, such as `SIGKILL`; null if none did.",
    "checkpoint": "Name of the newest valid checkpoint, or of the one in question; null for none.",
    "lost_steps": "Steps beyond the checkpoint, which are run again.",
    "retry_in_s": "Seconds until the next attempt, 0 if it waits for a slot alone; null if none follows.",
    "verdict": "`exact`, `unchecked`, `suspect` or `different`.",
    "state": "State of the job, or the state folder.",
    "event_kind": "What was ignored.",
    "traceback": "Where the fault is.",
    "exception": "Where the fault is.",
    "version": "Version of trainerd.",
    "pid": "Process id.",
    "socket": "Where requests are answered.",
    "jobs_folder": "The jobs folder.",
    "folder": "A folder: of the jobs, or of an attempt.",
    "every_s": "How often it is read, in seconds.",
    "jobs": "How many jobs run.",
    "limit_s": "How long it may take, in seconds; null without a limit.",
    "predicted_s": "How long it will probably take, in seconds.",
    "hurry_s": "When the ranks are told to save now, in seconds; null if not.",
    "jobs_at_risk": "Names of jobs.",
    "left": "Names of the jobs that are left.",
    "requests": "How many requests to stop there were.",
    "place": "Folder of the cgroups.",
    "memory": "Whether memory is counted, or why not.",
    "swept": "Cgroups that earlier attempts had left.",
    "what": "The folder or file.",
    "hung": "How many do not answer.",
    "lines": "How many lines.",
    "logger": "Name of the library's logger.",
    "message": "What was said.",
    "hook": "Name of the hook.",
    "notice": "What it was to tell of, one of the [events of hooks](notices.md).",
    "tries": "How many tries there were.",
    "source": "Where notices of preemption come from.",
    "deadline": "When the machine is taken, ISO 8601 in UTC; null if that is not known.",
}
"""The other fields."""
