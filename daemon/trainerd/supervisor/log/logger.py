"""What the supervisor says: one JSON object a line, to a rotated file and to standard output.

Every line has ``ts`` (ISO 8601, UTC, milliseconds), ``level`` and ``event``, then ``job`` and ``attempt``
where it is about one, then the rest. A terminal gets the same in a form for people. Libraries that use the
standard `logging` module are heard from ``warning`` up, in the same form.
"""

from __future__ import annotations

import json
import logging
import os
import re
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Self

import structlog

from trainerd.contract.clock import SystemClock
from trainerd.contract.counted import counted
from trainerd.contract.nonfinite import spelled
from trainerd.contract.safe_text import one_line, safe_text, safe_value
from trainerd.supervisor.log.journal_stream import is_journal_stream, prioritised, reconnect
from trainerd.supervisor.log.repetition import RepeatLimit
from trainerd.supervisor.log.sinks import FILE_BYTES_MAX, FILES_MAX, RotatedFile, Sink, Stream

if TYPE_CHECKING:
    from pathlib import Path

    from structlog.typing import EventDict

VALUE_CHARACTERS_MAX: Final = 16_000
"""Longest value of a line, in characters: a traceback fits."""

HIDDEN: Final = "(hidden)"
"""Stands in the place of a value that may be a secret."""

_FIRST_KEYS: Final = ("ts", "level", "event", "job", "attempt")
_ON_ONE_LINE: Final = frozenset({"reason", "hint"})
_SECRET_KEY: Final = re.compile(r"passw|secret|token|credential|api_?key|^env$|^environ", re.IGNORECASE)
_EVENT_WIDTH: Final = 24


class LoggingHandle:
    """What `configure_logging` set up. Closing it puts everything back; also a context manager."""

    def __init__(self, sinks: list[Sink], bridge: logging.Handler) -> None:
        self._sinks = sinks
        self._bridge = bridge

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        logging.getLogger().removeHandler(self._bridge)
        structlog.reset_defaults()
        for sink in self._sinks:
            sink.close()


def configure_logging(
    log_path: Path | None,
    *,
    pretty: bool | None = None,
    level: int = logging.INFO,
    stream: int | None = 1,
    bytes_max: int = FILE_BYTES_MAX,
    files_max: int = FILES_MAX,
) -> LoggingHandle:
    """Send structlog's and the standard library's log lines to a rotated file and to a stream.

    A file that is deleted, full or read-only, and a stream that is not read, lose lines and never more.

    Args:
        log_path: The file, None for none.
        pretty: Whether the stream is for people; None asks whether it is a terminal.
        level: The least level that is written, as in `logging`.
        stream: Descriptor of the stream, None for none.
        bytes_max: Size at which the file is moved aside, in bytes.
        files_max: How many files there are in all.
    """
    to_file: list[Sink] = []
    to_stream: list[Sink] = []
    if pretty is None:
        pretty = stream is not None and _is_terminal(stream)
    colors = pretty and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    for_people = _people_renderer(colors=colors)
    if log_path is not None:
        to_file.append(RotatedFile(log_path, _lost_line, bytes_max=bytes_max, files_max=files_max))
    if stream is not None:
        to_stream.append(_stream_sink(stream, pretty=pretty))
    render = for_people if pretty else render_json
    if not pretty and stream is not None and is_journal_stream(stream):
        render = _render_for_journald
    output = _Output(to_file, to_stream, render)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            _stamp,
            _Bounded(),
            structlog.processors.format_exc_info,
            _hide_secrets,
            _made_safe,
            _in_order,
            lambda _logger, _method, event: ((event,), {}),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: output,
        # Loggers are module-level names; a cached one would outlive the sinks that it was made for.
        cache_logger_on_first_use=False,
    )
    bridge = _Bridge(level=max(level, logging.WARNING))
    logging.getLogger().addHandler(bridge)
    return LoggingHandle([*to_file, *to_stream], bridge)


class _Output:
    """Renders each event once a form and hands it to the sinks. Safe to use from several threads."""

    def __init__(self, to_file: list[Sink], to_stream: list[Sink], render_stream: Any) -> None:
        self._to_file = to_file
        self._to_stream = to_stream
        self._render_stream = render_stream
        self._lock = threading.Lock()

    def msg(self, event: dict[str, Any]) -> None:
        with self._lock:
            if self._to_file:
                line = render_json(event)
                for sink in self._to_file:
                    sink.write(line)
            if self._to_stream:
                line = self._render_stream(event)
                for sink in self._to_stream:
                    sink.write(line)

    debug = info = warning = warn = error = critical = fatal = exception = log = msg


class _Bridge(logging.Handler):
    """Passes records of the standard library on to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
        except Exception:  # noqa: BLE001 - a library's bad format string must not end the supervisor
            message = str(record.msg)
        structlog.get_logger().log(
            record.levelno, "library.log", logger=record.name, message=message, exc_info=record.exc_info
        )


class _Bounded:
    """Drops repetitions of what lasts, and counts them."""

    def __init__(self) -> None:
        self._limit = RepeatLimit()
        self._clock = SystemClock()

    def __call__(self, _logger: Any, _method: str, event: EventDict) -> EventDict:
        held_back = self._limit.note(event, self._clock.monotonic_s())
        if held_back is None:
            raise structlog.DropEvent
        if held_back:
            event["repeated"] = held_back
        return event


def _stream_sink(stream: int, *, pretty: bool) -> Stream:
    if pretty:
        return Stream(stream, _lost_line_for_people)
    if is_journal_stream(stream):
        return Stream(stream, lambda lost: prioritised(_lost_line(lost), "warning"), reconnect)
    return Stream(stream, _lost_line)


def _render_for_journald(event: dict[str, Any]) -> bytes:
    return prioritised(render_json(event), str(event.get("level", "")))


def render_json(event: dict[str, Any]) -> bytes:
    """Return the line of an event, as the file and a stream have it."""
    return json.dumps(spelled(event), default=str, ensure_ascii=False).encode(errors="replace") + b"\n"


def _people_renderer(*, colors: bool) -> Any:
    renderer = structlog.dev.ConsoleRenderer(
        colors=colors,
        pad_event_to=_EVENT_WIDTH,
        sort_keys=False,
        timestamp_key="ts",
        exception_formatter=structlog.dev.plain_traceback,
    )

    def render(event: dict[str, Any]) -> bytes:
        shown = {key: value for key, value in event.items() if value is not None}
        moment = str(shown.pop("ts", ""))
        # The time of day in the reader's own zone; the file has the date and UTC.
        shown["ts"] = datetime.fromisoformat(moment).astimezone().strftime("%H:%M:%S") if moment else ""
        return str(renderer(None, "", shown)).encode(errors="replace") + b"\n"

    return render


def _stamp(_logger: Any, _method: str, event: EventDict) -> EventDict:
    event["ts"] = timestamp()
    return event


def timestamp() -> str:
    """Return the moment as a line has it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _hide_secrets(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Hide values under names that promise a secret: the last net, not the first."""
    for key in event:
        if _SECRET_KEY.search(key):
            event[key] = HIDDEN
    return event


def _made_safe(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Escape what could forge a line or steer a terminal, from any source."""
    return {str(key): safe_field(str(key), value) for key, value in event.items()}


def safe_field(key: str, value: Any) -> Any:
    """Return the value of a field as a line may have it."""
    if key in _ON_ONE_LINE and isinstance(value, str):
        value = one_line(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, dict | list | tuple):
        return safe_value(value)
    return safe_text(str(value), characters_max=VALUE_CHARACTERS_MAX)


def _in_order(_logger: Any, _method: str, event: EventDict) -> EventDict:
    first = {key: event.pop(key) for key in _FIRST_KEYS if key in event}
    return {**first, **event}


def _lost_line(lost: int) -> bytes:
    return render_json({"ts": timestamp(), "level": "warning", "event": "log.lost", "lines": lost})


def _lost_line_for_people(lost: int) -> bytes:
    lines = counted(lost, "log line was lost: it was", "log lines were lost: they were")
    return f"({lines} not read in time)\n".encode()


def _is_terminal(descriptor: int) -> bool:
    try:
        return os.isatty(descriptor)
    except OSError:
        return False
