"""Which files of compiled code are recorded, and when."""

from __future__ import annotations

import fcntl
import time

import pytest
import torch

from trainerd.contract.compiled_code import CompiledRecord, look_at, read_compiled, write_compiled
from trainerd.training.engine import compiled_files
from trainerd.training.engine.compiled_files import CompiledFiles

LIMIT_S = 20.0


@pytest.fixture
def folder(tmp_path):
    write(tmp_path, "inductor/ab/k.so")
    return tmp_path


def write(folder, path, text="code"):
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_text(text)


def recorded(folder):
    record = read_compiled(folder)
    return [each.path for each in record.files] if record is not None else []


def test_the_first_step_records_what_is_there(folder):
    code = CompiledFiles(folder)
    code.open()
    assert recorded(folder) == []
    code.step_done()
    deadline_s = time.monotonic() + LIMIT_S
    while not recorded(folder):
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    code.close()
    assert recorded(folder) == ["inductor/ab/k.so"]
    assert read_compiled(folder).torch == torch.__version__


def test_the_end_records_what_was_compiled_since(folder):
    code = CompiledFiles(folder)
    code.step_done()
    write(folder, "inductor/cd/late.so")
    code.close()
    assert recorded(folder) == ["inductor/ab/k.so", "inductor/cd/late.so"]


def test_an_attempt_without_a_step_records_nothing(folder):
    code = CompiledFiles(folder)
    code.open()
    code.close()
    assert recorded(folder) == []


def test_nothing_is_recorded_while_a_build_is_in_progress(folder):
    write(folder, "inductor/locks/k.lock")
    code = CompiledFiles(folder)
    with (folder / "inductor/locks/k.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert not code.record()
        assert recorded(folder) == []
    assert code.record()
    assert recorded(folder) == ["inductor/ab/k.so"]


def test_what_was_recorded_is_not_read_again(folder, monkeypatch):
    code = CompiledFiles(folder)
    assert code.record()
    write(folder, "inductor/cd/new.py")
    read = []

    def look(place, path, *, syncs):
        read.append(path)
        return look_at(place, path, syncs=syncs)

    monkeypatch.setattr(compiled_files, "look_at", look)
    assert code.record()
    assert read == ["inductor/cd/new.py"]


def test_code_of_another_torch_is_removed(folder):
    write(folder, "inductor/ab/new.so")
    write_compiled(folder, CompiledRecord("1.0", (look_at(folder, "inductor/ab/k.so"),)))
    CompiledFiles(folder).open()
    assert not (folder / "inductor/ab/k.so").exists()
    assert (folder / "inductor/ab/new.so").exists()  # not from the record: compiled by this attempt
    write_compiled(folder, CompiledRecord(torch.__version__, (look_at(folder, "inductor/ab/new.so"),)))
    CompiledFiles(folder).open()
    assert (folder / "inductor/ab/new.so").exists()


def test_a_record_cannot_lead_out_of_the_folder(folder):
    (folder.parent / "outside.so").write_text("x")
    known = look_at(folder, "inductor/ab/k.so")
    assert known is not None
    outside = type(known)("../outside.so", 1, 1, known.digest)
    write_compiled(folder, CompiledRecord("1.0", (outside,)))
    CompiledFiles(folder).open()
    assert (folder.parent / "outside.so").exists()


def test_a_process_that_is_told_no_folder_does_nothing(tmp_path):
    code = CompiledFiles(None)
    code.open()
    code.step_done()
    code.close()
    absent = CompiledFiles(tmp_path / "none")
    absent.open()
    absent.step_done()
    absent.close()
    assert not (tmp_path / "none").exists()
