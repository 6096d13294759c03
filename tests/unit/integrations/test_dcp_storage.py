"""Checkpoints of torch.distributed.checkpoint by our writer: whole or absent, and compared on reading."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException

from trainerd.contract import failpoints
from trainerd.errors import CorruptError, UserError
from trainerd.integrations.dcp import StoreReader, StoreWriter, remove_unfinished, verify

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore:torch.distributed is")]


def state(value: float = 1.0) -> dict[str, Any]:
    return {"model": {"weight": torch.full((64, 8), value), "bias": torch.arange(3.0)}, "step": 7}


def save(path: Path, **options: Any) -> None:
    dcp.save(state(), storage_writer=StoreWriter(path, **options))


def load(path: Path) -> dict[str, Any]:
    found = state(0.0) | {"step": 0}
    dcp.load(found, storage_reader=StoreReader(path))
    return found


@pytest.mark.parametrize("options", [{}, {"single_file_per_rank": False}, {"thread_count": 2}], ids=str)
def test_what_is_saved_is_loaded_and_torch_reads_it_too(options: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "step-7"
    save(path, **options)
    verify(path)
    for reader in (StoreReader(path), dcp.FileSystemReader(path)):
        found = state(0.0) | {"step": 0}
        dcp.load(found, storage_reader=reader)
        assert torch.equal(found["model"]["weight"], state()["model"]["weight"])
        assert found["step"] == 7
    assert [each.name for each in tmp_path.iterdir()] == ["step-7"]
    files = json.loads((path / "digests.json").read_text())["files"]
    assert {*files, "digests.json"} == {each.name for each in path.iterdir()}


def test_a_save_in_the_background_is_committed_as_well(tmp_path: Path) -> None:
    import torch.distributed as dist

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        dcp.async_save(
            state(), storage_writer=StoreWriter(tmp_path / "other"), checkpoint_id=tmp_path / "a"
        ).result()
    finally:
        dist.destroy_process_group()
    verify(tmp_path / "a")
    assert not (tmp_path / "other").exists()


def kinds_of_damage() -> list[Any]:
    def flip(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)

    return [flip, lambda path: os.truncate(path, path.stat().st_size - 1), Path.unlink]


@pytest.mark.parametrize("name", ["__0_0.distcp", ".metadata", "digests.json"])
@pytest.mark.parametrize("kind", range(3), ids=["flipped", "cut", "removed"])
def test_damage_is_an_error_that_names_the_file(name: str, kind: int, tmp_path: Path) -> None:
    path = tmp_path / "step-7"
    save(path)
    kinds_of_damage()[kind](path / name)
    with pytest.raises(CheckpointException, match=f"{re.escape(str(path / name))} is (damaged|missing)"):
        load(path)
    with pytest.raises(CorruptError):
        verify(path)


def test_a_save_that_ends_before_its_commit_leaves_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "step-7"
    failpoints.arm("record.renamed=EIO@2")  # the digests of all ranks
    try:
        with pytest.raises(CheckpointException, match=r"injected at record\.renamed"):
            save(path)
    finally:
        failpoints.arm("")
    assert not path.exists()
    assert len(list(tmp_path.iterdir())) == 1, "the hidden folder"
    save(path)
    verify(path)
    assert [each.name for each in tmp_path.iterdir()] == ["step-7"]


def test_what_an_interrupted_save_left_can_be_removed(tmp_path: Path) -> None:
    (tmp_path / ".staging-step-7").mkdir()
    remove_unfinished(tmp_path / "step-7")
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_is_not_replaced(tmp_path: Path) -> None:
    save(tmp_path / "step-7")
    with pytest.raises(CheckpointException, match="exists: StoreWriter replaces no checkpoint"):
        save(tmp_path / "step-7")
    verify(tmp_path / "step-7")


@pytest.mark.parametrize("name", ["overwrite", "sync_files"])
def test_options_that_would_break_the_promise_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=name):
        StoreWriter(tmp_path / "a", **{name: False})
