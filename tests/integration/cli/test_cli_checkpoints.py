"""`trainerd checkpoints` on real checkpoints, with no supervisor."""

from __future__ import annotations

import errno
import math
import os

import pytest

from tests.support.fake_control import NOW_S
from trainerd.checkpoint.manifest import Manifest
from trainerd.checkpoint.store import CheckpointStore

TABLE = """\
NAME            STEP  EPOCH  WHY          SIZE    AGE  PIN     SCORES
step-000000100   100      0  periodic  3.0 KiB  2m00s  -       -
step-000000120   120      1  epoch     3.0 KiB  1m40s  pinned  accuracy=0.91 loss=nan

pinned: step-000000120
  the one in the paper
"""


@pytest.fixture
def store(state):
    store = CheckpointStore.of_run(state.run("mnist"))
    with store.lock():
        commit(store, 100, epoch=0, reason="periodic")
        commit(store, 120, epoch=1, reason="epoch", scores={"loss": math.nan, "accuracy": 0.91})
        store.pin("step-000000120", "the one in the paper")
    return store


def commit(store: CheckpointStore, step: int, **fields) -> None:
    staging = store.begin(step)
    staging.write("rank-00000.safetensors", [b"x" * 3072])
    values = {
        "job": "mnist",
        "lineage": "abc",
        "parent": None,
        "step": step,
        "epoch": 0,
        "batch": 0,
        "reason": "periodic",
        "scores": {},
        "world_size": 1,
        "attempt": 1,
        "history_bytes": 0,
        "created_wall_s": NOW_S - 220 + step,
        "trainerd_version": "0",
    }
    store.commit(staging, Manifest(**(values | fields)))


def damage(store: CheckpointStore, step: int) -> None:
    file = store.directory / f"step-{step:09d}" / "rank-00000.safetensors"
    file.chmod(0o644)
    file.write_bytes(b"y" + b"x" * 3071)


@pytest.mark.usefixtures("store")
def test_checkpoints_are_a_table_oldest_first(trainerd):
    assert trainerd("checkpoints", "mnist").stdout == TABLE


@pytest.mark.usefixtures("store")
def test_checkpoints_as_json_has_everything(trainerd_json):
    shown = trainerd_json("checkpoints", "mnist")
    assert list(shown) == ["job", "checkpoints", "quarantined", "abandoned", "problems"]
    newest = shown["checkpoints"][1]
    assert newest["scores"] == {"loss": "nan", "accuracy": 0.91}
    assert (newest["name"], newest["step"], newest["bytes"]) == ("step-000000120", 120, 3072)
    assert "the one in the paper" in newest["pin"]
    assert newest["verified"] is None


@pytest.mark.usefixtures("store")
def test_every_json_key_of_a_checkpoint_is_documented(trainerd_json):
    from tests.integration.cli.test_cli_help import section

    shown = trainerd_json("checkpoints", "mnist")
    keys = {*shown, *shown["checkpoints"][0]}
    assert [key for key in keys if f"`{key}`" not in section("checkpoints")] == []


def test_verify_finds_a_flipped_bit_and_changes_nothing(trainerd, trainerd_json, store):
    assert "  yes  " in trainerd("checkpoints", "mnist", "--verify").stdout
    damage(store, 100)
    result = trainerd("checkpoints", "mnist", "--verify", code=1)
    assert "FAILED" in result.stdout
    assert "failed: step-000000100: rank-00000.safetensors has digest" in result.stdout
    shown = trainerd_json("checkpoints", "mnist", "--verify", code=1)["checkpoints"]
    assert [one["verified"] for one in shown] == [False, True]


def test_a_checkpoint_that_cannot_be_read_is_not_verified(trainerd, trainerd_json, store, monkeypatch):
    def verify(_store, _checkpoint):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(CheckpointStore, "verify", verify)
    shown = trainerd("checkpoints", "mnist", "--verify", code=1).stdout
    assert ("unknown" in shown, "could not be read" in shown, "  yes  " in shown) == (True, True, False)
    rows = trainerd_json("checkpoints", "mnist", "--verify", code=1)["checkpoints"]
    assert {row["verified"] for row in rows} == {None}


def test_what_was_set_aside_is_shown_with_its_reason(trainerd, trainerd_json, store):
    with store.lock():
        damage(store, 120)
        store.newest_verified()
        store.set_aside_after(None, "the run began anew")
    shown = trainerd_json("checkpoints", "mnist")
    assert [one["name"] for one in shown["quarantined"]] == ["step-000000120"]
    assert [one["reason"] for one in shown["abandoned"]] == ["the run began anew"]
    text = trainerd("checkpoints", "mnist").stdout
    assert text.startswith("mnist has no checkpoint yet\n\nquarantined: ")
    assert "\n  the run began anew\n" in text


def test_a_folder_without_a_manifest_is_shown_and_fails_verification(trainerd, store):
    (store.directory / "step-000000100" / "manifest.json").unlink()
    assert "unreadable: step-000000100" in trainerd("checkpoints", "mnist").stdout
    trainerd("checkpoints", "mnist", "--verify", code=1)


def test_checkpoints_that_cannot_be_read_are_not_called_none(trainerd, store):
    for step in (100, 120):
        (store.directory / f"step-{step:09d}" / "manifest.json").unlink()
    assert trainerd("checkpoints", "mnist").stdout.startswith("mnist has no checkpoint that can be read\n")


def test_a_job_without_checkpoints_says_so(trainerd, state):
    state.run("mnist").root.mkdir(parents=True)
    assert trainerd("checkpoints", "mnist").stdout == "mnist has no checkpoint yet\n"


@pytest.mark.usefixtures("store")
def test_looking_while_training_writes_takes_no_lock(trainerd, store):
    with store.lock():
        trainerd("checkpoints", "mnist", "--verify")
