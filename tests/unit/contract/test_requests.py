"""Requests to a running rank: none is lost, none is answered twice."""

import os
import signal

import pytest

from trainerd.contract.request_page import PAGE_BYTES, RequestPage, ask_for_checkpoint, ask_to_stop
from trainerd.errors import UserError


def test_a_request_is_taken_once(tmp_path):
    page = RequestPage(tmp_path / "requests")
    assert not page.take_checkpoint_request()
    ask_for_checkpoint(tmp_path / "requests")
    assert page.take_checkpoint_request()
    assert not page.take_checkpoint_request()


def test_several_requests_before_a_look_are_one_checkpoint(tmp_path):
    page = RequestPage(tmp_path / "requests")
    ask_for_checkpoint(tmp_path / "requests")
    ask_for_checkpoint(tmp_path / "requests")
    assert page.take_checkpoint_request()
    assert not page.take_checkpoint_request()


def test_requests_to_an_earlier_listener_are_not_answered_by_a_later_one(tmp_path):
    RequestPage(tmp_path / "requests")
    ask_for_checkpoint(tmp_path / "requests")
    assert not RequestPage(tmp_path / "requests").take_checkpoint_request()


def test_asking_nobody_is_an_error_that_says_so(tmp_path):
    with pytest.raises(UserError, match="takes no requests"):
        ask_for_checkpoint(tmp_path / "requests")


def test_a_foreign_file_is_left_alone(tmp_path):
    (tmp_path / "requests").write_bytes(b"something else")
    with pytest.raises(UserError, match="not a page"):
        ask_for_checkpoint(tmp_path / "requests")
    assert (tmp_path / "requests").read_bytes() == b"something else"


def test_a_stop_is_heard_by_a_listener_that_was_there_and_by_one_that_comes_later(tmp_path):
    page = RequestPage(tmp_path / "requests")
    assert page.stop_signal() is None
    assert ask_to_stop(tmp_path / "requests", signal.SIGUSR1)
    assert page.stop_signal() == signal.SIGUSR1
    assert RequestPage(tmp_path / "requests").stop_signal() == signal.SIGUSR1


def test_a_stop_may_be_asked_before_any_rank_has_made_the_page(tmp_path):
    assert ask_to_stop(tmp_path / "requests", signal.SIGTERM)
    page = RequestPage(tmp_path / "requests")
    assert (page.stop_signal(), page.take_checkpoint_request()) == (signal.SIGTERM, False)
    assert (tmp_path / "requests").stat().st_size == PAGE_BYTES


def test_a_second_stop_changes_nothing(tmp_path):
    ask_to_stop(tmp_path / "requests", signal.SIGTERM)
    assert not ask_to_stop(tmp_path / "requests", signal.SIGINT)
    assert RequestPage(tmp_path / "requests").stop_signal() == signal.SIGTERM


def test_a_stop_and_a_checkpoint_are_told_apart(tmp_path):
    page = RequestPage(tmp_path / "requests")
    ask_for_checkpoint(tmp_path / "requests")
    assert page.stop_signal() is None
    ask_to_stop(tmp_path / "requests", signal.SIGTERM)
    assert page.take_checkpoint_request()
    assert not page.take_checkpoint_request()


@pytest.mark.parametrize("kind", ["text", "fifo", "link"])
def test_asking_to_stop_writes_into_nothing_else_and_never_waits(tmp_path, kind):
    path, other = tmp_path / "requests", tmp_path / "other"
    other.write_bytes(b"")
    if kind == "text":
        path.write_bytes(b"something else")
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to(other)
    with pytest.raises((UserError, OSError)):
        ask_to_stop(path, signal.SIGTERM)
    assert other.read_bytes() == b""
    assert kind != "text" or path.read_bytes() == b"something else"
