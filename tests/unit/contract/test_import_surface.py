"""Edits of a file that keep the digest of its imports, change it, or leave the file without one."""

import pytest

from trainerd.contract.import_surface import surface_of

FILE = """
import json
from pathlib import Path

import numpy
import torch
from torch import nn
from own import helper

try:
    import wandb
except ImportError:
    wandb = None

LR = 0.1
HERE = Path(__file__).parent


class Net(nn.Module):
    size: int = 3

    def forward(self, x):
        return helper(x) * LR


def main():
    from torch.utils import tensorboard
    print(LR)


if __name__ == "__main__":
    import trainerd
    main()
"""


def edited(old, new):
    assert old in FILE
    return surface_of(FILE.replace(old, new).encode())


def test_what_is_imported_first_and_what_elsewhere_is_told():
    found = surface_of(FILE.encode())
    assert found.early == (
        "numpy", "torch", "torch.nn", "own", "own.helper", "wandb",
    )  # fmt: skip
    assert set(found.later) == {"torch.utils", "torch.utils.tensorboard", "trainerd"}
    assert found.why_not == ""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("LR = 0.1", "LR = 0.2  # smaller"),
        ("* LR", "* LR + torch.ones(2)"),
        ("import json", "import csv, json, random"),
        ("    print(LR)", "    torch.manual_seed(1)\n    torch.backends.cudnn.benchmark = True"),
        (
            "class Net(nn.Module):",
            "@staticmethod\ndef more(x: torch.Tensor = None): ...\n\n\nclass Net(nn.Module):",
        ),
        (
            "    print(LR)",
            "    import os\n    print(os.environ.get('A'), os.environ['B'], 'C' in os.environ)",
        ),
    ],
)
def test_an_edit_of_other_code_leaves_it_equal(old, new):
    assert edited(old, new).digest == surface_of(FILE.encode()).digest != ""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("import numpy\n", "import numpy\nimport scipy\n"),
        ("import numpy\nimport torch\n", "import torch\nimport numpy\n"),
        ("from torch import nn", "from torch import nn, optim"),
        ("from own import helper", "from own2 import helper"),
        ("    from torch.utils import tensorboard\n", ""),
        ("    import trainerd\n", ""),
        ("    import wandb\n", "    import mlflow\n"),
    ],
)
def test_an_edit_of_imports_does_not(old, new):
    changed = edited(old, new)
    assert changed.digest != surface_of(FILE.encode()).digest
    assert changed.digest != ""


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("import numpy\n", "print(1)\nimport numpy\n", "runs before everything is imported"),
        ("import numpy\n", "import numpy\nnumpy.x = 1\n", "runs before everything is imported"),
        ("import numpy\n", "N = f()\nimport numpy\n", "runs before everything is imported"),
        ("import numpy\n", "if json.x:\n    import numpy\n", "runs before everything is imported"),
        ("import numpy\n", "@f\ndef g(): ...\nimport numpy\n", "runs before everything is imported"),
        ("import numpy\n", "def g(x=f()): ...\nimport numpy\n", "runs before everything is imported"),
        ("import numpy\n", "class A(f()): ...\nimport numpy\n", "runs before everything is imported"),
        ("import numpy\n", "class A:\n    x = f()\nimport numpy\n", "runs before everything is imported"),
        ("    print(LR)", "    os.environ['A'] = '1'", "uses environ"),
        ("    print(LR)", "    os.environ.setdefault('A', '1')", "uses environ"),
        ("    print(LR)", "    del os.environ['A']", "uses environ"),
        ("    print(LR)", "    os.putenv('A', '1')", "uses putenv"),
        ("    print(LR)", "    from os import putenv as p", "imports putenv"),
        ("    print(LR)", "    from os import environ as e\n    e['A'] = '1'", "renames environ"),
        ("    print(LR)", "    e = os.environ", "uses environ"),
        ("    print(LR)", "    os.chdir('/')", "uses chdir"),
        ("    print(LR)", "    sys.path.insert(0, '/')", "uses sys.path"),
        ("    print(LR)", "    from sys import modules", "imports modules"),
        ("    print(LR)", "    import sys as s\n    s.path.append('/')", "renames sys"),
        ("    print(LR)", "    vars(sys)['path'].append('/')", "uses sys"),
        ("    print(LR)", "    getattr(helper, 'environ')['A'] = '1'", "names environ"),
        ("    print(LR)", "    __import__('scipy')", "uses __import__"),
        ("    print(LR)", "    exec('import scipy')", "uses exec"),
        ("    print(LR)", "    import importlib.util", "imports importlib"),
        ("    print(LR)", "    from importlib import import_module", "imports importlib"),
        ("    print(LR)", "    print(", "cannot be parsed"),
        ("    print(LR)", "    dotenv.load_dotenv()", "uses load_dotenv"),
    ],
)  # fmt: skip
def test_what_may_decide_otherwise_has_none(old, new, why):
    changed = edited(old, new)
    assert changed.digest == ""
    assert why in changed.why_not


def test_a_hostile_file_has_none():
    for source in (b"\0", b"x = " + b"(" * 10_000, b"\xff\xfe", b"a" + b".b" * 5_000 + b" = 1\nimport numpy"):
        assert surface_of(source).digest == ""
