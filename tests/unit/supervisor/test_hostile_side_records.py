"""Fuzzes the records beside those of an attempt: sessions, resumes, drills, runs, resolved jobs, requests."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import os
import pkgutil
import signal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import trainerd.contract
from tests.support.hostile import TEXTS, plain_values
from tests.unit.supervisor import test_hostile_records
from trainerd.contract import compiled_code, drill_record, resolved, resume_record, run_record, session_record
from trainerd.contract.compiled_code import CompiledRecord, read_compiled, record_path
from trainerd.contract.drill_record import DrilledRecord, read_drilled
from trainerd.contract.records import _FORMATS
from trainerd.contract.request_page import PAGE_BYTES, RequestPage, ask_for_checkpoint, ask_to_stop
from trainerd.contract.resolved import ResolvedJob, decode
from trainerd.contract.resume_record import ResumeRecord, read_resume, summary
from trainerd.contract.run_record import RunRecord, read_run_record
from trainerd.contract.session_record import SessionRecord, read_session
from trainerd.errors import CorruptError, UserError

fuzzed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

PROCESS = {"pid": 7, "start_ticks": 1, "boot_id": "b"}
SIDE_RECORDS = {
    SessionRecord: (session_record.FORMAT, {"process": PROCESS, "rank": 0}),
    ResumeRecord: (
        resume_record.FORMAT,
        {"attempt": 1, "checkpoint": "step-1", "step": 1, "verdict": "exact"},
    ),
    DrilledRecord: (
        drill_record.FORMAT,
        {"verdict": "exact", "faults": 1, "spec_digest": "d", "wall_s": 1.0},
    ),
    CompiledRecord: (
        compiled_code.FORMAT,
        {
            "torch": "2.0",
            "files": [{"path": "inductor/a", "size_bytes": 1, "modified_ns": 1, "digest": "d"}],
        },
    ),
    RunRecord: (run_record.RUN_FORMAT, {"name": "a", "script": "a.py"}),
    ResolvedJob: (
        resolved.FORMAT,
        {"name": "a", "command": ["a"], "workdir": "/", "spec_path": "/a", "spec_digest": "d"},
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("records")


@st.composite
def side_documents(draw):
    """Return a kind of record, and a document of its format in which fields are anything or missing."""
    kind = draw(st.sampled_from(list(SIDE_RECORDS)))
    name, base = SIDE_RECORDS[kind]
    fields = [field.name for field in dataclasses.fields(kind)]
    changed = draw(st.dictionaries(st.sampled_from(fields) | TEXTS, plain_values(), max_size=3))
    if kind is SessionRecord and draw(st.booleans()):
        changed["process"] = {**PROCESS, draw(st.sampled_from(list(PROCESS))): draw(plain_values())}
    missing = draw(st.sets(st.sampled_from(fields), max_size=1))
    document = {key: value for key, value in {**base, **changed}.items() if key not in missing}
    return kind, {**document, "format": name}


@settings(fuzzed, max_examples=30)
@given(side_documents())
def test_any_side_record_is_read_or_unreadable(folder, document):
    kind, plain = document
    path = folder / "record.json"
    path.write_text(json.dumps(plain))
    if kind is SessionRecord:
        record = read_session(path)
        assert record is None or (0 < record.process.pid < 1 << 22 and record.rank >= 0)
        assert "\x1b" not in repr(record)
    elif kind is DrilledRecord:
        read_drilled(path)
    elif kind is CompiledRecord:
        path.replace(record_path(folder))
        read_compiled(folder)
    elif kind is RunRecord:
        read_run_record(path)
    else:
        with contextlib.suppress(CorruptError):
            if kind is ResolvedJob:
                decode(path.read_bytes())
            elif (resume := read_resume(path)) is not None:
                assert summary(resume)


@fuzzed
@given(
    st.sampled_from(["sessions", "resumes", "drills", "compiled", "runs", "jobs"]), st.binary(max_size=300)
)
def test_any_bytes_are_read_or_unreadable(folder, kind, data):
    path = folder / "bytes.json"
    path.write_bytes(data)
    with contextlib.suppress(CorruptError):
        match kind:
            case "sessions":
                assert read_session(path) is None
            case "resumes":
                read_resume(path)
            case "drills":
                assert read_drilled(path) is None
            case "compiled":
                path.replace(record_path(folder))
                assert read_compiled(folder) is None
            case "runs":
                assert read_run_record(path) is None
            case "jobs":
                decode(data)


@fuzzed
@given(st.binary(max_size=64), st.booleans())
def test_any_page_of_requests_is_written_to_or_refused(folder, data, has_magic):
    path = folder / "requests"
    path.write_bytes(b"TRNDRQ01" + data if has_magic else data)
    with contextlib.suppress(UserError):
        ask_to_stop(path, signal.SIGTERM)
    with contextlib.suppress(UserError):
        ask_for_checkpoint(path)
    page = RequestPage(path)
    page.stop_signal()
    page.take_checkpoint_request()
    page.close()
    assert path.stat().st_size == PAGE_BYTES


def test_every_record_of_the_contract_is_fuzzed():
    """A new kind of record has to be added to one of the two tables."""
    kinds = set(test_hostile_records.KINDS) | set(SIDE_RECORDS)
    assert set(_FORMATS) <= kinds
    assert {kind.__name__ for kind in kinds} >= records_of_the_contract()


def records_of_the_contract():
    found = set()
    for module in pkgutil.iter_modules(trainerd.contract.__path__):
        for name, value in vars(importlib.import_module(f"trainerd.contract.{module.name}")).items():
            if dataclasses.is_dataclass(value) and name.endswith("Record"):
                found.add(name)
    return found


def test_the_fuzzers_try_the_same_inputs_in_every_everyday_run():
    assert settings.get_profile("everyday").derandomize
    assert not settings.get_profile("new-inputs").derandomize
    chosen = settings.get_profile(os.environ.get("HYPOTHESIS_PROFILE", "everyday"))
    assert settings().derandomize == chosen.derandomize
