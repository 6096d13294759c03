"""The documentation site builds without a warning, needs no other site, and has every public name."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import trainerd

pytest.importorskip("material", reason="there is no mkdocs-material: pip install '.[docs]'")
pytest.importorskip("mkdocstrings")

ROOT = Path(__file__).parents[3]
LOADED = re.compile(
    r"""<(?:script|img|iframe)[^>]* src="?(https?:)?//|<link[^>]* href="?(https?:)?//[^>]*stylesheet"""
)


def build(place: Path, root: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(place)],
        cwd=root,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("site")
    result = build(place)
    assert result.returncode == 0, result.stdout + result.stderr
    return place


def test_every_page_is_on_the_site(site: Path) -> None:
    pages = {path.relative_to(ROOT / "docs").with_suffix("") for path in (ROOT / "docs").rglob("*.md")}
    built = {path.relative_to(site).with_suffix("") for path in site.rglob("*.html")}
    assert {page for page in pages if page.name != "README"} - built == set()
    assert {Path("index"), Path("repository/index"), Path("repository/systemd/index")} <= built


def test_lists_and_code_are_shown_as_such(site: Path) -> None:
    """The site is stricter than GitHub: four spaces continue an item, a list needs a blank line."""
    lost = re.compile(
        r"<(?:p|li)>(?:(?!</p>|</li>|<li>|<p>).)*\n(?:\* |\d+\. )|^```|<code>```", re.DOTALL | re.MULTILINE
    )
    found = {path.name: lost.search(path.read_text("utf-8")) for path in site.rglob("*.html")}
    assert {name: match[0][-80:] for name, match in found.items() if match} == {}
    assert lost.search("<p>one:\n* two</p>")


def test_no_page_loads_anything_from_another_site(site: Path) -> None:
    assert [path.name for path in site.rglob("*.html") if LOADED.search(path.read_text("utf-8"))] == []
    assert LOADED.search('<script src="https://example.org/a.js">')


def test_the_reference_has_every_public_name(site: Path) -> None:
    page = (site / "api.html").read_text("utf-8")
    names = set(trainerd.__all__) - {"__version__"}
    assert {name for name in names if not re.search(rf'id="trainerd\.[\w.]+\.{name}"', page)} == set()


def test_an_orphan_and_a_broken_link_fail_the_build(tmp_path: Path) -> None:
    """With --quiet MkDocs counts no warnings, and --strict means nothing."""
    root = tmp_path / "copy"
    shutil.copytree(ROOT, root, ignore=shutil.ignore_patterns(".*", "__pycache__", "build", "tests"))
    (root / "docs" / "orphan.md").write_text("# Orphan\n\n[a](nonesuch.md) [b](cuda.md#nonesuch)\n")
    result = build(tmp_path / "site", root)
    assert result.returncode != 0
    said = result.stdout + result.stderr
    assert all(word in said for word in ("orphan.md", "nonesuch.md", "cuda.md#nonesuch")), said
    assert "mkdocs build --strict\n" in (ROOT / "Makefile").read_text()
