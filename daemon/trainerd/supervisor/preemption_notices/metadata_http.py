"""Asks a metadata server: no proxy, no redirect, little time, little text."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from trainerd.supervisor.preemption_notices.taking import NotSeenError

if TYPE_CHECKING:
    from collections.abc import Mapping

ASK_LIMIT_S: Final = 2.0
"""How long a metadata server may take to connect, and between two parts of its answer, in seconds."""

ANSWER_BYTES_MAX: Final = 64 * 1024

NOT_FOUND: Final = 404


@dataclass(frozen=True)
class MetadataAnswer:
    """An answer.

    Attributes:
        status: Its status.
        text: Its body.
    """

    status: int
    text: str

    def json(self) -> Any:
        """Return the body as JSON.

        Raises:
            NotSeenError: It is none.
        """
        try:
            return json.loads(self.text)
        except (ValueError, RecursionError):
            raise NotSeenError("it answers with something that is not JSON") from None


def ask(
    url: str, *, method: str = "GET", headers: Mapping[str, str] | None = None, uses_proxy: bool = False
) -> MetadataAnswer:
    """Ask for a URL. Blocks.

    Raises:
        NotSeenError: There is no answer, or it is too long. The message names the host alone.
    """
    # Imported here, in a thread: a supervisor without sources goes without it.
    import httpx

    try:
        with (
            httpx.Client(timeout=ASK_LIMIT_S, trust_env=uses_proxy, verify=url.startswith("https")) as client,
            client.stream(method, url, headers=dict(headers or {})) as response,
        ):
            body = bytearray()
            for chunk in response.iter_bytes():
                body += chunk
                if len(body) > ANSWER_BYTES_MAX:
                    raise NotSeenError(f"it answers with more than {ANSWER_BYTES_MAX} bytes")
            return MetadataAnswer(response.status_code, body.decode("utf-8", "replace"))
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        raise NotSeenError(f"{urlsplit(url).hostname} does not answer: {type(error).__name__}") from None


def found(answer: MetadataAnswer) -> MetadataAnswer | None:
    """Return an answer with something in it, None if there is nothing.

    Raises:
        NotSeenError: It is an error.
    """
    if answer.status == NOT_FOUND:
        return None
    if answer.status != 200:
        raise NotSeenError(f"it answers with status {answer.status}")
    return answer
