"""How things are, kept as answers that need neither the journal nor an event loop: for a stand-in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pydantic import TypeAdapter

from trainerd.supervisor.api.control import DaemonView, JobView

if TYPE_CHECKING:
    from collections.abc import Callable

    from trainerd.supervisor.api.control import Control

_JOB: Final = "/v1/jobs/"
_JOBS: Final = TypeAdapter(list[JobView])
_ONE: Final = TypeAdapter(JobView)


def snapshot(control: Control) -> Callable[[str], bytes | None]:
    """Return what answers GET of a path as the API does, with how things are now; None where it cannot."""
    # At once: it asks the journal, which may be closed later.
    daemon = TypeAdapter(DaemonView).dump_json(control.daemon())

    def answer(path: str) -> bytes | None:
        if path == "/v1/daemon":
            return daemon
        if path == "/v1/jobs":
            return _JOBS.dump_json(list(control.list_jobs()))
        view = control.get_job(path.removeprefix(_JOB)) if path.startswith(_JOB) else None
        return _ONE.dump_json(view) if view is not None else None

    return answer
