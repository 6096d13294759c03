"""Where a run keeps compiled code, and for which machine."""

from __future__ import annotations

import os

import pytest

from trainerd.contract.compiled_code import (
    INDUCTOR,
    TRITON,
    CompiledRecord,
    WholeFile,
    files_below,
    is_built_in_place,
    is_temporary,
    look_at,
    machine_digest,
    read_compiled,
    record_path,
    this_machine,
    why_unfit,
    with_compiled_place,
    write_compiled,
)
from trainerd.contract.environment import COMPILED_DIR

CPUINFO = (
    "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 143\nmodel name\t: X\n"
    "cpu MHz\t\t: {mhz}\nflags\t\t: fpu {flags}\n\nprocessor\t: 1\n"
)


def test_torch_is_led_into_the_folder_of_the_run(tmp_path):
    environ = with_compiled_place({COMPILED_DIR: str(tmp_path), "A": "1"}, "m")
    assert environ == {
        "A": "1",
        COMPILED_DIR: f"{tmp_path}/m",
        INDUCTOR: f"{tmp_path}/m/inductor",
        TRITON: f"{tmp_path}/m/triton",
    }


def test_a_folder_that_the_user_has_chosen_is_kept(tmp_path):
    chosen = {INDUCTOR: "/mine", COMPILED_DIR: str(tmp_path)}
    assert with_compiled_place(chosen, "m") == {INDUCTOR: "/mine"}
    environ = with_compiled_place({TRITON: "/mine", COMPILED_DIR: str(tmp_path)}, "m")
    assert (environ[TRITON], environ[INDUCTOR]) == ("/mine", f"{tmp_path}/m/inductor")


def test_nothing_is_set_where_no_run_has_a_folder():
    assert with_compiled_place({"A": "1"}, "m") == {"A": "1"}


@pytest.mark.parametrize("name", ["a b", "a'b", 'a"b', "a\\b", "a\nb"])
def test_a_path_that_torch_cannot_pass_to_the_compiler_is_not_used(tmp_path, name):
    assert "characters" in (why_unfit(tmp_path / name) or "")
    assert with_compiled_place({COMPILED_DIR: str(tmp_path / name)}, "m") == {}


def test_a_file_system_from_which_nothing_may_be_run_is_not_used(tmp_path, monkeypatch):
    assert why_unfit(tmp_path / "not" / "there" / "yet") is None
    found = os.statvfs(tmp_path)
    refused = os.statvfs_result([*found[:8], found.f_flag | os.ST_NOEXEC, found.f_namemax])
    monkeypatch.setattr(os, "statvfs", lambda _: refused)
    assert why_unfit(tmp_path) == "its file system is mounted noexec"


def test_another_processor_or_c_library_has_a_folder_of_its_own():
    digest = machine_digest(CPUINFO.format(mhz=1, flags="avx512f"), "glibc 2.36")
    assert digest == machine_digest(CPUINFO.format(mhz=2, flags="avx512f"), "glibc 2.36")
    assert digest != machine_digest(CPUINFO.format(mhz=1, flags="avx2"), "glibc 2.36")
    assert digest != machine_digest(CPUINFO.format(mhz=1, flags="avx512f"), "glibc 2.31")
    assert this_machine() == this_machine()


def test_locks_and_links_are_no_compiled_code(tmp_path):
    for path in ("inductor/ab/k.so", "inductor/locks/k.lock", "triton/k/x.cubin", "whole.json", "other/a.py"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    (tmp_path / "inductor/ab/link.so").symlink_to(tmp_path / "other/a.py")
    assert sorted(files_below(tmp_path)) == ["inductor/ab/k.so", "triton/k/x.cubin"]


@pytest.mark.parametrize(
    ("path", "in_place", "temporary"),
    [
        ("inductor/ab/k.main.so", True, False),
        ("inductor/ab/k.o", True, False),
        ("inductor/ab/k.py", False, False),
        ("triton/k/launcher.so", False, False),
        ("inductor/ab/.12.34.tmp", False, True),
        ("triton/k/tmp.pid_12_ab/x.json", False, True),
    ],
)
def test_what_a_death_tears_is_told_by_the_name(path, in_place, temporary):
    assert (is_built_in_place(path), is_temporary(path)) == (in_place, temporary)


def test_the_record_comes_back(tmp_path):
    (tmp_path / "inductor").mkdir()
    (tmp_path / "inductor/a.py").write_text("x")
    found = look_at(tmp_path, "inductor/a.py", syncs=True)
    assert isinstance(found, WholeFile)
    assert (found.size_bytes, len(found.digest)) == (1, 32)
    record = CompiledRecord("2.0", (found,))
    write_compiled(tmp_path, record)
    assert read_compiled(tmp_path) == record
    record_path(tmp_path).write_text("{")
    assert read_compiled(tmp_path) is None
    assert look_at(tmp_path, "inductor/none") is None
