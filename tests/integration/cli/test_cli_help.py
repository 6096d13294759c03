"""Every verb teaches, is documented, and starts fast."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from trainerd.cli.main import group
from trainerd.supervisor.api.app import create_app

DOCUMENT = (Path(__file__).parents[3] / "docs" / "cli.md").read_text(encoding="utf-8")
VERBS = group.list_commands(click.Context(group))
WITHOUT_JSON = {"run", "exec"}
SUMMARY_MAX = 60


def section(verb: str) -> str:
    match = re.search(rf"^## {verb}\n(.*?)(?=^## |\Z)", DOCUMENT, re.MULTILINE | re.DOTALL)
    return match[1] if match else ""


@pytest.mark.parametrize("verb", VERBS)
def test_help_teaches_with_an_example_that_keeps_its_lines(trainerd, verb):
    text = trainerd(verb, "--help").stdout
    assert re.search(rf"^  Example:\n(    .*\n)*    trainerd {verb}\b", text, re.MULTILINE), text


@pytest.mark.parametrize("verb", VERBS)
def test_the_summary_of_a_verb_fits_on_a_line(trainerd, verb):
    (line,) = re.findall(rf"^  {verb} +(.*)$", trainerd("--help").stdout, re.MULTILINE)
    assert line.endswith(".")
    assert len(line) <= SUMMARY_MAX


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_documented_with_its_examples(trainerd, verb):
    assert section(verb), f"docs/cli.md has no section {verb!r}"
    text = trainerd(verb, "--help").stdout
    for example in re.findall(rf"^    (trainerd {verb}\b.*)$", text, re.MULTILINE):
        assert re.search(rf"^    {re.escape(example)}(?: +# .*)?$", section(verb), re.MULTILINE), example


@pytest.mark.parametrize("verb", sorted({*VERBS} - WITHOUT_JSON))
def test_every_verb_has_json_whose_keys_are_documented(trainerd, verb):
    assert "--json" in trainerd(verb, "--help").stdout
    assert "\nJSON: " in section(verb)


def test_the_document_has_no_verb_that_is_gone():
    assert {*re.findall(r"^## (\S+)$", DOCUMENT, re.MULTILINE)} == {*VERBS}


@pytest.mark.parametrize("model", ["Job", "Outcome", "Daemon", "Event"])
def test_every_key_of_the_api_is_documented(model):
    schema = create_app(None).openapi()["components"]["schemas"][model]
    assert [key for key in schema["properties"] if f"`{key}`" not in DOCUMENT] == []


def test_every_route_is_documented():
    paths = create_app(None).openapi()["paths"]
    routes = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    assert {
        route.partition("?")[0] for route in re.findall(r"^\| `((?:GET|POST) .*?)`", DOCUMENT, re.MULTILINE)
    } == routes


def test_an_unknown_verb_is_a_usage_error_that_names_the_nearest(trainerd):
    assert "did you mean 'status'" in trainerd("statsu", code=2).stderr


MODULES = """
import json, sys
from click.testing import CliRunner
from trainerd.cli.main import group
CliRunner().invoke(group, sys.argv[1:])
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


@pytest.mark.parametrize(
    ("words", "unwanted"),
    [
        (["--help"], {"httpx", "rich", "pydantic", "fastapi", "structlog", "asyncio"}),
        (["logs", "mnist"], {"httpx", "rich", "pydantic", "fastapi", "structlog"}),
        (["ps"], {"pydantic", "fastapi", "uvicorn", "structlog", "yaml"}),
    ],
)
def test_no_verb_pays_for_what_another_one_needs(words, unwanted, state):
    state.run("mnist").root.mkdir(parents=True)
    ended = subprocess.run(
        [sys.executable, "-c", MODULES, *words], capture_output=True, text=True, timeout=30, check=True
    )
    assert unwanted & {*json.loads(ended.stdout)} == set()
