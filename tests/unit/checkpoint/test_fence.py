"""Of two attempts that do not know of each other, one can publish checkpoints."""

from __future__ import annotations

import contextlib
import errno
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.checkpoints import make_manifest
from trainerd.checkpoint import store as stores
from trainerd.checkpoint.checkpoint_names import WriterName
from trainerd.checkpoint.fence import WriterFolder
from trainerd.checkpoint.staging import Staging
from trainerd.checkpoint.store import CheckpointStore
from trainerd.contract import failpoints
from trainerd.contract.policy import RetentionPolicy
from trainerd.errors import FencedError


@pytest.fixture(autouse=True)
def _no_locks(monkeypatch):
    """Two machines whose locks do not know of each other."""
    monkeypatch.setattr(stores, "writers_lock", lambda *_args, **_options: contextlib.nullcontext())
    monkeypatch.setattr(stores, "holds_lock", lambda _directory: True)


def attempt(directory) -> CheckpointStore:
    directory.mkdir(exist_ok=True)
    store = CheckpointStore(directory)
    store.take_over()
    store.sweep()
    return store


def staged(store: CheckpointStore, step: int) -> Staging:
    staging = store.begin(step)
    staging.write("data", [b"%d" % step])
    return staging


def save(store: CheckpointStore, step: int) -> None:
    store.commit(staged(store, step), make_manifest(step))


def writers(directory) -> list[str]:
    return sorted(path.name for path in directory.iterdir() if WriterName.parse(path.name))


def test_each_attempt_has_a_folder_that_is_higher_than_those_before(tmp_path):
    names = []
    for _ in range(3):
        attempt(tmp_path)
        (name,) = writers(tmp_path)
        names.append(name)
    assert names == sorted(names)
    assert len(set(names)) == 3


def test_what_is_left_of_former_attempts_is_swept(tmp_path):
    first = attempt(tmp_path)
    staged(first, 1)
    second = attempt(tmp_path)
    assert not any(path.name.startswith((".fenced", ".staging")) for path in tmp_path.iterdir())
    save(second, 1)


def test_a_run_that_begins_again_under_the_same_path_does_not_let_the_former_one_in(tmp_path):
    former = attempt(tmp_path / "checkpoints")
    (tmp_path / "checkpoints").rename(tmp_path / "aside")
    attempt(tmp_path / "checkpoints")
    with pytest.raises(FencedError):
        former.begin(1)


@pytest.mark.parametrize("count", [2, 8])
def test_of_attempts_that_begin_at_the_same_moment_one_goes_on(tmp_path, count):
    for _ in range(20):
        barrier = threading.Barrier(count)

        def take(_number, barrier=barrier):
            barrier.wait(30)
            return WriterFolder.take(tmp_path)

        with ThreadPoolExecutor(count) as pool:
            taken = list(pool.map(take, range(count)))
        held = [each.path.name for each in taken if each.is_held]
        assert held == writers(tmp_path) == [max(each.path.name for each in taken)]


WAYS = {
    "begins a save": lambda store, _staging: store.begin(2),
    "writes a file": lambda _store, staging: staging.write("more", [b"1"]),
    "publishes": lambda store, staging: store.commit(staging, make_manifest(1)),
    "makes room": lambda store, _staging: store.make_room(1, RetentionPolicy()),
    "prunes": lambda store, _staging: store.prune(RetentionPolicy(keep_last=1)),
    "keeps a reserve": lambda store, _staging: store.keep_reserve(4096),
}


@pytest.mark.parametrize("act", WAYS.values(), ids=WAYS.keys())
def test_an_attempt_that_another_one_has_taken_over_from_is_told_at_its_next_act(tmp_path, act):
    former = attempt(tmp_path)
    staging = staged(former, 1)
    successor = attempt(tmp_path)
    for step in (3, 4):
        save(successor, step)
    with pytest.raises(FencedError, match=r"another attempt has taken over this run \(pid \d+ on "):
        act(former, staging)
    assert [each.step for each in successor.checkpoints()] == [3, 4]


@pytest.mark.parametrize(
    "point",
    ["checkpoint.data.written", "checkpoint.data.synced", "checkpoint.manifest.synced", "checkpoint.staged"],
)
def test_a_save_in_which_another_attempt_takes_over_publishes_nothing(tmp_path, monkeypatch, point):
    former = attempt(tmp_path)
    successors = []
    monkeypatch.setattr(failpoints, "_armed", {point: ("stop", 1)})
    monkeypatch.setattr(
        failpoints,
        "_strike",
        lambda hit: successors.append(attempt(tmp_path)) if hit.name == point and not successors else None,
    )
    with pytest.raises(FencedError):
        save(former, 1)
    (successor,) = successors
    assert successor.checkpoints() == ()
    save(successor, 1)
    assert [each.name for each in successor.checkpoints()] == ["step-000000001"]


def test_a_checkpoint_published_before_is_seen_by_the_attempt_that_takes_over(tmp_path, monkeypatch):
    former = attempt(tmp_path)
    seen = []

    def strike(hit):
        if hit.name == "checkpoint.renamed" and not seen:
            seen.append([each.step for each in attempt(tmp_path).checkpoints()])

    monkeypatch.setattr(failpoints, "_armed", {"checkpoint.renamed": ("stop", 1)})
    monkeypatch.setattr(failpoints, "_strike", strike)
    with pytest.raises(FencedError):
        save(former, 1)
    assert seen == [[1]]


def test_an_error_of_the_filesystem_stays_what_it_is_while_nothing_has_taken_over(tmp_path):
    folder = WriterFolder.take(tmp_path)
    with pytest.raises(FileNotFoundError), folder.noticed():
        (folder.path / "missing" / "file").mkdir()
    with pytest.raises(OSError, match="no") as raised, folder.noticed():
        raise OSError(errno.EIO, "no")
    assert raised.value.errno == errno.EIO


def test_a_folder_that_cannot_be_looked_at_counts_as_held(tmp_path, monkeypatch):
    folder = WriterFolder.take(tmp_path)

    def failing(_path):
        raise OSError(errno.EIO, "no")

    monkeypatch.setattr(type(folder.path), "stat", failing)
    assert folder.is_held
