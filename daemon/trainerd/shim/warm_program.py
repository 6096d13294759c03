"""Program of a standby process: it imports what a job's last attempt imported, waits, and becomes the job.

Run by the job's own interpreter, by path, as ``python OPTIONS warm_program.py RECIPE CHANNEL`` (descriptors),
so it uses the standard library alone and imports nothing of trainerd's. It speaks over CHANNEL, a socket that
keeps messages apart: it says ``ready`` or ``unfit WHY``; the shim sends the rank's log and asks whether the
process still equals a cold start; it says ``fit`` or ``unfit WHY``; the shim says ``go``.

Invariants: no code of the user's runs before ``go``, and none of it is imported. What a cold start would do
otherwise makes the process unfit, and the job is started cold. What was imported in advance is put on a
shelf, so that the script finds `sys.modules` and the filters of warnings as at the start of a process, but
for modules of the standard library, and both change as it imports.
"""

from __future__ import annotations

import os
import sys
import warnings

if __name__ == "__main__":
    # Its functions live in a namespace of their own: this module is emptied for the script.
    _own = {"annotations", "os", "sys", "warnings", "_own"}
    _at_start = {name: value for name, value in globals().items() if name not in _own} | {"__doc__": None}
    _namespace = {"__name__": "trainerd-standby", "__file__": __file__, "AT_START": _at_start}
    with open(__file__, "rb") as _file:
        exec(compile(_file.read(), __file__, "exec"), _namespace)  # noqa: S102 - this very file
    _namespace["main"](*sys.argv[1:3])  # type: ignore[operator]
    sys.exit(0)

import builtins
import contextlib
import copy
import importlib
import importlib.machinery
import importlib.util
import json
import socket
import threading
from typing import Any, NoReturn

AT_START: dict[str, Any]
MESSAGE_BYTES = 4096
HELD = "TRAINERD_SIGNALS_HELD"
MISSING = object()


class UnfitError(Exception):
    """This process does not equal a cold start; the message says why."""


def main(recipe_descriptor: str, channel_descriptor: str) -> None:
    """Prepare, wait, and run the script."""
    channel = socket.socket(fileno=int(channel_descriptor))
    with os.fdopen(int(recipe_descriptor), "rb") as file:
        recipe = json.load(file)
    try:
        warm = WarmProcess(recipe, channel.fileno())
        warm.prepare()
    except UnfitError as error:
        leave(channel, f"unfit {error}")
    flush()
    channel.send(b"ready")
    order, descriptors, _, _ = socket.recv_fds(channel, MESSAGE_BYTES, 1)
    if order != b"run" or not descriptors:
        os._exit(0)  # the shim has gone, or needs no standby any more
    try:
        warm.compare()
    except (UnfitError, OSError) as error:
        leave(channel, f"unfit {error}")
    channel.send(b"fit")
    if channel.recv(MESSAGE_BYTES) != b"go":
        os._exit(0)
    channel.close()
    for standard in (1, 2):
        os.dup2(descriptors[0], standard)
    os.close(descriptors[0])
    warm.become()


def leave(channel: socket.socket, message: str) -> NoReturn:
    """Say why this process is not used, and end it."""
    flush()
    with contextlib.suppress(OSError):
        channel.send(message.encode(errors="replace")[:MESSAGE_BYTES])
    os._exit(0)


def flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()


class WarmProcess:
    """What was imported, and what it depends on.

    Args:
        recipe: ``command``, ``arguments``, ``script`` or ``module``, ``modules`` (names and files of what the
            last attempt imported), ``environment`` (names that its program changed), ``files`` (marks of its
            own code).
        channel: The descriptor that the process was given beside the standard ones.
    """

    def __init__(self, recipe: dict[str, Any], channel: int) -> None:
        self._recipe = recipe
        self._channel = channel
        self._started_ns = started_ns()
        self._folder = script_folder(recipe)
        self._path = list(sys.path) if sys.flags.safe_path else sys.path[1:]
        self._missing = Missing()
        self._shelf = Shelf()
        self._marks: dict[str, Any] = {}
        self._tops: set[str] = set()
        self._own_code_type = load("own_code.py")["OwnCode"]

    def prepare(self) -> None:
        """Import, and note what that depends on.

        Raises:
            UnfitError: A cold start would find something else.
        """
        self._refuse_user_code(list(sys.modules.values()))
        recipe = self._recipe
        sys.path[:] = self._path
        sys.orig_argv[:] = recipe["command"]
        sys.argv[:] = [recipe["script"] or "-m", *recipe["arguments"]]
        held = os.environ.pop(HELD, None)  # the import of trainerd by the script takes the signals over
        opened = descriptors()
        sys.meta_path.append(self._missing)
        early = self._own_code().early()
        with self._shelf.noting():
            self._import(recipe["modules"], early)
        if held is not None:
            os.environ[HELD] = held
        sys.meta_path.remove(self._missing)
        if names := sorted(set(recipe["environment"]) - self._shelf.variables):
            raise UnfitError(
                f"the program changes its environment itself: set {', '.join(names[:3])} under `env`"
            )
        if threading.active_count() > 1:
            raise UnfitError(f"importing its modules starts a thread: {threading.enumerate()[-1].name}")
        if extra := descriptors() - opened:
            raise UnfitError(f"importing its modules leaves {len(extra)} files open")
        if has_children():
            raise UnfitError("importing its modules starts processes")
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_initialized():
            raise UnfitError("importing its modules makes a CUDA context")
        self._refuse_user_code(self._shelf.modules())
        # All that this process has imported by now, itself included: `json`, for one, a cold start has not.
        self._tops = {name.partition(".")[0] for name in [*sys.modules, *self._missing.names]} - {"__main__"}
        self._marks = {path: mark(path) for path in self._depends_on()}
        if newer := [
            path for path, seen in self._marks.items() if seen and max(seen[:2]) >= self._started_ns
        ]:
            raise UnfitError(f"{newer[0]} was changed while its modules were imported")
        self.compare()

    def _own_code(self) -> Any:
        recipe = self._recipe
        return self._own_code_type(
            recipe["files"], script=recipe["script"], module=recipe["module"], folder=self._folder
        )

    def _import(self, modules: list[list[str]], early: set[str] | None) -> None:
        # They were noted in the order in which they were complete: a package after its modules.
        modules = modules if early is None else sorted(modules, key=lambda each: each[0] not in early)
        for name, origin in modules:
            if name in sys.modules:
                continue
            with self._shelf.taking(name, is_late=early is not None and name not in early):
                try:
                    module = importlib.import_module(name)
                except Exception:  # noqa: BLE001 - the script will import it, or not, as in a cold start
                    continue
            if getattr(module, "__file__", None) != origin:
                raise UnfitError(f"{name} is now another file than in the last attempt ({origin})")

    def _refuse_user_code(self, modules: list[Any]) -> None:
        own = {self._folder, os.getcwd()}
        for module in modules:
            file = getattr(module, "__file__", None)
            if isinstance(file, str) and file != __file__ and is_users(file, own):
                raise UnfitError(f"it would have to import code of the user's: {file}")

    def _depends_on(self) -> set[str]:
        paths = {os.path.realpath(sys.executable), os.path.join(sys.prefix, "pyvenv.cfg")}
        for module in [*sys.modules.values(), *self._shelf.modules()]:
            file = getattr(module, "__file__", None)
            if isinstance(file, str):
                paths.add(file)
        with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
            paths |= {line.split(maxsplit=5)[5].strip() for line in maps if ".so" in line and "/" in line}
        for folder in self._path:
            if is_users(folder, {self._folder, os.getcwd()}):
                continue  # what would be found there instead is looked for by name
            paths.add(folder)
            with contextlib.suppress(OSError):
                paths |= {os.path.join(folder, name) for name in os.listdir(folder) if name.endswith(".pth")}
        return paths

    def compare(self) -> None:
        """See whether a cold start would still be the same.

        Raises:
            UnfitError: It would not.
        """
        for path, seen in self._marks.items():
            if mark(path) != seen:
                raise UnfitError(f"{path} has changed")
        if changed := [path for path, *seen, _ in self._recipe["files"] if mark(path) != seen]:
            why_not = self._own_code().why_not_equal(self._shelf.early_tops(), self._shelf.needed_by)
            if why_not:
                raise UnfitError(f"{changed[0]} has changed since the last attempt, and {why_not}")
        for folder in [
            self._folder,
            *[path for path in self._path if is_users(path, {self._folder, os.getcwd()})],
        ]:
            for entry in os.listdir(folder) if os.path.isdir(folder) else ():
                if entry.partition(".")[0] in self._tops and (
                    entry.endswith((".py", ".so", ".pyc")) or "." not in entry
                ):
                    raise UnfitError(
                        f"{os.path.join(folder, entry)} may take the place of a module of that name"
                    )

    def become(self) -> None:
        """Run the script as the program of this process."""
        self._shelf.close()
        importlib.invalidate_caches()
        if not sys.flags.safe_path:
            sys.path.insert(0, self._folder)
        main_module = sys.modules["__main__"].__dict__
        main_module.clear()
        main_module.update(AT_START)
        recipe = self._recipe
        if recipe["script"] is None:
            run_stripped(lambda: run_module(recipe["module"]))
            return
        file = absolute(recipe["script"])
        main_module["__file__"] = file
        main_module["__loader__"] = importlib.machinery.SourceFileLoader("__main__", file)
        run_stripped(lambda: run_file(file, main_module))


def run_module(name: str) -> None:
    import runpy

    runpy._run_module_as_main(name)  # type: ignore[attr-defined] # what `python -m` itself does


def run_file(file: str, main_module: dict[str, Any]) -> None:
    with open(file, "rb") as script:
        source = script.read()
    code = compile(source, file, "exec", dont_inherit=True)
    exec(code, main_module)  # noqa: S102 - running the user's script is the purpose


def run_stripped(run: Any) -> None:
    """Run, and show an exception as the interpreter does, without the frames of this program."""
    try:
        run()
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException as error:  # noqa: BLE001 - as the interpreter
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
            trace = trace.tb_next
        sys.last_type, sys.last_value, sys.last_traceback = type(error), error, trace
        sys.excepthook(type(error), error.with_traceback(trace), trace)
        flush()
        code = 1
    else:
        return
    sys.exit(code)


class Missing:
    """Notes which modules were looked for and not found: one of the user's may have such a name."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        self.names.add(name)


class LateImport:
    """Modules that came with an import of the last attempt's after its first ones: of a library, perhaps.

    Attributes:
        modules: By name.
        replaced: Functions, classes and modules that it has set in modules that were there before: module,
            name, what was there, what is.
        filters: Filters of warnings that it has added, in the order in which to put them in front.
        changed: Variables that it has changed.
        uses: Other modules that it imports.
    """

    def __init__(self) -> None:
        self.modules: dict[str, Any] = {}
        self.replaced: list[tuple[Any, str, Any, Any]] = []
        self.filters: list[Any] = []
        self.changed: list[tuple[str, str | None]] = []
        self.uses: set[str] = set()


class Shelf:
    """Modules that are loaded and not imported yet, by package, with what else their import changes.

    That is the filters of warnings and the environment.

    The first import of a package takes it off the shelf, together with the packages that it imports itself.
    What was imported late is not taken with its package, but by an import of one of its modules.
    """

    def __init__(self) -> None:
        self._at_start = set(sys.modules)
        self._filters = list(warnings.filters)
        self._packages: dict[str, dict[str, Any]] = {}
        self._imports: dict[str, set[str]] = {}
        self._added: list[tuple[str, Any]] = []
        self._changed: list[tuple[str, str, str | None]] = []
        self._before: dict[str, str | None] = {}
        self._late: list[LateImport] = []
        self._late_by_name: dict[str, LateImport] = {}
        self._being_late: LateImport | None = None
        self._contents: dict[str, dict[str, Any]] = {}
        self._environment: dict[str, str] = {}
        self._has_warned = False

    @contextlib.contextmanager
    def noting(self) -> Any:
        """Note which package imports which, while the context lasts."""
        own = builtins.__import__

        def noted(
            name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0
        ) -> Any:
            if self._being_late is not None:
                self._being_late.uses.add(name)
            else:
                importer = (globals or {}).get("__name__") or ""
                self._imports.setdefault(importer.partition(".")[0], set()).add(name.partition(".")[0])
            return own(name, globals, locals, fromlist, level)

        builtins.__import__ = noted
        try:
            yield
        finally:
            builtins.__import__ = own

    @contextlib.contextmanager
    def taking(self, name: str, *, is_late: bool) -> Any:
        """Take what is changed meanwhile as changed by the import of `name`."""
        before, known, environment = list(warnings.filters), set(sys.modules), dict(os.environ)
        top = name.partition(".")[0]
        late = self._being_late = LateImport() if is_late else None
        if is_late and not self._contents:
            self._contents = contents()
        try:
            yield
        finally:
            self._being_late = None
        filters = list(reversed(added(before, list(warnings.filters))))
        new = [each for each in sys.modules if each not in known]
        changed = [
            (variable, os.environ.get(variable))
            for variable in {*environment, *os.environ}
            if environment.get(variable) != os.environ.get(variable)
        ]
        for variable, _ in changed:
            self._before.setdefault(variable, environment.get(variable))
        if late is not None:
            late.filters, late.changed = filters, changed
            late.modules = {each: sys.modules[each] for each in new if not is_standard(each)}
            self._note_replaced(late)
            self._late.append(late)
            return
        self._added += [(top, each) for each in filters]
        self._changed += [(top, variable, value) for variable, value in changed]
        self._imports.setdefault(top, set()).update(each.partition(".")[0] for each in new)

    def _note_replaced(self, late: LateImport) -> None:
        before, self._contents = self._contents, contents()
        for name, was in before.items():
            now = self._contents.get(name, was)
            for attribute in {*was, *now}:
                old, new = was.get(attribute, MISSING), now.get(attribute, MISSING)
                if old is not new and name in sys.modules:
                    late.replaced.append((sys.modules[name], attribute, old, new))

    @property
    def variables(self) -> set[str]:
        """Variables of the environment that importing changes."""
        return set(self._before)

    def names(self) -> list[str]:
        """Return the names of all modules that were imported."""
        return [name for name in sys.modules if name not in self._at_start]

    def modules(self) -> list[Any]:
        """Return these modules."""
        return [sys.modules[name] for name in self.names()]

    def early_tops(self) -> set[str]:
        """Return the packages that were not imported late."""
        late = {name for each in self._late for name in each.modules}
        return {name.partition(".")[0] for name in self.names() if name not in late and not is_standard(name)}

    def close(self) -> None:
        """Leave in `sys.modules` and in the filters what is there when a process starts."""
        for late in reversed(self._late):
            for module, attribute, old, new in late.replaced:
                replace(module, attribute, new, old)
            for name in late.modules:
                sys.modules.pop(name, None)
                self._late_by_name[name] = late
        for name in self.names():
            if not is_standard(name):
                self._packages.setdefault(name.partition(".")[0], {})[name] = sys.modules.pop(name)
        set_filters(self._filters)
        for variable, value in self._before.items():
            set_variable(variable, value)
        self._environment = dict(os.environ)
        sys.meta_path.insert(0, self)

    def find_spec(self, name: str, path: object = None, target: object = None) -> Any:
        """Return how to import what is on the shelf: by taking it off."""
        late = self._late_by_name.get(name)
        modules = late.modules if late is not None else self._packages.get(name)
        if modules is None or name not in modules:
            return None
        spec = copy.copy(modules[name].__spec__)
        spec.loader = self
        return spec

    def create_module(self, spec: Any) -> None:
        """Leave it to the importer: that module is thrown away."""

    def exec_module(self, placeholder: Any) -> None:
        """Put the module and what it imports into `sys.modules`."""
        name = placeholder.__name__
        del sys.modules[name]
        late = self._late_by_name.get(name)
        if late is not None:
            self._take_late(late)
        else:
            self._take(self.needed_by(name))
        if not self._packages and not self._late_by_name and self in sys.meta_path:
            sys.meta_path.remove(self)

    def _take(self, taken: set[str]) -> None:
        for each in [each for each in self._packages if each in taken]:
            for module_name, module in self._packages.pop(each).items():
                sys.modules.setdefault(module_name, module)
        put_in_front([each for top, each in self._added if top in taken])
        self._added = [entry for entry in self._added if entry[0] not in taken]
        self._change([entry[1:] for entry in self._changed if entry[0] in taken])
        self._changed = [entry for entry in self._changed if entry[0] not in taken]
        if "trainerd" in taken and HELD in os.environ:  # what importing it does, it does now
            importlib.reload(sys.modules["trainerd"])

    def _take_late(self, late: LateImport) -> None:
        self._warn_of_changes(next(iter(late.modules)))
        for name, module in late.modules.items():
            self._late_by_name.pop(name, None)
            sys.modules.setdefault(name, module)
        for module, attribute, old, new in late.replaced:
            replace(module, attribute, old, new)
        self._take({each for use in late.uses for each in self.needed_by(use.partition(".")[0])})
        for other in [self._late_by_name.get(use) for use in late.uses]:
            if other is not None and other is not late:
                self._take_late(other)
        put_in_front(late.filters)
        self._change(late.changed)

    def _change(self, changed: list[tuple[str, str | None]]) -> None:
        for variable, value in changed:
            set_variable(variable, value)
            if value is None:
                self._environment.pop(variable, None)
            else:
                self._environment[variable] = value

    def _warn_of_changes(self, name: str) -> None:
        """Say that the program has changed its environment before an import that was made in advance.

        It had not in the last attempt, and its own code does not: a library that it did not call then has.
        """
        if self._has_warned:
            return
        now = {each: value for each, value in os.environ.items() if not each.startswith("TRAINERD_")}
        was = {each: value for each, value in self._environment.items() if not each.startswith("TRAINERD_")}
        if changed := sorted(each for each in {*now, *was} if now.get(each) != was.get(each)):
            self._has_warned = True
            sys.stderr.write(
                f"trainerd: {name} was imported in advance, and the program has changed {changed[0]} since: "
                "this attempt may differ from a cold start; those after it start cold\n"
            )

    def needed_by(self, name: str) -> set[str]:
        """Return the packages that a package imports, and the package."""
        found, new = set(), {name}
        while new:
            found |= new
            new = {each for package in new for each in self._imports.get(package, ())} - found
            new -= sys.stdlib_module_names
        return found


def contents() -> dict[str, dict[str, Any]]:
    """Return the functions, classes and modules that each module holds by name."""
    return {
        name: {key: value for key, value in vars(module).items() if callable(value) or is_module(value)}
        for name, module in list(sys.modules.items())
        if is_module(module) and name != "__main__"
    }


def is_module(value: object) -> bool:
    return issubclass(type(value), type(sys))  # `isinstance` would ask the object, which may answer at length


def replace(module: Any, attribute: str, old: Any, new: Any) -> None:
    """Put `new` in the place of `old` in a module, unless something else is there."""
    found = vars(module)
    if found.get(attribute, MISSING) is not old:
        return
    if new is MISSING:
        del found[attribute]
    else:
        found[attribute] = new


def is_standard(name: str) -> bool:
    return name.partition(".")[0] in sys.stdlib_module_names


def put_in_front(filters: list[Any]) -> None:
    for each in filters:
        set_filters([each, *[other for other in warnings.filters if other != each]])


def added(before: list[Any], after: list[Any]) -> list[Any]:
    """Return the filters that were put in front.

    Raises:
        UnfitError: They were changed in another way.
    """
    for count in range(len(after) + 1):
        if after[count:] == [each for each in before if each not in after[:count]]:
            return after[:count]
    raise UnfitError("importing its modules changes the filters of warnings")


def load(name: str) -> dict[str, Any]:
    """Return what a file beside this one defines, without an import of trainerd."""
    file = os.path.join(os.path.dirname(__file__), name)
    namespace: dict[str, Any] = {"__name__": f"trainerd-{name}", "__file__": file}
    with open(file, "rb") as source:
        exec(compile(source.read(), file, "exec"), namespace)  # noqa: S102 - a file of trainerd's
    return namespace


def set_variable(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


def set_filters(filters: list[Any]) -> None:
    warnings.filters[:] = filters  # type: ignore[index] # it is a list
    warnings._filters_mutated()  # type: ignore[attr-defined] # as `simplefilter` does


def script_folder(recipe: dict[str, Any]) -> str:
    if recipe["script"] is None:
        return os.getcwd()
    return os.path.dirname(os.path.realpath(str(recipe["script"])))


def absolute(script: str) -> str:
    """Return ``__file__`` as the interpreter makes it of the word on the command line."""
    script = script.removeprefix("./")
    return script if script.startswith("/") else os.path.join(os.getcwd(), script)


def is_users(file: str, folders: set[str]) -> bool:
    return any(file == folder or file.startswith(folder.rstrip("/") + "/") for folder in folders) and not (
        "/site-packages/" in file
        or file.endswith("/site-packages")
        or file.startswith(sys.base_prefix + "/lib/")
    )


def mark(path: str) -> list[int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return [found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino]


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def has_children() -> bool:
    for task in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError), open(f"/proc/self/task/{task}/children", encoding="ascii") as file:
            if file.read().split():
                return True
    return False


def started_ns() -> int:
    """Return when this process was started, by the clock of files, with a second to spare."""
    import time

    return time.time_ns() - int(2e9)
