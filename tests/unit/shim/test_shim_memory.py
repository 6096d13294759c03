"""What the kernel says about memory, read from files of its form."""

from __future__ import annotations

import pytest

from trainerd.shim.memory import is_oom_victim, oom_kills


@pytest.mark.parametrize(
    ("membership", "place", "text"),
    [
        ("0::/a/b\n", "a/b/memory.events", "low 0\nmax 7\noom 3\noom_kill 2\n"),
        ("0::/of/the/host\n", "memory.events", "oom_kill 2\n"),
        (
            "4:memory:/a\n0::/\n",
            "memory/a/memory.oom_control",
            "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
        ),
        ("4:memory:/of/the/host\n", "memory/memory.oom_control", "oom_kill 2\n"),
    ],
    ids=["version 2", "version 2 in a container", "version 1", "version 1 in a container"],
)
def test_the_counter_of_the_cgroup_is_found(tmp_path, membership, place, text):
    path = tmp_path / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    assert oom_kills(membership=membership, cgroups=tmp_path) == 2


@pytest.mark.parametrize("text", ["", "oom 3\n", "oom_kill many\n"])
def test_a_counter_that_says_nothing_is_unknown(tmp_path, text):
    (tmp_path / "memory.events").write_text(text)
    assert oom_kills(membership="0::/\n", cgroups=tmp_path) is None


def test_the_kernels_log_cannot_be_read_everywhere(tmp_path):
    assert is_oom_victim(1, since_monotonic_s=0.0, log=tmp_path / "kmsg") is False
