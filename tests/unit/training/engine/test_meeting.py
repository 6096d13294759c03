"""What makes a rank fail before its session is open is told to the others."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from torch.distributed import HashStore  # noqa: E402 - only where torch is

from trainerd.errors import RankLostError, UserError  # noqa: E402
from trainerd.training.distributed.rank_store import Ranks  # noqa: E402
from trainerd.training.engine import run_parts  # noqa: E402
from trainerd.training.engine.run_parts import RunParts  # noqa: E402
from trainerd.training.settings import resolve_settings  # noqa: E402

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("place", ["settled", "check_shared"])
def test_the_others_print_why_rank_0_has_refused(tmp_path, monkeypatch, place):
    def refuse(*_):
        raise UserError("the run is another one's")

    store = HashStore()
    monkeypatch.setattr("trainerd.training.distributed.rank_store.TELL_LIMIT_S", 0.0)
    monkeypatch.setattr(run_parts, "rendezvous", lambda _: Ranks(store, rank=0, world_size=2))
    monkeypatch.setattr(run_parts, place, refuse)
    settings = resolve_settings(
        run_dir=tmp_path,
        seed=0,
        every=None,
        keep_last=3,
        keep_best=None,
        keep_every=None,
        grace_s=None,
        environ={},
    )
    with pytest.raises(UserError):
        RunParts.meet(settings)
    with pytest.raises(RankLostError, match="rank 0 has failed: UserError: the run is another one's"):
        Ranks(store, rank=1, world_size=2).get("shared/probe")
