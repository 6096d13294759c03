"""The place in memory of a run: this user's alone, on a tmpfs, and of one run in one boot."""

import os
import shutil
from dataclasses import replace

import pytest

from trainerd.checkpoint import memory_place as module
from trainerd.checkpoint.memory_place import (
    FORMAT,
    MemoryRecord,
    discard_memory,
    memory_place,
    newest_in_memory,
    places_left,
    take_place,
)
from trainerd.checkpoint.run_aside import move_run_aside
from trainerd.checkpoint.run_entries_aside import move_entries_aside
from trainerd.checkpoint.store import CheckpointStore
from trainerd.contract import codec
from trainerd.contract.paths import RunPaths
from trainerd.errors import UserError
from trainerd.supervisor.purge import purge_run


def tmpfs(_folder):
    return "tmpfs"


@pytest.fixture
def base(tmp_path):
    folder = tmp_path / "shm"
    folder.mkdir()
    return folder


@pytest.fixture
def run(tmp_path):
    paths = RunPaths(tmp_path / "run")
    paths.checkpoints.mkdir(parents=True)
    return paths


@pytest.fixture
def place(run, base):
    return take_place(run.checkpoints, base, kind_of=tmpfs)


def edit(run, **changes):
    path = run.checkpoints / ".memory.json"
    record = codec.from_json(path.read_bytes(), MemoryRecord, FORMAT)
    path.write_bytes(codec.to_json(replace(record, **changes), FORMAT))


def test_the_place_is_found_again_and_is_its_users_alone(run, base, place):
    assert place.parent == base / f"trainerd-{os.geteuid()}"
    assert [folder.stat().st_mode & 0o777 for folder in (place.parent, place)] == [0o700, 0o700]
    assert memory_place(run.checkpoints) == place
    assert take_place(run.checkpoints, base, kind_of=tmpfs) == place


def test_two_runs_have_places_beside_each_other(tmp_path, base, place):
    other = take_place(tmp_path, base, kind_of=tmpfs)
    assert (other.parent, other == place) == (place.parent, False)


def test_a_run_without_a_record_has_none(run):
    assert memory_place(run.checkpoints) is None
    discard_memory(run.checkpoints)


def test_the_place_of_another_boot_is_not_one(run, place):
    edit(run, boot_id="another")
    assert memory_place(run.checkpoints) is None


def test_a_copy_of_the_run_has_no_place_and_takes_none_away(tmp_path, run, place):
    shutil.copytree(run.root, tmp_path / "copy")
    copy = RunPaths(tmp_path / "copy")
    assert memory_place(copy.checkpoints) is None
    discard_memory(copy.checkpoints)
    assert memory_place(run.checkpoints) == place


def test_a_run_that_was_moved_keeps_its_place(tmp_path, run, place):
    run.root.rename(tmp_path / "moved")
    assert memory_place(RunPaths(tmp_path / "moved").checkpoints) == place


@pytest.mark.parametrize("end", ["{base}/trainerd-{uid}/../../run", "{base}/other/" + "0" * 32, "relative"])
def test_a_record_that_leads_elsewhere_is_not_followed(run, base, place, end):
    (base / "other" / ("0" * 32)).mkdir(parents=True)
    edit(run, place=end.format(base=base, uid=os.geteuid()))
    assert memory_place(run.checkpoints) is None
    discard_memory(run.checkpoints)
    assert run.root.is_dir()
    assert (base / "other" / ("0" * 32)).is_dir()


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"format": "trainerd.memory/1"}', b"[" * 50_000])
def test_a_record_that_cannot_be_read_is_none(run, place, data):
    (run.checkpoints / ".memory.json").write_bytes(data)
    assert memory_place(run.checkpoints) is None


def test_a_folder_in_which_others_may_write_is_refused(run, base):
    folder = base / f"trainerd-{os.geteuid()}"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(UserError, match="open to other users"):
        take_place(run.checkpoints, base, kind_of=tmpfs)
    assert not (run.checkpoints / ".memory.json").exists()


def test_a_link_in_its_place_is_refused(run, base, tmp_path):
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (base / f"trainerd-{os.geteuid()}").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="is not a folder"):
        take_place(run.checkpoints, base, kind_of=tmpfs)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_folder_of_another_user_is_refused(run, base, monkeypatch):
    uid = os.geteuid() + 1
    monkeypatch.setattr(module.os, "geteuid", lambda: uid)
    with pytest.raises(UserError, match="belongs to another user"):
        take_place(run.checkpoints, base, kind_of=tmpfs)


def test_a_link_that_replaces_the_place_is_not_followed(run, place, tmp_path):
    place.rename(tmp_path / "taken")
    place.symlink_to(tmp_path / "taken")
    assert memory_place(run.checkpoints) is None
    discard_memory(run.checkpoints)
    assert (tmp_path / "taken").is_dir()


def test_a_filesystem_that_is_not_in_memory_is_refused(run, base):
    with pytest.raises(UserError, match="is not a tmpfs but ext4"):
        take_place(run.checkpoints, base, kind_of=lambda _: "ext4")
    assert memory_place(run.checkpoints) is None


def test_the_type_of_a_filesystem_is_read_from_the_mounts(tmp_path, monkeypatch):
    device = tmp_path.stat().st_dev
    line = f"30 1 {os.major(device)}:{os.minor(device)} / /somewhere rw shared:2 - tmpfs none rw\n"
    (tmp_path / "mountinfo").write_text(f"29 1 0:999 / / rw - ext4 /dev/vda rw\n{line}")
    monkeypatch.setattr(module, "MOUNTS", tmp_path / "mountinfo")
    assert module._filesystem(tmp_path) == "tmpfs"


def test_a_base_that_is_missing_is_refused(run, tmp_path):
    with pytest.raises(UserError, match="No such file"):
        take_place(run.checkpoints, tmp_path / "missing", kind_of=tmpfs)


def test_the_newest_step_is_told(run, place):
    assert newest_in_memory(run.checkpoints) is None
    for name in ("step-000000007", "step-000000012.1", ".staging-step-000000020-1-1"):
        (place / name).mkdir()
    assert newest_in_memory(run.checkpoints) == 12


GOODBYES = {
    "a rollback": lambda run: CheckpointStore.of_run(run).set_aside_after(None, "back"),
    "a new run in its place": move_run_aside,
    "a new run of a script": move_entries_aside,
    "a purge": purge_run,
}


@pytest.mark.parametrize("goodbye", GOODBYES.values(), ids=GOODBYES.keys())
def test_what_ends_or_rewinds_a_run_takes_its_copies_away(run, base, place, goodbye):
    run.job.write_text("{}")
    if goodbye is GOODBYES["a rollback"]:
        with CheckpointStore.of_run(run).lock():
            goodbye(run)
    else:
        goodbye(run)
    assert list(base.glob("*/*")) == []


def test_a_place_is_left_when_its_run_is_gone_or_leads_elsewhere(run, base, place):
    assert list(places_left(base)) == []  # a run that was killed goes on from it
    (run.checkpoints / ".memory.json").unlink()
    assert list(places_left(base)) == [(place, run.checkpoints)]
    shutil.rmtree(run.root)
    assert list(places_left(base)) == [(place, run.checkpoints)]


def test_a_place_that_does_not_say_whose_it_is_is_left_once_it_cannot_be_in_the_making(base, place):
    (place / ".run").unlink()
    assert list(places_left(base)) == []
    os.utime(place, (0, 0))
    assert list(places_left(base)) == [(place, None)]


def test_where_no_run_had_a_place_none_is_left(base):
    assert list(places_left(base)) == []
