"""The log of a job on a terminal: colours and text go through, nothing that works on the terminal."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from trainerd.cli.terminal_bytes import for_terminal


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        ("step 3\tloss é\r\n".encode(), "step 3\tloss é\r\n".encode()),
        (b"\x1b[1;31mred\x1b[0m\x1b[m", b"\x1b[1;31mred\x1b[0m\x1b[m"),
        (b"\x1b]0;owned\x07", rb"\x1b]0;owned\x07"),
        (b"\x1b[2J\x1b[10A", rb"\x1b[2J\x1b[10A"),
        (b"\x1bP+q\x1b\\", rb"\x1bP+q\x1b" + b"\\"),
        (b"\x1b[31", rb"\x1b[31"),
        (b"\xc2\x9b2J", rb"\xc2\x9b2J"),
        (b"\n\xc2", b"\n" + rb"\xc2"),
        (b"\x00\x08\x7f\xff", rb"\x00\x08\x7f" + b"\xff"),
    ],
    ids=[
        "text",
        "colours",
        "title",
        "cursor",
        "device control",
        "cut off",
        "second set",
        "its first half",
        "controls",
    ],
)
def test_escape_sequences_are_written_and_not_sent(data, shown):
    assert for_terminal(data) == shown


def test_logs_escapes_on_a_terminal(tmp_path):
    log = tmp_path / "runs" / "ant" / "logs" / "rank-00000.log"
    log.parent.mkdir(parents=True)
    log.write_bytes(b"\x1b]0;owned\x07\n")
    leader, follower = os.openpty()
    words = [sys.executable, "-m", "trainerd", "logs", "ant", "--state", str(tmp_path)]
    assert subprocess.run(words, stdout=follower, timeout=60, check=False).returncode == 0
    os.close(follower)
    said = os.read(leader, 4096)
    os.close(leader)
    assert said.rstrip() == rb"\x1b]0;owned\x07"
