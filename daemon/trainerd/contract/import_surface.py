"""What a file of the user's code decides about imports: pure, and by its text alone.

A process that has imported packages in advance equals a cold start of an edited file only if the edit changes
neither what is imported nor what an import finds. So a file has a *surface*: a digest of its import
statements. Two files with the same surface import the same modules in the same order, before anything else
of theirs is run. A file that may decide in another way what an import finds has none.

The standby process loads this file by its path: it needs the standard library alone.
"""

from __future__ import annotations

import ast
import hashlib
import sys
from typing import NamedTuple


class Surface(NamedTuple):
    """What a file decides about imports.

    Attributes:
        digest: Equal for files that decide the same; empty if it cannot be told.
        early: Modules that it imports before it does anything else, dotted, in order; names that are perhaps
            modules of a package included. A name that begins with dots is relative.
        later: Those that it imports elsewhere, such as in functions; all of them if the digest is empty.
        why_not: Why the digest is empty.
    """

    digest: str
    early: tuple[str, ...] = ()
    later: tuple[str, ...] = ()
    why_not: str = ""


_CHANGES = {
    "putenv",
    "unsetenv",
    "environb",
    "load_dotenv",
    "meta_path",
    "path_hooks",
    "addsitedir",
    "chdir",
    "fchdir",
    "setdlopenflags",
}
"""Names of what changes the environment, or where modules are found."""

_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)

_OF_SYS = {"path", "modules"}
_DYNAMIC = {"exec", "eval", "__import__"}
_DYNAMIC_MODULES = {"importlib", "runpy", "imp", "site", "ctypes"}
_READS_ENVIRON = {"get", "copy", "items", "keys", "values"}

_HARMLESS_CALLS = {
    "logging.getLogger",
    "Path",
    "pathlib.Path",
    "TypeVar",
    "typing.TypeVar",
    "field",
    "dataclasses.field",
    "frozenset",
}
_HARMLESS_DECORATORS = {
    "abc.abstractmethod",
    "abstractmethod",
    "classmethod",
    "contextlib.contextmanager",
    "contextmanager",
    "dataclass",
    "dataclasses.dataclass",
    "functools.cache",
    "functools.lru_cache",
    "functools.wraps",
    "property",
    "staticmethod",
    "torch.inference_mode",
    "torch.no_grad",
}


def surface_of(source: bytes) -> Surface:
    """Return the surface of a file."""
    try:
        tree = compile(source, "file", "exec", ast.PyCF_ONLY_AST, dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return Surface("", why_not="it cannot be parsed")
    assert isinstance(tree, ast.Module)
    try:
        if why_not := _what_decides_otherwise(tree):
            return Surface("", (), _named(tree), why_not)
        before = _until_last_import(tree.body)
        if why_not := next(filter(None, map(_what_it_does, before)), ""):
            return Surface("", (), _named(tree), why_not)
        early = [words for each in before if not isinstance(each, _DEFINITIONS) for words in _imports(each)]
        rest = [each for each in before if isinstance(each, _DEFINITIONS)] + tree.body[len(before) :]
        later = {words for each in rest for words in _imports(each)}
    except RecursionError:
        return Surface("", why_not="it is nested too deeply")
    text = repr((early, sorted(later)))
    return Surface(
        hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest(), _dotted(early), _dotted(later)
    )


def _named(tree: ast.Module) -> tuple[str, ...]:
    return _dotted({words for each in tree.body for words in _imports(each)})


def _what_decides_otherwise(tree: ast.Module) -> str:
    """Return what in a file may change the environment, or where modules are found."""
    nodes = list(ast.walk(tree))
    reads = {id(mention) for node in nodes for mention in _read(node)}
    # `os` and `sys` are followed only as far as they are used by attributes.
    followed = {id(node.value) for node in nodes if isinstance(node, ast.Attribute)}
    for node in nodes:
        found = ""
        if isinstance(node, ast.Attribute):
            is_of_sys = node.attr in _OF_SYS and isinstance(node.value, ast.Name) and node.value.id == "sys"
            is_changed = node.attr in _CHANGES or (node.attr == "environ" and id(node) not in reads)
            found = f"uses sys.{node.attr}" if is_of_sys else f"uses {node.attr}" if is_changed else ""
        elif isinstance(node, ast.Name):
            is_passed_on = node.id in {"os", "sys"} and id(node) not in followed
            is_changed = node.id in _CHANGES or (node.id == "environ" and id(node) not in reads)
            found = f"uses {node.id}" if is_passed_on or is_changed or node.id in _DYNAMIC else ""
        elif isinstance(node, ast.Constant):
            found = f"names {node.value}" if node.value in {"environ", *_CHANGES} else ""
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found = _what_an_import_decides(node)
        if found:
            return f"line {getattr(node, 'lineno', 0)} {found}"
    return ""


def _what_an_import_decides(node: ast.Import | ast.ImportFrom) -> str:
    module = (node.module or "") if isinstance(node, ast.ImportFrom) and not node.level else ""
    tops = {name.partition(".")[0] for name in ([module] if module else [each.name for each in node.names])}
    if dynamic := sorted(tops & _DYNAMIC_MODULES):
        return f"imports {dynamic[0]}"
    for alias in node.names:
        names_it_else = alias.asname not in {None, alias.name}
        if names_it_else and alias.name in {"os", "sys", "environ"}:
            return f"renames {alias.name}"
        if alias.name in _CHANGES or (module == "sys" and alias.name in {*_OF_SYS, "*"}):
            return f"imports {alias.name}"
    return ""


def _read(node: ast.AST) -> list[ast.AST]:
    """Return the mentions of the environment that a node only reads."""
    found: list[ast.AST] = []
    if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
        found = [node.value]
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        found = [node.func.value] if node.func.attr in _READS_ENVIRON else []
    elif isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.In | ast.NotIn):
        found = [node.comparators[0]]
    return found


def _until_last_import(body: list[ast.stmt]) -> list[ast.stmt]:
    """Return the statements up to the last one that imports more than the standard library."""
    last = 0
    for number, statement in enumerate(body, start=1):
        if not isinstance(statement, _DEFINITIONS) and not _is_main_block(statement) and _imports(statement):
            last = number
    return body[:last]


def _is_main_block(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.If)
        and isinstance(statement.test, ast.Compare)
        and isinstance(statement.test.left, ast.Name)
        and statement.test.left.id == "__name__"
    )


def _is_for_types(statement: ast.stmt) -> bool:
    if not isinstance(statement, ast.If):
        return False
    test = statement.test
    return (test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", "")) == "TYPE_CHECKING"


def _imports(statement: ast.stmt) -> list[tuple[str, ...]]:
    """Return the modules beyond the standard library that a statement imports, each with its parts."""
    if _is_for_types(statement):
        assert isinstance(statement, ast.If)
        return [words for each in statement.orelse for words in _imports(each)]
    found: list[tuple[str, ...]] = []
    for node in ast.walk(statement):
        if isinstance(node, ast.Import):
            found += [(alias.name,) for alias in node.names if not _is_standard(alias.name)]
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            if not _is_standard(module):
                found.append((module, *sorted(alias.name for alias in node.names)))
    return found


def _is_standard(module: str) -> bool:
    return module.partition(".")[0] in sys.stdlib_module_names


def _dotted(found: list[tuple[str, ...]] | set[tuple[str, ...]]) -> tuple[str, ...]:
    names = [
        name
        for module, *parts in found
        for name in (module, *(f"{module.removesuffix('.')}.{part}" for part in parts))
    ]
    return tuple(dict.fromkeys(names))


def _what_it_does(statement: ast.stmt) -> str:
    """Return what a statement before an import does beside importing and defining; empty if nothing."""
    does = f"line {statement.lineno} runs before everything is imported"
    parts: list[ast.AST | None] = []
    inner: list[ast.stmt] = []
    match statement:
        case ast.Import() | ast.ImportFrom() | ast.Pass() | ast.Expr(value=ast.Constant()):
            return ""
        case ast.Assign(targets=targets, value=value):
            if not all(isinstance(target, ast.Name) for target in targets):
                return does
            parts = [value]
        case ast.AnnAssign(target=ast.Name(), annotation=annotation, value=value):
            parts = [annotation, value]
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            arguments = statement.args
            every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
            more = [each for each in (arguments.vararg, arguments.kwarg) if each is not None]
            parts = [*arguments.defaults, *arguments.kw_defaults, statement.returns]
            parts += [each.annotation for each in (*every, *more)]
            if not all(map(_is_harmless_decorator, statement.decorator_list)):
                return does
        case ast.ClassDef():
            parts, inner = [*statement.bases, *(each.value for each in statement.keywords)], statement.body
            if not all(map(_is_harmless_decorator, statement.decorator_list)):
                return does
        case ast.If() if _is_for_types(statement):
            inner = statement.orelse
        case ast.Try():
            inner = [*statement.body, *statement.orelse, *statement.finalbody]
            inner += [each for handler in statement.handlers for each in handler.body]
            parts = [handler.type for handler in statement.handlers]
        case _:
            return does
    if not all(_is_plain(part) for part in parts if part is not None):
        return does
    return next(filter(None, map(_what_it_does, inner)), "")


def _is_plain(value: ast.AST) -> bool:
    for node in ast.walk(value):
        if isinstance(node, ast.Call):
            if _words(node.func) not in _HARMLESS_CALLS:
                return False
        elif isinstance(node, ast.Await | ast.Yield | ast.YieldFrom | ast.NamedExpr | ast.comprehension):
            return False
    return True


def _is_harmless_decorator(node: ast.expr) -> bool:
    if isinstance(node, ast.Call):
        values = [*node.args, *(each.value for each in node.keywords)]
        return _words(node.func) in _HARMLESS_DECORATORS and all(map(_is_plain, values))
    return _words(node) in _HARMLESS_DECORATORS


def _words(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_words(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"
