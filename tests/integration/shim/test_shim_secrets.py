"""What an env_file holds reaches the ranks, and nothing else."""

from __future__ import annotations

import signal
from pathlib import Path

from shim_workbench import shell

SECRET = "hunter2-correct-horse"


def test_a_secret_is_in_the_rank_and_in_no_file_and_not_in_the_shim(workbench, tmp_path):
    env_file = tmp_path / "secrets.env"
    env_file.write_text(f"export TOKEN='{SECRET}'\n")
    script = '[ "$TOKEN" = "$(cat $0)" ] && touch $HERE/knows; touch $HERE/ready-0; sleep 60'
    (tmp_path / "expected").write_text(SECRET)
    paths = workbench.launch((*shell(script), str(tmp_path / "expected")), env_file=env_file)
    state = workbench.running(paths, ready=(0,))
    assert (workbench.here / "knows").exists()
    for name in ("environ", "cmdline"):
        assert SECRET.encode() not in Path(f"/proc/{state.shim.pid}/{name}").read_bytes()
    workbench.launcher.signal(paths, signal.SIGQUIT)
    workbench.ended(paths)
    assert len(files_of(workbench)) >= 6
    assert [path for path in files_of(workbench) if SECRET.encode() in path.read_bytes()] == []


def test_a_bad_line_of_an_env_file_is_reported_without_what_it_holds(workbench, tmp_path):
    env_file = tmp_path / "secrets.env"
    env_file.write_text(f"TOKEN {SECRET}\n")
    (rank,) = workbench.run_to_end(("true",), env_file=env_file).ranks
    assert f"{env_file}:1" in rank.spawn_error
    assert [path for path in files_of(workbench) if SECRET.encode() in path.read_bytes()] == []


def files_of(workbench):
    return [path for path in workbench.state.root.rglob("*") if path.is_file()]
