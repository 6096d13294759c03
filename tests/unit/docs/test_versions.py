"""The README names the versions that the package asks for, and the extras that it has."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text("utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def test_the_install_section_names_the_lowest_versions() -> None:
    floors = {"Python": PROJECT["requires-python"].removeprefix(">=")}
    for requirement in PROJECT["optional-dependencies"]["torch"]:
        name, _, version = requirement.partition(">=")
        floors[{"torch": "torch", "numpy": "NumPy"}[name]] = version
    assert [
        f"{name} {version}" for name, version in floors.items() if f"{name} {version} or newer" not in README
    ] == []


def test_each_pip_line_names_extras_that_exist() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    lines = [
        line for page in pages for line in re.findall(r"pip install '?([^'`\n]+)", page.read_text("utf-8"))
    ]
    named = [
        extra for line in lines for extra in re.findall(r"^\.\[(.+?)\]", line) for extra in extra.split(",")
    ]
    assert {"daemon", "torch", "adopt", "storage"} <= set(named) <= set(PROJECT["optional-dependencies"])
