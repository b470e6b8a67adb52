"""Static checks of a package: everything that can be said about its scripts without executing any of them."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .channel import Channel
from .errors import JobError
from .manifest import Manifest, load_manifest
from .scripts import CATEGORIES, PARAMETERS

MAX_SCRIPT_BYTES = 1_048_576
MAX_DIAGNOSTICS = 500
_RESERVED = frozenset((*sys.stdlib_module_names, "ade_runner", "python_calamine"))
"""Top-level modules that a package may not bring along: the standard library, the runner, and what it reads with."""


def check_package(job: dict[str, Any], root: Path, channel: Channel) -> None:
    """Mode ``check``: sends one completion record with every diagnostic of ``/job/package``."""
    channel.phase("check")
    try:
        diagnostics = diagnose(root / "package")[1]
    except JobError as fault:
        channel.result(False, fault.as_dict("check"), None, diagnostics=[])
        return
    failed = [one for one in diagnostics if one["level"] == "error"]
    error = invalid_package(failed).as_dict("check") if failed else None
    channel.result(not failed, error, None, diagnostics=diagnostics)


def invalid_package(errors: list[dict[str, Any]]) -> JobError:
    """The failure of a package whose static check found ``errors``."""
    first = errors[0]
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return JobError(
        "package_invalid",
        f"{first['path']}: {first['message']}{more}",
        script=first["path"],
        line=first["line"],
        detail={"diagnostics": errors[:50]},
    )


def diagnose(package: Path) -> tuple[Manifest | None, list[dict[str, Any]]]:
    """The manifest, if it can be used, and all diagnostics ``{level, code, path, line, message, hint}``, sorted."""
    found: list[dict[str, Any]] = []
    manifest: Manifest | None = None
    try:
        manifest = load_manifest(package)
    except JobError as fault:
        found.append(_diagnostic("error", "manifest.invalid", "manifest.json", fault.line, fault.message))
    roles = _roles(package, manifest) if manifest else {}
    for script in sorted(set(roles)):
        if not (package / script).is_file():
            found.append(
                _diagnostic(
                    "error",
                    "script.missing",
                    script,
                    None,
                    "the manifest names this script, but the package does not have it",
                    "add the file, or take it out of the manifest",
                )
            )
    for path in sorted(package.rglob("*.py")):
        script = path.relative_to(package).as_posix()
        found.extend(_check_script(path, script, sorted(roles.get(script, ()))))
    found.extend(_shadows(package))
    order = {"error": 0, "warning": 1, "info": 2}
    found.sort(key=lambda one: (order[one["level"]], one["path"], one["line"] or 0, one["code"]))
    return manifest, found[:MAX_DIAGNOSTICS]


def _diagnostic(
    level: str, code: str, path: str, line: int | None, message: str, hint: str | None = None
) -> dict[str, Any]:
    return {"level": level, "code": code, "path": path, "line": line, "message": message, "hint": hint}


def _roles(package: Path, manifest: Manifest) -> dict[str, set[str]]:
    roles: dict[str, set[str]] = {}
    for one in manifest.enabled_fields:
        if one.script:
            roles.setdefault(one.script, set()).add("column")
    for hook in manifest.hooks:
        roles.setdefault(hook.script, set()).add("hook")
    for path in (package / "row_types").glob("*.py"):
        if not path.name.startswith("_"):
            roles.setdefault(f"row_types/{path.name}", set()).add("row_types")
    return roles


@dataclass(frozen=True)
class _Name:
    """A name bound at the top level of a script; ``node`` when a ``def`` binds it without a decorator's help."""

    name: str
    line: int
    node: ast.FunctionDef | ast.AsyncFunctionDef | None


def _check_script(path: Path, script: str, roles: list[str]) -> Iterator[dict[str, Any]]:
    # A file that nothing calls can still be imported by one that is called, so it must at least be readable; a vendored
    # library may carry files for other Python versions.
    level = "error" if roles or script.split("/")[0] in CATEGORIES else "warning"
    try:
        size = path.stat().st_size
        if size > MAX_SCRIPT_BYTES:
            yield _diagnostic(
                level,
                "script.too_large",
                script,
                None,
                f"{size:,} bytes; a script may have at most {MAX_SCRIPT_BYTES:,}",
                "move data to resources/",
            )
            return
        source = path.read_bytes()
        text = source.decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        line = fault.object[: fault.start].count(b"\n") + 1
        yield _diagnostic(level, "script.not_utf8", script, line, "the file is not UTF-8", "save it as UTF-8")
        return
    except OSError:
        yield _diagnostic(level, "script.unreadable", script, None, "the file cannot be read")
        return
    try:
        tree = ast.parse(text, filename=script)
    except SyntaxError as fault:
        yield _diagnostic(level, "script.syntax", script, fault.lineno, f"syntax error: {fault.msg}")
        return
    except (ValueError, RecursionError, MemoryError):
        yield _diagnostic(level, "script.syntax", script, None, "the file cannot be parsed: a NUL byte, or nested too deeply")
        return
    if roles:
        names, complete = _top_level(tree)
        for role in roles:
            yield from _check_role(script, role, names, complete)


def _check_role(script: str, role: str, names: dict[str, _Name], complete: bool) -> Iterator[dict[str, Any]]:
    api = [one for one in names.values() if _kind(role, one.name)]
    if not api and complete:
        yield {
            "hook": _diagnostic(
                "error", "hook.no_run", script, None, "a hook must define run(...)", "def run(**kwargs): ..."
            ),
            "row_types": _diagnostic(
                "warning", "row_types.no_detector", script, None, "no detect_* function: the script does nothing"
            ),
            "column": _diagnostic(
                "warning",
                "column.no_function",
                script,
                None,
                "none of detect_*, transform and validate is defined: the script does nothing",
            ),
        }[role]
    for one in api:
        node = one.node
        if node is None:
            continue
        if isinstance(node, ast.AsyncFunctionDef):
            yield _diagnostic(
                "error", "script.async", script, node.lineno, f"{node.name} is async; scripts are called without an event loop"
            )
        known = PARAMETERS[_kind(role, one.name) or ""]
        if node.decorator_list:
            # What a decorator makes of the signature is known only once it has run; the loader checks it then.
            continue
        for parameter in _required(node.args):
            if parameter not in known:
                yield _diagnostic(
                    "error",
                    "script.unknown_parameter",
                    script,
                    node.lineno,
                    f"{node.name} requires the parameter {parameter!r}, which nothing provides",
                    f"known are {', '.join(sorted(known))}; or give it a default",
                )


def _kind(role: str, name: str) -> str | None:
    """The kind of API function that ``name`` is in a script of this role."""
    if role == "hook":
        return "hook" if name == "run" else None
    if name.startswith("detect_"):
        return "row_detector" if role == "row_types" else "column_detector"
    if role == "column":
        return {"transform": "transform", "validate": "validator"}.get(name)
    return None


def _required(arguments: ast.arguments) -> list[str]:
    plain = [*arguments.posonlyargs, *arguments.args]
    required = plain[: len(plain) - len(arguments.defaults)]
    keyword = [one for one, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if default is None]
    return [one.arg for one in (*required, *keyword)]


def _top_level(tree: ast.Module) -> tuple[dict[str, _Name], bool]:
    """Names bound at the top level, and whether that list is complete (it is not after ``from x import *``)."""
    names: dict[str, _Name] = {}
    complete = True
    pending: list[ast.stmt] = list(reversed(tree.body))
    while pending:
        node = pending.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            names[node.name] = _Name(node.name, node.lineno, node)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            for alias in node.names:
                if alias.name == "*":
                    complete = False
                bound = alias.asname or alias.name.split(".")[0]
                names[bound] = _Name(bound, node.lineno, None)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                for part in ast.walk(target):
                    if isinstance(part, ast.Name):
                        names[part.id] = _Name(part.id, node.lineno, None)
        elif isinstance(node, (ast.If, ast.Try, ast.With, ast.For, ast.While)):
            for _, value in ast.iter_fields(node):
                if isinstance(value, list):
                    for one in value:
                        if isinstance(one, ast.stmt):
                            pending.append(one)
                        elif isinstance(one, ast.ExceptHandler):
                            pending.extend(one.body)
    return names, complete


def _shadows(package: Path) -> Iterator[dict[str, Any]]:
    """Top-level modules of the package and of ``vendor/`` that carry a name of the runner or the standard library."""
    for folder in (package, package / "vendor"):
        if not folder.is_dir():
            continue
        for path in sorted(folder.iterdir()):
            script = path.relative_to(package).as_posix()
            if path.suffix == ".so":
                yield _diagnostic(
                    "warning", "vendor.not_pure", script, None, "compiled code is not vendored; list it in requirements.txt"
                )
            is_module = path.suffix in (".py", ".so") or (path.is_dir() and any(path.glob("*.py")))
            if is_module and path.name.split(".")[0] in _RESERVED:
                yield _diagnostic(
                    "error",
                    "vendor.shadows",
                    script,
                    None,
                    f"{path.name.split('.')[0]} is the name of a module of the runner, its libraries or the standard library",
                    "rename it",
                )
