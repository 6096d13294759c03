"""Chaos played for real: a few scenarios every day, all of them and a short soak when there is time."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import xxhash

from chaos.invariants import Disturbed, check_all
from chaos.runner import ScenarioRunner
from chaos.scenario import FOLDER, load
from chaos.second_history import read_history
from chaos.waiting import Interruption
from tests.support.training_runs import REPOSITORY
from trainerd.contract.paths import RunPaths

EVERY_DAY = ("rank-killed-in-a-step", "checkpoint-bit-flipped", "shim-killed")
SEED = 1

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    runner = ScenarioRunner(
        tmp_path_factory.mktemp("chaos") / "runner",
        [load(FOLDER / f"{name}.yaml") for name in EVERY_DAY],
        SEED,
        Interruption(),
    )
    return {outcome.scenario.name: outcome for outcome in runner.run(limit_s=200, say=lambda _: None)}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", EVERY_DAY)
def test_every_invariant_of_a_scenario_holds(played, name):
    assert [check for check in played[name].checks if not check.is_held] == []


def tampered(played, tmp_path, tamper, **known):
    """Return the names of the invariants that a run breaks once it was tampered with."""
    outcome = played["rank-killed-in-a-step"]
    run, reference = outcome.folders
    copy = RunPaths(tmp_path / "run")
    shutil.copytree(run, copy.root, symlinks=True)
    tamper(copy)
    disturbed = Disturbed(
        run=copy,
        reference=reference,
        workload=outcome.scenario.workload,
        strikes=outcome.strikes,
        outcomes=[
            {"attempt": number, "kind": kind, "reason": ""} for number, kind in enumerate(outcome.endings, 1)
        ],
        **known,
    )
    return {check.name for check in check_all(disturbed) if not check.is_held}


def test_an_untouched_copy_breaks_nothing(played, tmp_path):
    assert tampered(played, tmp_path, lambda _: None) == set()


def test_another_bit_in_the_final_weights_is_noticed(played, tmp_path):
    """Its digest is made to fit: only the comparison with the undisturbed run can tell."""

    def tamper(run):
        final = run.checkpoints / json.loads(run.finished.read_text())["checkpoint"]
        tensors, manifest = final / "rank-00000.safetensors", final / "manifest.json"
        data = bytearray(tensors.read_bytes())
        data[-1] ^= 1
        text, former = manifest.read_bytes(), digest_of(tensors.read_bytes())
        tensors.write_bytes(data)
        own = json.loads(text)["digest"].removeprefix("xxh3-128:").encode()
        text = text.replace(former, digest_of(data)).replace(own, b"0" * 32)
        manifest.write_bytes(text.replace(b"0" * 32, digest_of(text)))

    assert tampered(played, tmp_path, tamper) == {"final weights equal"}


def digest_of(data):
    return xxhash.xxh3_128_hexdigest(data).encode()


def test_a_final_checkpoint_that_cannot_be_read_is_reported_and_no_error_of_the_harness(played, tmp_path):
    def tamper(run):
        final = run.checkpoints / json.loads(run.finished.read_text())["checkpoint"]
        (final / "rank-00000.safetensors").write_bytes(b"")

    assert tampered(played, tmp_path, tamper) == {"final weights equal", "disk within the retention limit"}


def test_more_work_lost_than_an_interval_is_noticed(played, tmp_path):
    def tamper(run):
        (ledger,) = run.root.glob("samples-*.jsonl")
        lines = [json.loads(line) | {"is_in_flight": False} for line in ledger.read_text().splitlines()]
        again = [line | {"attempt": 2} for line in lines if line["attempt"] == 1 and line["step"] <= 4]
        at = next(number for number, line in enumerate(lines) if line["attempt"] == 2)
        lines[at:at] = again
        ledger.write_text("".join(json.dumps(line) + "\n" for line in lines))

    assert tampered(played, tmp_path, tamper) == {"lost work within the interval"}


def test_one_checkpoint_more_than_retention_allows_is_noticed(played, tmp_path):
    keep = played["rank-killed-in-a-step"].scenario.workload.keep_last
    assert tampered(played, tmp_path, lambda _: None, checkpoints_seen_max=keep + 2) == set()
    broken = tampered(played, tmp_path / "more", lambda _: None, checkpoints_seen_max=keep + 3)
    assert broken == {"disk within the retention limit"}


def test_another_loss_in_the_history_is_noticed(played, tmp_path):
    def tamper(run):
        row = read_history(run.metrics).rows[-1]
        text = run.metrics.read_text()
        run.metrics.write_text(text.replace(str(row["loss"]), str(row["loss"] + 1e-9)))

    assert tampered(played, tmp_path, tamper) == {"metric history equal"}


def test_a_sample_that_was_used_twice_is_noticed(played, tmp_path):
    def tamper(run):
        (ledger,) = run.root.glob("samples-*.jsonl")
        lines = [json.loads(line) for line in ledger.read_text().splitlines()]
        lines[-1]["samples"][0] = lines[-2]["samples"][0]
        ledger.write_text("".join(json.dumps(line) + "\n" for line in lines))

    assert tampered(played, tmp_path, tamper) == {"every sample once an epoch"}


def test_a_checkpoint_that_was_damaged_is_noticed(played, tmp_path):
    def tamper(run):
        oldest = min(run.checkpoints.glob("step-*"))
        with (oldest / "rank-00000.json").open("ab") as file:
            file.write(b" ")

    assert tampered(played, tmp_path, tamper) == {"disk within the retention limit"}


def test_a_restart_that_no_fault_explains_is_noticed(played, tmp_path):
    untouched = played["rank-killed-in-a-step"]
    innocent = dataclasses.replace(untouched, strikes=())
    broken = tampered({"rank-killed-in-a-step": innocent}, tmp_path, lambda _: None)
    assert broken == {"no restart without a fault", "verdicts right"}


def chaos(folder: Path, *arguments: str, limit_s: float):
    return subprocess.run(
        [sys.executable, "-m", "chaos", "--keep", str(folder), *arguments],
        cwd=REPOSITORY,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=limit_s,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.timeout(1000)
def test_every_scenario_holds(tmp_path):
    done = chaos(tmp_path / "all", "--all", "--seed", str(SEED), limit_s=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "all" / "report.html").exists()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_soak_of_half_a_minute_holds(tmp_path):
    done = chaos(tmp_path / "soak", "--for", "30s", "--mtbf", "6s", "--seed", str(SEED), limit_s=500)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 violations" in done.stdout
