"""A second name for the files of a folder, without a copy of what is in them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def link_folder(source: Path, target: Path) -> bool:
    """Make a folder whose files are hard links to those of another folder.

    It is made aside and renamed: a crash before that leaves ``.NAME.partial``, which the next call replaces.
    Nothing is synced; the data are durable already.

    Args:
        source: The folder. Its files are never changed in place.
        target: The new one. If it exists it is complete, and stays.

    Returns:
        Whether it is there; not if the filesystem makes no hard links, or these are two filesystems.
    """
    if target.exists():
        return True
    aside = target.with_name(f".{target.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        shutil.copytree(source, aside, copy_function=os.link)
        aside.rename(target)
    except (OSError, shutil.Error):
        shutil.rmtree(aside, ignore_errors=True)
        return target.exists()
    return True
