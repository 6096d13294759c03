"""Delivers a notice once, in a thread: runs a command, posts to a webhook, sends an email.

Invariants: an error says why without a secret (the URL of a webhook, the password of a mailbox); what a
command left running when its time was over is killed with its process group.
"""

from __future__ import annotations

import os
import smtplib
import socket
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import urlsplit

from trainerd.contract.safe_text import safe_line
from trainerd.contract.secret_file import why_not_secret
from trainerd.supervisor.notices.hook_command import run_command
from trainerd.supervisor.notices.payloads import as_json, email, title, variables, webhook_body
from trainerd.supervisor.specs.hook_fields import check_url

if TYPE_CHECKING:
    from trainerd.contract.hooks import Hook
    from trainerd.supervisor.notices.hook_command import RunningCommands
    from trainerd.supervisor.notices.notice_rules import Notice
    from trainerd.supervisor.notices.payloads import Origin

SECRET_BYTES_MAX: Final = 16 * 1024
REASON_CHARACTERS_MAX: Final = 300
_TRY_AGAIN: Final = frozenset({408, 425, 429})
_HIDDEN: Final = "(hidden)"


class DeliveryError(Exception):
    """A notice could not be delivered.

    Args:
        reason: Why, without a secret.
        is_final: Whether another try would end the same way.
    """

    def __init__(self, reason: str, *, is_final: bool = False) -> None:
        super().__init__(safe_line(reason, characters_max=REASON_CHARACTERS_MAX))
        self.is_final = is_final


@dataclass(frozen=True)
class MailServer:
    """Where emails are handed in.

    Attributes:
        host: Name or address.
        port: Its port.
        sender: Address from which they come.
        tls: How the connection is encrypted.
        user: Whom to log in as; None skips the login.
        password: The password; a secret. None if `password_file` holds it.
        password_file: Absolute path of an owner-only file with it, read at each delivery.
    """

    host: str
    port: int
    sender: str
    tls: Literal["starttls", "implicit", "none"] = "starttls"
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    password_file: str | None = None


def deliver(
    hook: Hook, notice: Notice, *, origin: Origin, mail: MailServer | None, running: RunningCommands
) -> None:
    """Deliver a notice. Blocks for about the time limit of the hook; a server that drips may take longer.

    Raises:
        DeliveryError: It was not delivered.
    """
    match hook.kind:
        case "command":
            _run(hook.command, hook, notice, origin=origin, running=running)
        case "desktop":
            words = ("notify-send", "--app-name=trainerd", "--", title(notice), safe_line(notice.message))
            _run(words, hook, notice, origin=origin, running=running)
        case "webhook":
            _post(hook, webhook_body(notice, origin, hook.format))
        case "email":
            if mail is None:
                raise DeliveryError("the configuration has no section [smtp]", is_final=True)
            _send(hook, notice, origin=origin, mail=mail)


def _run(
    command: tuple[str, ...], hook: Hook, notice: Notice, *, origin: Origin, running: RunningCommands
) -> None:
    try:
        refusal = run_command(
            command,
            variables=variables(notice, origin),
            standard_input=as_json(notice, origin),
            folder=hook.folder,
            limit_s=hook.limit_s,
            running=running,
        )
    except OSError as error:
        raise DeliveryError(f"{command[0]} cannot be started: {error.strerror}", is_final=True) from error
    if refusal is not None:
        raise DeliveryError(f"{command[0]} {refusal}")


def _post(hook: Hook, body: bytes) -> None:
    # Imported here, in a thread: a supervisor without webhooks goes without it.
    import httpx

    url = hook.url if hook.url is not None else _secret(hook.url_file)
    try:
        check_url(url)
    except ValueError as error:
        raise DeliveryError(f"{hook.url_file}: {error}", is_final=True) from None
    headers = {"Content-Type": "application/json", "User-Agent": "trainerd"}
    try:
        with httpx.stream("POST", url, content=body, headers=headers, timeout=hook.limit_s) as response:
            status = response.status_code
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise DeliveryError(_without(what, url)) from None
    if not 200 <= status < 300:
        is_final = status < 500 and status not in _TRY_AGAIN
        raise DeliveryError(f"the webhook answered {status}", is_final=is_final)


def _without(text: str, url: str) -> str:
    """Return a text without anything of a URL beyond its host."""
    parts = urlsplit(url)
    secrets = {url, parts.path, parts.query, f"{parts.path}?{parts.query}", parts.password, parts.username}
    for secret in sorted((one for one in secrets if one and len(one) > 1), key=len, reverse=True):
        text = text.replace(secret, _HIDDEN)
    return text


def _send(hook: Hook, notice: Notice, *, origin: Origin, mail: MailServer) -> None:
    password = mail.password
    if mail.password_file is not None:
        password = _secret(mail.password_file)
    try:
        message = email(notice, origin, sender=mail.sender, to=hook.to)
        context = ssl.create_default_context() if mail.tls != "none" else None
        server = (
            smtplib.SMTP_SSL(mail.host, mail.port, timeout=hook.limit_s, context=context)
            if mail.tls == "implicit"
            else smtplib.SMTP(mail.host, mail.port, timeout=hook.limit_s)
        )
        with server:
            if mail.tls == "starttls":
                server.starttls(context=context)
            if mail.user is not None and password is not None:
                server.login(mail.user, password)
            refused = server.send_message(message, from_addr=mail.sender, to_addrs=list(hook.to))
    except (smtplib.SMTPException, OSError, ValueError) as error:
        text = f"{mail.host}: {_said(error)}"
        if password:
            text = text.replace(password, _HIDDEN)
        is_final = isinstance(error, smtplib.SMTPAuthenticationError | smtplib.SMTPNotSupportedError)
        raise DeliveryError(text, is_final=is_final) from None
    if refused:
        raise DeliveryError(f"{mail.host} refused {', '.join(sorted(refused))}", is_final=True)


def _said(error: Exception) -> str:
    match error:
        case smtplib.SMTPResponseException():
            said = error.smtp_error
            text = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
            return f"{error.smtp_code} {text}"
        case smtplib.SMTPRecipientsRefused():
            return f"refused {', '.join(sorted(error.recipients))}"
        case socket.gaierror() | OSError() if error.strerror:
            return error.strerror
        case _:
            return f"{type(error).__name__}: {error}"


def _secret(path: str | None) -> str:
    """Return the first line of a file of secrets that only its owner may read."""
    assert path is not None, "a secret is given or is in a file"
    file = Path(path)
    try:
        problem = why_not_secret(file, os.geteuid())
        if problem is not None:
            raise DeliveryError(f"{problem[0]}; {problem[1]}", is_final=True)
        with file.open("rb") as opened:
            lines = opened.read(SECRET_BYTES_MAX).decode().splitlines()
    except OSError as error:
        raise DeliveryError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise DeliveryError(f"{path} is not UTF-8 text", is_final=True) from None
    text = lines[0].strip() if lines else ""
    if not text:
        raise DeliveryError(f"{path} is empty", is_final=True)
    return text
