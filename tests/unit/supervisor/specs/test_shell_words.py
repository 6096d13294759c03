"""What only a shell would understand in a command."""

from __future__ import annotations

import pytest

from trainerd.errors import SpecError
from trainerd.supervisor.specs.load import parse_spec


def refusal(tmp_path, command: str) -> str:
    with pytest.raises(SpecError) as refused:
        parse_spec(tmp_path / "a.yaml", f"command: {command}\n".encode())
    return str(refused.value)


@pytest.mark.parametrize(
    ("command", "what", "instead"),
    [
        ("cd x && python t.py", "'cd'", "workdir"),
        ("[cd, x]", "'cd'", "workdir"),
        ("source venv/bin/activate", "'source'", "in python"),
        (". venv/bin/activate && python t.py", "'.'", "in python"),
        ("export A=1", "'export'", "bash, -c"),
        ("CUDA_VISIBLE_DEVICES=0 python t.py", "'CUDA_VISIBLE_DEVICES=0'", "under env"),
        ("python a.py && python b.py", "'&&'", "bash, -c"),
        ("[python, a.py, '&&', python, b.py]", "'&&'", "bash, -c"),
        ("python a.py | tee log", "'|'", "bash, -c"),
        ("python a.py;python b.py", "';'", "bash, -c"),
        ("python a.py > log", "'>'", "bash, -c"),
        ("python a.py 2>&1", "'>&'", "bash, -c"),
        ("python a.py &", "'&'", "bash, -c"),
    ],
)
def test_what_only_a_shell_would_do_is_refused_with_what_to_write(tmp_path, command, what, instead):
    said = refusal(tmp_path, command)
    assert what in said
    assert instead in said
    assert "command" in said


@pytest.mark.parametrize(
    "command",
    [
        "bash -c 'cd x && python t.py'",
        "awk -F '|' x",
        "grep '&&' f",
        'grep "&&" f',
        "grep \\&\\& f",
        "python t.py '&' ';' '||' '>'",
        "\"'&&' f\"",
        "find . -exec ls {} \\;",
        "[find, ., -exec, ls, '{}', ';']",
        "python t.py --filter 'a>b' --url http://h/?a=1",
        "[python, t.py, '|']",
        "./cd x",
        "env A=1 python t.py",
        "python t.py model.depth=2",
    ],
)
def test_what_a_program_is_given_is_its_own(tmp_path, command):
    assert parse_spec(tmp_path / "a.yaml", f"command: {command}\n".encode()).spec.command
