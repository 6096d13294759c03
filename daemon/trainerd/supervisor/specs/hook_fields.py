"""The fields of a hook: the same in a spec and in the configuration of the supervisor."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Final, Literal, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator

from trainerd.contract.hooks import NOTICE_EVENTS, TRIES_MAX, TRY_LIMIT_S, Hook, HookKind, NoticeEvent
from trainerd.supervisor.specs.fields import Command, FilePath, SomeDuration, Text, as_words
from trainerd.supervisor.specs.resolve import absolute
from trainerd.supervisor.specs.section import Section

TRIES_LIMIT: Final = 20
TRY_SECONDS_MAX: Final = 300.0
"""Longest time that may be configured for one try, in seconds."""

_ADDRESS: Final = re.compile(r"[^\s<>,;@\"]+@[^\s<>,;@\"]+")
_SCHEMES: Final = frozenset({"http", "https"})


def check_url(value: str) -> str:
    """Return a URL that can be asked for. What is wrong is said without the URL: it is a secret."""
    try:
        parts = urlsplit(value)
        is_sound = parts.scheme in _SCHEMES and bool(parts.hostname)
        _ = parts.port
    except ValueError:
        is_sound = False
    if not is_sound or any(not character.isprintable() or character.isspace() for character in value):
        raise ValueError("expected a URL that begins with https:// or http:// and names a host")
    return value


def checked_address(value: str) -> str:
    """Return an email address that cannot add lines or recipients to a message."""
    if not (_ADDRESS.fullmatch(value) and value.isascii() and value.isprintable()):
        raise ValueError(f"{value!r} is not an email address such as me@example.org")
    return value


def _checked_addresses(value: list[str]) -> list[str]:
    if not value:
        raise ValueError("name at least one address")
    return [checked_address(address) for address in value]


def _short_enough(value: float) -> float:
    if value > TRY_SECONDS_MAX:
        raise ValueError(f"must be at most {TRY_SECONDS_MAX:.0f} s")
    return value


Part = TypeVar("Part", bound=Section)
Url = Annotated[Text, AfterValidator(check_url)]
Addresses = Annotated[list[Text], BeforeValidator(as_words), AfterValidator(_checked_addresses)]
_WAYS: Final = ("command", "webhook", "webhook_file", "email", "desktop")


def with_absolute(section: Part, field: str, folder: Path) -> Part:
    """Return a section with the path in one of its fields made absolute; it begins at `folder`."""
    text = getattr(section, field)
    if text is None:
        return section
    return section.model_copy(update={field: absolute(text, folder)})


class HookSection(Section):
    """Whom to tell, and of what: exactly one of command, webhook, webhook_file, email and desktop."""

    model_config = ConfigDict(hide_input_in_errors=True)

    events: list[Literal[NOTICE_EVENTS]] = Field(  # type: ignore[valid-type] # a tuple of words
        list(NOTICE_EVENTS),
        min_length=1,
        description="Events to report; all if absent.",
        examples=[["finished", "parked"]],
    )
    command: Command | None = Field(
        None,
        description="Program to run, with `TRAINERD_EVENT`, `TRAINERD_JOB` and other variables in "
        "its environment and JSON on standard input.",
        examples=[["/usr/local/bin/page-me"]],
    )
    webhook: Url | None = Field(
        None, description="URL to which JSON is posted.", examples=["https://example.org/hook"]
    )
    webhook_file: FilePath | None = Field(
        None,
        description="File that holds that URL and that only its owner can read, relative to the "
        "folder of the file that names it.",
        examples=["slack-url"],
    )
    format: Literal["json", "slack"] = Field(
        "json", description="Format of the posted JSON: all fields, or a Slack message.", examples=["slack"]
    )
    email: Addresses | None = Field(
        None,
        description="Addresses of the recipients; needs the section `smtp` of the supervisor's "
        "configuration.",
        examples=[["me@example.org"]],
    )
    desktop: Literal[True] | None = Field(
        None,
        description="Show a notice on the desktop of the supervisor's user (`notify-send`).",
        examples=[True],
    )
    timeout: Annotated[SomeDuration, AfterValidator(_short_enough)] = Field(
        TRY_LIMIT_S, description="Time limit of one delivery.", examples=["10s"]
    )
    tries: Annotated[int, Field(ge=1, le=TRIES_LIMIT)] = Field(
        TRIES_MAX, description="Number of tries, with growing waits between them.", examples=[4]
    )

    @model_validator(mode="after")
    def _says_how(self) -> Self:
        if len([way for way in _WAYS if getattr(self, way) is not None]) != 1:
            raise ValueError(f"name exactly one of {', '.join(_WAYS)}")
        if self.format != "json" and self.kind != "webhook":
            raise ValueError("format belongs to a webhook")
        return self

    @property
    def kind(self) -> HookKind:
        """How it tells."""
        if self.command is not None:
            return "command"
        if self.email is not None:
            return "email"
        return "desktop" if self.desktop else "webhook"

    def in_folder(self, folder: Path) -> Self:
        """Return the section with paths that are relative to `folder` made absolute."""
        return with_absolute(self, "webhook_file", folder)

    def hook(self, name: str, *, starts_in: str | None = None) -> Hook:
        """Return the hook.

        Args:
            name: How it is called.
            starts_in: Folder in which a command starts.
        """
        events: tuple[NoticeEvent, ...] = tuple(dict.fromkeys(self.events))
        return Hook(
            name=name,
            kind=self.kind,
            events=events,
            command=tuple(self.command or ()),
            url=self.webhook,
            url_file=self.webhook_file,
            format=self.format,
            to=tuple(self.email or ()),
            limit_s=self.timeout,
            tries=self.tries,
            folder=starts_in if self.command is not None else None,
        )
