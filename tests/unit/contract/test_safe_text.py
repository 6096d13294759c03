"""What comes from outside can be encoded, stored and shown, whatever it is."""

from __future__ import annotations

import json
import os
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainerd.contract import records
from trainerd.contract.durable import SMALL_FILE_BYTES_MAX, read_file
from trainerd.contract.heartbeat import PAGE_BYTES, read_heartbeat
from trainerd.contract.records import LaunchRecord, OutcomeRecord, RankExit
from trainerd.contract.regular_file import NotRegularError
from trainerd.contract.safe_text import LINES_MAX, TEXT_CHARACTERS_MAX, safe_line, safe_text, safe_value
from trainerd.errors import CorruptError

ANY_TEXT = st.text(st.characters(exclude_categories=()))


@given(ANY_TEXT)
def test_any_text_can_be_encoded_and_steers_no_terminal(text):
    shown = safe_text(text)
    shown.encode()
    assert all(unicodedata.category(one) not in {"Cc", "Cs"} for one in shown if one not in "\n\t")
    assert not set(safe_line(text)) & {"\n", "\t", "\r", "\u2028", "\u2029", "\x85"}


@given(st.text(st.characters(codec="ascii", exclude_categories=["Cc"])))
def test_ordinary_text_stays_what_it_is(text):
    assert safe_line(text) == text


def test_what_is_escaped_can_be_told():
    assert safe_text("\x1b[31mred\x07") == "\\x1b[31mred\\x07"
    assert safe_text(os.fsdecode(b"img\xff.png")) == "img\\xff.png"
    assert safe_text("\u202egnp.exe") == "\\u202egnp.exe"


def test_long_texts_and_many_lines_are_cut_and_say_so():
    shown = safe_text("a" * 20_000_000)
    assert len(shown) == TEXT_CHARACTERS_MAX
    assert shown.endswith("(20000000 characters in all)")
    lines = safe_value(
        OutcomeRecord("exception", detail=tuple(str(number) for number in range(10_000)))
    ).detail
    assert len(lines) == LINES_MAX + 1
    assert (lines[0], lines[-1]) == ("0", "9999")


def test_an_outcome_is_bounded_where_it_is_written_and_where_it_is_read(tmp_path):
    """One that another version wrote is read safely; a large one does not reach the disk."""
    path = tmp_path / "outcome-0.json"
    message = os.fsdecode(b"img\xff.png") + "\x1b[2J" + "x" * 5_000_000
    records.write(path, OutcomeRecord("exception", error_message=message))
    assert path.stat().st_size < 100_000
    plain = {"format": "trainerd.outcome/1", "kind": "exception", "error_message": message}
    path.write_text(json.dumps(plain))
    found = records.read(path, OutcomeRecord).error_message
    assert found.startswith("img\\xff.png\\x1b[2J")
    assert len(found) < 2 * TEXT_CHARACTERS_MAX


def test_paths_of_a_launch_record_stay_what_they_are(tmp_path):
    path = tmp_path / "launch.json"
    odd = os.fsdecode(b"/data/\xff\x1b")
    record = LaunchRecord("ant", 1, (odd,), odd, {"A": odd}, 1, 1.0, (odd,))
    records.write(path, record)
    assert records.read(path, LaunchRecord) == record


HEAD = b'{"format": "trainerd.outcome/1", "kind": "exception", "step": '
HOSTILE_RECORDS = {
    "deep": b"[" * 100_000,
    "deep object": b'{"a":' * 100_000,
    "half a character in a key": b'{"format": "trainerd.outcome/1", "\\ud800": 1, "kind": "\\ud800"}',
    "not a number": HEAD + b"NaN}",
    "too large a number": b'{"format": "trainerd.outcome/1", "kind": "exception", "step": 1%s}'
    % (b"0" * 400),
    "digits without end": b'{"format": "trainerd.outcome/1", "kind": "exception", "step": 1%s}'
    % (b"0" * 9000),
    "unhashable kind": b'{"format": "trainerd.outcome/1", "kind": []}',
    "not UTF-8": b'{"format": "\xff"}',
    "too large": b" " * (SMALL_FILE_BYTES_MAX + 1),
}


@pytest.mark.parametrize("data", HOSTILE_RECORDS.values(), ids=HOSTILE_RECORDS)
def test_a_hostile_record_is_an_unreadable_one(tmp_path, data):
    path = tmp_path / "outcome-0.json"
    path.write_bytes(data)
    with pytest.raises(CorruptError):
        records.read(path, OutcomeRecord)


def test_a_float_that_no_double_holds_is_refused(tmp_path):
    path = tmp_path / "exit.json"
    head = b'{"format": "trainerd.exit/1", "ranks": [], "ended_wall_s": 1, "boot_id": "", "duration_s": 1,'
    for number in (b"1e999", b"1" + b"0" * 2000):
        path.write_bytes(head + b'"started_wall_s": ' + number + b"}")
        with pytest.raises(CorruptError):
            records.read(path, records.ExitRecord)


def test_a_pipe_or_a_device_in_the_place_of_a_file_is_refused_at_once(tmp_path):
    pipe = tmp_path / "exit.json"
    os.mkfifo(pipe)
    with pytest.raises(NotRegularError, match="not a file"):
        read_file(pipe)
    with pytest.raises(CorruptError, match="not a file"):
        records.read(pipe, records.ExitRecord)
    assert read_heartbeat(pipe) is None


@given(st.binary(min_size=PAGE_BYTES, max_size=PAGE_BYTES))
def test_any_page_is_a_heartbeat_or_unknown(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "hostile-heartbeat"
    path.write_bytes(b"TRNDHB01" + (2).to_bytes(8, "little") + data[16:])
    beat = read_heartbeat(path)
    assert beat is None or all(0 <= silence_s < float("inf") for silence_s in beat.longest_silences_s)


def test_a_text_in_a_rank_s_exit_is_made_safe():
    assert safe_value(RankExit(0, spawn_error="\x1b]0;title\x07")).spawn_error == "\\x1b]0;title\\x07"
