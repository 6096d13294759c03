"""Fuzzes every field of every record that enters the supervisor, up to its journal and its answers."""

from __future__ import annotations

import contextlib
import dataclasses
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.hostile import TEXTS, plain_values
from tests.support.supervisor_objects import NOW, STATE_SAMPLES, job, spec
from trainerd.contract import records
from trainerd.contract.paths import StatePaths
from trainerd.contract.records import (
    ExitRecord,
    FinishedRecord,
    LaunchRecord,
    NodeEndRecord,
    OutcomeRecord,
    RankExit,
    RanksRecord,
    ShimRecord,
    StallRecord,
    VoidRecord,
)
from trainerd.errors import CorruptError
from trainerd.supervisor.api.saved_progress import read_saved
from trainerd.supervisor.api.views import job_view, outcome_view
from trainerd.supervisor.attempt.evidence import gather_evidence
from trainerd.supervisor.attempt.probe import ProbedEnded, ProbedUnknown, probe
from trainerd.supervisor.attempt.run_files import DiskRunFiles
from trainerd.supervisor.journal.job_codec import JOB_FORMAT, decode_job, decode_outcome, encode_job
from trainerd.supervisor.journal.journal import EndingRow, Entry, Journal
from trainerd.supervisor.machine.outcome import judge

KINDS = [
    *(LaunchRecord, VoidRecord, ShimRecord, RanksRecord, StallRecord),
    *(ExitRecord, OutcomeRecord, FinishedRecord, NodeEndRecord),
]
BASES = {
    NodeEndRecord: {"node": 1, "code": 85, "reason": "asked to stop", "mark": "m"},
    OutcomeRecord: {"kind": "exception", "error_type": "E", "error_message": "m", "detail": ["line"]},
    StallRecord: {"silence_s": 1.0, "limit_s": 1.0, "doing": "step", "wall_s": NOW},
    FinishedRecord: {"step": 1, "epoch": 1, "checkpoint": "step-1", "spec_digest": "v1", "wall_s": NOW},
    ExitRecord: {
        "ranks": [{"rank": 0, "exit_code": 1}],
        "started_wall_s": NOW,
        "ended_wall_s": NOW,
        "duration_s": 1.0,
        "boot_id": "b",
    },
}

fuzzed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    return StatePaths(tmp_path_factory.mktemp("state"))


@st.composite
def documents(draw, kinds=tuple(KINDS)):
    """Return a kind of record, and a document of its format in which fields are anything or missing."""
    kind = draw(st.sampled_from(kinds))
    names = [field.name for field in dataclasses.fields(kind)]
    changed = draw(st.dictionaries(st.sampled_from(names) | TEXTS, plain_values(), max_size=3))
    if kind is ExitRecord and draw(st.booleans()):
        rank_names = [field.name for field in dataclasses.fields(RankExit)]
        rank = draw(st.dictionaries(st.sampled_from(rank_names), plain_values(), max_size=2))
        changed["ranks"] = [{"rank": 0, **rank}]
    return kind, {**BASES.get(kind, {}), **changed, "format": records._FORMATS[kind]}


def write(path, document):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))


@fuzzed
@given(documents())
def test_any_record_is_read_or_unreadable(state, document):
    kind, plain = document
    path = state.root / "record.json"
    write(path, plain)
    with contextlib.suppress(CorruptError):
        records.read(path, kind)


@fuzzed
@given(documents(), documents(), documents())
def test_an_attempt_of_any_records_is_probed(state, one, two, three):
    paths = state.run("ant").attempt(1)
    names = {ExitRecord: paths.exit, ShimRecord: paths.shim, RanksRecord: paths.ranks}
    names |= {LaunchRecord: paths.launch, VoidRecord: paths.void}
    for path in names.values():
        path.unlink(missing_ok=True)
    for kind, plain in (one, two, three):
        if kind in names:
            write(names[kind], plain)
    found = probe(paths)
    assert not isinstance(found, ProbedEnded) or found.record.ranks
    if isinstance(found, ProbedUnknown):
        found.why.encode("utf-8", "backslashreplace")


@fuzzed
@given(
    documents((OutcomeRecord,)),
    documents((ExitRecord,)),
    documents((StallRecord, FinishedRecord)),
    st.binary(max_size=4096),
    st.binary(max_size=2000),
)
def test_an_ending_of_any_records_is_judged_recorded_and_shown(state, said, ended, other, page, log):
    """What reaches the journal is small, and what is answered is JSON."""
    run = state.run("bee")
    paths = run.attempt(1)
    for path in (paths.stall, run.finished):
        path.unlink(missing_ok=True)
    write(paths.outcome(0), said[1])
    write(paths.exit, ended[1])
    write(paths.stall if other[0] is StallRecord else run.finished, other[1])
    paths.heartbeat(0).write_bytes(page)
    run.rank_log(0).parent.mkdir(exist_ok=True)
    run.rank_log(0).write_bytes(log)
    try:
        ending = records.read(paths.exit, ExitRecord)
    except CorruptError:
        ending = None
    evidence = gather_evidence(spec(name="bee"), run, 1, spec_digest="v1", ending=ending, lost_because="gone")
    outcome = judge(evidence, now_wall_s=NOW)
    subject = job(STATE_SAMPLES[next(iter(STATE_SAMPLES))], name="bee", reason=outcome.reason)
    row = EndingRow(1, outcome, "none")
    with contextlib.closing(Journal(":memory:")) as journal:
        journal.commit([Entry("bee", subject, "job.test", outcome.reason, ending=row)], wall_s=NOW)
        assert journal.jobs()["bee"] == subject
        (kept,) = journal.endings("bee")
    beat = DiskRunFiles().heartbeat(run, 1, 0)
    shown = job_view(
        subject, run, heartbeat=beat, past=beat, saved=read_saved(run), last_outcome=outcome_view(kept)
    )
    text = json.dumps(dataclasses.asdict(shown), ensure_ascii=False)
    text.encode()
    assert "\x1b" not in "".join(shown.last_outcome.evidence)
    assert len(text) < 1_000_000


@fuzzed
@given(
    st.dictionaries(
        st.sampled_from([*(field.name for field in dataclasses.fields(type(job(None)))), "state"]) | TEXTS,
        plain_values(),
        max_size=4,
    )
)
def test_any_row_of_the_journal_is_a_job_or_damaged(changed):
    plain = json.loads(encode_job(job(STATE_SAMPLES[next(iter(STATE_SAMPLES))])))
    text = json.dumps({**plain, **changed, "format": JOB_FORMAT})
    with contextlib.suppress(CorruptError):
        decode_job(text, source="journal")
    with contextlib.suppress(CorruptError):
        decode_outcome(text, source="journal")
