"""Requests to a running rank: none is lost, none is answered twice."""

import pytest

from trainerd.contract.request_page import RequestPage, ask_for_checkpoint
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
