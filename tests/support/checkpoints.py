"""Small checkpoints, made without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from trainerd.checkpoint.digest import digest_of_bytes
from trainerd.checkpoint.manifest import Manifest, encode_manifest
from trainerd.checkpoint.safetensors import layout
from trainerd.checkpoint.store import Checkpoint, CheckpointStore
from trainerd.checkpoint.verify import verify_files

TENSORS = "rank-00000.safetensors"
TREE = "rank-00000.json"


class FakeClock:
    """Time that passes when a test says so."""

    def __init__(self, now_s: float = 1_800_000_000.0) -> None:
        self.now_s = now_s

    def wall_s(self) -> float:
        return self.now_s

    def monotonic_s(self) -> float:
        return self.now_s


def make_manifest(step: int, **fields: Any) -> Manifest:
    """Return a manifest of that step, with the fields that matter to a test."""
    values: dict[str, Any] = {"job": "mnist", "lineage": "ab12", "parent": None, "epoch": 0, "batch": 0}
    return Manifest(**(values | {"step": step, "reason": "periodic"} | fields))


def signed(document: dict[str, Any]) -> bytes:
    """Write a manifest by hand, with its digest, as another program would."""
    text = json.dumps(document | {"digest": "xxh3-128:" + "0" * 32}).encode()
    return text.replace(b"xxh3-128:" + b"0" * 32, digest_of_bytes(text).encode(), 1)


def damaged_manifest(step: int, **fields: Any) -> bytes:
    """Return the manifest of that step with other fields, of any type, and the right digest."""
    return signed(json.loads(encode_manifest(make_manifest(step))) | fields)


def tensor_file(step: int, *, size_bytes: int = 64) -> bytes:
    """Return a valid safetensors file whose bytes depend on the step."""
    header, _ = layout([("weight", "U8", (size_bytes,))])
    return header + bytes([step % 256]) * size_bytes


def commit(
    store: CheckpointStore, step: int, *, size_bytes: int = 64, reads_back: bool = True, **fields: Any
) -> Checkpoint:
    """Commit a checkpoint of two files, as training does."""
    staging = store.begin(step)
    try:
        staging.write(TENSORS, [tensor_file(step, size_bytes=size_bytes)])
        staging.write(TREE, [b'{"format":"trainerd.tree/1"}'])
        return store.commit(staging, make_manifest(step, **fields), reads_back=reads_back)
    except BaseException:
        staging.abandon()
        raise


def names(store: CheckpointStore) -> list[str]:
    """Return the names of what is committed."""
    return [checkpoint.name for checkpoint in store.checkpoints()]


def flip_bit(path: Path, *, offset: int = -1) -> None:
    """Change one bit of a file."""
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x10
    path.write_bytes(data)


def is_whole(checkpoint: Checkpoint) -> bool:
    """Return whether every byte of a checkpoint is what its step says, beyond what the store checks."""
    verify_files(checkpoint)
    return (checkpoint.path / TENSORS).read_bytes() == tensor_file(checkpoint.step)
