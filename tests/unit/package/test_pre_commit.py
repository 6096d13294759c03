"""Before a commit, the same is checked as by `make check`."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).parents[3]

HOOKS = yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text())["repos"]


def test_the_hooks_run_what_make_check_runs():
    recipe = re.search(r"^check: .*\n((?:\t.*\n)+)", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)[1]
    checked = {line.split("$(BIN)/")[1] for line in recipe.splitlines()}
    checked = {command.replace(" --check", "").removesuffix(" .") for command in checked}
    hooked = {hook["entry"].removeprefix(".venv/bin/") for repo in HOOKS for hook in repo["hooks"]}
    assert {command.replace(" --force-exclude", "") for command in hooked} == checked


def test_the_hooks_need_no_network():
    """They run what is in the virtual environment, in the tested version."""
    assert [repo["repo"] for repo in HOOKS] == ["local"]
    for hook in HOOKS[0]["hooks"]:
        assert hook["language"] == "system"
        assert hook["entry"].startswith(".venv/bin/")
