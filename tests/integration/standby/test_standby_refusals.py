"""What has changed around a standby since it was prepared, so that a cold start would find something else."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from standby_runs import wait_until_ready, wait_until_settled

from trainerd.contract.environment import ATTEMPT_DIR, JOB, RUN_DIR
from trainerd.contract.import_surface import surface_of
from trainerd.contract.module_note import ModuleNote, OwnFile
from trainerd.shim.cgroup import AttemptCgroup
from trainerd.shim.spawn import RankStart
from trainerd.shim.standby_process import StandbyProcess

READERS = {
    "reads_item": f"RUN = os.environ['{RUN_DIR}']",
    "reads_get": f"RUN = os.environ.get('{RUN_DIR}')",
    "reads_getenv": f"RUN = os.getenv('{RUN_DIR}')",
    "reads_bytes": f"RUN = os.environb[b'{RUN_DIR}']",
    "reads_is_there": f"IS_THERE = '{RUN_DIR}' in os.environ",
}
WALKS = {
    "walks_items": "OWN = {name: value for name, value in os.environ.items() if name.startswith('LIBRARY_')}",
    "walks_copy": "OWN = dict(os.environ)",
    "walks_another": "OWN = os.environ.get('LIBRARY_MODE', 'fast')",
}
SETS = "os.environ['TORCHINDUCTOR_CACHE_DIR'] = os.environ.get('TORCHINDUCTOR_CACHE_DIR', '/tmp')"
LIBRARIES = {
    "library": "pass",
    **READERS,
    **WALKS,
    "sets": SETS,
    "replaces": "os.sys.argv = [*os.sys.argv, '--fast']",
}


def write(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a shim goes to / when it has started a process
    return tmp_path


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """Return a folder of packages."""
    found = tmp_path_factory.mktemp("packages") / "site-packages"
    write(found, {f"{name}.py": f"import os\n{line}\n" for name, line in LIBRARIES.items()})
    wait_until_settled(found)
    return found


@pytest.fixture(autouse=True)
def of_this_test(packages, monkeypatch):
    monkeypatch.setenv("PACKAGES", str(packages))


def start(folder, *words, workdir=None, program=sys.executable, **variables):
    environ = {"PATH": "/bin", "PYTHONPATH": os.environ["PACKAGES"], "PYTHONDONTWRITEBYTECODE": "1"}
    ours = {JOB: "ant", RUN_DIR: "/runs/ant", ATTEMPT_DIR: "/runs/ant/attempts/2"}
    return RankStart(
        (str(program), *map(str, words)), str(workdir or folder), environ | ours | variables, frozenset()
    )


def note_of(*scripts, library="library"):
    """Return what an attempt would note that had imported a library and these files."""
    origin = f"{os.environ['PACKAGES']}/{library}.py"
    files = []
    for script in scripts:
        seen = script.stat()
        digest = surface_of(script.read_bytes()).digest
        files.append(
            OwnFile(str(script), seen.st_mtime_ns, seen.st_ctime_ns, seen.st_size, seen.st_ino, digest)
        )
    return ModuleNote(1, ((library, origin),), (), tuple(files))


def ready(start, note):
    standby = StandbyProcess(start, note)
    assert wait_until_ready(standby) == "ready"
    return standby


def said_by(standby, start, capfd):
    """Have a standby refuse a start; return the reason."""
    assert standby.take(start, log_descriptor=1, cgroup=AttemptCgroup(())) is None
    os.close(standby._output)
    return capfd.readouterr().err


def point(link, target):
    link.unlink(missing_ok=True)
    link.symlink_to(target)


def test_a_working_folder_that_is_a_link_to_another_release_now(folder, capfd):
    """The process is in the folder of before: it would run the script of before."""
    write(folder, {"one/train.py": "import library\n", "two/train.py": "import library\n"})
    point(folder / "current", "one")
    same = start(folder, "train.py", workdir=folder / "current")
    standby = ready(same, note_of(folder / "one" / "train.py"))
    point(folder / "current", "two")
    assert "the working folder is another folder now" in said_by(standby, same, capfd)


def test_a_working_folder_that_was_moved_and_made_again(folder, capfd):
    write(folder, {"work/train.py": "import library\n"})
    same = start(folder, "train.py", workdir=folder / "work")
    standby = ready(same, note_of(folder / "work" / "train.py"))
    (folder / "work").rename(folder / "before")
    shutil.copytree(folder / "before", folder / "work")
    assert "the working folder is another folder now" in said_by(standby, same, capfd)


def test_a_folder_of_the_script_that_is_a_link_to_another_release_now(folder, capfd):
    """Its modules would be imported from the folder of before."""
    write(folder, {"one/train.py": "import library\n", "two/train.py": "import library\n"})
    point(folder / "current", "one")
    same = start(folder, "current/train.py")
    standby = ready(same, note_of(folder / "current" / "train.py"))
    point(folder / "current", "two")
    assert "the script is in another folder now" in said_by(standby, same, capfd)


def test_an_interpreter_that_is_a_link_to_another_now(folder, capfd):
    write(folder, {"train.py": "import library\n"})
    interpreter = Path(sys.executable).resolve()
    point(folder / "python", interpreter)
    same = start(folder, "train.py", program=folder / "python")
    standby = ready(same, note_of(folder / "train.py"))
    shutil.copy("/bin/true", folder / "other")
    point(folder / "python", folder / "other")
    assert "the interpreter has changed" in said_by(standby, same, capfd)


def test_an_interpreter_that_is_found_elsewhere_in_path_now(folder, capfd):
    write(folder, {"train.py": "import library\n", "first/none": ""})
    search = {"PATH": f"{folder / 'first'}:{folder / 'second'}"}
    (folder / "second").mkdir()
    point(folder / "second" / "python3", Path(sys.executable).resolve())
    same = start(folder, "train.py", program="python3", **search)
    standby = ready(same, note_of(folder / "train.py"))
    shutil.copy("/bin/true", folder / "first" / "python3")
    assert "the interpreter has changed" in said_by(standby, same, capfd)


@pytest.mark.parametrize("kind", ["folder", "archive", "compiled"])
def test_a_script_that_is_no_source_text_has_no_standby(folder, kind):
    """The interpreter runs a folder and an archive by what is in it."""
    write(folder, {"app/__main__.py": "import library\n"})
    script = folder / "app"
    if kind == "archive":
        script = folder / "app.pyz"
        with script.open("wb") as file:
            file.write(b"#!/usr/bin/env python3\n")
            with zipfile.ZipFile(file, "w") as archive:
                archive.writestr("__main__.py", "import library\n")
    if kind == "compiled":
        import py_compile

        script = Path(py_compile.compile(str(script / "__main__.py"), str(folder / "train.pyc")))
    standby = StandbyProcess(start(folder, script), note_of(folder / "app" / "__main__.py"))
    assert wait_until_ready(standby).startswith("unfit the script is ")
    standby.end()


OPTIONAL = """
try:
    import local_settings
except ImportError:
    local_settings = None
import library
"""


@pytest.mark.parametrize("head", ["", "import sys; sys.path.insert(0, 'of no effect')"], ids=["plain", "not"])
@pytest.mark.parametrize("place", ["local_settings.py", "local_settings/__init__.py"])
def test_a_module_of_the_users_own_that_is_there_now_and_was_looked_for_in_vain(folder, capfd, head, place):
    """It is run before the packages are imported, and may set `OMP_NUM_THREADS`, for one."""
    write(folder, {"train.py": f"{head}\n{OPTIONAL}"})
    same = start(folder, "train.py")
    standby = ready(same, note_of(folder / "train.py"))
    write(folder, {place: "import os\nos.environ['OMP_NUM_THREADS'] = '2'\n"})
    assert "local_settings" in said_by(standby, same, capfd)


BEE = {JOB: "bee", RUN_DIR: "/runs/bee", ATTEMPT_DIR: "/runs/bee/attempts/1"}


@pytest.mark.parametrize("library", READERS)
def test_a_library_that_reads_a_variable_of_the_attempt_as_it_is_imported_is_tied_to_it(
    folder, capfd, library
):
    """Else the next job would write into the folder of the one before."""
    write(folder, {"train.py": f"import {library}\n"})
    standby = ready(start(folder, "train.py"), note_of(folder / "train.py", library=library))
    said = said_by(standby, start(folder, "train.py", **BEE), capfd)
    assert f"importing its modules reads or sets {RUN_DIR}, which differs" in said


def test_a_library_that_sets_a_variable_of_the_attempt_is_tied_to_what_it_was(folder, capfd):
    """As torch does, when the run of before keeps no compiled code: the next run's folder would be lost."""
    write(folder, {"train.py": "import sets\n"})
    standby = ready(start(folder, "train.py"), note_of(folder / "train.py", library="sets"))
    said = said_by(standby, start(folder, "train.py", **BEE, TORCHINDUCTOR_CACHE_DIR="/runs/bee"), capfd)
    assert "importing its modules reads or sets TORCHINDUCTOR_CACHE_DIR, which differs" in said
    standby = ready(start(folder, "train.py"), note_of(folder / "train.py", library="sets"))
    assert runs(standby, start(folder, "train.py", **BEE), folder) == ""


@pytest.mark.parametrize("library", WALKS)
def test_a_library_that_looks_for_variables_of_its_own_is_tied_to_none(folder, library):
    write(folder, {"train.py": f"import {library}, os\nprint(os.environ['{RUN_DIR}'])\n"})
    standby = ready(start(folder, "train.py"), note_of(folder / "train.py", library=library))
    assert runs(standby, start(folder, "train.py", **BEE), folder) == "/runs/bee\n"


def runs(standby, start, folder):
    """Have a standby run a start; return what it prints."""
    log = os.open(folder / "log", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    try:
        assert standby.take(start, log_descriptor=log, cgroup=AttemptCgroup(())) == standby.pid
        assert os.waitstatus_to_exitcode(os.waitpid(standby.pid, 0)[1]) == 0, (folder / "log").read_text()
    finally:
        os.close(log)
    return (folder / "log").read_text()


def test_a_script_that_may_decide_by_the_variables_of_the_attempt_is_started_cold_for_another_job(
    folder, capfd
):
    script = f"import os\nif os.environ['{JOB}'] == 'bee':\n    os.environ['A'] = '1'\nimport library\n"
    write(folder, {"train.py": script})
    standby = ready(start(folder, "train.py"), note_of(folder / "train.py"))
    said = said_by(standby, start(folder, "train.py", **BEE), capfd)
    assert "the variables of the attempt have changed, and" in said
    assert "train.py" in said


def test_arguments_that_a_library_has_replaced(folder):
    write(folder, {"train.py": "import replaces\n"})
    standby = StandbyProcess(start(folder, "train.py"), note_of(folder / "train.py", library="replaces"))
    assert "importing its modules replaces sys.argv" in wait_until_ready(standby)
    standby.end()


@pytest.mark.parametrize(
    "script", ["train.py", "./train.py", "././train.py", ".//train.py", "../{}/train.py"]
)
def test_a_script_has_the_path_that_the_interpreter_gives_it(folder, script):
    write(folder, {"train.py": "import library\nprint(__file__)\n"})
    same = start(folder, script.format(folder.name))
    cold = subprocess.run(same.command, cwd=folder, env=same.environ, capture_output=True, check=True).stdout
    assert runs(ready(same, note_of(folder / "train.py")), same, folder) == cold.decode()


def test_variables_that_a_program_changes_before_its_first_import_are_named(folder):
    """A file that it reads may have it do so, which the standby cannot know."""
    text = "import os\nif os.path.exists('flag'):\n    os.environ['OMP_NUM_THREADS'] = '2'\nimport library\n"
    write(folder, {"train.py": text})
    same = start(folder, "train.py")
    standby = ready(same, note_of(folder / "train.py"))
    (folder / "flag").touch()
    assert "library was imported in advance, and the program has changed OMP_NUM_THREADS since" in runs(
        standby, same, folder
    )


@pytest.mark.parametrize("words", [["train.py"], ["-m", "train"]], ids=["script", "module"])
def test_a_program_that_has_not_imported_sys_ends_with_0(folder, words):
    write(folder, {"train.py": "import library\nprint(sorted(globals().keys() & {'os', 'sys'}))\n"})
    same = start(folder, *words)
    assert runs(ready(same, note_of(folder / "train.py")), same, folder) == "[]\n"
