"""Notices of Google Cloud: a preempted instance, and maintenance that ends one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from trainerd.supervisor.preemption_notices.metadata_http import ask, found
from trainerd.supervisor.preemption_notices.taking import POLL_S, NotSeenError, Taking

if TYPE_CHECKING:
    from trainerd.contract.clock import Clock

GCP_URL: Final = "http://169.254.169.254"
GCP_HOST: Final = "GCE_METADATA_HOST"
"""Variable by which the tools of Google are told of another server."""

PREEMPTED_S: Final = 30.0
"""From the notice that an instance is preempted to its end, in seconds."""
TERMINATED_S: Final = 60.0
"""From the notice of maintenance that ends an instance to its end, at least, in seconds."""

_FLAVOR: Final = {"Metadata-Flavor": "Google"}
_EVENTS: Final = frozenset({"NONE", "MIGRATE_ON_HOST_MAINTENANCE", "TERMINATE_ON_HOST_MAINTENANCE"})


class GcpSource:
    """The metadata server. It says that, and not when: the time counts from when it was first seen.

    Args:
        clock: Tells when that was.
        url: The server.
    """

    name = "gcp"
    poll_s = POLL_S

    def __init__(self, clock: Clock, url: str | None = None) -> None:
        host = os.environ.get(GCP_HOST)
        self._clock = clock
        self._url = (url or (f"http://{host}" if host else GCP_URL)).rstrip("/")
        self._first_seen_s: dict[str, float] = {}

    def look(self) -> tuple[Taking, ...]:
        preempted = self._get("preempted")
        if preempted not in {"TRUE", "FALSE", None}:
            raise NotSeenError("its answer on preempted is neither TRUE nor FALSE")
        event = self._get("maintenance-event")
        if event not in {*_EVENTS, None}:
            raise NotSeenError("its answer on maintenance-event is not known")
        notices = []
        if self._since("preempted", is_so=preempted == "TRUE") is not None:
            notices.append(self._taking("preempted", "takes this machine", PREEMPTED_S))
        # A machine that migrates goes on by itself.
        ends = event == "TERMINATE_ON_HOST_MAINTENANCE"
        if self._since("maintenance", is_so=ends) is not None:
            notices.append(self._taking("maintenance", "stops this machine for maintenance", TERMINATED_S))
        return tuple(notices)

    def _since(self, key: str, *, is_so: bool) -> float | None:
        if not is_so:
            self._first_seen_s.pop(key, None)
            return None
        return self._first_seen_s.setdefault(key, self._clock.wall_s())

    def _taking(self, key: str, what: str, notice_s: float) -> Taking:
        first_s = self._first_seen_s[key]
        return Taking("Google Cloud", f"{key} {first_s}", what, first_s + notice_s)

    def _get(self, what: str) -> str | None:
        answer = found(ask(f"{self._url}/computeMetadata/v1/instance/{what}", headers=_FLAVOR))
        return answer.text.strip().upper() if answer is not None else None
