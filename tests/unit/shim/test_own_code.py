"""Whether edited files of the user's own are taken for what the last attempt had imported."""

from types import SimpleNamespace

import pytest

from trainerd.contract.import_surface import surface_of
from trainerd.shim.own_code import OwnCode, why_other_order

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


BROUGHT = {
    "numpy": "numpy",
    "numpy.random": "numpy",
    "torch": "torch",
    "torch.nn": "torch",
    "late.part": "late",
}
MODULES = {name: SimpleNamespace(Tensor=1, nn=2) for name in BROUGHT}


def program(folder, files, *, script="train.py", module=None):
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    words = {"script": None if module else str(folder / script), "module": module, "folder": str(folder)}
    return OwnCode.of_program(surface_of, **words)


def test_the_files_of_a_program_that_has_not_run_are_followed_by_their_text(tmp_path):
    code = program(tmp_path, FILES | {"lazy.py": "", "train.py": f"{TRAIN}def f():\n    import lazy\n"})
    found = {path.removeprefix(f"{tmp_path}/") for path in code.digests}
    assert found == FILES.keys() - {"later.py"} | {"lazy.py"}
    assert code.order() == ("torch", "numpy", "scipy")
    assert code.why_not_equal({"torch", "numpy", "scipy"}, lambda top: {top}) == ""
    assert program(tmp_path, {}, module="train").order() == ("torch", "numpy", "scipy")
    in_a_circle = {"a.py": "import b, torch.nn\n", "b.py": "import a, numpy\n"}
    assert program(tmp_path, in_a_circle, script="a.py").order() == ("numpy", "torch", "torch.nn")
    assert program(tmp_path, {}, script="not_there.py").order() is None


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"train.py": "import os\nos.environ['A'] = '1'\n"}, "line 2 uses environ"),
        (
            {"train.py": "import model\n", "model.py": "print(1)\nimport torch\n"},
            "line 1 runs before everything",
        ),
        (
            {"train.py": "def f():\n    import model\n", "model.py": "import sys; sys.path = []\n"},
            "uses sys.path",
        ),
        ({"train.py": "def f():\n    import wandb\n"}, "imports wandb in a function"),
    ],
)
def test_what_a_program_that_has_not_run_may_change_about_imports_is_found(tmp_path, files, said):
    assert said in program(tmp_path, files).why_not_equal(set(), lambda top: {top})


@pytest.mark.parametrize(
    ("noted", "order", "said"),
    [
        (("numpy", "torch"), ("numpy", "torch"), ""),
        (("numpy", "torch"), ("numpy", "numpy.random", "torch", "torch.nn", "torch.Tensor"), ""),
        (("numpy", "torch"), ("torch", "numpy"), "it imports in another order than the last attempt"),
        (("numpy", "torch"), ("torch",), "it imports in another order than the last attempt"),
        (("torch",), ("torch", "late", "late.part"), "it imports late, which the last attempt did not"),
        (("torch",), ("torch", "torch.unknown"), "it imports torch.unknown, which the last attempt did not"),
        (("torch",), ("torch", "torch.*"), "it imports torch.*, which the last attempt did not"),
        (("torch",), ("psutil", "torch"), "it imports psutil, which the last attempt did not"),
        (None, ("torch",), "it cannot be told what the last attempt, or this one, imports first"),
        (("torch",), None, "it cannot be told what the last attempt, or this one, imports first"),
    ],
)
def test_another_program_is_equal_if_its_imports_bring_the_same_in_the_same_order(noted, order, said):
    assert why_other_order(noted, order, BROUGHT, MODULES) == said


def test_the_order_of_a_file_that_was_edited_since_it_was_noted_cannot_be_told(tmp_path):
    why_not(tmp_path)
    files = [[str(tmp_path / "train.py"), 1, 1, 1, 1, "another digest"]]
    code = OwnCode(files, surface_of, script=str(tmp_path / "train.py"), module=None, folder=str(tmp_path))
    assert code.order() is None
