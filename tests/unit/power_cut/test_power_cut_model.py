"""The model of a power cut: what may be on the disk, and what may not."""

from __future__ import annotations

from chaos.power_cut.contents import file_contents, folder_names
from chaos.power_cut.operations import ROOT, Link, Mark, Resize, Sync, Trace, Unlink, Write
from chaos.power_cut.states import cut_states

FILE = 1
OLD, NEW = b"o" * 1024, b"n" * 1024


def written(*operations, inodes=None):
    return Trace(inodes or {ROOT: {}, FILE: b""}, operations)


def files_of(trace):
    """Return, for everything that was reported, the set of what may be on the disk."""
    found = {}
    for state in cut_states(trace):
        found.setdefault(state.done, set()).add(state.tree)
    return found


def create(name="file", inode=FILE):
    return Link(ROOT, name, inode, f"create {name}")


def write(data=NEW, offset=0):
    return Write(FILE, offset, data, "write")


def test_an_unsynced_write_is_torn_at_sector_borders_in_any_order():
    assert set(file_contents(OLD, [write()])) == {
        OLD,
        NEW,
        b"n" * 512 + b"o" * 512,
        b"o" * 512 + b"n" * 512,
    }


def test_a_size_may_be_durable_before_the_data_and_the_data_before_the_size():
    zeros = bytes(1024)
    found = set(file_contents(b"", [write()]))
    assert {
        b"",
        b"n" * 512,
        zeros[:512],
        zeros,
        NEW,
        b"n" * 512 + zeros[:512],
        zeros[:512] + b"n" * 512,
    } == found


def test_a_file_that_is_cut_keeps_its_old_size_or_has_the_new_one():
    assert set(file_contents(NEW, [Resize(FILE, 100, "cut")])) >= {NEW, NEW[:100]}


def test_a_rename_may_be_half_done_unless_the_folder_was_synced():
    pending = [Link(ROOT, "new", FILE, "rename"), Unlink(ROOT, "old", "rename")]
    found = [set(names) for names in folder_names({"old": FILE}, pending)]
    assert sorted(map(sorted, found)) == [[], ["new"], ["new", "old"], ["old"]]


def test_what_was_synced_under_a_synced_name_is_whole_in_every_state():
    trace = written(create(), write(), Sync(FILE, "fsync file"), Sync(ROOT, "fsync folder"), Mark("done"))
    assert files_of(trace)[("done",)] == {(("file", NEW),)}


def test_a_synced_file_without_a_synced_name_may_be_gone():
    trace = written(create(), write(), Sync(FILE, "fsync file"), Mark("done"))
    assert files_of(trace)[("done",)] == {(), (("file", NEW),)}


def test_a_synced_name_of_an_unsynced_file_may_be_empty():
    trace = written(create(), write(), Sync(ROOT, "fsync folder"), Mark("done"))
    assert (("file", b""),) in files_of(trace)[("done",)]


def test_the_sync_of_one_file_does_nothing_for_another():
    other = Link(ROOT, "other", 2, "create other")
    trace = written(
        create(),
        other,
        write(),
        Sync(2, "fsync other"),
        Sync(ROOT, "fsync folder"),
        Mark("done"),
        inodes={ROOT: {}, FILE: b"", 2: b""},
    )
    assert (("file", b""), ("other", b"")) in files_of(trace)[("done",)]
