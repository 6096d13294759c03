"""The manifest: what a checkpoint is and what it consists of. Written last; without it there is no checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from trainerd.contract import codec, nonfinite

FORMAT: Final = "trainerd.checkpoint/1"
MANIFEST_NAME: Final = "manifest.json"


@dataclass(frozen=True)
class FileEntry:
    """One file of a checkpoint: its name, its size in bytes, its digest as ``xxh3-128:<32 hex digits>``."""

    name: str
    bytes: int
    digest: str


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint is.

    Attributes:
        job: Name of the job, or of the run folder.
        lineage: Id of the line of checkpoints it belongs to; a run rolled back begins a new one.
        parent: Name of the checkpoint before it, None for the first.
        step: Steps finished.
        epoch: Epoch in progress, from 0.
        batch: Batches of that epoch that are finished.
        reason: Why it was made.
        scores: What was reported of it.
        world_size: How many ranks made it.
        attempt: Which attempt made it.
        history_bytes: How much of the metric history it stands for.
        is_final: Whether the run was complete.
        fingerprint: Of the program that made it.
        created_wall_s: When, seconds since the epoch.
        trainerd_version: By which version.
        files: What it consists of, besides this.
    """

    job: str
    lineage: str
    parent: str | None
    step: int
    epoch: int
    batch: int
    reason: str
    scores: dict[str, float]
    world_size: int
    attempt: int
    history_bytes: int
    created_wall_s: float
    trainerd_version: str
    is_final: bool = False
    fingerprint: dict[str, Any] = field(default_factory=dict)
    files: tuple[FileEntry, ...] = ()

    @property
    def bytes(self) -> int:
        """Size of all files, in bytes."""
        return sum(entry.bytes for entry in self.files)


def encode(manifest: Manifest) -> bytes:
    """Encode a manifest. Scores that JSON lacks are the strings ``nan``, ``inf`` and ``-inf``."""
    plain = {"format": FORMAT, **nonfinite.spelled(codec.to_plain(manifest))}
    return codec.dump(plain)


def decode(data: bytes, *, source: str) -> Manifest:
    """Decode what `encode` wrote.

    Raises:
        CorruptError: It is not such a manifest.
    """
    plain = codec.load(data, FORMAT, source=source)
    scores = plain.get("scores")
    if isinstance(scores, dict):
        plain["scores"] = {name: nonfinite.as_number(score) for name, score in scores.items()}
    return codec.from_plain(plain, Manifest, source=source)
