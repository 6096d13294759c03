"""What is no file is told and never waited for."""

from __future__ import annotations

import os
import socket

import pytest

from trainerd.contract import records
from trainerd.contract.durable import read_file
from trainerd.contract.metric_history import read_first_runs, read_history
from trainerd.contract.records import FinishedRecord
from trainerd.contract.regular_file import NotRegularError, open_regular
from trainerd.contract.resume_record import read_resume
from trainerd.errors import CorruptError


def unix_socket(path):
    here = os.open(path.parent, os.O_PATH)
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(f"/proc/self/fd/{here}/{path.name}")
    finally:
        os.close(here)


KINDS = {
    "FIFO": os.mkfifo,
    "folder": os.mkdir,
    "socket": unix_socket,
    "device": lambda path: path.symlink_to("/dev/zero"),
}


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def place(tmp_path, kind):
    path = tmp_path / "file"
    KINDS[kind](path)
    return path


@pytest.mark.timeout(20)
def test_it_is_told_what_it_is(place, kind):
    for read in (read_file, open_regular, read_history, lambda path: read_first_runs(path, 0, after_step=0)):
        with pytest.raises(NotRegularError, match=f"is a {kind}, not a file"):
            read(place)


@pytest.mark.timeout(20)
def test_a_record_that_is_no_file_is_a_damaged_one(place, kind):
    for read in (read_resume, lambda path: records.read(path, FinishedRecord)):
        with pytest.raises(CorruptError, match=f"is a {kind}, not a file"):
            read(place)


def test_a_link_to_a_file_is_followed_unless_that_is_unwanted(tmp_path):
    (tmp_path / "target").write_bytes(b"content")
    (tmp_path / "link").symlink_to("target")
    assert read_file(tmp_path / "link") == b"content"
    with pytest.raises(OSError, match="symbolic links"):
        open_regular(tmp_path / "link", os.O_NOFOLLOW)
