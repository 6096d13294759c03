"""Every command that a page shows exists and takes the options that the page gives it."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import click
import pytest

from chaos.__main__ import parser as chaos_parser
from trainerd.cli.main import group

ROOT = Path(__file__).parents[3]
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("README.md", "CONTRIBUTING.md", "docs/*.md", "jobs/**/*.md", "chaos/*.md", "systemd/*.md")
    for path in ROOT.glob(pattern)
)
FENCE = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
VERBS = set(group.list_commands(click.Context(group)))
SHELL_VARIABLE = re.compile(r"\$\w+")
# What precedes a command: a prompt, a variable, root, the environment's folder.
BEFORE = r"(?:\$ )?(?:[A-Z_]+=\S+ )*(?:sudo (?:-u \S+ )?)?(?:\S*/bin/)?"


def inline_code(page: str) -> list[str]:
    """Return the code that stands within sentences and tables of a page."""
    text = FENCE.sub("", (ROOT / page).read_text("utf-8"))
    return [code for code in re.findall(r"`([^`\n]+)`", text) if not re.search(r"…|\.\.\.|\\", code)]


def code_lines(page: str) -> list[str]:
    """Return the lines of all code of a page, fenced, indented or inline, without their comments."""
    text = (ROOT / page).read_text("utf-8")
    lines = [line for block in FENCE.findall(text) for line in block.splitlines()]
    lines += [line[4:] for line in FENCE.sub("", text).splitlines() if line.startswith("    ")]
    lines += inline_code(page)
    return [re.sub(r"\s+# .*", "", line) for line in lines]


def commands(page: str, program: str) -> list[list[str]]:
    """Return the arguments of each command of a page that is `program`, up to a pipe or another command."""
    found = []
    for line in code_lines(page):
        if match := re.match(rf"{BEFORE}{program} (.*)", line):
            lexer = shlex.shlex(match[1], posix=True, punctuation_chars="|&;><")
            lexer.whitespace_split = True
            words = list(lexer)
            ends = [at for at, word in enumerate(words) if word[0] in "|&;><"]
            found.append(words[: ends[0]] if ends else words)
    return found


def verb_commands(page: str) -> list[list[str]]:
    found = [words for words in commands(page, "trainerd") if words and not {"…", "..."} & set(words)]
    return [[SHELL_VARIABLE.sub("1", word) for word in words] for words in found]


@pytest.mark.parametrize("page", [page for page in PAGES if verb_commands(page)])
def test_trainerd_takes_every_command(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINERD_STATE", str(tmp_path))
    for verb, *arguments in verb_commands(page):
        if verb.startswith("-") or not re.fullmatch(r"[a-z-]+", verb):
            continue  # options of trainerd itself; output that begins with "trainerd: "
        assert verb in VERBS, verb
        command = group.get_command(click.Context(group), verb)
        if "--help" in arguments:
            continue
        wrong = ""
        try:
            command.make_context(verb, list(arguments), parent=click.Context(group))
        except click.UsageError as error:
            wrong = error.format_message()
        # A file of the page is not here, and a sentence may name a verb alone.
        wrong = "" if "does not exist" in wrong or "Missing" in wrong else wrong
        assert wrong == "", f"{page}: {verb} {' '.join(arguments)}"


def test_make_knows_every_target() -> None:
    targets = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        (page, word)
        for page in PAGES
        for words in commands(page, "make")
        for word in words
        if re.fullmatch("[a-z-]+", word)
    }
    assert len(named) > 10
    assert {(page, target) for page, target in named if target not in targets} == set()


@pytest.mark.parametrize("page", ["README.md", "docs/chaos.md", "chaos/README.md"])
def test_chaos_takes_every_command(page: str) -> None:
    found = commands(page, "python -m chaos")
    assert found
    for arguments in found:
        chaos_parser().parse_args(arguments)


def test_pip_finds_every_extra() -> None:
    extras = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    named = {
        extra
        for page in PAGES
        for found in re.findall(r"\[([a-z,]+)\]['`]", (ROOT / page).read_text("utf-8"))
        for extra in found.split(",")
        if "pip install" in (ROOT / page).read_text("utf-8")
    }
    assert {"daemon", "torch", "storage"} <= named <= extras


def test_a_command_that_does_not_exist_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader of pages sees prompts, comments and pipes."""
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    (tmp_path / "page.md").write_text(
        "    $ trainerd ps --bad 'a b'   # lists\n\n```\nX=1 .venv/bin/trainerd logs a | head\n```\n"
    )
    assert commands("page.md", "trainerd") == [["logs", "a"], ["ps", "--bad", "a b"]]
