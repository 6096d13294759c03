"""The metric history of a rank other than 0: there is one history a run, and rank 0 writes it."""

from __future__ import annotations

from typing import Any


class SilentHistory:
    """Looks like a `HistoryWriter` and writes nothing."""

    position_bytes = 0

    def begin(self, *, attempt: int, checkpoint: str | None, step: int, keep_bytes: int) -> None:
        del attempt, checkpoint, step, keep_bytes

    def row(self, record: dict[str, Any]) -> None:
        del record

    def line(self, line: bytes) -> None:
        del line

    def sync(self) -> int:
        return 0

    def close(self) -> None:
        return
