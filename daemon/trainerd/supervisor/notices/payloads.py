"""What a notice looks like to a program, a webhook, Slack, a mailbox and a desktop: pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from typing import TYPE_CHECKING, Any, Final

from trainerd.contract.nonfinite import spelled
from trainerd.contract.safe_text import one_line, safe_text, safe_value

if TYPE_CHECKING:
    from trainerd.contract.hooks import PayloadFormat
    from trainerd.supervisor.notices.notice_rules import Notice

NOTICE_FORMAT: Final = "trainerd.notice/1"
TITLE_CHARACTERS_MAX: Final = 120
_ICONS: Final = {"finished": ":white_check_mark:", "restarted": ":repeat:", "preemption": ":hourglass:"}


@dataclass(frozen=True)
class Origin:
    """Where notices come from.

    Attributes:
        host: Name of the machine.
        state_dir: The state folder.
    """

    host: str
    state_dir: str


def title(notice: Notice) -> str:
    """Return a line that says what a notice is about."""
    subject = notice.job if notice.job is not None else "this machine"
    text = f"trainerd: {subject}: {notice.event}"
    return one_line(safe_text(f"test of {text}" if notice.is_test else text))[:TITLE_CHARACTERS_MAX]


def as_plain(notice: Notice, origin: Origin) -> dict[str, Any]:
    """Return a notice as JSON has it: what webhooks are sent and commands read."""
    plain: dict[str, Any] = {
        "format": NOTICE_FORMAT,
        "event": notice.event,
        "job": notice.job,
        "attempt": notice.attempt,
        "state": notice.state,
        "title": title(notice),
        "message": safe_text(notice.message),
        "time": moment(notice.wall_s),
        "host": safe_text(origin.host),
        "state_dir": safe_text(origin.state_dir),
        "details": safe_value(notice.details),
        "test": notice.is_test,
    }
    return spelled(plain)  # type: ignore[no-any-return] # JSON has no NaN


def as_json(notice: Notice, origin: Origin) -> bytes:
    """Return a notice as one line of JSON."""
    return (json.dumps(as_plain(notice, origin), allow_nan=False) + "\n").encode()


def webhook_body(notice: Notice, origin: Origin, form: PayloadFormat) -> bytes:
    """Return what a webhook is sent."""
    return as_json(notice, origin) if form == "json" else _for_slack(notice, origin)


def _for_slack(notice: Notice, origin: Origin) -> bytes:
    """Return a message for an incoming webhook of Slack, or of what takes the same."""
    icon = _ICONS.get(notice.event, ":warning:")
    head = f"{icon} *{_slack_text(title(notice))}* on {_slack_text(origin.host)}"
    text = f"{head}\n{_slack_text(safe_text(notice.message))}"
    return json.dumps({"text": text}).encode()


def _slack_text(text: str) -> str:
    """Escape what Slack would read as a mention or a link."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def variables(notice: Notice, origin: Origin) -> dict[str, str]:
    """Return the environment variables that tell a command."""
    found = {
        "TRAINERD_EVENT": notice.event,
        "TRAINERD_JOB": notice.job or "",
        "TRAINERD_ATTEMPT": str(notice.attempt),
        "TRAINERD_JOB_STATE": notice.state,
        "TRAINERD_TITLE": title(notice),
        "TRAINERD_MESSAGE": notice.message,
        "TRAINERD_TIME": moment(notice.wall_s),
        "TRAINERD_HOST": origin.host,
        "TRAINERD_STATE": origin.state_dir,  # where `trainerd` in the command looks
    }
    return {name: safe_text(text) for name, text in found.items()}


def email(notice: Notice, origin: Origin, *, sender: str, to: tuple[str, ...]) -> EmailMessage:
    """Return a notice as an email."""
    message = EmailMessage()
    message["Subject"] = title(notice)
    message["From"] = sender
    message["To"] = ", ".join(to)
    message["Date"] = datetime.fromtimestamp(notice.wall_s, UTC)
    message["Auto-Submitted"] = "auto-generated"
    known = {key: value for key, value in safe_value(notice.details).items() if value is not None}
    lines = [
        safe_text(notice.message),
        "",
        *(f"{key}: {value}" for key, value in known.items()),
        f"host: {safe_text(origin.host)}",
        f"time: {moment(notice.wall_s)}",
    ]
    message.set_content("\n".join(lines) + "\n")
    return message


def moment(wall_s: float) -> str:
    """Return a time as ISO 8601 in UTC, to the second."""
    return datetime.fromtimestamp(wall_s, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
