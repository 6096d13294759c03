"""Who may see the page, and what a request to it must look like.

Invariants: a request without the token gets 401 and nothing of ours, whatever it asks for; a name that an
attacker may have pointed at this machine is refused before that; nothing is changed without
``--web-actions``, and then only by a form that this process has made.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
import socket
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE_AGE_S: Final = 30 * 24 * 3600
"""How long a browser need not be given the token again, in seconds."""

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)

_HEADERS: Final = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}
_READING: Final = frozenset({"GET", "HEAD"})
_TEXT_MAX: Final = 200


@dataclass(frozen=True)
class WebAccess:
    """What is asked of a request.

    Attributes:
        token: What a browser must know; None where the kernel vouches for the peer.
        allows_actions: Whether the page may stop and resume jobs.
        port: Port of the address, which tells the cookies of two supervisors apart.
        secret: What the tokens of forms are made of; of this process alone.
    """

    token: str | None
    allows_actions: bool = False
    port: int = 0
    secret: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)

    @property
    def cookie_name(self) -> str:
        """Name of the cookie that stands for the token."""
        return f"trainerd-{self.port}"

    @property
    def cookie(self) -> str:
        """Value of the cookie, from which the token cannot be told."""
        return hmac.new((self.token or "").encode(), b"trainerd cookie", hashlib.sha256).hexdigest()

    @property
    def form_token(self) -> str:
        """What a form must bring along."""
        return hmac.new(self.secret, b"trainerd form", hashlib.sha256).hexdigest()

    def is_form_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self.form_token.encode())

    def is_token(self, given: str) -> bool:
        return self.token is not None and hmac.compare_digest(given.encode(), self.token.encode())

    def is_known(self, headers: Headers) -> bool:
        """Whether a request brings the token, or the cookie that stands for it."""
        if self.token is None:
            return True
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and self.is_token(given.strip()):
            return True
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(self.cookie_name)
        except CookieError:
            return False
        return cookie is not None and hmac.compare_digest(cookie.value.encode(), self.cookie.encode())


class WebGuard:
    """The page's application as those may use it who may see it.

    Args:
        app: What answers.
        access: What is asked of a request.
    """

    def __init__(self, app: ASGIApp, access: WebAccess) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                headers.setdefault("cache-control", "no-store")
            await send(message)

        answer = self._refusal(scope)
        await (answer or self._app)(scope, receive, send_guarded)

    def _refusal(self, scope: Scope) -> Response | None:
        """Return what is answered in the place of the page, None if the page answers."""
        access, headers = self._access, Headers(scope=scope)
        if access.token is not None and not is_host_of_ours(headers.get("host", "")):
            return _text("this is not a name of this machine: use its address\n", 421)
        if scope["method"] in _READING and access.token is not None:
            given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[-1]
            if access.is_token(given):
                return self._welcome(scope)
        if not access.is_known(headers):
            return Response(status_code=401, headers={"www-authenticate": "Bearer"})
        if scope["method"] in _READING:
            return None
        if not access.allows_actions:
            return _text("the page is read-only: `trainerd run --web-actions` makes it more\n", 403)
        if scope["method"] != "POST":
            return _text("GET and POST are answered\n", 405)
        return None if is_same_origin(headers) else _text("this request comes from another page\n", 403)

    def _welcome(self, scope: Scope) -> Response:
        """Keep the token in a cookie, and have it vanish from the address bar."""
        # Relative, so that nothing that the request says can lead elsewhere.
        last = scope["path"].rpartition("/")[2]
        is_plain = last.isascii() and last.replace("-", "").replace("_", "").replace(".", "").isalnum()
        answer = RedirectResponse(f"./{last}" if is_plain else "./", 303)
        answer.set_cookie(
            self._access.cookie_name,
            self._access.cookie,
            max_age=COOKIE_AGE_S,
            httponly=True,
            samesite="strict",
        )
        return answer


def is_host_of_ours(host: str) -> bool:
    """Return whether a Host header names this machine in a way that no DNS answer of others can.

    A page elsewhere can have a name of its own resolve to this address, and so speak to it as its own origin
    (DNS rebinding); such a name is no address and not this machine's.
    """
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    if name in {"localhost", socket.gethostname().lower()}:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_same_origin(headers: Headers) -> bool:
    """Return whether a browser says that a request comes from a page of ours."""
    if headers.get("sec-fetch-site") == "same-origin":
        return True
    try:
        origin = urlsplit(headers.get("origin", "")).netloc
    except ValueError:
        return False
    return bool(origin) and origin == headers.get("host")


def _text(text: str, status: int) -> Response:
    return PlainTextResponse(text[:_TEXT_MAX], status)
