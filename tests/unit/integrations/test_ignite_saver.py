"""`StoreSaver` under Ignite's own `Checkpoint`: every option, and digests that are compared."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from trainerd.checkpoint.local_storage import LocalStorage
from trainerd.contract import durable
from trainerd.errors import CorruptError, UserError

ignite = pytest.importorskip("ignite", reason="pytorch-ignite is not installed")

from ignite.engine import Engine, Events, State  # noqa: E402
from ignite.handlers import Checkpoint, DiskSaver  # noqa: E402

from trainerd.integrations.ignite import StoreSaver  # noqa: E402

pytestmark = pytest.mark.torch


def engine_at(**state: Any) -> Engine:
    engine = Engine(lambda _engine, _batch: None)
    engine.state = State(**({"epoch": 1, "iteration": 1, "score": 0.5} | state))
    return engine


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def saved(folder: Path, scores: list[float], **options: Any) -> tuple[Checkpoint, list[str]]:
    to_save = options.pop("to_save", {"model": torch.nn.Linear(1, 1)})
    handler = Checkpoint(to_save, StoreSaver(folder), **options)
    for number, score in enumerate(scores, 1):
        handler(engine_at(epoch=number, iteration=10 * number, score=score))
    return handler, names(folder)


def score(engine: Any) -> float:
    return float(engine.state.score)


def epoch(engine: Any, _event: Any) -> int:
    return int(engine.state.epoch)


@pytest.mark.parametrize(
    ("scores", "options", "expected"),
    [
        ([0, 0, 0], {}, ["model_30.pt"]),
        ([0, 0, 0], {"n_saved": 2}, ["model_20.pt", "model_30.pt"]),
        ([0, 0, 0], {"n_saved": None}, ["model_10.pt", "model_20.pt", "model_30.pt"]),
        ([0.3, 0.9, 0.5], {"score_function": score}, ["model_0.9000.pt"]),
        (
            [-3, -1, -2],
            {"score_function": score, "score_name": "loss", "n_saved": 2},
            ["model_loss=-1.0000.pt", "model_loss=-2.0000.pt"],
        ),
        ([0, 0], {"global_step_transform": epoch, "filename_prefix": "last"}, ["last_model_2.pt"]),
        ([0, 0], {"filename_pattern": "{name}.{ext}"}, ["model.pt"]),
        (
            [1, 1],
            {"score_function": score, "greater_or_equal": True, "global_step_transform": epoch},
            ["model_2_1.0000.pt"],
        ),
        ([1, 1], {"score_function": score, "global_step_transform": epoch}, ["model_1_1.0000.pt"]),
    ],
    ids=["one", "two", "all", "score", "negative", "prefix", "pattern", "or-equal", "greater"],
)
def test_every_option_of_checkpoint(
    scores: list[float], options: dict[str, Any], expected: list[str], tmp_path: Path
) -> None:
    handler, found = saved(tmp_path / "best", scores, **options)
    assert found == expected
    assert handler.last_checkpoint in [tmp_path / "best" / name for name in expected]
    assert names(tmp_path / "best.digests") == [f"{name}.json" for name in expected]


def test_a_file_is_read_by_ignite_and_torch_and_loads_in_part(tmp_path: Path) -> None:
    model = torch.nn.DataParallel(torch.nn.Linear(1, 1))
    handler, _ = saved(
        tmp_path / "best", [1], to_save={"model": model, "other": torch.nn.Linear(1, 2)}, include_self=True
    )
    state = torch.load(handler.last_checkpoint, weights_only=True)
    assert sorted(state) == ["checkpointer", "model", "other"]
    assert sorted(state["model"]) == ["bias", "weight"]
    again = Checkpoint({"model": model}, StoreSaver(tmp_path / "best", require_empty=False))
    again.load_state_dict(state["checkpointer"])
    assert again.last_checkpoint == handler.last_checkpoint
    again.reset()
    assert again.last_checkpoint is None
    larger = torch.nn.Sequential(torch.nn.Linear(1, 1))
    Checkpoint.load_objects({"model": larger}, {"model": state["model"]}, strict=False)


def test_a_damaged_file_and_one_without_digest_are_found(tmp_path: Path) -> None:
    handler, (name,) = saved(tmp_path / "best", [1])
    saver = handler.save_handler
    assert isinstance(saver, DiskSaver)
    assert saver.verified(name) == saver.verified(handler.last_checkpoint) == tmp_path / "best" / name
    content = bytearray((tmp_path / "best" / name).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "best" / name).write_bytes(content)
    with pytest.raises(CorruptError, match="is not what was written"):
        saver.verified(name)
    (tmp_path / "best.digests" / f"{name}.json").unlink()
    with pytest.raises(CorruptError, match="no readable digest"):
        saver.verified(name)


def test_files_are_synced_and_a_failed_write_leaves_the_former(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saver = StoreSaver(tmp_path / "best")
    saver({"a": 1}, "x.pt")
    synced: list[int] = []
    former = os.fsync
    monkeypatch.setattr(
        durable.os, "fsync", lambda descriptor: (synced.append(descriptor), former(descriptor))
    )
    saver({"a": 2}, "x.pt")
    assert len(synced) >= 4  # file and folder, of the checkpoint and of its digest
    with pytest.raises(Exception, match="pickle"):
        saver({"a": lambda: None}, "x.pt")
    assert torch.load(saver.verified("x.pt"))["a"] == 2


def test_another_place_gets_and_loses_what_the_folder_does(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path / "remote")
    handler = Checkpoint({"model": torch.nn.Linear(1, 1)}, StoreSaver(tmp_path / "best", storage=storage))
    for number in (1, 2):
        handler(engine_at(iteration=number))
    assert storage.folders() == ("model_2.pt",)
    shutil.rmtree(tmp_path / "best")
    shutil.rmtree(tmp_path / "best.digests")
    saver = StoreSaver(tmp_path / "best", storage=storage)
    assert torch.load(saver.verified("model_2.pt")).keys() == {"weight", "bias"}


def test_only_the_rank_that_saves_writes(tmp_path: Path) -> None:
    saver = StoreSaver(tmp_path / "best", save_on_rank=1)
    saver({}, "x.pt")
    saver.remove("x.pt")
    assert not (tmp_path / "best").exists()


def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="leads out of"):
        StoreSaver(tmp_path / "best")({}, "../x.pt")


def test_what_was_removed_before_a_crash_may_be_removed_again(tmp_path: Path) -> None:
    handler, _ = saved(tmp_path / "best", [1])
    (tmp_path / "best" / "model_10.pt").unlink()
    engine = engine_at(iteration=20)
    engine.add_event_handler(Events.COMPLETED, handler)
    handler(engine)
    assert names(tmp_path / "best") == ["model_20.pt"]
