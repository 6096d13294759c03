"""What imports what, seen from a fresh interpreter."""

from __future__ import annotations

import ast
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import trainerd
from trainerd.cli.needs_daemon import PACKAGES

REPOSITORY = Path(__file__).parents[3]

TORCH_FREE = (
    "trainerd.analysis",
    "trainerd.contract",
    "trainerd.checkpoint",
    "trainerd.supervisor",
    "trainerd.cli",
)

BLOCK_TORCH = """
import sys
for name in ("torch", "torchvision", "numpy"):
    sys.modules[name] = None  # importing it now raises ImportError, as if it were not installed
"""


DAEMON_FREE = (
    "trainerd.analysis",
    "trainerd.contract",
    "trainerd.checkpoint",
    "trainerd.training",
    "trainerd.shim",
)

INTEGRATIONS = "trainerd.training.integrations."
"""Each imports its framework, which need not be installed."""

BLOCK_DAEMON = f"""
import sys
for name in {sorted({*PACKAGES, "starlette", "fsspec"})}:
    sys.modules[name] = None
"""


DRAWS_WITH_NUMPY = "trainerd.cli.curve_picture"
"""matplotlib is optional and brings NumPy: imported for a picture, and only then."""


def run_python(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )


def torch_free_modules() -> list[str]:
    found = ["trainerd", "trainerd.errors", "trainerd.version"]
    for module in pkgutil.walk_packages(trainerd.__path__, "trainerd."):
        if module.name == DRAWS_WITH_NUMPY:
            continue
        if module.name.startswith(TORCH_FREE) or module.name == "trainerd.training":
            found.append(module.name)
    return found


def modules_below(packages: tuple[str, ...]) -> list[str]:
    return [
        module.name
        for module in pkgutil.walk_packages(trainerd.__path__, "trainerd.")
        if module.name.startswith(packages)
        and not module.name.endswith("__main__")
        and not module.name.startswith(INTEGRATIONS)
    ]


def test_importing_trainerd_loads_neither_torch_nor_numpy() -> None:
    """`import trainerd` alone is cheap."""
    program = (
        "import sys, trainerd; print([m for m in ('torch', 'numpy', 'pydantic', 'rich') if m in sys.modules])"
    )
    assert run_python(program).stdout.strip() == "[]"


def test_supervisor_cli_and_store_import_where_torch_is_not_installed() -> None:
    """Every module outside the training side imports with torch and NumPy blocked."""
    program = (
        BLOCK_TORCH
        + "import importlib\n"
        + "\n".join(
            f"importlib.import_module({name!r})"
            for name in torch_free_modules()
            if not name.endswith("__main__")
        )
    )
    result = run_python(program)
    assert (result.returncode, result.stderr) == (0, "")


def test_the_block_of_torch_blocks() -> None:
    """Guards the test above against passing for nothing."""
    assert "ModuleNotFoundError" in run_python(BLOCK_TORCH + "import torch").stderr


@pytest.mark.torch
def test_training_needs_no_package_of_the_daemon() -> None:
    """`pip install trainerd` beside torch and NumPy is enough for a training script."""
    lines = [f"importlib.import_module({name!r})" for name in modules_below(DAEMON_FREE)]
    program = BLOCK_DAEMON + "import importlib, trainerd\ntrainerd.session\n" + "\n".join(lines)
    result = run_python(program)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.torch
def test_every_public_name_can_be_had() -> None:
    """What `trainerd.__all__` promises exists, and `dir` shows it."""
    assert {name for name in trainerd.__all__ if not hasattr(trainerd, name)} == set()
    assert sorted(trainerd.__all__) == dir(trainerd)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'sesion'"):
        _ = trainerd.sesion


@pytest.mark.parametrize("package", ["contract", "shim"])
def test_what_every_process_of_a_job_imports_is_the_standard_library(package: str) -> None:
    """Read from the source, so that what is imported inside a function, or for type checkers alone, counts
    too."""
    folder = Path(trainerd.__file__).parent / package
    strangers = {
        f"{path.name}: {module}"
        for path in folder.rglob("*.py")
        for module in imported_modules(path)
        if module.partition(".")[0] not in sys.stdlib_module_names
        and not module.startswith(("trainerd.contract", "trainerd.errors", f"trainerd.{package}"))
    }
    assert strangers == set()


def test_the_analysis_of_scripts_imports_nothing_but_the_standard_library() -> None:
    folder = Path(trainerd.__file__).parent / "analysis"
    strangers = {
        f"{path.name}: {module}"
        for path in folder.rglob("*.py")
        for module in imported_modules(path)
        if module.partition(".")[0] not in sys.stdlib_module_names
        and not module.startswith("trainerd.analysis")
    }
    assert strangers == set()


def imported_modules(path: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            assert node.module is not None
            found.append(node.module)
    return found


def third_party_imports(package: str) -> dict[str, str]:
    """Return the packages that a package's modules import beside trainerd and the standard library, each with
    a file."""
    return {
        module.partition(".")[0]: path.name
        for path in sorted((REPOSITORY / "daemon" / package).rglob("*.py"))
        if package.endswith("integrations") or path.parent.name != "integrations"
        for module in imported_modules(path)
        if module.partition(".")[0] not in {*sys.stdlib_module_names, "trainerd"}
    }


def test_training_imports_nothing_but_torch_numpy_and_xxhash() -> None:
    """What a training script imports must not depend on what the daemon depends on, not even where it is used
    late."""
    training = third_party_imports("trainerd/training")
    below = third_party_imports("trainerd/checkpoint") | third_party_imports("trainerd/contract")
    assert set(training) == {"torch", "numpy", "xxhash"}, training
    assert set(below) == {"xxhash", "fsspec"}, below  # fsspec: only for a mirror that is named by a URL


def test_integrations_import_their_frameworks_alone() -> None:
    frameworks = {"accelerate", "ignite", "mlflow", "ray", "transformers", "wandb"}
    assert set(third_party_imports("trainerd/training/integrations")) <= {*frameworks, "torch", "numpy"}


def test_imports_go_one_way() -> None:
    """The layers of the design hold."""
    linter = Path(sys.executable).with_name("lint-imports")
    if not linter.exists():
        pytest.skip("import-linter is not installed beside this Python")
    result = subprocess.run(
        [linter, "--no-cache"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout
