"""A run folder that a rank does not share is refused at the start, by all ranks."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

torch = pytest.importorskip("torch")
from torch.distributed import HashStore  # noqa: E402 - only where torch is

from trainerd.errors import UserError  # noqa: E402
from trainerd.training.distributed.rank_store import Ranks  # noqa: E402
from trainerd.training.distributed.shared_folder import check_shared  # noqa: E402

pytestmark = pytest.mark.torch


def checked(folders, limit_s):
    store = HashStore()

    def check(rank):
        try:
            check_shared(Ranks(store, rank=rank, world_size=len(folders)), folders[rank], limit_s=limit_s)
        except UserError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(len(folders)) as pool:
        return list(pool.map(check, range(len(folders))))


def test_one_folder_is_shared_and_nothing_is_left_in_it(tmp_path):
    assert checked([tmp_path / "run"] * 3, 20) == [None] * 3
    assert list((tmp_path / "run").iterdir()) == []


def test_all_ranks_name_the_one_that_has_a_folder_of_its_own(tmp_path):
    said = checked([tmp_path / "one", tmp_path / "one", tmp_path / "two"], 0.1)
    assert all("not shared: rank 2" in each for each in said)
