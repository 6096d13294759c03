"""What makes a rank fail before its session is open is told to the others."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

torch = pytest.importorskip("torch")
from torch.distributed import HashStore  # noqa: E402 - only where torch is

from trainerd.contract import records  # noqa: E402
from trainerd.contract.paths import RunPaths  # noqa: E402
from trainerd.contract.records import OutcomeRecord  # noqa: E402
from trainerd.errors import RankLostError, UserError  # noqa: E402
from trainerd.training.distributed.rank_store import Ranks  # noqa: E402
from trainerd.training.engine import run_parts  # noqa: E402
from trainerd.training.engine.run_parts import RunParts  # noqa: E402
from trainerd.training.settings import resolve_settings, take_attempt_number  # noqa: E402

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("place", ["settled", "check_shared"])
def test_the_others_print_why_rank_0_has_refused(tmp_path, monkeypatch, place):
    def refuse(*_):
        raise UserError("the run is another one's")

    store = HashStore()
    monkeypatch.setattr("trainerd.training.distributed.rank_store.TELL_LIMIT_S", 0.0)
    monkeypatch.setattr(run_parts, "rendezvous", lambda _: Ranks(store, rank=0, world_size=2))
    monkeypatch.setattr(run_parts, place, refuse)
    settings = settings_of(tmp_path, {})
    with pytest.raises(UserError):
        RunParts.meet(settings)
    with pytest.raises(RankLostError, match="rank 0 has failed: UserError: the run is another one's"):
        Ranks(store, rank=1, world_size=2).get("shared/probe")


def settings_of(run, environ):
    return resolve_settings(
        run_dir=run,
        seed=0,
        every=None,
        keep_last=3,
        keep_best=None,
        keep_every=None,
        grace_s=None,
        environ=environ,
    )


def node(tmp_path, number):
    folder = tmp_path / f"node-{number}" / "attempts" / "000001"
    folder.mkdir(parents=True)
    return {
        "TRAINERD_RUN_DIR": str(tmp_path / "common"),
        "TRAINERD_ATTEMPT_DIR": str(folder),
        "TRAINERD_NODE": str(number),
        "RANK": str(number),
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "2",
    }


def test_nodes_count_the_attempts_of_the_run_and_keep_records_of_their_own(tmp_path, monkeypatch):
    (tmp_path / "common" / "attempts" / "000004").mkdir(parents=True)
    store = HashStore()
    monkeypatch.setattr(
        run_parts,
        "rendezvous",
        lambda environment: Ranks(store, rank=environment.rank, world_size=environment.world_size),
    )
    with ThreadPoolExecutor(2) as pool:
        meetings = [
            pool.submit(RunParts.meet, settings_of(None, node(tmp_path, number))) for number in range(2)
        ]
        parts = [meeting.result(60) for meeting in meetings]
    assert [each.settings.attempt for each in parts] == [5, 5]
    assert [each.settings.attempt_paths.root.parts[-3] for each in parts] == ["node-0", "node-1"]
    assert (tmp_path / "common" / "attempts" / "000005").is_dir()


def test_no_attempt_number_is_taken_twice(tmp_path):
    with ThreadPoolExecutor(4) as pool:
        numbers = list(pool.map(lambda _: take_attempt_number(RunPaths(tmp_path)), range(40)))
    assert sorted(numbers) == list(range(1, 41))


def test_a_rank_that_did_not_meet_the_others_says_so_to_its_node(tmp_path, monkeypatch):
    def no_meeting(_):
        raise RankLostError("the others did not come")

    monkeypatch.setattr(run_parts, "rendezvous", no_meeting)
    settings = settings_of(None, node(tmp_path, 1))
    with pytest.raises(RankLostError):
        RunParts.meet(settings)
    said = records.read(settings.attempt_paths.outcome(0), OutcomeRecord)
    assert (said.kind, said.error_message) == ("exception", "the others did not come")
