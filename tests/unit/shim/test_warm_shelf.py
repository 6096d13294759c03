"""What stands ready in a standby process, and what the process brings itself: the standard library alone."""

import ast
import sys
from pathlib import Path

import pytest

import trainerd.shim
from trainerd.shim.warm_shelf import Shelf

FOLDER = Path(trainerd.shim.__file__).parent
ALONE = ("warm_program.py", "warm_shelf.py", "own_code.py", "../contract/import_surface.py")
"""They run in the process that becomes the script, before it imports anything."""


@pytest.mark.parametrize("file", ALONE)
def test_it_imports_the_standard_library_alone(file):
    tree = ast.parse((FOLDER / file).read_text())
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {each.name for each in node.names}
        if isinstance(node, ast.ImportFrom):
            found.add(node.module)
    assert {each.partition(".")[0] for each in found} <= sys.stdlib_module_names


def test_every_file_that_it_loads_by_path_is_looked_at():
    source = (FOLDER / "warm_program.py").read_text()
    calls = [each for each in ast.walk(ast.parse(source)) if isinstance(each, ast.Call)]
    loaded = {
        each.args[0].value for each in calls if isinstance(each.func, ast.Name) and each.func.id == "load"
    }
    assert loaded == set(ALONE) - {"warm_program.py"}


def test_a_module_of_a_package_that_was_there_at_the_start_is_loaded_once(tmp_path, monkeypatch):
    """As where a line of a `.pth` file has imported the package."""
    package = tmp_path / "early_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "late.py").write_text("class Late: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    import early_package

    names = ("early_package", "early_package.late")
    shelf = Shelf()
    try:
        with shelf.noting(), shelf.taking("early_package.late", is_late=False):
            import early_package.late
        prepared = sys.modules["early_package.late"]
        shelf.close()
        assert "early_package.late" not in sys.modules
        from early_package.late import Late

        assert sys.modules["early_package.late"] is prepared
        assert early_package.late.Late is Late
    finally:
        sys.meta_path[:] = [each for each in sys.meta_path if each is not shelf]
        for name in names:
            sys.modules.pop(name, None)
