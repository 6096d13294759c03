"""Ranks that are not joined as they were launched are told so, once, by the first of them."""

from __future__ import annotations

import pytest
import torch

from trainerd.training.distributed.group_hint import group_hint, say_group_hint

pytestmark = pytest.mark.torch


@pytest.fixture
def group_of_one(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_ranks_without_a_process_group_get_a_hint():
    hint = group_hint(2, None) or ""
    assert hint.startswith("2 ranks were started, and the first step is done without a process group")
    assert "init_process_group()" in hint
    assert "remove `nproc` from the spec" in hint


def test_a_group_of_another_size_gets_a_hint():
    assert "the process group has 2: batches and checkpoints are those of 4" in (group_hint(4, 2) or "")


def test_a_group_that_fits_gets_none():
    assert group_hint(2, 2) is None


@pytest.mark.parametrize(
    ("rank", "world_size", "is_said"), [(0, 2, True), (1, 2, False), (0, 1, False)], ids=str
)
def test_the_first_of_several_says_it(capfd, rank, world_size, is_said):
    say_group_hint(rank=rank, world_size=world_size)
    assert ("without a process group" in capfd.readouterr().err) == is_said


@pytest.mark.usefixtures("group_of_one")
def test_the_size_of_the_group_is_looked_at(capfd):
    say_group_hint(rank=0, world_size=2)
    assert "the process group has 1" in capfd.readouterr().err
