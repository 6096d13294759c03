"""Where an attempt's cgroup may be made, told from what /proc says on machines of every kind."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainerd.shim import cgroup_place
from trainerd.shim.cgroup_place import Places, find_places, places

FS = Path("/sys/fs/cgroup")

UNIFIED = "31 23 0:27 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n"  # noqa: E501 - one line of mountinfo
SURROUNDINGS = (
    "23 28 0:22 / /sys rw,nosuid,nodev,noexec,relatime shared:7 - sysfs sysfs rw\n"
    "28 1 253:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,errors=remount-ro\n"
)
HYBRID = SURROUNDINGS + (
    "31 23 0:28 / /sys/fs/cgroup ro,nosuid,nodev,noexec shared:9 - tmpfs tmpfs ro,size=4096k,mode=755\n"
    "32 31 0:29 / /sys/fs/cgroup/unified rw,nosuid,nodev,noexec,relatime shared:10 - cgroup2 cgroup2 rw,nsdelegate\n"  # noqa: E501 - one line of mountinfo
    "33 31 0:30 / /sys/fs/cgroup/systemd rw,nosuid,nodev,noexec,relatime shared:11 - cgroup cgroup rw,xattr,name=systemd\n"  # noqa: E501 - one line of mountinfo
    "36 31 0:33 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid,nodev,noexec,relatime shared:15 - cgroup cgroup rw,cpu,cpuacct\n"  # noqa: E501 - one line of mountinfo
    "37 31 0:34 / /sys/fs/cgroup/memory rw,nosuid,nodev,noexec,relatime shared:16 - cgroup cgroup rw,memory\n"
)
LEGACY = "".join(line for line in HYBRID.splitlines(keepends=True) if "cgroup2" not in line)
MEMBERSHIP_HYBRID = (
    "5:memory:/system.slice/trainerd.service\n"
    "4:cpu,cpuacct:/system.slice/trainerd.service\n"
    "1:name=systemd:/system.slice/trainerd.service\n"
    "0::/system.slice/trainerd.service\n"
)
# A virtual machine whose first process mounts every hierarchy itself.
BARE_MEMBERSHIP = (
    "9:name=systemd:/\n8:pids:/\n7:blkio:/\n6:freezer:/\n5:devices:/\n4:memory:/jobs/b47f\n"
    "3:cpuset:/\n2:cpuacct:/\n1:cpu:/\n0::/\n"
)
BARE = (
    "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n"
    "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n"
    "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
    "40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd\n"
    "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"
)
DOCKER_2 = "1141 1138 0:27 / /sys/fs/cgroup ro,nosuid,nodev,noexec,relatime - cgroup2 cgroup rw,nsdelegate,memory_recursiveprot\n"  # noqa: E501 - one line of mountinfo
DOCKER_ID = "/docker/6bd2f1a1c3f5e6a3b7"
DOCKER_1 = (
    "617 613 0:61 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime - tmpfs tmpfs rw,mode=755\n"
    f"618 617 0:30 {DOCKER_ID} /sys/fs/cgroup/systemd ro,nosuid,nodev,noexec,relatime master:11 - cgroup cgroup rw,xattr,name=systemd\n"  # noqa: E501 - one line of mountinfo
    f"622 617 0:34 {DOCKER_ID} /sys/fs/cgroup/memory ro,nosuid,nodev,noexec,relatime master:16 - cgroup cgroup rw,memory\n"  # noqa: E501 - one line of mountinfo
)
DOCKER_1_MEMBERSHIP = (
    f"5:memory:{DOCKER_ID}\n1:name=systemd:{DOCKER_ID}\n0::/system.slice/containerd.service\n"
)

USER_UNIT = "/user.slice/user-1000.slice/user@1000.service/app.slice/trainerd.service"


@pytest.mark.parametrize(
    ("membership", "mountinfo", "tree", "memory"),
    [
        (
            "0::/system.slice/trainerd.service\n",
            SURROUNDINGS + UNIFIED,
            FS / "system.slice/trainerd.service",
            None,
        ),
        (f"0::{USER_UNIT}\n", SURROUNDINGS + UNIFIED, FS / USER_UNIT[1:], None),
        (
            "0::/system.slice/trainerd.service/supervisor\n",
            UNIFIED,
            FS / "system.slice/trainerd.service",
            None,
        ),
        (
            MEMBERSHIP_HYBRID,
            HYBRID,
            FS / "unified/system.slice/trainerd.service",
            FS / "memory/system.slice/trainerd.service",
        ),
        (
            MEMBERSHIP_HYBRID,
            LEGACY,
            FS / "systemd/system.slice/trainerd.service",
            FS / "memory/system.slice/trainerd.service",
        ),
        (BARE_MEMBERSHIP, BARE, FS / "unified", FS / "memory/jobs/b47f"),
        (DOCKER_1_MEMBERSHIP, DOCKER_1.replace(" ro,", " rw,"), FS / "systemd", FS / "memory"),
        ("0::/\n", DOCKER_2.replace(" ro,", " rw,"), FS, None),
        (
            "0::/a\n",
            "9 1 0:27 / /mnt/c\\040groups rw - cgroup2 none rw\n",
            Path("/mnt/c groups/a"),
            None,
        ),
        (
            "0::/lxc/one/sub\n",
            (
                "9 1 0:27 /lxc/other /mnt/other rw - cgroup2 none rw\n"
                "9 1 0:27 /lxc/one /mnt/one rw - cgroup2 none rw\n"
            ),
            Path("/mnt/one/sub"),
            None,
        ),
    ],
    ids=[
        *("a unit", "a person's unit", "from the supervisor's leaf", "hybrid", "legacy", ("every hierarchy "
                                                                                          "by "
                                                                                         "hand")),
        *("a container of version 1", "a container of version 2", "an odd mount point", "two mounts"),
    ],
)  # fmt: skip
def test_a_place_is_found(membership, mountinfo, tree, memory):
    found = places(membership, mountinfo)
    assert (found.tree, found.memory) == (tree, memory)
    assert not found.why_not


@pytest.mark.parametrize(
    ("membership", "mountinfo", "why_not"),
    [
        ("0::/\n", DOCKER_2, "/sys/fs/cgroup is mounted read-only"),
        (DOCKER_1_MEMBERSHIP, DOCKER_1, "/sys/fs/cgroup/systemd is mounted read-only"),
        ("1:name=systemd:/docker/abc\n", DOCKER_1.replace(DOCKER_ID, "/docker/abc"), "mounted read-only"),
        ("0::/../../user.slice\n", UNIFIED, "/../../user.slice of version 2 cannot be seen"),
        ("0::/lxc/two\n", "9 1 0:27 /lxc/one /mnt rw - cgroup2 none rw\n", ("/lxc/two of version 2 cannot "
                                                                           "be seen")),
        ("0::/\n", "9 1 0:27 /../.. /mnt rw - cgroup2 none rw\n", "cannot be seen"),
        ("0::/\n", SURROUNDINGS, "no cgroup hierarchy of version 2 is mounted"),
        ("5:memory:/\n", BARE, "no cgroup hierarchy of version 2 is mounted"),
        ("", "", "no cgroup hierarchy of version 2 is mounted"),
        ("rubbish\n:::\n0::relative\n", "rubbish\n- - - - cgroup2\n", ("no cgroup hierarchy of version "
                                                                      "2 is mounted")),
    ],
    ids=[
        *("docker", "docker of version 1", "docker of version 1 alone", ("outside of the "
                                                                        "namespace"), "another's mount"),
        *("a mount from outside", "not mounted", "version 1 without systemd's", ("no cgroups at "
                                                                                "all"), "rubbish"),
    ],
)  # fmt: skip
def test_no_place_has_its_reason(membership, mountinfo, why_not):
    found = places(membership, mountinfo)
    assert found.tree is None
    assert why_not in found.why_not


def test_memory_that_may_not_be_limited_has_its_reason():
    assert "read-only" in places(DOCKER_1_MEMBERSHIP, DOCKER_1).why_no_memory


def test_a_leaf_of_the_supervisors_name_at_the_top_is_left_for_the_top():
    assert places("0::/supervisor\n", UNIFIED).tree == FS


def test_a_place_that_may_not_be_written_is_none(monkeypatch):
    monkeypatch.setattr(cgroup_place, "_is_ours", lambda _folder: False)
    monkeypatch.setattr(
        cgroup_place, "places", lambda *_: Places(tree=FS / "system.slice", memory=FS / "memory")
    )
    found = find_places()
    assert (found.tree, found.memory) == (None, None)
    assert found.why_not == "/sys/fs/cgroup/system.slice may not be written: it is not delegated to us"


def test_what_proc_does_not_tell_is_no_place():
    assert "/proc does not tell" in find_places("0").why_not
