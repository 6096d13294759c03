"""`StoreCheckpointIO` under Lightning's `ModelCheckpoint`: the same files, durable, checked at load."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from tests.support.lightning_packages import lightning_or_skip
from trainerd.contract import durable
from trainerd.errors import CorruptError, UserError
from trainerd.training.integrations.digested_files import digest_path

pl = lightning_or_skip("lightning")

from lightning.pytorch.callbacks import ModelCheckpoint  # noqa: E402

from trainerd.integrations.lightning import StoreCheckpointIO  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore")]

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


class Module(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Linear(1, 1)

    def training_step(self, batch: Any, _: int) -> torch.Tensor:
        self.log("score", float((7 * self.global_step) % 5))
        return self.net(batch[0]).square().mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(*callbacks: Any, plugins: Any, epochs: int = 3, **settings: Any) -> Any:
    torch.manual_seed(0)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
        plugins=plugins,
        enable_checkpointing=bool(callbacks),
    )
    module = Module()
    trainer.fit(module, DataLoader(TensorDataset(torch.ones(4, 1)), 1), **settings)
    return trainer, module


OPTIONS: dict[str, dict[str, Any]] = {
    "best": {"monitor": "score", "mode": "max", "save_top_k": 2, "every_n_train_steps": 2},
    "worst": {"monitor": "score", "mode": "min", "save_top_k": 1, "save_last": True},
    "link": {"monitor": "score", "save_last": "link", "every_n_epochs": 1},
    "all": {"save_top_k": -1, "every_n_train_steps": 3, "save_weights_only": True},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_the_files_are_those_of_lightning(tmp_path: Path, options: dict[str, Any]) -> None:
    found = []
    for name, plugins in (("ours", [StoreCheckpointIO()]), ("theirs", [])):
        kept = ModelCheckpoint(tmp_path / name, **options)
        fit(kept, plugins=plugins)
        paths = sorted(path.name for path in (tmp_path / name).iterdir())
        weights = [torch.load(tmp_path / name / path, weights_only=False)["state_dict"] for path in paths]
        best = [
            Path(kept.best_model_path).name,
            Path(kept.last_model_path).name,
            float(kept.best_model_score or 0),
        ]
        found.append((paths, repr(weights), best))
    assert found[0] == found[1]
    digests = {path.name.removesuffix(".json") for path in (tmp_path / "ours.digests").iterdir()}
    links = {path.name for path in (tmp_path / "ours").iterdir() if path.is_symlink()}
    assert digests == set(found[0][0]) - links, "each file has its digest, and no digest outlives its file"


def saved(folder: Path) -> tuple[Any, Path]:
    trainer, _ = fit(plugins=[StoreCheckpointIO()], epochs=1)
    path = folder / "files" / "one.ckpt"
    trainer.save_checkpoint(path)
    return trainer, path


def test_a_damaged_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    _, path = saved(tmp_path)
    _, module = fit(plugins=[StoreCheckpointIO()], epochs=2, ckpt_path=path)
    assert module.current_epoch == 2
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(CorruptError, match=r"one\.ckpt is not what was written"):
        fit(plugins=[StoreCheckpointIO()], epochs=2, ckpt_path=path)


def test_a_file_of_lightnings_own_is_read(tmp_path: Path) -> None:
    _, path = saved(tmp_path)
    digest_path(path).unlink()
    fit(plugins=[StoreCheckpointIO()], epochs=2, ckpt_path=path)
    with pytest.raises(FileNotFoundError, match="Checkpoint file not found"):
        StoreCheckpointIO().load_checkpoint(tmp_path / "none.ckpt")


def test_a_crash_while_a_file_is_replaced_leaves_the_former_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, path = saved(tmp_path)
    before = path.read_bytes()

    def fail(*_: object, **__: object) -> None:
        raise OSError("crash")

    monkeypatch.setattr(durable.os, "replace", fail)
    monkeypatch.setattr(durable.os, "rename", fail)
    with pytest.raises(OSError, match="crash"):
        trainer.save_checkpoint(path)
    assert path.read_bytes() == before
    assert StoreCheckpointIO().load_checkpoint(path)["epoch"] == 1


def test_what_it_cannot_write_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="local files"):
        StoreCheckpointIO().save_checkpoint({}, "s3://bucket/one.ckpt")
    with pytest.raises(TypeError, match="storage_options"):
        StoreCheckpointIO().save_checkpoint({}, tmp_path / "one.ckpt", storage_options={})
