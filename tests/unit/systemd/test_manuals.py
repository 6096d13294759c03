"""Manual pages are linked beside the command, and no page of another program is touched."""

from __future__ import annotations

import subprocess
from pathlib import Path

SCRIPT = Path(__file__).parents[3] / "systemd" / "manuals.sh"


def links(tmp_path: Path, call: str) -> dict[str, str]:
    """Run a function of the script; return what is in the folder of manuals, with what each link leads to."""
    program = f'. "{SCRIPT}"; DESTDIR={tmp_path}; PREFIX=/opt/trainerd; manuals=/man1; set -eu; {call}'
    subprocess.run(["sh", "-c", program], check=True, timeout=30)
    folder = tmp_path / "man1"
    return {path.name: str(path.readlink()) if path.is_symlink() else "a file" for path in folder.iterdir()}


def test_manuals_are_linked_renewed_and_removed(tmp_path: Path) -> None:
    pages = tmp_path / "opt/trainerd/share/man/man1"
    pages.mkdir(parents=True)
    (tmp_path / "man1").mkdir()
    (tmp_path / "man1" / "trainerd-run.1").write_text("of another package")
    for name in ("trainerd.1", "trainerd-ps.1", "trainerd-run.1"):
        (pages / name).touch()
    installed = tmp_path / "opt/trainerd"
    place = "/opt/trainerd/share/man/man1"
    both = f"link_manuals {installed}; remove_manuals {installed}"
    linked = {
        "trainerd.1": f"{place}/trainerd.1",
        "trainerd-ps.1": f"{place}/trainerd-ps.1",
        "trainerd-run.1": "a file",
    }
    assert links(tmp_path, both) == linked
    assert links(tmp_path, both) == linked
    (pages / "trainerd-ps.1").unlink()  # a verb that the next version does not have
    del linked["trainerd-ps.1"]
    assert links(tmp_path, both) == linked
    assert links(tmp_path, "remove_manuals /nonexistent") == {"trainerd-run.1": "a file"}
