"""The identity of a run at a tracker is made once, and a file that does not hold one is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainerd.errors import CorruptError
from trainerd.training.integrations.tracker_ids import kept_id


def test_it_is_made_once(tmp_path: Path) -> None:
    assert kept_id(tmp_path, "wandb", lambda: "abc-1") == "abc-1"
    assert kept_id(tmp_path, "wandb", lambda: "abc-2") == "abc-1"
    assert kept_id(tmp_path, "mlflow", lambda: "other") == "other"


@pytest.mark.parametrize("damage", [b"", b"\xff\xfe", b"../../x"], ids=["empty", "bytes", "path"])
def test_a_damaged_one_is_refused(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "wandb-run-id").write_bytes(damage)
    with pytest.raises(CorruptError, match="wandb-run-id"):
        kept_id(tmp_path, "wandb", lambda: "abc")
