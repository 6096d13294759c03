"""A rank's two files: read once, and only if every file of the checkpoint is what was written."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from trainerd.errors import CorruptError
from trainerd.training.checkpointer import Checkpointer
from trainerd.training.state.rank_files import (
    encode_document,
    read_rank_files,
    read_verified,
    tensors_name,
    tree_name,
)


@pytest.fixture
def checkpoint(tmp_path):
    with Checkpointer(tmp_path, torch.nn.Linear(30, 20)) as checkpointer:
        checkpointer.save(step=1)
        checkpointer.wait()
        return checkpointer.newest


def flip(path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def test_what_is_read_is_what_was_saved(checkpoint):
    verified, plain = read_verified(checkpoint, 0), read_rank_files(checkpoint.path, 0)
    assert verified.objects["state"].keys() == {"weight", "bias"}
    assert torch.equal(verified.objects["state"]["weight"], plain.objects["state"]["weight"])


@pytest.mark.parametrize("name", [tensors_name(0), tree_name(0)])
@pytest.mark.parametrize("offset", [0, 100, -1])
def test_one_flipped_bit_is_found(checkpoint, name, offset):
    flip(checkpoint.path / name, offset)
    with pytest.raises(CorruptError, match=name):
        read_verified(checkpoint, 0)


@pytest.mark.parametrize("name", [tensors_name(0), tree_name(0)])
def test_a_file_that_is_gone_or_cut_is_found(checkpoint, name):
    data = (checkpoint.path / name).read_bytes()
    (checkpoint.path / name).write_bytes(data[:-1])
    with pytest.raises(CorruptError, match="bytes"):
        read_verified(checkpoint, 0)
    (checkpoint.path / name).unlink()
    with pytest.raises(CorruptError, match=name):
        read_verified(checkpoint, 0)


def test_a_checkpoint_without_this_rank_is_told_as_such(checkpoint):
    with pytest.raises(CorruptError, match="rank-00003"):
        read_verified(checkpoint, 3)
    files = tuple(entry for entry in checkpoint.manifest.files if entry.name == tree_name(0))
    halved = dataclasses.replace(checkpoint, manifest=dataclasses.replace(checkpoint.manifest, files=files))
    with pytest.raises(CorruptError, match=r"rank-00000\.safetensors is not in the manifest"):
        read_verified(halved, 0)


def test_a_tree_has_one_spelling():
    assert encode_document({"b": [1, 2.5], "a": "ü"}) == '{"b":[1,2.5],"a":"ü"}'.encode()


def test_a_number_that_json_does_not_have_is_never_written():
    with pytest.raises(ValueError, match="JSON"):
        encode_document({"a": float("nan")})
