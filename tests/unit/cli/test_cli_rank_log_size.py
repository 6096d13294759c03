"""`trainerd status` says how large the logs of ranks are and may become."""

from __future__ import annotations

import dataclasses

from trainerd.cli.rank_log_size import rank_log_line
from trainerd.contract import records
from trainerd.contract.paths import RunPaths
from trainerd.contract.records import LaunchRecord


def test_size_and_limit_are_shown(tmp_path):
    run = RunPaths(tmp_path)
    assert rank_log_line(run, 1) is None
    run.rank_log(0).parent.mkdir()
    run.rank_log(0).write_bytes(b"x" * 1024)
    run.rank_log(0).with_name("rank-00000.log.1").write_bytes(b"x" * 1024)
    assert rank_log_line(run, 1) == "2 files, 2.0 KiB"
    run.attempt(1).root.mkdir(parents=True)
    launch = LaunchRecord("a", 1, ("x",), "/", {}, 1, 30.0, (), log_bytes_max=1 << 20, log_copies=2)
    records.write(run.attempt(1).launch, launch)
    assert rank_log_line(run, 1).endswith("; each is moved aside at 1.0 MiB, 2 copies a rank are kept")
    records.write(run.attempt(1).launch, dataclasses.replace(launch, log_copies=0))
    assert rank_log_line(run, 1).endswith("; each is emptied at 1.0 MiB")
    run.attempt(1).launch.write_text("damaged")
    assert rank_log_line(run, 1) == "2 files, 2.0 KiB"
