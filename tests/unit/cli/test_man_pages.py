"""Every verb has a manual page, and roff has nothing to say against any."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from trainerd.cli.main import group
from trainerd.cli.man_pages import pages, paragraphs_of, text_of, write_pages

VERBS = group.list_commands(click.Context(group))
UNDATED = "missing date"
"""What mandoc says of all: a page that does not change is not dated by the day on which it was made."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("man") / "man1"
    write_pages(folder)
    return folder


def complaints(command: list[str]) -> list[str]:
    if shutil.which(command[0]) is None:
        pytest.skip(f"there is no {command[0]}")
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    said = result.stderr if command[0] == "groff" else result.stdout + result.stderr
    return [line for line in said.splitlines() if line and UNDATED not in line]


def test_the_program_and_every_verb_have_a_page(folder: Path) -> None:
    names = {"trainerd.1", *(f"trainerd-{verb}.1" for verb in VERBS)}
    assert {path.name for path in folder.iterdir()} == names
    listed = re.findall(r"\\fBtrainerd\\-(\S+)\\fR\(1\)", (folder / "trainerd.1").read_text())
    assert sorted(name.replace("\\-", "-") for name in listed) == sorted(VERBS)


@pytest.mark.parametrize(
    "program", [["groff", "-man", "-ww", "-Tutf8"], ["mandoc", "-T", "lint", "-W", "warning"]]
)
def test_roff_accepts_every_page(folder: Path, program: list[str], tmp_path: Path) -> None:
    assert complaints([*program, *map(str, sorted(folder.iterdir()))]) == []
    wrong = tmp_path / "wrong.1"
    wrong.write_text('.TH WRONG 1 "" ""\n.SH NAME\nwrong \\- \\fXwrong\n.nonesuch\n')
    assert complaints([*program, str(wrong)]) != []


def test_a_page_has_every_option_of_its_verb() -> None:
    for verb in VERBS:
        command = group.get_command(click.Context(group), verb)
        page = pages_by_name()[f"trainerd-{verb}.1"]
        shown = [
            option
            for each in command.params
            if not getattr(each, "hidden", False)
            for option in each.opts[:1]
        ]
        missing = [option for option in shown if option[0] == "-" and text_of(option) not in page]
        assert missing == [], verb


def pages_by_name(made: dict[str, str] = {}) -> dict[str, str]:  # noqa: B006 - made once
    made.update(made or pages())
    return made


def test_no_line_of_text_is_an_instruction() -> None:
    assert paragraphs_of(".so /etc/passwd\n\n\b\n  .nf\n  it's \\n") == [
        ".PP",
        "\\&.so /etc/passwd",
        ".PP",
        ".nf",
        "  .nf\n  it\\(aqs \\en",
        ".fi",
    ]


def test_the_module_writes_them(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "trainerd.cli.man_pages", str(tmp_path / "man1")]
    subprocess.run(command, check=True, timeout=60)
    assert (tmp_path / "man1" / "trainerd-ps.1").exists()
