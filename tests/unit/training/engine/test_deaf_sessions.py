"""A session that no signal can reach says so, and one that hears them does not."""

from __future__ import annotations

import threading

import pytest

pytest.importorskip("torch")

import trainerd
from trainerd.contract.environment import ATTEMPT_ID

pytestmark = pytest.mark.torch


def opened(folder) -> None:
    with trainerd.session(folder):
        pass


@pytest.mark.parametrize("mark", ["", "/run/1@boot-1-2"], ids=["alone", "under a shim"])
def test_a_session_that_a_thread_opened_says_that_it_hears_no_signal(tmp_path, capsys, monkeypatch, mark):
    monkeypatch.setenv(ATTEMPT_ID, mark)
    thread = threading.Thread(target=opened, args=(tmp_path / "thread",))
    thread.start()
    thread.join(60)
    said = capsys.readouterr().err
    assert ("import trainerd.early" in said) == (not mark)


def test_one_of_the_main_thread_says_nothing_of_it(tmp_path, capsys):
    opened(tmp_path / "main")
    assert "import trainerd.early" not in capsys.readouterr().err
