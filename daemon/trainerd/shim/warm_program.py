"""Program of a standby process: it imports what a job's last attempt imported, waits, and becomes the job.

Run by the job's own interpreter, by path, as ``python OPTIONS warm_program.py RECIPE CHANNEL`` (descriptors),
so it uses the standard library alone and imports nothing of trainerd's. It speaks over CHANNEL, a socket that
keeps messages apart: it says ``ready`` or ``unfit WHY``; the shim sends the rank's log, and the start itself
if it is not the one that was expected, and asks whether the process equals a cold start; it says ``fit`` or
``unfit WHY``; the shim says ``go``.

Invariants: no code of the user's runs before ``go``, and none of it is imported. What a cold start would do
otherwise makes the process unfit, and the job is started cold. What was imported in advance is put on a
shelf, so that the script finds `sys.modules` and the filters of warnings as at the start of a process, but
for modules of the standard library, and both change as it imports.
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    # Its functions live in a namespace of their own: this module is emptied for the script.
    _own = {"annotations", "os", "sys", "_own"}
    _at_start = {name: value for name, value in globals().items() if name not in _own} | {"__doc__": None}
    _namespace = {"__name__": "trainerd-standby", "__file__": __file__, "AT_START": _at_start}
    with open(__file__, "rb") as _file:
        exec(compile(_file.read(), __file__, "exec"), _namespace)  # noqa: S102 - this very file
    # It does not return: nothing of this module is left then, not even `sys`.
    _namespace["main"](*sys.argv[1:3])  # type: ignore[operator]

import contextlib
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
OURS = "TRAINERD_"
ROOM = "TRAINERD_ROOM"
ENV_START_FIELD = 50  # of /proc/PID/stat, counted from 1; the first two end at the last parenthesis


class UnfitError(Exception):
    """This process does not equal a cold start; the message says why."""


def main(recipe_descriptor: str, channel_descriptor: str) -> NoReturn:
    """Prepare, wait, and run the script."""
    channel = socket.socket(fileno=int(channel_descriptor))
    with os.fdopen(int(recipe_descriptor), "rb") as file:
        recipe = json.load(file)
    os.environ.pop(ROOM, None)
    try:
        warm = WarmProcess(recipe, channel.fileno())
        warm.prepare()
    except UnfitError as error:
        leave(channel, f"unfit {error}")
    flush()
    channel.send(b"ready")
    order, descriptors, _, _ = socket.recv_fds(channel, MESSAGE_BYTES, 2)
    if order != b"run" or len(descriptors) != 2:
        os._exit(0)  # the shim has gone, or needs no standby any more
    with os.fdopen(descriptors.pop(), "rb") as file:
        other = file.read()
    try:
        if other:
            warm.become_other(json.loads(other))
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
    sys.exit(0)


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
            own code), ``of_an_attempt`` (names of variables that differ from attempt to attempt).
        channel: The descriptor that the process was given beside the standard ones.
    """

    def __init__(self, recipe: dict[str, Any], channel: int) -> None:
        self._recipe = recipe
        self._channel = channel
        self._started_ns = started_ns()
        self._folder = script_folder(recipe)
        self._path = list(sys.path) if sys.flags.safe_path else sys.path[1:]
        self._missing = Missing()
        shelf = load("warm_shelf.py")
        self._shelf, self._shelf_error = shelf["Shelf"](), shelf["ShelfError"]
        self._marks: dict[str, Any] = {}
        self._tops: set[str] = set()
        own_code = load("own_code.py")
        self._own_code_type, self._why_other_order = own_code["OwnCode"], own_code["why_other_order"]
        self._surface_of = load("../contract/import_surface.py")["surface_of"]
        self._brought_by: dict[str, str] = {}
        self._order: tuple[str, ...] | None = None
        self._reads_arguments = False
        self._absent: list[str] = []
        self._read: set[str] = set()
        self._users = {self._folder, os.getcwd()}

    def prepare(self) -> None:
        """Import, and note what that depends on.

        Raises:
            UnfitError: A cold start would find something else.
        """
        self._refuse_user_code(list(sys.modules.values()))
        recipe = self._recipe
        sys.path[:] = self._path
        sys.orig_argv[:] = recipe["command"]
        arguments = sys.argv = NotedList([recipe["script"] or "-m", *recipe["arguments"]])
        references = sys.getrefcount(arguments)
        held = os.environ.pop(HELD, None)  # the import of trainerd by the script takes the signals over
        opened = descriptors()
        sys.meta_path.append(self._missing)
        own_code = self._own_code()
        early, self._order, self._absent = own_code.early(), own_code.order(), own_code.absent()
        try:
            with self._shelf.noting(), noted_reads() as self._read:
                self._import(recipe["modules"], early)
        except self._shelf_error as error:
            raise UnfitError(str(error)) from None
        if held is not None:
            os.environ[HELD] = held
        sys.meta_path.remove(self._missing)
        if sys.getrefcount(arguments) > references:
            raise UnfitError("importing its modules keeps sys.argv")
        if sys.argv is not arguments:
            raise UnfitError("importing its modules replaces sys.argv")
        self._reads_arguments = NotedList.was_read
        sys.argv = list.copy(arguments)
        if names := sorted(set(recipe["environment"]) - self._shelf.variables):
            raise UnfitError(
                f"the program changes its environment itself: set {', '.join(names[:3])} under `env`"
            )
        if threading.active_count() > 1:
            raise UnfitError(f"importing its modules starts a thread: {threading.enumerate()[-1].name}")
        if extra := descriptors() - opened:
            raise UnfitError(f"importing its modules leaves files open: {len(extra)}")
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
        live_objects: Any = sys.modules.get("trainerd.training.state.live_objects")
        if hasattr(live_objects, "hide_imported"):  # the job may have another version of trainerd
            live_objects.hide_imported()

    def _own_code(self) -> Any:
        recipe = self._recipe
        return self._own_code_type(
            recipe["files"],
            self._surface_of,
            script=recipe["script"],
            module=recipe["module"],
            folder=self._folder,
        )

    def _import(self, modules: list[list[str]], early: set[str] | None) -> None:
        # They were noted in the order in which they were complete: a package after its modules.
        modules = modules if early is None else sorted(modules, key=lambda each: each[0] not in early)
        for name, origin in modules:
            if name in sys.modules:
                continue
            known = set(sys.modules)
            with self._shelf.taking(name, is_late=early is not None and name not in early):
                try:
                    module = importlib.import_module(name)
                except Exception:  # noqa: BLE001 - the script will import it, or not, as in a cold start
                    continue
            self._brought_by.update(dict.fromkeys(sys.modules.keys() - known, name))
            if getattr(module, "__file__", None) != origin:
                raise UnfitError(f"{name} is now another file than in the last attempt ({origin})")

    def _refuse_user_code(self, modules: list[Any]) -> None:
        for module in modules:
            file = getattr(module, "__file__", None)
            if isinstance(file, str) and file != __file__ and is_users(file, self._users):
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
            if is_users(folder, self._users):
                continue  # what would be found there instead is looked for by name
            paths.add(folder)
            with contextlib.suppress(OSError):
                paths |= {os.path.join(folder, name) for name in os.listdir(folder) if name.endswith(".pth")}
        return paths

    def become_other(self, other: dict[str, Any]) -> None:
        """Be for another attempt than was expected: of an edited spec, or of another job.

        Args:
            other: ``command``, ``arguments``, ``script`` or ``module``, and ``variables``, those that differ
                from attempt to attempt.

        Raises:
            UnfitError: A cold start of it would find something else.
            OSError: What it depends on cannot be read.
        """
        was, recipe = dict(self._recipe), self._recipe
        variables = other.pop("variables")
        recipe.update(other)
        new = dict(variables)
        was_there = {name: os.environ.get(name) for name in sorted(self._read)}
        was_there |= {
            name: value for name, value in self._shelf.before.items() if name in recipe["of_an_attempt"]
        }
        if differ := [name for name, value in was_there.items() if new.get(name) != value]:
            raise UnfitError(f"importing its modules reads or sets {differ[0]}, which differs")
        if other["command"] == was["command"]:
            if why_not := self._why_own_code_differs():
                raise UnfitError(f"the variables of the attempt have changed, and {why_not}")
        else:
            if self._reads_arguments:
                raise UnfitError("importing its modules reads sys.argv, and the command has changed")
            self._folder = script_folder(recipe)
            self._users.add(self._folder)
            self._refuse_user_code(self._shelf.modules())
            is_same = (recipe["script"], recipe["module"]) == (was["script"], was["module"])
            if why_not := self._why_own_code_differs() if is_same else self._why_other_program():
                raise UnfitError(f"the command has changed, and {why_not}")
            sys.orig_argv[:] = recipe["command"]
            sys.argv[:] = [recipe["script"] or "-m", *recipe["arguments"]]
        put_variables(recipe["of_an_attempt"], variables)

    def _why_own_code_differs(self) -> str:
        return str(self._own_code().why_not_equal(self._shelf.early_tops(), self._shelf.needed_by))

    def _why_other_program(self) -> str:
        recipe = self._recipe
        program = self._own_code_type.of_program(
            self._surface_of, script=recipe["script"], module=recipe["module"], folder=self._folder
        )
        if why_not := program.why_not_equal(self._shelf.early_tops(), self._shelf.needed_by):
            return str(why_not)
        if why_not := self._why_other_order(self._order, program.order(), self._brought_by, sys.modules):
            return str(why_not)
        recipe["files"] = [[path, *(mark(path) or ()), digest] for path, digest in program.digests.items()]
        return ""

    def compare(self) -> None:
        """See whether a cold start would still be the same.

        Raises:
            UnfitError: It would not.
        """
        if script_folder(self._recipe) != self._folder:
            raise UnfitError("the script is in another folder now")
        if why_not := why_no_source(self._recipe["script"]):
            raise UnfitError(f"the script is {why_not}")
        for path, seen in self._marks.items():
            if mark(path) != seen:
                raise UnfitError(f"{path} has changed")
        if appeared := [path for path in self._absent if os.path.isfile(path)]:
            raise UnfitError(f"{appeared[0]} may be imported now, and was not there before")
        changed = [path for path, *seen, _ in self._recipe["files"] if mark(path) != seen]
        if changed and (why_not := self._why_own_code_differs()):
            raise UnfitError(f"{changed[0]} has changed since the last attempt, and {why_not}")
        for folder in [self._folder, *[path for path in self._path if is_users(path, self._users)]]:
            for entry in os.listdir(folder) if os.path.isdir(folder) else ():
                if entry.partition(".")[0] in self._tops and (
                    entry.endswith((".py", ".so", ".pyc")) or "." not in entry
                ):
                    raise UnfitError(
                        f"{os.path.join(folder, entry)} may take the place of a module of that name"
                    )

    def become(self) -> NoReturn:
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


def run_stripped(run: Any) -> NoReturn:
    """Run and end; show an exception as the interpreter does, without the frames of this program."""
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
        code = 0
    sys.exit(code)


class NotedList(list[str]):
    """A list that notes whether anything but C code has read it."""

    was_read = False
    __hash__ = None

    def __radd__(self, other: object) -> Any:
        NotedList.was_read = True
        return NotImplemented  # so that the list on the left does what it does


def noting(name: str) -> Any:
    own: Any = getattr(list, name)

    def noted(self: NotedList, *others: Any) -> Any:
        NotedList.was_read = True
        return own(self, *others)

    return noted


for _operation in (
    *("add", "contains", "delitem", "eq", "ge", "getattribute", "getitem", "gt", "iadd", "imul"),
    *("iter", "le", "len", "lt", "mul", "ne", "repr", "reversed", "rmul", "setitem"),
):
    setattr(NotedList, f"__{_operation}__", noting(f"__{_operation}__"))


@contextlib.contextmanager
def noted_reads() -> Any:
    """Note which of trainerd's variables are read by name; what goes through all of them reads none."""
    kind: Any = type(os.environ)
    get, iterate = kind.__getitem__, kind.__iter__
    read: set[str] = set()
    walked: list[Any] = []  # names that were gone through and whose values were not asked for yet

    def noted(self: Any, name: Any) -> Any:
        if walked[:1] == [name]:
            del walked[0]
            return get(self, name)
        walked.clear()
        if isinstance(name, str | bytes) and os.fsdecode(name).startswith(OURS):
            read.add(os.fsdecode(name))
        return get(self, name)

    def walking(self: Any) -> Any:
        walked.clear()
        for name in iterate(self):
            walked.append(name)
            yield name

    kind.__getitem__, kind.__iter__ = noted, walking
    try:
        yield read
    finally:
        kind.__getitem__, kind.__iter__ = get, iterate


class Missing:
    """Notes which modules were looked for and not found: one of the user's may have such a name."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        self.names.add(name)


def load(name: str) -> dict[str, Any]:
    """Return what a file defines, given by its path from this one, without an import of trainerd."""
    file = os.path.normpath(os.path.join(os.path.dirname(__file__), name))
    namespace: dict[str, Any] = {"__name__": f"trainerd-{name}", "__file__": file}
    with open(file, "rb") as source:
        exec(compile(source.read(), file, "exec"), namespace)  # noqa: S102 - a file of trainerd's
    return namespace


def put_variables(names: list[str], variables: list[list[str]]) -> None:
    """Set the variables of an attempt, at the end of the environment, and show them in `/proc`.

    That is where the processes of an attempt are looked for. The kernel shows the memory that the process was
    started with: the variables of the attempt lie at its end, and what is free there is filled up.

    Args:
        names: Of all variables that differ from attempt to attempt.
        variables: Names and values of those that this attempt has.

    Raises:
        UnfitError: There is too little room.
        OSError: The memory cannot be reached.
    """
    with open("/proc/self/environ", "rb") as file:
        shown = file.read()
    entries = shown.split(b"\0")[:-1]
    shown_names = [os.fsdecode(each.partition(b"=")[0]) for each in entries]
    kept = next((number for number, name in enumerate(shown_names) if name in names), len(entries))
    if not set(shown_names[kept:]) <= set(names):
        raise UnfitError(
            "the variables of the attempt are not the last ones in the environment of the process"
        )
    begin = sum(len(each) + 1 for each in entries[:kept])
    text = b"".join(os.fsencode(f"{name}={value}") + b"\0" for name, value in variables)
    filler = os.fsencode(f"{ROOM}=")
    left = len(shown) - begin - len(text) - len(filler) - 1
    if left < 0:
        raise UnfitError("the variables of the attempt have no room in the environment of the process")
    # The C library has the old ones where they lie, so they are removed before they are written over.
    for name in names:
        os.environ.pop(name, None)
    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    with open("/proc/self/mem", "r+b", buffering=0) as memory:
        memory.seek(int(fields[ENV_START_FIELD - 3]) + begin)
        memory.write(text + filler + b" " * left + b"\0")
    for name, value in variables:
        os.environ[name] = value


def script_folder(recipe: dict[str, Any]) -> str:
    if recipe["script"] is None:
        return os.getcwd()
    return os.path.dirname(os.path.realpath(str(recipe["script"])))


def absolute(script: str) -> str:
    """Return ``__file__`` as the interpreter makes it of the word on the command line."""
    return script if script.startswith("/") else f"{os.getcwd()}/{script}"


def why_no_source(script: str | None) -> str:
    """Return what else than a file of source text a script is; empty if it is one.

    The interpreter runs a folder or an archive by its ``__main__.py``.
    """
    if script is None:
        return ""
    for hook in sys.path_hooks:
        with contextlib.suppress(ImportError):
            hook(script)
            return "a folder or an archive"
    with contextlib.suppress(OSError), open(script, "rb") as file:
        if file.read(4) == importlib.util.MAGIC_NUMBER:
            return "compiled"
    return ""


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
