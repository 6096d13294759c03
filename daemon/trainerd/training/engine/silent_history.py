"""The metric history where there is none to write: of a rank other than 0, or of a loop without a session."""

from __future__ import annotations

from typing import Any, Self


class SilentHistory:
    """Looks like a `HistoryWriter` and writes nothing."""

    position_bytes = 0

    def follow(self, follower: object) -> None:
        del follower

    def open(self) -> Self:
        return self

    def begin(self, *, attempt: int, checkpoint: str | None, step: int, keep_bytes: int) -> None:
        del attempt, checkpoint, step, keep_bytes

    def row(self, record: dict[str, Any]) -> None:
        del record

    def line(self, line: bytes) -> None:
        del line

    def replace(self, content: bytes) -> None:
        pass

    def sync(self) -> int:
        return 0

    def close(self) -> None:
        return
