"""Reads a checkpoint without any code of trainerd, as `docs/formats.md` promises.

A checker that used our own reader would share its mistakes. This one knows the documentation, JSON, xxh3 and
the layout of a safetensors file. `python -m chaos.second_reader FOLDER` says what it finds, and exits with 1
if something is not what the manifest says.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import re
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import xxhash

PREFIX: Final = "xxh3-128:"
ZEROS: Final = PREFIX + "0" * 32
_NAME: Final = re.compile(r"step-(\d{9,})(?:\.([1-9]\d*))?")

TensorContent = tuple[str, tuple[int, ...], bytes]


class UnsoundError(Exception):
    """What is on disk is not what the manifest says."""


@dataclass(frozen=True)
class Content:
    """A whole checkpoint.

    Attributes:
        manifest: As it stands in the file.
        tensors: One table a rank: dtype, shape and bytes of each tensor, by name.
        trees: One typed tree a rank, tags and all.
    """

    manifest: dict[str, Any]
    tensors: tuple[dict[str, TensorContent], ...]
    trees: tuple[Any, ...]


def read(folder: Path) -> Content:
    """Read and check all of a checkpoint.

    Raises:
        UnsoundError: Something is not what the manifest says.
    """
    text = (folder / "manifest.json").read_bytes()
    manifest = json.loads(text)
    _expect(
        _digest(text.replace(manifest["digest"].encode(), ZEROS.encode(), 1)), manifest["digest"], "manifest"
    )
    files = {entry["name"]: (folder / entry["name"]).read_bytes() for entry in manifest["files"]}
    for entry in manifest["files"]:
        _expect(len(files[entry["name"]]), entry["bytes"], f"size of {entry['name']}")
        _expect(_digest(files[entry["name"]]), entry["digest"], f"digest of {entry['name']}")
    names = sorted(files)
    return Content(
        manifest,
        tuple(_tensors(files[name]) for name in names if name.endswith(".safetensors")),
        tuple(json.loads(files[name]) for name in names if name.endswith(".json")),
    )


def whole_tensors(content: Content) -> dict[str, TensorContent]:
    """Put the parts of sharded tensors together.

    Returns:
        Dtype, shape and bytes of each whole, by where it stands in the trees, such as ``objects/model/…``.

    Raises:
        UnsoundError: The parts do not cover the whole, each element once.
    """
    wholes: dict[str, TensorContent] = {}
    for place in _places_of_shards(content.trees[0], ()):
        name = "/".join(map(str, place))
        said = _at(content.trees[0], place)["$shard"]
        shape = tuple(said["shape"])
        parts: dict[tuple[int, ...], TensorContent] = {}
        for rank, tree in enumerate(content.trees):
            node = _at(tree, place)["$shard"]
            _expect(tuple(node["shape"]), shape, f"shape of {name} on rank {rank}")
            dtype, size, data = content.tensors[rank][node["part"]["$tensor"]]
            if data:
                parts[tuple(node["offset"])] = dtype, size, data
        wholes[name] = next(iter(parts.values()))[0], shape, _assembled(parts, shape, name)
    return wholes


def _places_of_shards(tree: Any, place: tuple[str | int, ...]) -> Iterator[tuple[str | int, ...]]:
    if isinstance(tree, dict) and "$shard" in tree:
        yield place
        return
    steps = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for step, inner in steps:
        yield from _places_of_shards(inner, (*place, step))


def _at(tree: Any, place: tuple[str | int, ...]) -> Any:
    for step in place:
        tree = tree[step]
    return tree


def _assembled(parts: dict[tuple[int, ...], TensorContent], shape: tuple[int, ...], name: str) -> bytes:
    """Copy the parts, row by row of their last dimension, to where they belong."""
    elements = math.prod(shape)
    dtype, size, data = next(iter(parts.values()))
    width = len(data) // math.prod(size)
    whole, covered = bytearray(elements * width), bytearray(elements)
    strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    for offset, (_, size, data) in parts.items():
        row = size[-1]
        for number, index in enumerate(itertools.product(*map(range, size[:-1]))):
            begin = sum(
                (at + by) * stride for at, by, stride in zip((*index, 0), offset, strides, strict=True)
            )
            if any(covered[begin : begin + row]):
                raise UnsoundError(f"{name}: two ranks have the same element")
            covered[begin : begin + row] = b"\1" * row
            whole[begin * width : (begin + row) * width] = data[
                number * row * width : (number + 1) * row * width
            ]
    _expect(sum(covered), elements, f"elements of {name} ({dtype})")
    return bytes(whole)


def checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints of a checkpoints folder by the rules of their names, oldest first."""
    try:
        left = set(json.loads((folder / "fork.json").read_text())["names"])
    except FileNotFoundError:
        left = set()
    found = []
    for path in folder.iterdir() if folder.is_dir() else ():
        named = _NAME.fullmatch(path.name)
        if named and path.is_dir() and not path.is_symlink() and path.name not in left:
            found.append(((int(named[1]), int(named[2] or 0)), path))
    return [path for _, path in sorted(found)]


def step_of(checkpoint: Path) -> int:
    """Return the step that a checkpoint's name says."""
    named = _NAME.fullmatch(checkpoint.name)
    return int(named[1]) if named else -1


def is_sound(folder: Path) -> bool:
    """Return whether a checkpoint is what its manifest says."""
    try:
        read(folder)
    except (UnsoundError, OSError, ValueError, KeyError, struct.error):
        return False
    return True


def _tensors(data: bytes) -> dict[str, TensorContent]:
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    content = data[8 + length :]
    return {
        name: (entry["dtype"], tuple(entry["shape"]), content[slice(*entry["data_offsets"])])
        for name, entry in header.items()
        if name != "__metadata__"
    }


def _digest(data: bytes) -> str:
    return PREFIX + xxhash.xxh3_128_hexdigest(data)


def _expect(found: object, said: object, what: str) -> None:
    if found != said:
        raise UnsoundError(f"{what}: the manifest says {said}, found {found}")


def main() -> int:
    """Say what a checkpoint holds."""
    parser = argparse.ArgumentParser(description="Read a checkpoint with nothing of trainerd's.")
    parser.add_argument("folder", type=Path, help="such as .trainerd/runs/mnist/checkpoints/last")
    folder = parser.parse_args().folder
    try:
        content = read(folder)
        wholes = whole_tensors(content)
    except (UnsoundError, OSError, ValueError, KeyError, struct.error) as error:
        print(f"unsound: {folder}: {error}", file=sys.stderr)
        return 1
    tensors = sum(len(table) for table in content.tensors)
    sharded = f", {len(wholes)} of them sharded" if wholes else ""
    print(f"sound: step {content.manifest['step']}, {len(content.trees)} ranks, {tensors} tensors{sharded}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
