"""Compiled code that may be torn is removed before the ranks start."""

from __future__ import annotations

import itertools

import pytest

from trainerd.contract import records
from trainerd.contract.compiled_code import CompiledRecord, files_below, look_at, write_compiled
from trainerd.contract.paths import RunPaths
from trainerd.contract.process import ProcessIdentity
from trainerd.contract.records import ShimRecord
from trainerd.shim.compiled_check import CHECK_LIMIT_S, check_compiled, is_same_boot

FILES = ("inductor/ab/k.so", "inductor/ab/k.py", "triton/k/x.cubin", "triton/k/x.json", "triton/l/y.json")


@pytest.fixture
def folder(tmp_path):
    for path in FILES:
        write(tmp_path, path, path * 10)
    record(tmp_path, FILES)
    return tmp_path


def write(folder, path, text):
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_text(text)


def record(folder, paths):
    write_compiled(folder, CompiledRecord("2.0", tuple([look_at(folder, path) for path in paths])))


@pytest.mark.parametrize("is_same", [True, False])
def test_what_is_on_record_stays(folder, is_same):
    assert check_compiled(folder, is_same_boot=is_same) == (len(FILES), 0)
    assert sorted(files_below(folder)) == sorted(FILES)


def test_a_library_that_is_not_on_record_is_removed_after_a_death(folder):
    write(folder, "inductor/cd/torn.so", "half")
    write(folder, "inductor/cd/renamed.py", "whole")
    write(folder, "inductor/cd/.1.2.tmp", "half")
    check_compiled(folder, is_same_boot=True)
    assert sorted(files_below(folder)) == sorted([*FILES, "inductor/cd/renamed.py"])


def test_a_library_that_has_changed_since_is_removed_after_a_death(folder):
    write(folder, "inductor/ab/k.so", "other")
    assert check_compiled(folder, is_same_boot=True).removed == 1
    assert not (folder / "inductor/ab/k.so").exists()


def test_after_another_boot_only_equal_content_stays(folder):
    write(folder, "inductor/cd/renamed.py", "perhaps empty on disk")
    changed = (folder / "inductor/ab/k.py").read_bytes()
    (folder / "inductor/ab/k.py").write_bytes(bytes(len(changed)))  # as a power cut leaves it
    check_compiled(folder, is_same_boot=False)
    assert sorted(files_below(folder)) == sorted(set(FILES) - {"inductor/ab/k.py"})


def test_the_files_of_a_kernel_of_triton_go_together(folder):
    (folder / "triton/k/x.cubin").write_bytes(b"")
    assert check_compiled(folder, is_same_boot=False) == (3, 2)
    assert sorted(files_below(folder)) == ["inductor/ab/k.py", "inductor/ab/k.so", "triton/l/y.json"]


def test_without_a_record_nothing_stays_that_may_be_torn(folder):
    (folder / "whole.json").write_text("{")
    check_compiled(folder, is_same_boot=True)
    assert "inductor/ab/k.so" not in set(files_below(folder))
    check_compiled(folder, is_same_boot=False)
    assert not list(files_below(folder))


def test_what_cannot_be_read_in_time_is_removed(folder):
    ticks = itertools.chain([0.0], itertools.repeat(CHECK_LIMIT_S + 1))
    assert check_compiled(folder, is_same_boot=False, clock=lambda: next(ticks)) == (0, len(FILES))


def test_a_record_cannot_lead_out_of_the_folder(folder, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    (outside / "a.so").write_text("x")
    (folder / "inductor/out").symlink_to(outside)
    check_compiled(folder, is_same_boot=False)
    assert (outside / "a.so").exists()


def test_no_folder_is_nothing_to_check(tmp_path):
    assert check_compiled(tmp_path / "none", is_same_boot=False) == (0, 0)


def test_the_boot_is_that_of_the_shim_before(tmp_path):
    run = RunPaths(tmp_path)
    assert not is_same_boot(run.attempt(1).root, "b")
    run.attempt(1).root.mkdir(parents=True)
    run.attempt(2).root.mkdir()  # one that never had a shim
    records.write(run.attempt(1).shim, ShimRecord(ProcessIdentity(7, 1, "b"), 0.0, ()))
    assert is_same_boot(run.attempt(3).root, "b")
    assert not is_same_boot(run.attempt(3).root, "c")
    run.attempt(1).shim.write_text("{")
    assert not is_same_boot(run.attempt(3).root, "b")
