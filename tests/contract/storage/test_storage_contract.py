"""What every storage does, and what travels through one arrives or is refused."""

from __future__ import annotations

import itertools

import pytest

from tests.support.checkpoints import TENSORS, commit, flip_bit, is_whole, names
from trainerd.checkpoint.fsspec_storage import FsspecStorage
from trainerd.checkpoint.local_storage import LocalStorage
from trainerd.checkpoint.store import CheckpointStore
from trainerd.checkpoint.transfer import pull, pull_newest, push, stored_names
from trainerd.errors import CorruptError, InternalError, UserError

serial = itertools.count()
BIG = bytes(range(256)) * 2**16


@pytest.fixture(params=["local", "file://", "memory://"])
def storage(request, tmp_path):
    if request.param == "local":
        return LocalStorage(tmp_path / "storage")
    place = tmp_path / "storage" if request.param == "file://" else f"bucket-{next(serial)}/runs"
    return FsspecStorage(f"{request.param}{place}")


def content(storage, folder, name):
    return b"".join(storage.read(folder, name))


def put(storage, folder="one", **changes):
    storage.put(
        folder, ({"data": [b"da", b"ta"], "empty": []} | changes | {"manifest.json": [b"{}"]}).items()
    )


def test_what_is_put_is_there(storage):
    put(storage, big=[BIG, memoryview(BIG), bytearray(b"end")])
    assert storage.folders() == ("one",)
    assert storage.files("one") == {"data": 4, "empty": 0, "big": 2 * len(BIG) + 3, "manifest.json": 2}
    assert content(storage, "one", "data") == b"data"
    assert content(storage, "one", "empty") == b""
    assert content(storage, "one", "big") == BIG + BIG + b"end"


def test_an_empty_storage_has_nothing(storage):
    assert (storage.folders(), storage.sweep()) == ((), ())


def test_folders_are_sorted(storage):
    for folder in ("b", "a", "c"):
        put(storage, folder)
    assert storage.folders() == ("a", "b", "c")


def test_what_is_not_there_says_so(storage):
    put(storage)
    with pytest.raises(FileNotFoundError):
        storage.files("two")
    for folder, name in (("two", "data"), ("one", "more")):
        with pytest.raises(FileNotFoundError):
            content(storage, folder, name)


def test_a_folder_is_put_once(storage):
    put(storage)
    with pytest.raises(FileExistsError):
        put(storage, data=[b"other"])
    assert content(storage, "one", "data") == b"data"


def test_a_put_that_fails_leaves_no_folder_and_the_next_one_succeeds(storage):
    def failing():
        yield b"half"
        raise OSError(5, "gone")

    with pytest.raises(OSError, match="gone"):
        put(storage, left=[b"over"], more=failing())
    assert storage.folders() == ()
    with pytest.raises(FileNotFoundError):
        storage.files("one")
    put(storage)
    assert set(storage.files("one")) == {"data", "empty", "manifest.json"}


def test_what_is_removed_is_gone_and_can_be_put_again(storage):
    put(storage)
    storage.remove("one")
    storage.remove("one")
    assert storage.folders() == ()
    assert storage.sweep() == ()
    put(storage)
    assert storage.folders() == ("one",)


@pytest.mark.parametrize(
    "files", [[], ["data"], ["manifest.json", "data"], ["a/b", "manifest.json"]], ids=str
)
def test_a_folder_is_committed_by_its_manifest_alone_and_last(storage, files):
    with pytest.raises(InternalError):
        storage.put("one", [(name, [b"x"]) for name in files])
    assert storage.folders() == ()


@pytest.mark.parametrize("folder", ["", ".", "..", "../x", "a/b", ".hidden"])
def test_no_name_leads_elsewhere(storage, folder):
    for act in (storage.files, storage.remove, lambda name: put(storage, name)):
        with pytest.raises(InternalError):
            act(folder)


def test_what_an_interrupted_upload_left_is_swept_or_replaced(tmp_path):
    """Local folders appear by a rename; in an object store the files of one without a manifest do not
    count."""
    storage = FsspecStorage(f"file://{tmp_path}")
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "data").write_bytes(b"x")
    put(storage)
    assert storage.folders() == ("one",)
    assert storage.sweep() == ("half",)
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "other").write_bytes(b"x")
    put(storage, "half")
    assert set(storage.files("half")) == {"data", "empty", "manifest.json"}
    storage.remove("half")
    local = LocalStorage(tmp_path)
    (tmp_path / ".staging-two-1-1").mkdir()
    assert (local.folders(), local.sweep()) == (("one",), (".staging-two-1-1",))


def test_an_unknown_protocol_is_the_users_mistake():
    with pytest.raises(UserError, match="nonsense"):
        FsspecStorage("nonsense://x")


@pytest.fixture
def stores(tmp_path):
    here, there = CheckpointStore(tmp_path / "here"), CheckpointStore(tmp_path / "there")
    with here.lock(), there.lock():
        yield here, there


def test_a_checkpoint_goes_there_and_comes_back_the_same(storage, stores):
    here, there = stores
    checkpoints = [commit(here, step, scores={"a": 0.1}, size_bytes=3_000_000) for step in (9, 10)]
    assert [push(checkpoint, storage) for checkpoint in checkpoints] == [True, True]
    assert stored_names(storage) == ["step-000000009", "step-000000010"]
    back = pull_newest(storage, there)
    assert back.manifest == checkpoints[1].manifest
    assert there.newest_verified() == back


def test_pushing_again_does_nothing_and_after_a_fork_replaces(storage, stores):
    here, there = stores
    first = commit(here, 1, lineage="aa")
    assert push(first, storage)
    assert not push(first, storage)
    here.set_aside_after(None, "anew")
    assert push(commit(here, 1, lineage="bb"), storage)
    assert pull("step-000000001", storage, there).manifest.lineage == "bb"


def test_what_is_damaged_here_does_not_get_there(storage, stores):
    here, _ = stores
    checkpoint = commit(here, 1)
    flip_bit(checkpoint.path / TENSORS)
    with pytest.raises(CorruptError):
        push(checkpoint, storage)
    assert storage.folders() == ()


def test_what_is_damaged_there_is_not_taken_and_the_one_before_is(storage, stores):
    here, there = stores
    for step in (1, 2, 3):
        push(commit(here, step), storage)
    damaged = {name: [content(storage, "step-000000003", name)] for name in storage.files("step-000000003")}
    manifest = damaged.pop("manifest.json")
    storage.remove("step-000000003")
    storage.put(
        "step-000000003",
        [(TENSORS, [b"x"]), ("rank-00000.json", damaged["rank-00000.json"]), ("manifest.json", manifest)],
    )
    storage.remove("step-000000002")
    storage.put("step-000000002", [("manifest.json", [b"{}"])])
    with pytest.raises(CorruptError, match="came as"):
        pull("step-000000003", storage, there)
    assert is_whole(pull_newest(storage, there))
    assert names(there) == ["step-000000001"]
    assert there.sweep() == []


def test_an_empty_storage_has_no_newest(storage, stores):
    assert pull_newest(storage, stores[1]) is None
