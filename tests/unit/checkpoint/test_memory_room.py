"""Room for copies in memory: the least that the machine, its cgroups and the tmpfs have left decides."""

from trainerd.checkpoint.memory_room import MARGIN_BYTES, Room, memory_room, why_no_room

MIB = 1 << 20


def test_two_copies_and_a_margin_must_fit_and_a_copy_that_is_there_counts():
    fits = [Room(2 * 100 * MIB + MARGIN_BYTES, "there")]
    short = [*fits, Room(2 * 100 * MIB + MARGIN_BYTES - 1, "in a small place")]
    assert why_no_room(fits, size_bytes=100 * MIB, held_bytes=0) is None
    assert "free in a small place" in why_no_room(short, size_bytes=100 * MIB, held_bytes=0)
    assert why_no_room(short, size_bytes=100 * MIB, held_bytes=MIB) is None


def test_the_machine_and_every_cgroup_with_a_limit_are_asked(tmp_path):
    inner = tmp_path / "cgroups" / "a" / "b"
    inner.mkdir(parents=True)
    for folder, limit, used, cache in ((inner, "max", 5, 0), (inner.parent, "1000", 700, 100)):
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text(f"{used}\n")
        (folder / "memory.stat").write_text(f"anon 3\ninactive_file {cache}\n")
    (tmp_path / "meminfo").write_text("MemTotal: 99 kB\nMemAvailable: 42 kB\n")
    (tmp_path / "membership").write_text("1:memory:/old\n0::/a/b\n")
    rooms = memory_room(
        tmp_path,
        memory=tmp_path / "meminfo",
        membership=tmp_path / "membership",
        cgroups=tmp_path / "cgroups",
    )
    found = {room.where: room.free_bytes for room in rooms}
    assert found["in the machine's memory"] == 42 * 1024
    assert found["below the limit of the cgroup a"] == 400
    assert len(found) == 3


def test_cgroups_of_version_1_and_beside_it_of_version_2_are_asked_too(tmp_path):
    old, new = tmp_path / "cgroups" / "memory", tmp_path / "cgroups" / "unified" / "new"
    old.mkdir(parents=True)
    new.mkdir(parents=True)
    (old / "memory.limit_in_bytes").write_text("5000\n")
    (old / "memory.usage_in_bytes").write_text("2000\n")
    (old / "memory.stat").write_text("inactive_file 9\ntotal_inactive_file 500\n")
    (new / "memory.max").write_text("900\n")
    (new / "memory.current").write_text("100\n")
    (new / "memory.stat").write_text("inactive_file 50\n")
    (tmp_path / "membership").write_text("4:memory:/of/the/host\n3:cpu,cpuacct:/new\n0::/new\n")
    rooms = memory_room(
        tmp_path,
        memory=tmp_path / "none",
        membership=tmp_path / "membership",
        cgroups=tmp_path / "cgroups",
    )
    assert [room.free_bytes for room in rooms[1:]] == [3500, 850]


def test_what_cannot_be_read_is_left_out(tmp_path):
    missing = tmp_path / "missing"
    (room,) = memory_room(tmp_path, memory=missing, membership=missing, cgroups=missing)
    assert room.free_bytes > 0
