"""Which commands can be taken over by a standby process."""

import pytest

from trainerd.shim.warm_command import WarmCommand, divide, why_not


@pytest.mark.parametrize(
    ("command", "options", "script", "module", "arguments"),
    [
        ("python train.py --lr 1", (), "train.py", None, ("--lr", "1")),
        ("/opt/v/bin/python3.11 -u -W ignore a.py", ("-u", "-W", "ignore"), "a.py", None, ()),
        (
            "python -X utf8 -Wignore -m my.train -m x",
            ("-X", "utf8", "-Wignore"),
            None,
            "my.train",
            ("-m", "x"),
        ),
        ("python -OO -mmy.train", ("-OO",), None, "my.train", ()),
    ],
    ids=["script", "path-and-options", "module", "module-in-one-word"],
)
def test_an_interpreter_with_a_script_or_a_module_is_divided(command, options, script, module, arguments):
    assert divide(command.split()) == WarmCommand(options, script, module, arguments)


@pytest.mark.parametrize(
    "command",
    [
        "sh run.sh",
        "torchrun train.py",
        "env A=1 python train.py",
        "nice python train.py",
        "python -c pass",
        "python -",
        "python -i train.py",
        "python -X importtime train.py",
        "python -v train.py",
        "python",
        "python -m",
    ],
)
def test_anything_else_has_no_standby_and_is_told_why(command):
    assert isinstance(divide(command.split()), str)


def test_ranks_and_variables_that_report_imports_are_refused():
    command = ("python", "train.py")
    assert why_not(command, {}, is_group=False) is None
    assert "ranks" in why_not(command, {}, is_group=True)
    assert "PYTHONINSPECT" in why_not(command, {"PYTHONINSPECT": "1"}, is_group=False)
