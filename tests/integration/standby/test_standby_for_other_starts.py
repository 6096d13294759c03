"""A standby that was prepared for one attempt becomes another job's, of another script, or says why not.

What the program then observes equals a cold start of it.
"""

import dataclasses
import os
import signal
import sys
from pathlib import Path

import pytest
from standby_runs import run, wait_until_ready, wait_until_settled
from test_standby_after_edit import MODEL, TRAIN, assert_equal, install, write

from trainerd.contract.environment import ATTEMPT_DIR, ATTEMPT_ID, JOB, RUN_DIR, STANDBY
from trainerd.contract.module_note import read_note
from trainerd.contract.records import LaunchRecord
from trainerd.shim.cgroup import AttemptCgroup
from trainerd.shim.process_table import carries, marks
from trainerd.shim.spawn import rank_start
from trainerd.shim.standby_process import StandbyProcess

HELD = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGUSR1})
WORDS = ("seen.json", "note.json")

OBSERVER = TRAIN.replace(
    '"variables": os.environ.copy(),',
    """"variables": list(os.environ.items()),
            "shown": Path("/proc/self/environ").read_text().split(chr(0)),""",
).replace(
    "def main():",
    """def main():
    seen()
""",
)
"""It also shows the order of variables, and what the kernel shows of them."""


def start_of(folder, job="ant", words=("train.py", *WORDS), **env):
    """Return what the shim of a job's first attempt starts."""
    left_out = {"PYTEST_CURRENT_TEST", "TORCHINDUCTOR_CACHE_DIR"}
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("TRAINERD_") and name not in left_out
    }
    given = [each for each in inherited.get("PYTHONPATH", "").split(os.pathsep) if each]
    inherited["PYTHONPATH"] = os.pathsep.join([*given, str(folder / "site-packages")])
    attempt_dir = folder / f"state/jobs/{job}/attempts/1"
    own = {JOB: job, RUN_DIR: str(folder / f"state/jobs/{job}"), ATTEMPT_DIR: str(attempt_dir), STANDBY: "1"}
    launch = LaunchRecord(
        job=job, attempt=1, command=(sys.executable, *words), workdir=str(folder),
        env={**inherited, "PYTHONHASHSEED": "5", **env, **own}, nproc=1, is_group=False, grace_s=30.0,
        log_paths=("log",),
    )  # fmt: skip
    return rank_start(launch, {}, HELD, rank=0, mark=f"{attempt_dir}@00000000-1-1", master_port=None)


@pytest.fixture
def note(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a shim goes to / when it has started a process
    install(tmp_path, "of_sys.py", "import sys\nOF_SYS = vars(sys)\n")
    write(tmp_path, {"train.py": OBSERVER, "model.py": MODEL})
    assert run(start_of(tmp_path), tmp_path)[0] == 0
    wait_until_settled(tmp_path / "site-packages")
    return read_note(tmp_path / "note.json")


def standby_for(start, note):
    standby = StandbyProcess(start, note)
    assert wait_until_ready(standby) == "ready"
    return standby


OTHERS = {
    "a job with a longer name": {"job": "an-ant-with-a-name-that-is-much-longer-than-the-first"},
    "a job with a shorter name": {"job": "a"},
    "other arguments": {"words": ("train.py", *WORDS, "--lr=0.5", "--name", "é")},
    "the same script by another path": {"words": ("./train.py", *WORDS)},
    "another script": {"job": "bee", "words": ("other.py", *WORDS, "--lr=0.5")},
}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_program_sees_the_same_in_a_standby_for_another_start_as_in_a_cold_start(note, tmp_path):
    other = OBSERVER.replace("LR = 0.1", "LR = 0.5").replace(
        "import torch\n", "import helper\nimport torch\n"
    )
    write(tmp_path, {"other.py": other, "helper.py": "from numpy import sqrt\n"})
    for what, changed in OTHERS.items():
        start = start_of(tmp_path, **changed)
        cold_status, cold_log, cold = run(start, tmp_path)
        standby = standby_for(start_of(tmp_path), note)
        status, log, seen = run(start, tmp_path, standby)
        for moment in ("at_first", "after"):
            room = [each for each in seen[moment]["shown"] if each.startswith("TRAINERD_ROOM=")]
            assert len(room) == 1, "documented"
            seen[moment]["shown"].remove(room[0])
        assert_equal(seen, cold, what)
        assert (status, log) == (cold_status, cold_log), what


ENDS = {
    "without any name": ("import trainerd", 0),
    "with names of its own": ("import trainerd\nsys = os = None", 0),
    "by sys.exit": ("import sys, trainerd\nsys.exit(7)", 7),
    "by SystemExit without a code": ("import trainerd\nraise SystemExit", 0),
    "by SystemExit with a text": ("import trainerd\nraise SystemExit('the reason')", 1),
    "by an exception": ("import trainerd\nraise KeyError('name')", 1),
    "after its last statement, by a function": (
        "import atexit, trainerd\natexit.register(print, 'at the end')", 0,
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_program_ends_in_a_standby_as_in_a_cold_start(note, tmp_path):
    start = start_of(tmp_path)
    for how, (text, code) in ENDS.items():
        (tmp_path / "train.py").write_text(text + "\n")
        cold_status, cold_log, _ = run(start, tmp_path)
        standby = StandbyProcess(start, dataclasses.replace(note, files=()))
        assert wait_until_ready(standby) == "ready"
        status, log, _ = run(start, tmp_path, standby)
        assert (status, log) == (cold_status, cold_log), how
        assert status == code, how


@pytest.mark.slow
def test_its_processes_are_found_by_the_mark_of_the_attempt_that_it_became(note, tmp_path):
    waits = OBSERVER.replace("    main()", "    import time; time.sleep(60)")
    (tmp_path / "waits.py").write_text(waits)
    was, now = start_of(tmp_path), start_of(tmp_path, "bee", words=("waits.py",))
    standby = standby_for(was, note)
    log = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    try:
        assert standby.take(now, log_descriptor=log, cgroup=AttemptCgroup(())) == standby.pid
        assert carries(standby.pid, f"{ATTEMPT_ID}={now.environ[ATTEMPT_ID]}".encode())
        assert not carries(standby.pid, f"{ATTEMPT_ID}={was.environ[ATTEMPT_ID]}".encode())
        assert marks(ATTEMPT_ID, str(tmp_path)) == {standby.pid: now.environ[ATTEMPT_ID]}
    finally:
        os.close(log)
        os.kill(standby.pid, signal.SIGKILL)
        os.waitpid(standby.pid, 0)


REFUSED = {
    "a variable of the program's": ({}, {"OMP_NUM_THREADS": "3"}, "the environment has changed"),
    "one import more": (
        {"other.py": f"import psutil\n{OBSERVER}"}, {}, "imports psutil, which the last attempt did not",
    ),
    "a module of the name of a library's": (
        {"sub/json.py": "", "sub/other.py": OBSERVER, "sub/model.py": MODEL}, {}, "may take the place of",
    ),
    "a variable that has no room": (
        {"other.py": OBSERVER}, {"TRAINERD_TRACKERS": "x" * 5000}, "have no room in the environment",
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_program_that_may_import_something_else_is_started_cold_and_the_reason_is_said(
    note, tmp_path, capfd
):
    for what, (files, env, said) in REFUSED.items():
        (tmp_path / "sub").mkdir(exist_ok=True)
        write(tmp_path, files)
        standby = standby_for(start_of(tmp_path), note)
        script = "sub/other.py" if "sub/other.py" in files else "other.py"
        start = start_of(tmp_path, "bee", words=(script, *WORDS), **env)
        assert standby.take(start, log_descriptor=1, cgroup=AttemptCgroup(())) is None, what
        assert said in capfd.readouterr().err, what
        assert not Path(f"/proc/{standby.pid}").exists(), "it was killed and collected"


READERS = {
    "an item": "NAME = sys.argv[0]",
    "all": "LAST = [*sys.argv][-1]",
    "the number": "COUNT = len(sys.argv)",
    "whether one is there": "IS_THERE = '--lr' in sys.argv",
    "a method": "COPY = sys.argv.copy()",
    "a text of them": "TEXT = ' '.join(sys.argv)",
    "their representation": "TEXT = str(sys.argv)",
    "by unpacking": "first, *rest = sys.argv",
    "by comparison": "IS_BARE = sys.argv == ['train.py']",
    "by inequality": "IS_BARE = not sys.argv != ['train.py']",
    "backwards": "LAST = next(reversed(sys.argv))",
    "by addition": "ALL = sys.argv + []",
    "by addition to a list": "ALL = ['python'] + sys.argv",
    "by addition in place": "ALL = []; ALL += sys.argv",
}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_library_that_reads_the_arguments_as_it_is_imported_is_tied_to_them(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    noting = "import trainerd\nfrom trainerd.training.engine.imported_modules import note_imported_modules\n"
    noting += "from pathlib import Path\nnote_imported_modules(Path('note.json'), attempt=1)\n"
    noting += "Path('seen.json').write_text('1')\n"
    lines = {**READERS, "by keeping them": "from sys import argv"}
    for number, line in enumerate(lines.values()):
        install(tmp_path, f"reader_{number}.py", f"import sys\n{line}\n")
        (tmp_path / f"train_{number}.py").write_text(f"import reader_{number}\n{noting}")
    starts = [start_of(tmp_path, words=(f"train_{number}.py",)) for number in range(len(lines))]
    notes = [run(start, tmp_path) and read_note(tmp_path / "note.json") for start in starts]
    wait_until_settled(tmp_path / "site-packages")
    for what, was, note in zip(READERS, starts, notes, strict=False):
        now = start_of(tmp_path, words=(was.command[1], "--lr=1"))
        with Path(os.devnull).open("w") as log:
            standby = standby_for(was, note)
            assert standby.take(now, log_descriptor=log.fileno(), cgroup=AttemptCgroup(())) is None, what
        assert "reads sys.argv, and the command has changed" in capfd.readouterr().err, what
    standby = StandbyProcess(starts[-1], notes[-1])
    assert "keeps sys.argv" in wait_until_ready(standby)
    standby.end()
