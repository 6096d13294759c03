"""The sections of the configuration that say whom to tell: hooks, the mail server, the low disk."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from trainerd.supervisor.notices.delivery import MailServer
from trainerd.supervisor.specs.fields import FilePath, Size, Text
from trainerd.supervisor.specs.hook_fields import checked_address, with_absolute
from trainerd.supervisor.specs.section import Section

if TYPE_CHECKING:
    from pathlib import Path

_PORTS: Final = {"starttls": 587, "implicit": 465, "none": 25}


class SmtpSection(Section):
    """Where emails are handed in."""

    host: Annotated[Text, Field(min_length=1)] = Field(description="Name or address of the server.")
    port: Annotated[int, Field(ge=1, le=65535)] | None = Field(
        None, description="Port of the server; if absent, 587, 465 or 25, according to `tls`."
    )
    tls: Literal["starttls", "implicit", "none"] = Field(
        "starttls", description="How the connection is encrypted."
    )
    sender: Annotated[Text, AfterValidator(checked_address)] = Field(
        description="Sender address of the emails."
    )
    user: Text | None = Field(None, description="User name for the login; no login if absent.")
    password: Text | None = Field(
        None,
        description="Password for the login. The configuration must then be readable only for its owner.",
    )
    password_file: FilePath | None = Field(
        None,
        description="File that holds the password and that only its owner can read, relative to "
        "the folder of the configuration.",
    )

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.password is not None and self.password_file is not None:
            raise ValueError("name one of password and password_file")
        has_password = self.password is not None or self.password_file is not None
        if has_password != (self.user is not None):
            raise ValueError("user and a password go together: write both, or neither")
        if has_password and self.tls == "none" and not _is_loopback(self.host):
            raise ValueError("a password is not sent unencrypted: write tls = 'starttls' or 'implicit'")
        return self

    def in_folder(self, folder: Path) -> Self:
        """Return the section with paths that are relative to `folder` made absolute."""
        return with_absolute(self, "password_file", folder)

    @property
    def server(self) -> MailServer:
        """The server."""
        return MailServer(
            host=self.host,
            port=self.port or _PORTS[self.tls],
            sender=self.sender,
            tls=self.tls,
            user=self.user,
            password=self.password,
            password_file=self.password_file,
        )


class DiskSection(Section):
    """When to tell that the disk runs low."""

    low: Size = Field(
        1024**3, description="Free space on the disk of the state folder below which `disk-low` is reported."
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
