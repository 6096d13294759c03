"""The helper that lets a CUDA build of torchvision be imported beside a torch for the CPU."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.torch,
    pytest.mark.skipif(
        importlib.util.find_spec("torchvision") is None, reason="torchvision is not installed"
    ),
]

EXAMPLE = Path(__file__).parents[3] / "jobs" / "examples" / "mnist"


def run_in_example(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=EXAMPLE,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_resnet_can_be_built_whatever_torchvision_was_built_for() -> None:
    result = run_in_example(
        "from torchvision_compat import import_torchvision\n"
        "print(type(import_torchvision().models.resnet18(num_classes=10)).__name__)"
    )
    assert result.stdout.strip() == "ResNet", result.stderr


def test_a_torchvision_that_imports_is_left_alone() -> None:
    """No operator is declared where none is missing."""
    result = run_in_example(
        "import sys, types\n"
        "sys.modules['torchvision'] = types.ModuleType('torchvision')\n"
        "import torchvision_compat\n"
        "assert torchvision_compat.import_torchvision() is sys.modules['torchvision']\n"
        "print(len(torchvision_compat._declarations))"
    )
    assert result.stdout.strip() == "0", result.stderr


def test_another_failure_is_not_hidden(tmp_path: Path) -> None:
    """Only the two known operators are ever declared."""
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(
        "raise RuntimeError('operator torchvision::roi_align does not exist')"
    )
    result = run_in_example(
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from torchvision_compat import import_torchvision\n"
        "import_torchvision()"
    )
    assert "RuntimeError: operator torchvision::roi_align does not exist" in result.stderr
