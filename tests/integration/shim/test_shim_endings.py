"""What the exit record says of ranks that end by themselves."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest
from shim_workbench import python, runs, shell, wait_for

from trainerd.contract import records
from trainerd.contract.process import boot_id, identify
from trainerd.contract.records import RankExit
from trainerd.supervisor.attempt.probe import ProbedRunning, probe


@pytest.mark.parametrize("exit_code", [0, 1, 85, 93, 255])
def test_an_exit_code_is_recorded_as_it_was(workbench, exit_code):
    (rank,) = workbench.run_to_end(shell(f"exit {exit_code}")).ranks
    assert (rank.exit_code, rank.signal, rank.killed_by_shim, rank.spawn_error) == (
        exit_code,
        None,
        None,
        None,
    )


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_a_signal_from_elsewhere_is_recorded_and_not_taken_for_the_shims(workbench, signum):
    (rank,) = workbench.run_to_end(shell(f"kill -{int(signum)} $$")).ranks
    assert (rank.exit_code, rank.signal, rank.killed_by_shim) == (None, signum, None)


def test_the_record_says_when_how_long_and_how_much(workbench):
    record = workbench.run_to_end(python("import time; x = b'x' * 50_000_000; time.sleep(0.1)"))
    assert record.boot_id == boot_id()
    assert 0.1 <= record.duration_s < 10
    assert record.ended_wall_s - record.started_wall_s == pytest.approx(record.duration_s, abs=0.5)
    assert record.stop_requested_s is None
    assert record.survivors_killed == 0
    assert 50_000_000 < record.ranks[0].rss_bytes_max < 500_000_000


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"command": ("no-such-program",)}, "command: 'no-such-program' was not found in PATH="),
        ({"command": ("/no/such/program",)}, "No such file"),
        ({"command": ("/etc/passwd",)}, "Permission denied"),
        ({"command": ("true",), "workdir": "/no/such/folder"}, "workdir: cannot enter /no/such/folder"),
        ({"command": ("true",), "env_file": "/no/such/file"}, "env_file: cannot read /no/such/file"),
    ],
)
def test_a_rank_that_cannot_be_started_is_an_ending_that_names_the_field(workbench, change, words):
    record = workbench.run_to_end(**change)
    assert record.ranks[0].exit_code is None
    assert words in record.ranks[0].spawn_error
    assert words in workbench.log(), "the user looks into the log first"


def test_when_one_rank_cannot_be_started_none_is_left(workbench):
    record = workbench.run_to_end(("no-such-program",), nproc=3)
    assert [rank.rank for rank in record.ranks] == [0, 1, 2]
    assert all(rank.spawn_error for rank in record.ranks)


def test_ranks_are_told_apart_and_share_a_rendezvous(workbench):
    record = workbench.run_to_end(
        shell("echo $RANK $LOCAL_RANK $WORLD_SIZE $LOCAL_WORLD_SIZE $MASTER_ADDR $MASTER_PORT"), nproc=2
    )
    assert [rank.exit_code for rank in record.ranks] == [0, 0]
    first, second = (workbench.log(rank).splitlines()[1].split() for rank in (0, 1))
    assert (first[:5], second[:5]) == (["0", "0", "2", "2", "127.0.0.1"], ["1", "1", "2", "2", "127.0.0.1"])
    assert first[5] == second[5]
    assert int(first[5]) > 1023


def test_a_rank_begins_as_a_shell_would_start_it(workbench):
    """Own session, no input, default signals, nothing held, no descriptor of the shim's."""
    code = """
import os, signal, sys
assert os.getsid(0) == os.getpid()
assert sys.stdin.read() == ""
assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])
status = dict(line.split(":\\t") for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
ignored = int(status["SigIgn"], 16)
# this Python ignores PIPE and XFSZ, and the C library 32 and 33, which are its own
own = 1 << 12 | 1 << 24 | 3 << 31
assert ignored & ~own == 0, hex(ignored)
assert sorted(os.listdir("/proc/self/fd"))[:3] == ["0", "1", "2"]
assert len(os.listdir("/proc/self/fd")) == 4  # and that of the listing itself
assert os.getcwd() == os.environ["HERE"]
print("as it should be", flush=True)
"""
    record = workbench.run_to_end(python(code))
    assert "as it should be" in workbench.log()
    assert record.ranks[0].exit_code == 0, workbench.log()


def test_each_attempt_is_announced_on_a_line_of_its_own(workbench):
    workbench.run_to_end(shell("printf torn"), attempt=1)
    workbench.run_to_end(shell("echo whole"), attempt=2)
    first, torn, second, whole = workbench.log().splitlines()
    assert first.startswith("--- attempt 1 started 20")
    assert torn == "torn"
    assert second.startswith("--- attempt 2 started 20")
    assert whole == "whole"


def test_a_log_deleted_while_the_rank_writes_neither_blocks_nor_breaks_it(workbench):
    script = "while [ ! -e $HERE/deleted ]; do sleep 0.01; done; head -c 1000000 /dev/zero; exit 7"
    paths = workbench.launch(shell(script))
    workbench.running(paths)
    workbench.run.rank_log(0).unlink()
    (workbench.here / "deleted").touch()
    assert workbench.ended(paths).ranks[0].exit_code == 7


def test_a_rank_that_dies_takes_its_peers_down_and_they_may_save_first(workbench, obedient):
    paths = workbench.launch(obedient, nproc=2)
    state = workbench.running(paths, ready=(0, 1))
    os.kill(state.ranks[1].pid, signal.SIGKILL)
    first, second = workbench.ended(paths).ranks
    assert first.exit_code == 85
    assert (second.signal, second.killed_by_shim) == (signal.SIGKILL, None)


def test_a_peer_that_hangs_after_a_death_is_killed_as_a_peer(workbench, stubborn):
    paths = workbench.launch(stubborn, nproc=2, grace_s=0.1)
    state = workbench.running(paths, ready=(0, 1))
    os.kill(state.ranks[1].pid, signal.SIGKILL)
    record = workbench.ended(paths)
    assert (record.ranks[0].signal, record.ranks[0].killed_by_shim) == (signal.SIGKILL, "peer")
    assert record.stop_requested_s is None
    assert (workbench.here / "received").read_text() == f"{int(signal.SIGTERM)}\n"


def test_a_rank_that_finishes_first_leaves_its_peers_alone(workbench):
    script = "[ $RANK = 0 ] && exit 0; while [ ! -e $HERE/go ]; do sleep 0.01; done; exit 0"
    paths = workbench.launch(shell(script), nproc=2, grace_s=0.01)
    first, second = workbench.running(paths).ranks
    wait_for(lambda: "rank 0 ended" in paths.shim_log.read_text())
    assert not runs(first.pid)
    assert runs(second.pid)
    (workbench.here / "go").touch()
    assert [rank.exit_code for rank in workbench.ended(paths).ranks] == [0, 0]


@pytest.mark.parametrize(("write", "name"), [(1, "shim.json"), (2, "ranks.json"), (3, "exit.json")])
@pytest.mark.parametrize("error", ["ENOSPC", "EIO"])
def test_a_record_that_could_not_be_written_at_first_is_written_later(
    workbench, monkeypatch, write, name, error
):
    monkeypatch.setenv("TRAINERD_FAILPOINTS", f"record.written={error}@{write}")
    paths = workbench.launch(shell("sleep 0.6; exit 85"))
    assert workbench.ended(paths).ranks[0].exit_code == 85
    assert f"{name} cannot be written yet" in paths.shim_log.read_text()
    assert paths.ranks.exists()
    assert not list(paths.root.glob(".*tmp*"))


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small filesystem")
def test_a_disk_that_is_full_at_the_end_delays_the_exit_record_and_loses_nothing(workbench):
    workbench.run.attempts.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", workbench.run.attempts], check=True)
    try:
        filler = workbench.run.attempts / "filler"
        script = f"echo $$ >$HERE/rank; cat /dev/zero >{filler} 2>/dev/null; exit 85"
        paths = workbench.launch(shell(script))
        (rank,) = workbench.pids_in("rank")
        wait_for(lambda: identify(rank) is None, "the shim has collected the rank")
        before = paths.root.stat().st_mtime_ns
        wait_for(lambda: paths.root.stat().st_mtime_ns != before, "one more try to write the record")
        assert isinstance(probe(paths), ProbedRunning), "not lost: the shim waits for space"
        filler.unlink()
        assert workbench.ended(paths).ranks[0].exit_code == 85
        workbench.watch(paths)
    finally:
        subprocess.run(["umount", "-l", workbench.run.attempts], check=True)


def test_records_are_readable_by_their_own_contract(workbench):
    workbench.run_to_end(shell("exit 3"))
    record = records.read(workbench.run.attempt(1).exit, records.ExitRecord)
    assert record.ranks == (RankExit(0, exit_code=3, rss_bytes_max=record.ranks[0].rss_bytes_max),)
