"""What a program notes of its own files and variables for the standby of the next attempt."""

import os
import types
from pathlib import Path

from trainerd.contract.import_surface import surface_of
from trainerd.contract.module_note import read_note
from trainerd.training.engine.imported_modules import changed_variables, divided, note_imported_modules


def own_module(folder, text="import torch\n"):
    (folder / "own.py").write_text(text)
    module = types.ModuleType("own")
    module.__file__ = str(folder / "own.py")
    return module


def noted(module, began_ns):
    _, (file,) = divided([("own", module)], (), began_ns=began_ns)
    return file.imports


def test_a_file_of_its_own_is_noted_with_what_it_decides_about_imports(tmp_path):
    module = own_module(tmp_path)
    digest = surface_of(Path(module.__file__).read_bytes()).digest
    assert noted(module, None) == digest != ""
    after_ns = Path(module.__file__).stat().st_ctime_ns + 1
    assert noted(module, after_ns) == digest


def test_one_that_was_written_after_the_attempt_had_begun_need_not_be_what_was_imported(tmp_path):
    module = own_module(tmp_path)
    assert noted(module, Path(module.__file__).stat().st_ctime_ns) == ""
    assert noted(own_module(tmp_path, "import sys\nsys.path.clear()\n"), None) == ""


def test_an_attempt_began_when_its_launch_was_recorded_and_without_a_record_at_no_known_time(tmp_path):
    (tmp_path / "000001").mkdir()
    note_imported_modules(tmp_path / "modules.json", attempt=1, attempt_dir=tmp_path / "000001")
    assert not any(file.imports for file in read_note(tmp_path / "modules.json").files)
    launch = tmp_path / "000001" / "launch.json"
    launch.write_text("{}")
    future_ns = launch.stat().st_mtime_ns + 10**18
    os.utime(launch, ns=(future_ns, future_ns))
    note_imported_modules(tmp_path / "modules.json", attempt=1, attempt_dir=tmp_path / "000001")
    files = read_note(tmp_path / "modules.json").files
    assert any(file.imports for file in files if file.path == __file__)


def test_what_compiling_sets_is_no_change_of_the_program():
    before = b"A=1\0B=2\0TRAINERD_JOB=a\0TORCHINDUCTOR_CACHE_DIR=run\0"
    now = {
        b"A": b"1",
        b"B": b"3",
        b"C": b"4",
        b"TORCHINDUCTOR_CACHE_DIR": b"/run",
        b"TRITON_CACHE_DIR": b"/run/triton",
        b"_TORCHINDUCTOR_PYOBJECT_TENSOR_DATA_PTR": b"140",
    }
    assert changed_variables(before, now.items()) == ("B", "C")
