"""A script that observes all it can finds the same in a standby process as in one that was started cold."""

import os
import signal
import sys
import textwrap
from pathlib import Path

import pytest
from standby_runs import run, wait_until_ready

from trainerd.contract.module_note import read_note
from trainerd.shim.cgroup import AttemptCgroup
from trainerd.shim.spawn import RankStart
from trainerd.shim.standby_process import StandbyProcess

OBSERVER = textwrap.dedent(
    """
    import sys
    AT_FIRST = {
        "packages": sorted({n.partition(".")[0] for n in sys.modules} - set(sys.stdlib_module_names)),
        "main": {n: repr(v) for n, v in globals().items() if n not in {"sys", "__loader__", "__builtins__"}},
        "loader": [type(__loader__).__name__, getattr(__loader__, "path", None)],
        "builtins": repr(type(__builtins__)),
        "is_main": sys.modules["__main__"].__dict__ is globals(),
    }
    import warnings
    AT_FIRST["filters"] = [repr(f) for f in warnings.filters]
    warnings.filterwarnings("ignore", message="of the script's own, before it imports")
    import gc, json, os, random, resource, signal, threading
    import numpy
    AFTER_NUMPY = [repr(f) for f in warnings.filters]
    import torch
    import trainerd
    from trainerd.training.engine.imported_modules import note_imported_modules
    from trainerd.training.state.live_objects import instances_of, live_instances

    data = torch.utils.data.TensorDataset(torch.ones(1))
    parameter = torch.nn.Parameter(torch.ones(1))

    def is_dataset(kind):
        return issubclass(kind, torch.utils.data.Dataset)

    def descriptors():
        found = {}
        for name in os.listdir("/proc/self/fd"):
            try:
                found[name] = os.readlink(f"/proc/self/fd/{name}")
            except OSError:
                pass
        return found

    def digest(state):
        return repr(state)[:60]

    random.seed(7); numpy.random.seed(7); torch.manual_seed(7)
    status = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
    seen = {
        "at_first": AT_FIRST,
        "after_numpy": AFTER_NUMPY,
        "filters": [repr(f) for f in warnings.filters],
        "packages": sorted({n.partition(".")[0] for n in sys.modules} - set(sys.stdlib_module_names)),
        "argv": sys.argv, "orig_argv": sys.orig_argv, "path": sys.path, "flags": repr(sys.flags),
        "xoptions": sys._xoptions, "warnoptions": sys.warnoptions,
        "executable": sys.executable, "prefix": sys.prefix,
        "meta_path": [repr(getattr(f, "__name__", type(f).__name__)) for f in sys.meta_path],
        "environ": dict(os.environ), "cwd": os.getcwd(),
        "environ_of_the_process": sorted(open("/proc/self/environ").read().split(chr(0))),
        "status": {
            n: status[n].split()
            for n in ("Umask", "SigBlk", "SigIgn", "SigCgt", "Cpus_allowed", "Threads")
        },
        "limits": {
            n: resource.getrlimit(getattr(resource, n)) for n in dir(resource) if n.startswith("RLIMIT")
        },
        "signals": {int(s): repr(signal.getsignal(s)).partition(" at 0x")[0] for s in signal.valid_signals()},
        "priority": [os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0)],
        "thread_priorities": sorted(
            [os.getpriority(os.PRIO_PROCESS, int(t)), os.sched_getscheduler(int(t))]
            for t in os.listdir("/proc/self/task")
        ),
        "session": [os.getsid(0) == os.getpid(), os.getpgid(0) == os.getpid()],
        "affinity": sorted(os.sched_getaffinity(0)),
        "threads": [t.name for t in threading.enumerate()],
        "streams": [
            [s.name, s.encoding, s.errors, s.line_buffering, s.write_through, s.isatty()]
            for s in (sys.stdin, sys.stdout, sys.stderr)
        ],
        "hooks": [sys.excepthook is sys.__excepthook__, sys.displayhook is sys.__displayhook__],
        "recursion": sys.getrecursionlimit(),
        "random": [random.random(), numpy.random.random(), torch.rand(3).tolist(), torch.initial_seed()],
        "torch": [torch.get_num_threads(), torch.get_num_interop_threads(), str(torch.get_default_dtype()),
                  torch.cuda.is_initialized(), torch.are_deterministic_algorithms_enabled()],
        "hash": hash("text") if os.environ.get("PYTHONHASHSEED") else None,
        "torch_file": torch.__file__,
        "torch_spec": [torch.__spec__.name, torch.__spec__.origin, type(torch.__spec__.loader).__name__],
        "nn": torch.nn.__name__,
        "datasets": [type(each).__name__ for each in live_instances(is_dataset)],
        "parameters": len(instances_of(torch.nn.Parameter)),
        "hidden": gc.get_freeze_count() > 100_000,
    }
    seen["descriptors"] = descriptors()
    with open(sys.argv[1], "w") as file:
        json.dump(seen, file, default=str)
    import pathlib
    note_imported_modules(pathlib.Path(sys.argv[2]), attempt=1)
    print("to standard output")
    raise ValueError("as any script may end")
    """
)


@pytest.fixture
def start(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a shim goes to / when it has started a process
    (tmp_path / "train.py").write_text(OBSERVER)
    environ = dict(os.environ) | {"PYTHONHASHSEED": "5", "TRAINERD_SIGNALS_HELD": "1"}
    environ.pop("PYTEST_CURRENT_TEST", None)
    held = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGUSR1})
    command = (
        sys.executable,
        "-W",
        "error::BytesWarning",
        "train.py",
        "seen.json",
        str(tmp_path / "note.json"),
    )
    return RankStart(command, str(tmp_path), environ, held)


@pytest.mark.slow
def test_a_script_sees_the_same_in_a_standby_as_in_a_cold_start(start, tmp_path):
    cold_status, cold_log, cold = run(start, tmp_path)
    (tmp_path / "seen.json").unlink()

    standby = StandbyProcess(start, read_note(tmp_path / "note.json"))
    assert wait_until_ready(standby) == "ready"
    assert "torch" in Path(f"/proc/{standby.pid}/maps").read_text(), "it has imported in advance"
    status, log, seen = run(start, tmp_path, standby)

    assert seen["meta_path"][0] == "'Shelf'", "known, and documented, while anything is on the shelf"
    del seen["meta_path"][0]
    assert (cold.pop("hidden"), seen.pop("hidden")) == (False, True), "documented"
    assert seen["datasets"] == ["TensorDataset"]
    shown = seen["environ_of_the_process"]
    assert [shown.remove(each) for each in list(shown) if each.startswith("TRAINERD_ROOM=")], "documented"
    for what in cold:
        assert seen[what] == cold[what], what
    assert (status, log) == (cold_status, cold_log)


@pytest.mark.slow
def test_what_a_cold_start_would_do_otherwise_makes_a_standby_unfit(start, tmp_path):
    run(start, tmp_path)
    note = read_note(tmp_path / "note.json")
    standby = StandbyProcess(start, note)
    assert wait_until_ready(standby) == "ready"
    (tmp_path / "numpy.py").write_text("")
    assert standby.take(start, log_descriptor=1, cgroup=AttemptCgroup(())) is None
    assert not Path(f"/proc/{standby.pid}").exists(), "it was killed and collected"

    (tmp_path / "numpy.py").unlink()
    (tmp_path / "train.py").write_text(OBSERVER + "\n")
    standby = StandbyProcess(start, note)
    assert "has changed since the last attempt" in wait_until_ready(standby)
    standby.end()
