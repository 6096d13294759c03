"""Notices of Azure: scheduled events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from trainerd.supervisor.preemption_notices.metadata_http import ask, found
from trainerd.supervisor.preemption_notices.taking import POLL_S, NotSeenError, Taking, parse_moment

if TYPE_CHECKING:
    from trainerd.contract.clock import Clock

AZURE_URL: Final = "http://169.254.169.254"
UNKNOWN_NOTICE_S: Final = 30.0
"""From when an event without a time was first seen to the end of the machine, in seconds."""

_HEADERS: Final = {"Metadata": "true"}
_EVENTS: Final = "/metadata/scheduledevents?api-version=2020-07-01"
_NAME: Final = "/metadata/instance/compute/name?api-version=2021-02-01&format=text"
_WHAT: Final = {
    "Preempt": "takes this machine",
    "Terminate": "deletes this machine",
    "Reboot": "reboots this machine",
    "Redeploy": "moves this machine to another host",
}
"""Events by which jobs end. A freeze of some seconds ends no job."""
_AHEAD: Final = frozenset({"Scheduled", "Started"})


class AzureSource:
    """The metadata service. Events of other machines of the same set are left out.

    Args:
        clock: Tells when an event without a time was first seen.
        url: The server.
    """

    name = "azure"
    poll_s = POLL_S

    def __init__(self, clock: Clock, url: str | None = None) -> None:
        self._clock = clock
        self._url = (url or AZURE_URL).rstrip("/")
        self._own_name: str | None = None
        self._first_seen_s: dict[str, float] = {}

    def look(self) -> tuple[Taking, ...]:
        answer = found(ask(f"{self._url}{_EVENTS}", headers=_HEADERS))
        if answer is None:
            return ()
        plain = answer.json()
        events = plain.get("Events") if isinstance(plain, dict) else None
        if not isinstance(events, list) or not all(isinstance(event, dict) for event in events):
            raise NotSeenError("its scheduled events have no list of Events")
        ours = [event for event in events if self._is_ours(event)]
        keys = {_key(event) for event in ours}
        self._first_seen_s = {key: at for key, at in self._first_seen_s.items() if key in keys}
        return tuple(self._taking(event) for event in ours)

    def _is_ours(self, event: dict[str, Any]) -> bool:
        if event.get("EventType") not in _WHAT or event.get("EventStatus", "Scheduled") not in _AHEAD:
            return False
        resources = event.get("Resources")
        if not isinstance(resources, list) or not resources:
            return True
        # Who this machine is decides only if that can be found out.
        name = self._name()
        return name is None or any(isinstance(one, str) and one.lower() == name for one in resources)

    def _name(self) -> str | None:
        if self._own_name is None:
            try:
                answer = found(ask(f"{self._url}{_NAME}", headers=_HEADERS))
            except NotSeenError:
                return None
            self._own_name = answer.text.strip().lower() or None if answer is not None else None
        return self._own_name

    def _taking(self, event: dict[str, Any]) -> Taking:
        key = _key(event)
        first_s = self._first_seen_s.setdefault(key, self._clock.wall_s())
        not_before = event.get("NotBefore")
        if not_before:
            try:
                deadline_s = parse_moment(not_before)
            except ValueError as error:
                raise NotSeenError(f"the NotBefore of a scheduled event is {error}") from None
        else:  # it has begun, or has no time
            deadline_s = first_s + (UNKNOWN_NOTICE_S if event.get("EventStatus") != "Started" else 0.0)
        return Taking("Azure", key, _WHAT[event["EventType"]], deadline_s)


def _key(event: dict[str, Any]) -> str:
    return f"{event.get('EventType')} {event.get('EventId')}"
