"""A script that was edited finds in a standby process what it finds in one that was started cold."""

import os
import sys
import textwrap
from pathlib import Path

import pytest
from standby_runs import run, wait_until_ready, wait_until_settled

from trainerd.contract.module_note import read_note
from trainerd.shim.cgroup import AttemptCgroup
from trainerd.shim.spawn import RankStart
from trainerd.shim.standby_process import StandbyProcess

TRAIN = textwrap.dedent(
    """
    import json
    import os
    import sys
    import warnings
    from pathlib import Path

    import numpy
    import torch
    from of_sys import OF_SYS
    from torch.utils.data import DataLoader

    import trainerd
    from model import Net
    from trainerd.training.engine.imported_modules import note_imported_modules

    LR = 0.1


    def seen():
        return {
            "modules": sorted(
                n for n in OF_SYS["modules"] if n.partition(".")[0] not in sys.stdlib_module_names
            ),
            "attributes": {n: sorted(vars(m)) for n, m in sorted(OF_SYS["modules"].items())
                           if n in ("torch", "numpy", "trainerd", "torch.utils", "torch.nn")},
            "variables": os.environ.copy(),
            "filters": [repr(f) for f in warnings.filters],
            "path": OF_SYS["path"],
            "argv": [sys.argv, sys.orig_argv],
            "maps": "torch" in open("/proc/self/maps").read(),
            "random": [torch.initial_seed() == 7, torch.rand(3).tolist(), numpy.random.random()],
        }


    def main():
        torch.manual_seed(7)
        numpy.random.seed(7)
        at_first = seen()
        net = Net()
        loader = DataLoader([1.0, 2.0])
        optimizer = torch.optim.Adam(net.parameters(), lr=LR)
        loss = net(torch.ones(2)).sum()
        loss.backward()
        optimizer.step()
        Path(sys.argv[1]).write_text(json.dumps({"at_first": at_first, "after": seen(), "loss": loss.item()}))
        note_imported_modules(Path(sys.argv[2]), attempt=1)


    if __name__ == "__main__":
        main()
    """
)

QUIET = """
import os

def quiet(is_loud=False):
    if not is_loud:
        os.environ["QUIET"] = "1"
"""

MODEL = textwrap.dedent(
    """
    from torch import nn


    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 2)

        def forward(self, x):
            return self.layer(x)
    """
)

WITHOUT_OPTIMIZER = TRAIN.replace("optimizer = torch.optim.Adam(net.parameters(), lr=LR)", "").replace(
    "optimizer.step()", ""
)

EDITS = {
    "its own code": {
        "train.py": TRAIN.replace("LR = 0.1", "LR = 0.2").replace("import json", "import csv\nimport json"),
        "model.py": MODEL.replace("self.layer(x)", "self.layer(x).relu() * 3"),
    },
    "nothing that imports late": {"train.py": WITHOUT_OPTIMIZER},
}


@pytest.fixture
def start(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a shim goes to / when it has started a process
    write(tmp_path, {"train.py": TRAIN, "model.py": MODEL})
    install(tmp_path, "of_sys.py", "import sys\nOF_SYS = vars(sys)\n")
    install(tmp_path, "quiet_library.py", QUIET)
    wait_until_settled(tmp_path / "site-packages")
    environ = dict(os.environ) | {"PYTHONHASHSEED": "5", "PYTHONDONTWRITEBYTECODE": "1"}
    for name in ("PYTEST_CURRENT_TEST", "TORCHINDUCTOR_CACHE_DIR"):
        environ.pop(name, None)
    given = environ.get("PYTHONPATH", "").split(os.pathsep)
    environ["PYTHONPATH"] = os.pathsep.join([*filter(None, given), str(tmp_path / "site-packages")])
    command = (sys.executable, "train.py", "seen.json", str(tmp_path / "note.json"))
    return RankStart(command, str(tmp_path), environ, frozenset())


def install(folder, name, text):
    """Put a module where packages are: a file that names sys.modules itself is not followed."""
    (folder / "site-packages").mkdir(exist_ok=True)
    (folder / "site-packages" / name).write_text(text)


def write(folder, files):
    for name, text in files.items():
        (folder / name).write_text(text)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_edited_script_sees_the_same_in_a_standby_as_in_a_cold_start(start, tmp_path):
    assert run(start, tmp_path)[0] == 0
    note = read_note(tmp_path / "note.json")
    assert all(file.imports for file in note.files)
    for what, files in EDITS.items():
        write(tmp_path, {"train.py": TRAIN, "model.py": MODEL} | files)
        cold_status, cold_log, cold = run(start, tmp_path)
        standby = StandbyProcess(start, note)  # what it is prepared from is of the attempt before the edit
        assert wait_until_ready(standby) == "ready", what
        assert "torch" in Path(f"/proc/{standby.pid}/maps").read_text(), "it has imported in advance"
        status, log, seen = run(start, tmp_path, standby)
        assert_equal(seen, cold, what)
        assert (status, log) == (cold_status, cold_log)


def assert_equal(seen, cold, what):
    for moment in ("at_first", "after"):
        for part in cold[moment]:
            assert seen[moment][part] == cold[moment][part], (what, moment, part)
    assert seen["loss"] == cold["loss"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_an_edit_may_change_about_imports_is_looked_at_when_the_standby_is_used(start, tmp_path):
    run(start, tmp_path)
    note = read_note(tmp_path / "note.json")
    write(tmp_path, {"json.py": "def dumps(_): return '{}'"})
    standby = StandbyProcess(start, note)
    assert "json.py may take the place of a module of that name" in wait_until_ready(standby)
    standby.end()

    (tmp_path / "json.py").unlink()
    standby = StandbyProcess(start, note)
    assert wait_until_ready(standby) == "ready"
    write(tmp_path, {"train.py": TRAIN.replace("LR = 0.1", "os.environ['OMP_NUM_THREADS'] = '2'")})
    with Path(os.devnull).open("w") as log:
        assert standby.take(start, log_descriptor=log.fileno(), cgroup=AttemptCgroup(())) is None
    assert not Path(f"/proc/{standby.pid}").exists(), "it was killed and collected"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_library_that_the_edit_has_change_the_environment_before_a_late_import_is_named(start, tmp_path):
    """Nothing in the file shows it: the program says that the attempt may differ, and notes the variable."""
    train = TRAIN.replace("import torch\n", "import quiet_library\nimport torch\n", 1)
    loud = train.replace("torch.manual_seed(7)", "quiet_library.quiet(is_loud=True); torch.manual_seed(7)")
    write(tmp_path, {"train.py": loud})
    run(start, tmp_path)
    standby = StandbyProcess(start, read_note(tmp_path / "note.json"))
    assert wait_until_ready(standby) == "ready"
    write(tmp_path, {"train.py": loud.replace("is_loud=True", "is_loud=False")})
    status, log, _ = run(start, tmp_path, standby)
    assert status == 0
    assert "imported in advance, and the program has changed QUIET since" in log
    assert "QUIET" in read_note(tmp_path / "note.json").environment, "so the attempts after it start cold"
