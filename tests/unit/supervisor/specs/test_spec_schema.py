"""The JSON Schema agrees with the loader."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from trainerd.errors import SpecError
from trainerd.supervisor.specs.json_schema import SCHEMA_ID, json_schema
from trainerd.supervisor.specs.load import parse_spec

SCHEMA = json_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)

GOOD = [
    "{command: [a]}",
    "{command: a b}",
    "{command: a, name: mnist-2, workdir: x, python: p, env: {A: b}, env_file: e, nproc: 2, priority: -1}",
    "{command: a, resources: {gpus: 1, cpus: 0.5, memory: 2GiB}}",
    "{command: a, resources: {memory: 512mb}}",
    "{command: a, checkpoint: {every: auto, at_start: true, keep_last: all}}",
    "{command: a, checkpoint: {every: {steps: 5, seconds: 1h30m, epochs: never}, keep_best: {metric: a}}}",
    (
        "{command: a, checkpoint: {keep_best: [{metric: a, n: 1, mode: min, on_tie: latest}], keep_every: "
        "{steps: 3}}}"
    ),
    "{command: a, restart: {budget: 0, backoff: {initial: 0, max: 250ms}}}",
    "{command: a, grace: 90}",
    "{command: a, stall_timeout: auto}",
    "{command: a, stall_timeout: never}",
    "{command: a, stall_timeout: 5m}",
]

BAD = [
    "{}",
    "{comand: [a]}",
    "{command: []}",
    "{command: [1]}",
    "{command: 5}",
    "{command: a, name: A}",
    "{command: a, name: a/b}",
    "{command: a, env: {A: 1}}",
    "{command: a, env: {A: true}}",
    "{command: a, nproc: 0}",
    "{command: a, nproc: '2'}",
    "{command: a, nproc: 1.5}",
    "{command: a, workdir: ''}",
    "{command: a, grace: soon}",
    "{command: a, grace: -1}",
    "{command: a, grace: 5 m}",
    "{command: a, stall_timeout: sometimes}",
    "{command: a, resources: {memory: 2}}",
    "{command: a, resources: {memory: 2G}}",
    "{command: a, resources: {gpus: -1}}",
    "{command: a, checkpoint: {every: often}}",
    "{command: a, checkpoint: {every: {steps: 0}}}",
    "{command: a, checkpoint: {every: {steps: auto}}}",
    "{command: a, checkpoint: {keep_last: 0}}",
    "{command: a, checkpoint: {keep_last: some}}",
    "{command: a, checkpoint: {keep_best: {mode: min}}}",
    "{command: a, checkpoint: {keep_best: {metric: a, mode: best}}}",
    "{command: a, checkpoint: {keep_every: {seconds: 0s, x: 1}}}",
    "{command: a, restart: {budget: -1}}",
    "{command: a, restart: 5}",
    "{command: a, priority: high}",
]


def is_loaded(tree):
    try:
        parse_spec(Path("/nowhere/job.json"), json.dumps(tree).encode())
    except SpecError:
        return False
    return True


def test_the_schema_is_a_valid_schema_with_a_name():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$id"] == SCHEMA_ID
    assert json.loads(json.dumps(SCHEMA)) == SCHEMA


@pytest.mark.parametrize("text", GOOD)
def test_what_the_loader_takes_the_schema_takes(text):
    tree = yaml.safe_load(text)
    assert is_loaded(tree)
    assert [error.message for error in VALIDATOR.iter_errors(tree)] == []


@pytest.mark.parametrize("text", BAD)
def test_what_the_schema_refuses_the_loader_refuses(text):
    tree = yaml.safe_load(text)
    assert not VALIDATOR.is_valid(tree)
    assert not is_loaded(tree)


def fields():
    for section in (SCHEMA, *SCHEMA["$defs"].values()):
        for name, schema in section["properties"].items():
            yield pytest.param(section, name, schema, id=f"{section.get('description', '')[:20]}-{name}")


@pytest.mark.parametrize(("section", "name", "schema"), list(fields()))
def test_every_field_has_a_description_and_examples_that_are_valid(section, name, schema):
    target = SCHEMA["$defs"][schema["$ref"].rsplit("/", 1)[1]] if "$ref" in schema else schema
    assert schema.get("description") or target["description"]
    assert schema["examples"]
    inner = jsonschema.Draft202012Validator({"$defs": SCHEMA["$defs"], **schema})
    for example in [*schema["examples"], *([schema["default"]] if "default" in schema else [])]:
        assert inner.is_valid(example), example
