"""What `make docs` adds to the pages of docs/: what they link to outside it, and the navigation.

The navigation is the lists of docs/README.md, in their order. A page that they leave out is a warning of
MkDocs, and a warning is an error of `make docs`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT: Final = Path(__file__).parents[2]
DOCS: Final = ROOT / "docs"
OUTSIDE: Final = "repository"
"""Folder of the site for what lies outside docs/."""

PROJECT_PAGES: Final = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
LINK: Final = re.compile(r"(\]\()([^)\s:#]+)((?:#[^)\s]*)?\))")
CODE: Final = re.compile(r"^```.*?^```|^    [^\n]*$|`[^`\n]*`", re.MULTILINE | re.DOTALL)
ROW: Final = re.compile(r"^\| \[([^\]]*)\]\((.*?)\) \|", re.MULTILINE)
DECISIONS: Final = "decisions/index.md"


def target_of(page: Path, link: str) -> Path:
    """Return the file that a link of a page leads to; of a folder it is the README, if there is one."""
    target = Path(os.path.normpath(page.parent / link))
    readme = target / "README.md"
    return readme if target.is_dir() and readme.exists() else target


def links_of(page: Path) -> list[Path]:
    """Return what the links of a page lead to, those in code left out."""
    return [target_of(page, link[1]) for link in LINK.findall(CODE.sub("", page.read_text("utf-8")))]


def place_of(path: Path) -> str:
    """Return where a file of the repository is on the site, as a path from the site's root."""
    if path == DOCS / "decisions":
        return DECISIONS
    if path.is_relative_to(DOCS):
        return path.relative_to(DOCS).as_posix()
    relative = path.relative_to(ROOT).as_posix()
    # What is no page is shown as text.
    return f"{OUTSIDE}/{relative}" if path.suffix in {".md", ".png", ".svg"} else f"{OUTSIDE}/{relative}.txt"


def files_outside() -> list[Path]:
    """Return what lies outside docs/ and is linked to, from docs/ or from a page that is linked to."""
    found: dict[Path, None] = {}
    waiting = [*DOCS.rglob("*.md"), *(ROOT / name for name in PROJECT_PAGES)]
    while waiting:
        path = waiting.pop(0)
        if path in found or not path.is_file():
            continue
        found[path] = None
        if path.suffix == ".md":
            waiting += links_of(path)
    return [path for path in found if not path.is_relative_to(DOCS)]


def moved(text: str, page: Path) -> str:
    """Return the text of a page with links as they are on the site."""
    start = Path(place_of(page)).parent

    def follow(match: re.Match[str]) -> str:
        target = target_of(page, match[2])
        if not (target.is_file() or target == DOCS / "decisions") or not target.is_relative_to(ROOT):
            return match[0]  # MkDocs refuses it
        return match[1] + os.path.relpath(place_of(target), start) + match[3]

    pieces, end = [], 0
    for code in CODE.finditer(text):
        pieces += [LINK.sub(follow, text[end : code.start()]), code[0]]
        end = code.end()
    return "".join([*pieces, LINK.sub(follow, text[end:])])


def title_of(page: Path) -> str:
    """Return the heading of a page."""
    found = re.search(r"^# (.*)$", page.read_text("utf-8"), re.MULTILINE)
    if found is None:
        raise PluginError(f"{page}: no title")
    return found[1].replace("`", "")


def decisions() -> list[Path]:
    """Return the pages of decisions by number."""
    return sorted((DOCS / "decisions").glob("*.md"))


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Make the navigation."""
    entrance = (DOCS / "README.md").read_text("utf-8")
    navigation: list[Any] = ["README.md"]
    for section in re.split(r"^## ", entrance, flags=re.MULTILINE)[1:]:
        title = section.partition("\n")[0]
        pages: list[Any] = []
        for name, link in ROW.findall(section):
            name_of_page = name.replace("`", "")
            if link == "decisions/":
                each = [{title_of(path): path.relative_to(DOCS).as_posix()} for path in decisions()]
                pages.append({name_of_page: [DECISIONS, *each]})
            else:
                pages.append({name_of_page: link})
        navigation.append({title: pages})
    outside = [path for path in files_outside() if path.suffix == ".md"]
    navigation.append({"Repository": [{title_of(path): place_of(path)} for path in outside]})
    config.nav = navigation
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what lies outside docs/, and the list of decisions."""
    listed = "".join(f"* [{title_of(path)}]({path.name})\n" for path in decisions())
    files.append(
        File.generated(config, DECISIONS, content=f"# Decisions\n\nWhy trainerd is as it is.\n\n{listed}")
    )
    for path in files_outside():
        # Read as bytes: an image is not text.
        content = moved(path.read_text("utf-8"), path) if path.suffix == ".md" else path.read_bytes()
        files.append(File.generated(config, place_of(path), content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let the links of a page in docs/ lead to their places on the site."""
    del config, files
    path = DOCS / page.file.src_uri
    return moved(markdown, path) if path.is_file() else markdown
