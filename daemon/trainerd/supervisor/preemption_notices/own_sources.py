"""Notices by a file or a URL, for machines whose owner announces by other means that they are taken."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from trainerd.contract.safe_text import safe_line
from trainerd.supervisor.preemption_notices.metadata_http import ask
from trainerd.supervisor.preemption_notices.taking import POLL_S, NotSeenError, Taking, parse_moment

if TYPE_CHECKING:
    from trainerd.contract.clock import Clock

FILE_BYTES_MAX: Final = 16 * 1024
REASON_CHARACTERS_MAX: Final = 200
_NOTHING: Final = frozenset({"", "{}", "[]", "null", "none", "false", "no", "0"})
_YES: Final = frozenset({"true", "yes", "1"})
_NO_NOTICE: Final = frozenset({204, 404, 410})


class FileNoticeSource:
    """A file: that it is there is a notice, and it is cancelled when the file is removed.

    Its text may be a time, or JSON with `deadline` and `reason`; any other text is the reason.

    Args:
        path: The file.
        notice_s: From the file's time to the end of the machine, if it does not say.
    """

    poll_s = POLL_S

    def __init__(self, path: str, notice_s: float) -> None:
        self.name = f"file {path}"
        self._path = Path(path)
        self._notice_s = notice_s

    def look(self) -> tuple[Taking, ...]:
        try:
            status = self._path.stat()
            if not stat.S_ISREG(status.st_mode):
                raise NotSeenError("it is not a file")
            with self._path.open("rb") as file:
                text = file.read(FILE_BYTES_MAX).decode("utf-8", "replace").strip()
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise NotSeenError(f"it cannot be read: {error.strerror}") from None
        begins_s = status.st_mtime
        try:
            deadline_s, reason = _read(text)
        except ValueError as error:
            raise NotSeenError(f"its deadline is {error}") from None
        deadline_s = begins_s + self._notice_s if deadline_s is None else deadline_s
        return (_taking(f"the file {self._path}", f"{begins_s} {deadline_s}", reason, deadline_s),)


class UrlNoticeSource:
    """A URL: an answer with a time, `true`, or JSON with `deadline` or `reason` is a notice.

    An empty answer, `false`, `{}` and the status 204, 404 or 410 are none.

    Args:
        url: The URL.
        notice_s: From the first answer to the end of the machine, if it does not say.
        clock: Tells when that was.
    """

    poll_s = POLL_S

    def __init__(self, url: str, notice_s: float, clock: Clock) -> None:
        self.name = f"url {urlsplit(url).hostname}"
        self._url = url
        self._notice_s = notice_s
        self._clock = clock
        self._first_seen_s: float | None = None

    def look(self) -> tuple[Taking, ...]:
        answer = ask(self._url, uses_proxy=True)
        text = answer.text.strip()
        if answer.status in _NO_NOTICE or (answer.status == 200 and text.lower() in _NOTHING):
            self._first_seen_s = None
            return ()
        if answer.status != 200:
            raise NotSeenError(f"it answers with status {answer.status}")
        try:
            deadline_s, reason = (None, "") if text.lower() in _YES else _read(text)
        except ValueError as error:
            raise NotSeenError(f"the deadline that it answers is {error}") from None
        if deadline_s is None and text.lower() not in _YES and not text.startswith("{"):
            raise NotSeenError("its answer is neither JSON, true nor a time")
        if self._first_seen_s is None:
            self._first_seen_s = self._clock.wall_s()
        deadline_s = self._first_seen_s + self._notice_s if deadline_s is None else deadline_s
        return (_taking(f"{urlsplit(self._url).hostname}", f"{deadline_s}", reason, deadline_s),)


def _read(text: str) -> tuple[float | None, str]:
    """Return the deadline and the reason that a text holds.

    Raises:
        ValueError: It names a deadline that is no time.
    """
    try:
        plain: Any = json.loads(text)
    except (ValueError, RecursionError):
        plain = text
    if isinstance(plain, dict):
        deadline = plain.get("deadline")
        return None if deadline is None else parse_moment(deadline), str(plain.get("reason") or "")
    try:
        return parse_moment(plain), ""
    except ValueError:
        return None, text


def _taking(source: str, key: str, reason: str, deadline_s: float) -> Taking:
    why = safe_line(reason, characters_max=REASON_CHARACTERS_MAX)
    what = "announces that this machine is taken" + (f" ({why})" if why else "")
    return Taking(source, key, what, deadline_s)
