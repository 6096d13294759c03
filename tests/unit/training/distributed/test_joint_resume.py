"""A resume is confirmed by all ranks, or by none."""

from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("torch")
from torch.distributed import HashStore

from trainerd.errors import MismatchError
from trainerd.training.distributed.joint_resume import confirm_together
from trainerd.training.distributed.rank_store import Ranks

pytestmark = pytest.mark.torch


def confirmed(*said):
    """Return what becomes of each rank, given its problem and what it notes."""
    store = HashStore()

    def confirm(rank):
        try:
            return confirm_together(Ranks(store, rank=rank, world_size=len(said)), *said[rank])
        except MismatchError as error:
            return error

    with ThreadPoolExecutor(len(said)) as pool:
        return list(pool.map(confirm, range(len(said))))


def test_each_rank_hears_what_all_note():
    assert confirmed((None, []), (None, ["one", "two"])) == [[[], ["one", "two"]]] * 2


def test_what_one_rank_could_not_take_no_rank_has_taken():
    problem = MismatchError("it does not fit", ["model: 1, here 2"])
    first, second = confirmed((None, []), (problem, []))
    assert second is problem
    assert isinstance(first, MismatchError)
    assert "rank 1: it does not fit" in str(first)
    assert first.differences == problem.differences
