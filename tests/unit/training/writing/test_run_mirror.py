"""The mirror of a run: another machine goes on from it, and no line of checkpoints is mixed with another."""

from __future__ import annotations

import json
import re
import shutil
import time

import pytest
import torch

from tests.support.in_process import attempt, result_of
from tests.support.in_process_drain import drained_at
from trainerd.checkpoint.fsspec_storage import without_credentials
from trainerd.checkpoint.generations import GenerationStorage, generations
from trainerd.checkpoint.local_storage import LocalStorage
from trainerd.checkpoint.transfer import stored_names
from trainerd.errors import UserError
from trainerd.training.engine import run_parts
from trainerd.training.writing import mirror as mirroring

pytestmark = pytest.mark.torch


def loop(session, tick):
    torch.manual_seed(1)
    model = torch.nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    session.track(model=model, optimizer=optimizer)
    for _ in session.epochs(2):
        for _ in session.batches(range(5)):
            loss = model(torch.randn(4, 3)).pow(2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            session.log(loss=loss)
            tick()


class Bucket(LocalStorage):
    """Another place in which things may go wrong.

    Attributes:
        refusals: How many further copies are refused.
        cuts: How many further copies break off in the middle of a file.
        is_down: Whether it cannot even be listed.
    """

    def __init__(self, folder):
        super().__init__(folder)
        self.refusals = self.cuts = 0
        self.is_down = False

    def folders(self):
        if self.is_down:
            raise ConnectionError("no route to host")
        return super().folders()

    def put(self, folder, files):
        if self.refusals:
            self.refusals -= 1
            raise ConnectionError("refused")
        if self.cuts:
            self.cuts -= 1
            super().put(folder, [(name, cut_off(parts)) for name, parts in files])
        super().put(folder, files)


def cut_off(parts):
    yield next(iter(parts))[:10]
    raise ConnectionError("connection reset by peer")


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    monkeypatch.setattr(mirroring, "RETRY_S", 0.01)
    found = Bucket(tmp_path / "bucket")
    monkeypatch.setattr(run_parts, "FsspecStorage", lambda place: found if place == "s3://b/r/run" else None)
    return found


def train(machine, *, crash_at=None, **settings):
    (machine).mkdir(exist_ok=True)
    return attempt(
        machine / "run", loop, crash_at=crash_at, steps=2, mirror="s3://b/r", keep_last=2, **settings
    )


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    folder = tmp_path_factory.mktemp("left-alone") / "run"
    assert attempt(folder, loop, steps=2)
    return result_of(folder)


def names(bucket, line=0):
    return stored_names(GenerationStorage(bucket, line))


def rows(folder):
    return [
        {name: value for name, value in json.loads(line).items() if name != "time"}
        for line in (folder / "metrics.jsonl").read_text().splitlines()
        if '"loss"' in line
    ]


def test_a_machine_with_an_empty_disk_goes_on_exactly(tmp_path, bucket, expected, capsys):
    assert not train(tmp_path / "a", crash_at=7)
    newest = names(bucket)[-1]
    assert train(tmp_path / "b")
    assert result_of(tmp_path / "b" / "run") == expected
    assert f"brought back {newest} from s3://b/r/run" in capsys.readouterr().err
    steps = [row["step"] for row in rows(tmp_path / "b" / "run")]
    assert steps == list(range(1, 11))  # the rows of the other machine came along
    assert names(bucket)[-1].startswith("step-000000010")
    assert generations(bucket) == [0]


def test_a_machine_that_comes_back_goes_on_from_what_another_has_trained(tmp_path, bucket, expected):
    assert not train(tmp_path / "a", crash_at=3)
    assert not train(tmp_path / "b", crash_at=5)
    assert train(tmp_path / "a")
    assert result_of(tmp_path / "a" / "run") == expected
    assert generations(bucket) == [0]


def test_a_fresh_run_brings_nothing_back_and_leaves_what_is_there(tmp_path, bucket, capsys):
    assert not train(tmp_path / "a", crash_at=7)
    before = names(bucket)
    assert not train(tmp_path / "a", crash_at=3, fresh=True)
    assert names(bucket) == before
    assert names(bucket, 1) == ["step-000000002"]
    assert "does not follow from step-000000002" in capsys.readouterr().err
    assert not train(tmp_path / "c", crash_at=3)  # an empty disk: the newest line
    assert names(bucket, 1)[-1] == "step-000000004"


def test_a_fresh_run_on_another_machine_brings_nothing_back(tmp_path, bucket):
    assert not train(tmp_path / "a", crash_at=7)
    assert not train(tmp_path / "b", crash_at=3, fresh=True)
    assert names(bucket, 1) == ["step-000000002"]


def test_a_run_that_was_moved_aside_as_a_whole_is_not_brought_back(tmp_path, bucket):
    """`trainerd restart NAME --fresh` renames the folder."""
    assert not train(tmp_path / "a", crash_at=7)
    (tmp_path / "a" / "run").rename(tmp_path / "a" / "run.old-1")
    assert not train(tmp_path / "a", crash_at=3)
    assert names(bucket, 1) == ["step-000000002"]


def test_damage_of_all_that_is_here_is_made_good_from_the_mirror(tmp_path, bucket, expected):
    assert not train(tmp_path / "a", crash_at=7)
    for file in (tmp_path / "a" / "run" / "checkpoints").glob("*/*.safetensors"):
        file.write_bytes(b"x" * file.stat().st_size)
    assert train(tmp_path / "a")
    assert result_of(tmp_path / "a" / "run") == expected


def test_what_came_back_damaged_is_not_used(tmp_path, bucket, expected):
    assert not train(tmp_path / "a", crash_at=7)
    newest = tmp_path / "bucket" / names(bucket)[-1]
    for file in newest.glob("*.safetensors"):
        file.write_bytes(b"x" * file.stat().st_size)
    assert train(tmp_path / "b")  # from the one before
    assert result_of(tmp_path / "b" / "run") == expected


def test_a_damaged_history_is_said_and_the_state_is_used(tmp_path, bucket, capsys):
    assert not train(tmp_path / "a", crash_at=7)
    for file in (tmp_path / "bucket").glob("*/history-*.jsonl.gz"):
        file.write_bytes(file.read_bytes()[:-9])
    assert train(tmp_path / "b")
    assert "the metric history cannot be brought back" in capsys.readouterr().err
    steps = [row["step"] for row in rows(tmp_path / "b" / "run")]
    assert steps == list(range(steps[0], 11))
    assert steps[0] in {6, 7}


@pytest.mark.parametrize("fault", ["refusals", "cuts"])
def test_a_copy_that_fails_is_tried_again(tmp_path, bucket, fault):
    setattr(bucket, fault, mirroring.TRIES_MAX - 1)
    assert train(tmp_path / "a")
    assert names(bucket)[-1].startswith("step-000000010")


def test_a_place_that_is_down_stops_no_training_and_is_said(tmp_path, bucket):
    (tmp_path / "a").mkdir()
    assert not attempt(tmp_path / "a" / "run", loop, crash_at=3, steps=2)
    bucket.is_down = True
    with pytest.warns(UserWarning, match="is not there yet: no route to host"):
        assert train(tmp_path / "a")
    assert list((tmp_path / "bucket").glob("step-*")) == []


def test_a_place_that_cannot_be_asked_for_newer_checkpoints_is_named(tmp_path, bucket, expected, capsys):
    assert not train(tmp_path / "a", crash_at=7)
    newest = names(bucket)[-1]
    capsys.readouterr()
    bucket.is_down = True
    with pytest.warns(UserWarning, match="no route to host"):
        assert train(tmp_path / "a")
    said = capsys.readouterr().err
    assert (
        f"trainerd: s3://b/r/run cannot be asked for a checkpoint newer than {newest}: "
        "ConnectionError: no route to host\n"
    ) in said
    assert result_of(tmp_path / "a" / "run") == expected  # it goes on from what is here


def test_an_empty_disk_and_a_place_that_is_down_begin_no_new_run(tmp_path, bucket):
    assert not train(tmp_path / "a", crash_at=7)
    bucket.is_down = True
    with pytest.raises(OSError, match="cannot be asked for checkpoints of this run, and there is none here"):
        train(tmp_path / "b")
    assert not (tmp_path / "b" / "run" / "finished.json").exists()


def test_the_bandwidth_is_kept_until_something_waits(tmp_path):
    mirror = mirroring.Mirror(LocalStorage(tmp_path), bytes_per_s=1000)
    began_s = time.monotonic()
    assert list(mirror.paced(iter([b"x" * 100, b"y" * 100]))) == [b"x" * 100, b"y" * 100]
    assert time.monotonic() - began_s >= 0.2


def test_the_address_is_shown_without_credentials():
    assert without_credentials("ftp://me:secret@host/runs") == "ftp://host/runs"
    assert without_credentials("s3://bucket/runs@2") == "s3://bucket/runs@2"


def test_what_is_no_url_is_refused(tmp_path):
    with pytest.raises(UserError, match="a URL such as s3://bucket/runs is meant"):
        attempt(tmp_path / "run", loop, mirror="/mnt/backup")


def test_a_mirror_record_that_is_lost_costs_a_new_line_and_nothing_else(tmp_path, bucket):
    assert not train(tmp_path / "a", crash_at=7)
    before = names(bucket)
    (tmp_path / "a" / "run" / "mirror.json").unlink()
    assert train(tmp_path / "a")
    assert names(bucket) == before
    assert names(bucket, 1)[-1].startswith("step-000000010")
    shutil.rmtree(tmp_path / "bucket")


def drain(machine, *, at, shape=loop):
    machine.mkdir(exist_ok=True)
    drained_at(machine / "run", shape, at, mirror="s3://b/r")


def asks_first(session, tick):
    tick()
    loop(session, tick)


def test_a_drain_says_that_its_checkpoint_is_in_the_mirror(tmp_path, bucket, capsys):
    drain(tmp_path / "a", at=3)
    (name,) = names(bucket)
    assert f"{name} is in the mirror" in capsys.readouterr().err


def test_a_drain_says_that_its_checkpoint_is_not_in_the_mirror(tmp_path, bucket, capsys):
    bucket.is_down = True
    (tmp_path / "a").mkdir()
    assert not attempt(tmp_path / "a" / "run", loop, crash_at=3, steps=2)
    with pytest.warns(UserWarning, match="is not there yet: no route to host"):
        drain(tmp_path / "a", at=1)
    said = capsys.readouterr().err
    assert re.search(r"step-000000003 is not in the mirror: waited [0-5]\.\d s of at most 60 s", said)
    assert "is in the mirror" not in said


def test_a_place_that_does_not_exist_is_not_taken_for_a_checkpoint_that_was_pruned(
    tmp_path, bucket, capsys, monkeypatch
):
    def put(folder, files):
        raise FileNotFoundError("The specified bucket does not exist")

    monkeypatch.setattr(bucket, "put", put)
    with pytest.warns(UserWarning, match="is not there yet: The specified bucket does not exist"):
        drain(tmp_path / "a", at=3)
    assert "is in the mirror" not in capsys.readouterr().err


def test_a_drain_without_a_save_of_its_own_asks_for_the_checkpoint_it_went_on_from(tmp_path, bucket, capsys):
    (tmp_path / "a").mkdir()
    assert not attempt(tmp_path / "a" / "run", loop, crash_at=3, steps=2)
    drain(tmp_path / "a", at=1, shape=asks_first)
    assert "step-000000002 is in the mirror" in capsys.readouterr().err
    assert names(bucket) == ["step-000000002"]


def test_what_could_not_be_removed_there_is_not_said_of_the_checkpoint(tmp_path, bucket, monkeypatch):
    def remove(name):
        raise ConnectionError("refused")

    monkeypatch.setattr(bucket, "remove", remove)
    with pytest.warns(
        UserWarning, match="step-000000002 is to be removed there, and is still there: refused"
    ):
        assert train(tmp_path / "a")
    assert names(bucket)[-1].startswith("step-000000010")


def test_a_tracker_on_another_machine_has_the_points_of_both(tmp_path, bucket):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tests.support.event_files import points

    assert not train(tmp_path / "a", crash_at=7, trackers=["tensorboard"])
    assert train(tmp_path / "b", trackers=["tensorboard"])
    found = points(tmp_path / "b" / "run" / "tensorboard")
    assert [step for tag, step, _ in found if tag == "loss"] == list(range(1, 11))
