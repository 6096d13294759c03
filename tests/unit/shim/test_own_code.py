"""Whether edited files of the user's own are taken for what the last attempt had imported."""

import pytest

from trainerd.contract.import_surface import surface_of
from trainerd.shim.own_code import OwnCode

TRAIN = "import torch\nfrom model import Net\nfrom parts.head import Head\n"
FILES = {
    "train.py": TRAIN,
    "model.py": "import numpy\n",
    "parts/__init__.py": "",
    "parts/head.py": "from .base import Base\n",
    "parts/base.py": "import scipy\n",
    "later.py": "import wandb\n",
}
IMPORTS = {"torch": {"sympy"}}


def why_not(folder, *, changed=None, noted=None, imported=("numpy", "scipy", "sympy", "torch")):
    for name, text in (FILES | (changed or {})).items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    files = [
        [str(folder / name), 1, 1, 1, 1, surface_of(text.encode()).digest]
        for name, text in (FILES | (noted or {})).items()
    ]
    code = OwnCode(files, surface_of, script=str(folder / "train.py"), module=None, folder=str(folder))
    return code.why_not_equal(set(imported), lambda top: {top, *IMPORTS.get(top, ())})


def test_an_edit_that_leaves_the_imports_is_equal(tmp_path):
    assert why_not(tmp_path, changed={"model.py": "import numpy\n\nX = 3\n"}) == ""


def test_a_module_is_run_as_a_script_is(tmp_path):
    assert why_not(tmp_path) == ""
    files = [[str(tmp_path / name), 1, 1, 1, 1, surface_of(FILES[name].encode()).digest] for name in FILES]
    code = OwnCode(files, surface_of, script=None, module="train", folder=str(tmp_path))
    assert code.why_not_equal({"torch"}, lambda top: {top}) == ""
    assert "model" in code.early()
    assert "parts" in code.early(), "with the packages that they are in"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"model.py": "import numpy\nimport scipy\n"}, "imports something else now, or in another order"),
        ({"parts/base.py": "import scipy\nimport os\nos.environ['A'] = '1'\n"}, "line 3 uses environ"),
        ({"train.py": TRAIN + "def f(\n"}, "cannot be parsed"),
    ],
)
def test_an_edit_that_may_change_what_is_imported_is_not(tmp_path, changed, said):
    assert said in why_not(tmp_path, changed=changed)


def test_a_file_that_is_gone_or_was_not_followed_is_not(tmp_path):
    why_not(tmp_path)
    files = [[str(tmp_path / "gone.py"), 1, 1, 1, 1, "digest"]]
    gone = OwnCode(files, surface_of, script=str(tmp_path / "train.py"), module=None, folder=str(tmp_path))
    assert "cannot be read" in gone.why_not_equal(set(), lambda top: {top})
    files = [[str(tmp_path / "train.py"), 1, 1, 1, 1, ""]]
    unknown = OwnCode(files, surface_of, script=str(tmp_path / "train.py"), module=None, folder=str(tmp_path))
    assert "was written after the last attempt had begun" in unknown.why_not_equal(set(), lambda top: {top})


def test_a_package_that_only_a_function_imports_is_not_taken_for_granted(tmp_path):
    """Importing it changes more of a process than a script's modules: it may start threads, or set hooks."""
    said = why_not(tmp_path, imported=("numpy", "scipy", "torch", "wandb"))
    assert said == "it may or may not import wandb, which is not among its first imports"
    lazy = {"train.py": TRAIN + "def f():\n    import wandb\n"}
    assert "train.py imports wandb in a function" in why_not(tmp_path, changed=lazy, noted=lazy)
