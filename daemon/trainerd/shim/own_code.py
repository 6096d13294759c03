"""Whether the user's code decides the same about imports as what the last attempt ran.

It may have been edited since, or be of another script.

The standby process loads this file by its path: it needs the standard library alone.
"""

from __future__ import annotations

import os
from typing import Any


class OwnCode:
    """The files of the user's code: those that the last attempt had imported, or a program that has not run.

    Args:
        files: Their paths, marks and surfaces, as noted.
        surface_of: Returns the surface of a file's content; see `contract.import_surface`.
        script: The file that is run; None if it is a module.
        module: The module that is run; None if it is a file.
        folder: Where modules of the user's are looked for first.

    Attributes:
        digests: Of the surface of each file.
    """

    def __init__(
        self,
        files: list[list[Any]],
        surface_of: Any,
        *,
        script: str | None,
        module: str | None,
        folder: str,
    ) -> None:
        self._surface_of = surface_of
        self.digests = {path: digest for path, *_, digest in files}
        self._folder = folder
        main = (
            [os.path.abspath(str(script))] if module is None else self._places(f"{module}.__main__", folder)
        )
        self._main_places = main
        self._main = {path for path in self.digests if any(same(path, each) for each in main)}
        self._found = {path: self._surface(path) for path in self.digests}

    @classmethod
    def of_program(cls, surface_of: Any, *, script: str | None, module: str | None, folder: str) -> OwnCode:
        """Return the files of a program that has not run, as far as their text tells which those are."""
        code = cls([], surface_of, script=script, module=module, folder=folder)
        new = [place for place in code._main_places if os.path.isfile(place)]
        code._main = set(new)
        while new:
            path = new.pop()
            found = code._found[path] = code._surface(path)
            code.digests[path] = found.digest
            named = {
                place
                for name in (*found.early, *found.later)
                for place in code._places(name, os.path.dirname(path))
            }
            new += [place for place in sorted(named - code._found.keys()) if os.path.isfile(place)]
        return code

    def order(self) -> tuple[str, ...] | None:
        """Return what its files import first that is not the user's own, packages before their modules.

        None if a file was edited since it was noted, or if it cannot be told.
        """
        noted = all(digest and self._found[path].digest == digest for path, digest in self.digests.items())
        if not noted or not self._main:
            return None
        order: dict[str, None] = {}
        reached: set[str] = set()

        def visit(path: str) -> None:
            reached.add(path)
            for name in self._found[path].early:
                places = [each for each in self._places(name, os.path.dirname(path)) if each in self._found]
                for place in places:
                    if place not in reached:
                        visit(place)
                if not places and not name.startswith("."):
                    parts = name.split(".")
                    order.update(dict.fromkeys(".".join(parts[:end]) for end in range(1, len(parts) + 1)))

        for place in self._main_places:
            for path in self._main - reached:
                if same(path, place):
                    visit(path)
        return tuple(order)

    def absent(self) -> list[str]:
        """Return where a module that the files name would be found, beside each of them too, and is none."""
        folders = {self._folder, *map(os.path.dirname, self.digests)}
        found = set(self._main_places)
        for path, surface in self._found.items():
            for name in (*surface.early, *surface.later):
                beside = {os.path.dirname(path)} if name.startswith(".") else folders
                found |= {place for folder in beside for place in self._places(name, folder, folder)}
        return sorted(place for place in found if not os.path.isfile(place))

    def _surface(self, path: str) -> Any:
        try:
            with open(path, "rb") as file:
                return self._surface_of(file.read())
        except OSError as error:
            return self._surface_of(b"\0")._replace(why_not=f"it cannot be read: {error.strerror}")

    def early(self) -> set[str] | None:
        """Return the modules that its files import first, with the packages they are in; None if unknown."""
        if any(not found.digest for found in self._found.values()):
            return None
        names = {name for found in self._found.values() for name in found.early}
        return names | {name[:end] for name in names for end in range(len(name)) if name[end] == "."}

    def why_not_equal(self, imported: set[str], closure: Any) -> str:
        """Return why what it imports may differ from what was noted; empty if it does not.

        Args:
            imported: Packages that were imported in advance before anything of the user's would run.
            closure: Returns the packages that a package imports.
        """
        for path, noted in self.digests.items():
            found = self._found[path]
            if not found.digest:
                return f"{path}: {found.why_not}"
            if not noted:
                return f"{path} was written after the last attempt had begun, or could not be followed then"
            if found.digest != noted:
                return f"{path} imports something else now, or in another order"
        tops = {name.partition(".")[0] for path in self._reached() for name in self._found[path].early}
        reached = {each for top in tops for each in closure(top)}
        if more := sorted(imported - reached):
            return f"it may or may not import {more[0]}, which is not among its first imports"
        known = reached | {os.path.splitext(os.path.basename(path))[0] for path in self.digests}
        for path, found in self._found.items():
            names = {name.partition(".")[0] for name in found.later} - {""}
            if more := sorted(names - known - self._own_folders()):
                return f"{path} imports {more[0]} in a function, or may"
        return ""

    def _own_folders(self) -> set[str]:
        prefix = self._folder.rstrip("/") + "/"
        return {
            path.removeprefix(prefix).partition("/")[0] for path in self.digests if path.startswith(prefix)
        }

    def _reached(self) -> set[str]:
        """Return the files that are run before the script does anything but import."""
        found: set[str] = set()
        new = self._main
        while new:
            found |= new
            named = {
                place
                for path in new
                for name in self._found[path].early
                for place in self._places(name, os.path.dirname(path))
            }
            new = (named & self.digests.keys()) - found
        return found

    def _places(self, name: str, folder: str, top: str | None = None) -> list[str]:
        dots = len(name) - len(name.lstrip("."))
        base = os.path.normpath(os.path.join(folder, *[".."] * (dots - 1))) if dots else top or self._folder
        parts = [part for part in name.split(".") if part]
        places = []
        for count in range(1, len(parts) + 1):
            place = os.path.join(base, *parts[:count])
            places += [f"{place}.py", os.path.join(place, "__init__.py")]
        return places


def why_other_order(
    noted: tuple[str, ...] | None,
    order: tuple[str, ...] | None,
    brought_by: dict[str, str],
    modules: dict[str, Any],
) -> str:
    """Return why a program may not import what the last attempt did, in that order; empty if it does.

    Args:
        noted: What the last attempt imported first, see `OwnCode.order`.
        order: What this program imports first.
        brought_by: Which of the imports that were made in advance brought a module.
        modules: Modules by name.
    """
    if noted is None or order is None:
        return "it cannot be told what the last attempt, or this one, imports first"
    for name in order:
        package, _, last = name.rpartition(".")
        if name not in brought_by and not (package in brought_by and last in vars(modules[package])):
            return f"it imports {name}, which the last attempt did not"
    of_each = [
        list(dict.fromkeys(brought_by[name] for name in each if name in brought_by))
        for each in (noted, order)
    ]
    return "" if of_each[0] == of_each[1] else "it imports in another order than the last attempt"


def same(path: str, other: str) -> bool:
    try:
        return os.path.samefile(path, other)
    except OSError:
        return False
