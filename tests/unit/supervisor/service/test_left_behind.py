"""Where `trainerd exec` may leave a process behind."""

import pytest

from trainerd.supervisor.service.left_behind import BATCH_VARIABLES, may_leave_processes


def test_a_user_at_a_terminal_may_find_a_process_ready():
    assert may_leave_processes({"TERM": "xterm"}, has_terminal=True, pid=2)


@pytest.mark.parametrize("name", BATCH_VARIABLES)
def test_an_engine_finds_none(name):
    assert not may_leave_processes({name: "1"}, has_terminal=True, pid=2)


def test_neither_do_a_program_nor_a_container():
    assert not may_leave_processes({}, has_terminal=False, pid=2)
    assert not may_leave_processes({}, has_terminal=True, pid=1)
