"""A run folder and saves into it as training makes them, small and without torch.

The calls are those of `trainerd.training.writing.writer`: the history is synced, the tensors go past the page
cache, the tree through it, and the store commits.
"""

from __future__ import annotations

import json
import mmap
from typing import TYPE_CHECKING, Final

from trainerd.checkpoint.manifest import Manifest
from trainerd.checkpoint.store import CheckpointStore
from trainerd.contract.paths import RunPaths
from trainerd.contract.policy import RetentionPolicy
from trainerd.training.engine.history import HistoryWriter
from trainerd.training.writing.direct_file import write_direct

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from trainerd.checkpoint.store import Checkpoint

__all__ = ["TENSOR_FILE_BYTES", "SmallRun", "tensor_file", "tree_file"]

TENSOR_FILE_BYTES: Final = 3996
"""Eight sectors, and not a whole number of them: written as a block, then cut to size."""

_TREE_BYTES: Final = 600
POLICY: Final = RetentionPolicy(keep_last=2)


def tensor_file(step: int, size_bytes: int = TENSOR_FILE_BYTES) -> bytes:
    """Return a safetensors file whose every byte tells the step."""
    data_bytes = size_bytes - 8 - 96
    header = json.dumps({"weight": {"dtype": "U8", "shape": [data_bytes], "data_offsets": [0, data_bytes]}})
    body = bytes((step + 1 + place) % 251 for place in range(251))
    return (
        (96).to_bytes(8, "little") + header.ljust(96).encode() + (body * (data_bytes // 251 + 1))[:data_bytes]
    )


def tree_file(step: int) -> bytes:
    """Return a typed tree of two sectors."""
    text = json.dumps({"format": "trainerd.tree/1", "objects": {"note": ""}, "step": step})
    return text.replace('""', '"' + chr(97 + step % 26) * (_TREE_BYTES - len(text)) + '"').encode()


class SmallRun:
    """One run: its store, its history, and saves one after the other."""

    def __init__(self, folder: Path, *, size_bytes: int = TENSOR_FILE_BYTES) -> None:
        self.paths = RunPaths(folder)
        self.store = CheckpointStore.of_run(self.paths)
        self._size_bytes = size_bytes

    def open(self) -> None:
        """Begin an attempt, as a session does. Needs the lock."""
        self.store.take_over()
        self.store.sweep()
        self._history = HistoryWriter(self.paths.metrics).open()
        self._history.begin(attempt=1, checkpoint=None, step=0, keep_bytes=0)

    def save(self, step: int, *, on_committed: Callable[[], None] = lambda: None) -> Checkpoint:
        """Save one checkpoint and return it once that is reported as done."""
        self._history.row({"step": step, "metrics": {"loss": 1 / step}})
        history_bytes = self._history.sync()
        staging = self.store.begin(step)
        try:
            content = tensor_file(step, self._size_bytes)
            memory = mmap.mmap(-1, -(-len(content) // mmap.PAGESIZE) * mmap.PAGESIZE)
            memory[: len(content)] = content
            path = staging.path / "rank-00000.safetensors"
            staging.add(write_direct(path, [memoryview(memory)], len(content)))
            staging.write("rank-00000.json", [tree_file(step)])
            manifest = Manifest(
                job="small",
                lineage="ab12",
                parent=None,
                step=step,
                epoch=0,
                batch=step,
                reason="periodic",
                history_bytes=history_bytes,
            )
            checkpoint = self.store.commit(staging, manifest)
        except BaseException:
            staging.abandon()
            raise
        on_committed()
        return checkpoint

    def prune(self) -> None:
        """Keep the two newest."""
        self.store.prune(POLICY)

    def close(self) -> None:
        self._history.close()
