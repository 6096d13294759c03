"""Real filesystems are cut, and real system calls fail: CI's share of what `docs/chaos.md` describes."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from chaos import damage, failpoint_sweep
from chaos.block_device.filesystem import KINDS, missing

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is missing")


def run(*arguments):
    done = subprocess.run(
        [sys.executable, "-m", *arguments], capture_output=True, text=True, timeout=850, check=False
    )
    print(done.stdout, done.stderr)
    return done


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", KINDS)
def test_a_filesystem_cut_at_random_loses_nothing_and_the_controls_are_caught(kind):
    if why := missing(kind):
        pytest.skip(f"{kind}: {why}")
    done = run("chaos.block_device", "--cuts", "12", "--filesystem", kind, "--seed", "7")
    assert done.returncode == 0
    assert "0 cuts lost anything; 0 controls were not caught" in done.stdout


@needs_strace
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_save_survives_a_fault_at_every_sync_and_rename():
    done = run("chaos.syscall_faults", "--call", "fsync", "--call", "rename")
    assert done.returncode == 0
    assert "one fault each: 0 lost anything" in done.stdout


@pytest.mark.parametrize("one", damage.DAMAGES, ids=lambda one: one.name)
def test_damage_is_found_and_set_aside_and_training_would_go_on(one):
    assert damage.damage_and_recover(one) is None


@pytest.mark.torch
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_kill_at_every_failpoint_of_the_code_is_recovered_from():
    """Each once. A failpoint that no act passes makes the sweep fail: none can be forgotten."""
    done = run("chaos.failpoint_sweep", "--once")
    assert done.returncode == 0
    assert " 0 lost anything, 0 points forgotten" in done.stdout


def test_a_failpoint_that_no_act_passes_is_reported(monkeypatch, capsys):
    monkeypatch.setattr(failpoint_sweep, "all_points", lambda: {"new.act": "something new"})
    monkeypatch.setattr(failpoint_sweep, "ACTS", {})
    assert failpoint_sweep.main([]) == 1
    assert "FORGOTTEN: new.act: no act passes it; it leaves something new" in capsys.readouterr().out
