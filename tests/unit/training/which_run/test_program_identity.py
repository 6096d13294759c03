"""Which program this is: its script, its arguments and where it was started."""

from __future__ import annotations

import os
import sys
import types
from pathlib import Path

import pytest

from trainerd.contract.start_folder import folder_of
from trainerd.training.which_run.program_identity import identify_program, script_path

OVERRIDES = ("lr=0.1", "model=big")


@pytest.fixture
def started(monkeypatch, tmp_path):
    """Makes this process look like one that was started in `tmp_path` with a command line."""

    def start(*words, file=None, orig=None):
        monkeypatch.setattr(sys, "argv", list(words))
        monkeypatch.setattr(sys, "orig_argv", orig or ["python", *words])
        main = types.ModuleType("__main__")
        if file is not None:
            main.__file__ = str(file)
        monkeypatch.setitem(sys.modules, "__main__", main)
        return identify_program()

    return start


def test_a_script_is_found_from_where_it_was_started_whatever_the_working_folder_is_now(
    started, tmp_path, monkeypatch
):
    (tmp_path / "outputs").mkdir()
    monkeypatch.chdir(tmp_path / "outputs")
    found = started("a/train.py", "--lr", "0.1", file=tmp_path / "a/train.py")
    assert (found.script, found.arguments, found.start) == ("a/train.py", ("--lr", "0.1"), tmp_path)


@pytest.mark.parametrize(
    ("main", "word", "folder"),
    [
        ("/work/a/train.py", "a/train.py", "/work"),
        ("/work/x/../a.py", "../a.py", "/work/x"),
        ("/train.py", "train.py", "/"),
        ("/work/train.py", "/work/train.py", None),
        ("train.py", "train.py", None),
        ("/work/train.py", "rain.py", None),
        (None, "", None),
    ],
    ids=["below", "above", "root", "absolute", "relative file", "part of a name", "none"],
)
def test_the_start_folder_is_what_python_made_the_file_of_the_script_from(main, word, folder, monkeypatch):
    monkeypatch.setattr("trainerd.contract.start_folder._AT_IMPORT", "/at/import")
    assert folder_of(main, word) == Path(folder or "/at/import")


def test_a_script_is_the_same_however_its_path_is_written(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    written = ["real/t.py", "./real/../real/t.py", "link/t.py", str(tmp_path / "link/t.py")]
    assert {script_path(each, tmp_path) for each in written} == {"real/t.py"}
    assert script_path("t.py", tmp_path / "link") == script_path(
        str(tmp_path / "real/t.py"), tmp_path / "real"
    )


@pytest.mark.parametrize("words", [("--local-rank=3",), ("--local_rank", "3")], ids=["one word", "two"])
def test_the_number_that_a_launcher_gives_each_rank_does_not_count(started, tmp_path, words):
    found = started("t.py", "--lr", "1", *words, "x", file=tmp_path / "t.py")
    assert found.arguments == ("--lr", "1", "x")


def test_two_commands_are_two_programs(started):
    first = started("-c", orig=["python", "-c", "import a"])
    second = started("-c", orig=["python", "-c", "import b"])
    assert first.script.startswith("command:")
    assert first.script != second.script
    assert started("").script == "interactive"


def jupyter(monkeypatch, **variables):
    shell = types.SimpleNamespace(kernel=object(), user_ns=variables)
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))


def test_two_notebooks_are_two_programs(started, monkeypatch, tmp_path):
    jupyter(monkeypatch)
    kernels = [started("launcher.py", "-f", f"/run/kernel-{each}.json") for each in "ab"]
    assert [each.script for each in kernels] == ["kernel:a", "kernel:b"]
    assert [each.arguments for each in kernels] == [(), ()]
    assert kernels[0].is_same_script(kernels[1].script)
    monkeypatch.setenv("JPY_SESSION_NAME", str(tmp_path / "one.ipynb"))
    assert started("launcher.py", "-f", "/run/kernel-a.json").script.endswith("one.ipynb")
    jupyter(monkeypatch, __vsc_ipynb_file__=str(tmp_path / "two.ipynb"))
    assert started("launcher.py", "--f=/run/kernel-a.json").script.endswith("two.ipynb")


def test_a_terminal_of_ipython_is_no_notebook(started, monkeypatch):
    shell = types.SimpleNamespace(user_ns={})
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setenv("JPY_SESSION_NAME", "/of/the/notebook/that/started/this.ipynb")
    assert started("").script == "interactive"


def hydra(monkeypatch, overrides, cwd):
    config = types.SimpleNamespace(
        overrides=types.SimpleNamespace(task=list(overrides)), runtime=types.SimpleNamespace(cwd=str(cwd))
    )
    holder = types.SimpleNamespace(initialized=lambda: True, get=lambda: config)
    monkeypatch.setitem(sys.modules, "hydra.core.hydra_config", types.SimpleNamespace(HydraConfig=holder))


def test_each_job_of_a_sweep_by_hydra_is_a_program(started, monkeypatch, tmp_path):
    words = ("-m", "lr=0.1,0.01", "model=big", "hydra.run.dir=/out/now", "--config-name", "other")
    hydra(monkeypatch, OVERRIDES, tmp_path)
    first = started("/opt/t.py", *words, file="/opt/t.py")
    assert first.start == tmp_path
    assert first.arguments == ("--config-name", "other", *OVERRIDES)
    hydra(monkeypatch, ("lr=0.01", "model=big"), tmp_path)
    assert started("/opt/t.py", *words, file="/opt/t.py").arguments != first.arguments
    alone = started("/opt/t.py", "--config-name", "other", "lr=0.01", "model=big", file="/opt/t.py")
    assert alone.arguments == ("--config-name", "other", "lr=0.01", "model=big")


def test_a_hydra_that_is_not_understood_leaves_the_command_line(started, monkeypatch, tmp_path):
    holder = types.SimpleNamespace(initialized=lambda: True, get=lambda: None)
    monkeypatch.setitem(sys.modules, "hydra.core.hydra_config", types.SimpleNamespace(HydraConfig=holder))
    assert started("t.py", "lr=1", file=tmp_path / "t.py").arguments == ("lr=1",)
    assert os.fspath(started("t.py", file=tmp_path / "t.py").start) == str(tmp_path)
