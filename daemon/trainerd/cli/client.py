"""Asks the supervisor, over its Unix socket.

Answers become the views of `trainerd.supervisor.api.control`. Fields that this version does not know are
ignored, so that the command line may be older than the supervisor.
"""

from __future__ import annotations

import contextlib
import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar
from urllib.parse import quote

from trainerd.contract import codec
from trainerd.contract.names import check_name
from trainerd.contract.nonfinite import as_number
from trainerd.contract.safe_text import safe_text, safe_value
from trainerd.errors import TrainerdError, TryAgainError, UserError
from trainerd.supervisor.api.control import (
    DaemonView,
    EventView,
    GoodputView,
    JobView,
    OutcomeView,
    TrialView,
)
from trainerd.supervisor.api.unix_socket import reachable_address

if TYPE_CHECKING:
    from trainerd.contract.paths import StatePaths

ANSWER_TIMEOUT_S: Final = 10.0
"""How long the supervisor may take to answer, in seconds."""

View = TypeVar("View")


class NotRunningError(UserError):
    """No supervisor answers on the state folder."""


class Client:
    """A supervisor, as seen from outside. Use it as a context manager.

    Every method raises `NotRunningError` where no supervisor answers, UserError where the supervisor refuses
    and `TryAgainError` where it is too busy or the disk is full.

    Args:
        state: Whose supervisor.
    """

    def __init__(self, state: StatePaths) -> None:
        # Imported here: verbs that read folders alone start without it.
        import httpx

        self._state = state
        self._resources = contextlib.ExitStack()
        try:
            address = self._resources.enter_context(reachable_address(state.socket.absolute()))
        except OSError as error:
            self._resources.close()
            raise self._not_running() from error
        # A Unix socket has no certificate; without this, httpx reads every authority's: 45 ms.
        transport = httpx.HTTPTransport(uds=address, verify=False)
        self._http = self._resources.enter_context(
            httpx.Client(
                transport=transport, base_url="http://trainerd", timeout=ANSWER_TIMEOUT_S, trust_env=False
            )
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._resources.close()

    def daemon(self) -> DaemonView:
        """Describe the supervisor."""
        return _view(self._ask("GET", "/v1/daemon"), DaemonView)

    def last_event(self) -> int:
        """Return the sequence number of the newest event, 0 if there is none."""
        return self.daemon().last_event

    def list_jobs(self) -> tuple[JobView, ...]:
        """Describe every job, by name."""
        return _views(self._ask("GET", "/v1/jobs"), JobView)

    def get_job(self, name: str) -> JobView:
        """Describe one job."""
        return _view(self._ask("GET", _path(name)), JobView)

    def get_goodput(self, name: str) -> GoodputView:
        """Return where the time of a job's run went."""
        return _view(self._ask("GET", f"{_path(name)}/goodput"), GoodputView)

    def list_outcomes(self, name: str) -> tuple[OutcomeView, ...]:
        """Return how each attempt of a job ended, oldest first."""
        return _views(self._ask("GET", f"{_path(name)}/outcomes"), OutcomeView)

    def list_events(
        self, *, job: str | None = None, after: int = 0, limit: int = 200
    ) -> tuple[EventView, ...]:
        """Return events with a sequence number above `after`, oldest first, at most `limit`."""
        query = {"after": after, "limit": limit} | ({"job": check_name(job)} if job is not None else {})
        return _views(self._ask("GET", "/v1/events", query), EventView)

    def stop(self, name: str, *, now: bool = False) -> JobView:
        """Drain a job and keep it stopped. The request is durable when this returns."""
        query = {"now": True} if now else None
        return _view(self._ask("POST", f"{_path(name)}/stop", query), JobView)

    def resume(self, name: str) -> JobView:
        """Let a job go on now. The request is durable when this returns."""
        return _view(self._ask("POST", f"{_path(name)}/resume"), JobView)

    def hold(self, name: str) -> JobView:
        """Launch nothing of a job until it is resumed. The request is durable when this returns."""
        return _view(self._ask("POST", f"{_path(name)}/hold"), JobView)

    def retry(self, name: str) -> JobView:
        """Try a job again with a full budget. The request is durable when this returns."""
        return _view(self._ask("POST", f"{_path(name)}/retry"), JobView)

    def check_restart(self, name: str) -> JobView:
        """Ask whether a job could be started again; one that runs, once it is stopped. Changes nothing."""
        return _view(self._ask("GET", f"{_path(name)}/restartable"), JobView)

    def restart(self, name: str, *, fresh: bool = False) -> JobView:
        """Start a job at rest again. The request is durable when this returns."""
        query = {"fresh": "true"} if fresh else None
        return _view(self._ask("POST", f"{_path(name)}/restart", query), JobView)

    def hold_all(self) -> DaemonView:
        """Drain every job and start none. The request is durable when this returns."""
        return _view(self._ask("POST", "/v1/hold"), DaemonView)

    def release_all(self) -> DaemonView:
        """Let the supervisor start jobs again."""
        return _view(self._ask("POST", "/v1/release"), DaemonView)

    def test_hooks(self, name: str | None) -> tuple[TrialView, ...]:
        """Have a test notice delivered to hooks, and return how that went."""
        query = {"name": name} if name is not None else None
        return _views(self._ask("POST", "/v1/notify-test", query), TrialView)

    def reload(self) -> None:
        """Ask the supervisor to start its program again; it has yet to happen when this returns."""
        self._ask("POST", "/v1/reload")

    def rescan(self) -> None:
        """Make the supervisor look at its jobs folder now."""
        self._ask("POST", "/v1/rescan")

    def _ask(self, method: str, path: str, query: dict[str, Any] | None = None) -> Any:
        import httpx

        try:
            response = self._http.request(method, path, params=query)
        except httpx.ConnectError as error:
            raise self._not_running() from error
        except httpx.TimeoutException as error:
            raise TryAgainError(
                f"the supervisor on {self._state.root} did not answer within {ANSWER_TIMEOUT_S:.0f} s",
                hint="it may be busy or stopped by a signal; `trainerd logs --daemon` works without it",
            ) from error
        except httpx.HTTPError as error:
            raise TryAgainError(
                f"the supervisor on {self._state.root} broke off: {error}",
                hint="it may have just been stopped",
            ) from error
        return _answer(response.status_code, response.content)

    def _not_running(self) -> UserError:
        return not_running(self._state)


def not_running(state: StatePaths) -> UserError:
    """Return the error that says why no supervisor answers on a state folder."""
    from trainerd.cli.how_to_start import start_command
    from trainerd.cli.rights import why_unreachable

    refusal = why_unreachable(state)
    if refusal is not None:
        return refusal
    if state.root.exists() and not state.root.is_dir():
        return UserError(
            f"{state.root} is not a folder", hint="name the state folder of a supervisor with --state-dir"
        )
    return NotRunningError(
        f"no supervisor is running on {state.root}",
        hint=f"start one with `{start_command(state)}`, or name another state folder with --state-dir",
    )


def _path(name: str) -> str:
    return f"/v1/jobs/{quote(check_name(name), safe='')}"


def _answer(status: int, content: bytes) -> Any:
    try:
        plain = json.loads(content)
    except ValueError as error:
        raise TrainerdError(
            f"the supervisor answered with something that is not JSON (status {status})"
        ) from error
    if status < HTTPStatus.BAD_REQUEST:
        return plain
    known = plain if isinstance(plain, dict) else {}
    message, hint = safe_text(str(known.get("error", f"the supervisor answered {status}"))), known.get("hint")
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        raise TryAgainError(message, hint=hint)
    if status < HTTPStatus.INTERNAL_SERVER_ERROR:
        raise UserError(message, hint=hint)
    raise TrainerdError(message, hint=hint)


def _views(plain: Any, kind: type[View]) -> tuple[View, ...]:
    if not isinstance(plain, list):
        raise TrainerdError("the supervisor answered with something that is not a list")
    return tuple(_view(item, kind) for item in plain)


def _view(plain: Any, kind: type[View]) -> View:
    if isinstance(plain, dict) and "loss" in plain:
        plain["loss"] = as_number(plain["loss"])
    return safe_value(codec.from_plain(plain, kind, source="the supervisor's answer"))
