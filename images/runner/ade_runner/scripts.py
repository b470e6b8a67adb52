"""Loading and calling the scripts of a config package.

Scripts are the tenant's. They are loaded once, their signatures are inspected once, and every fault they can cause is
turned into a :class:`Diagnostic` that names the script, the function and the line, and never a value: the text of an
exception may quote a cell, so only its class is kept.
"""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FunctionType, ModuleType, TracebackType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

try:
    # The interpreter's own: hashlib would load OpenSSL, which takes a starting container longer than all else here.
    from _sha256 import sha256
except ImportError:
    from hashlib import sha256

from .errors import JobError
from .manifest import Field, HookRef, Manifest
from .records import record

COMMON = ("job_id", "source_file", "sheet_name", "manifest", "env", "artifact", "job_context")
_COLUMN = ("header", "values_sample", "column_index", "table_id", "table", "field_name", "field_meta", "state")

PARAMETERS: dict[str, frozenset[str]] = {
    "row_detector": frozenset((*COMMON, "row_index", "row_values_sample", "table_hint", "state")),
    "column_detector": frozenset((*COMMON, *_COLUMN)),
    "transform": frozenset((*COMMON, *_COLUMN, "values", "row_offset")),
    "validator": frozenset((*COMMON, *_COLUMN, "values", "row_offset")),
    "hook": frozenset((*COMMON, "stage", "success", "error", "mapping", "warnings", "job", "output")),
}
"""What a function of each kind may ask for: everything here is passed in every call of that kind, if declared."""

CATEGORIES = ("columns", "row_types", "hooks")
MAX_DIAGNOSTICS = 200
_DISK_FULL = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
_IDENTIFIER = re.compile(r"[^A-Za-z0-9_]")


# ---------------------------------------------------------------------------------------------------------------------
# Diagnostics


class Diagnostics:
    """What went wrong without ending the job: deduplicated by (code, script, function, line), counted, and bounded."""

    def __init__(self) -> None:
        self._entries: dict[tuple[object, ...], dict[str, Any]] = {}
        self.dropped = 0

    def add(
        self,
        code: str,
        message: str,
        *,
        level: str = "warning",
        script: str | None = None,
        function: str | None = None,
        line: int | None = None,
        rule: str | None = None,
        exception: str | None = None,
        place: Mapping[str, object] | None = None,
    ) -> None:
        """Records one occurrence. ``place`` says where it was first seen, with ids and numbers only."""
        located = tuple(sorted(place.items())) if place and script is None else ()
        key = (code, script, function, line, *located)
        known = self._entries.get(key)
        if known is not None:
            known["count"] += 1
            return
        if len(self._entries) >= MAX_DIAGNOSTICS:
            self.dropped += 1
            return
        entry: dict[str, Any] = {"code": code, "level": level, "message": message}
        optional = {"script": script, "function": function, "line": line, "rule": rule, "exception": exception}
        entry |= {name: value for name, value in optional.items() if value is not None}
        if place:
            entry["place"] = dict(place)
        entry["count"] = 1
        self._entries[key] = entry

    def fault(
        self, code: str, rule: Rule, fault: BaseException, package: str, place: Mapping[str, object] | None = None
    ) -> None:
        """Records an exception of a script; raises :class:`JobError` when memory or disk ran out."""
        raise_if_fatal(fault)
        script, function, line = locate(fault, package)
        name = exception_name(fault)
        self.add(
            code,
            f"{name} raised; the result of {rule.function} counts as neutral",
            level="error",
            script=script or rule.script,
            function=function or rule.function,
            line=line,
            rule=rule.id,
            exception=name,
            place=place,
        )

    def refused(self, code: str, rule: Rule, message: str, place: Mapping[str, object] | None = None) -> None:
        """Records a return value that breaks the script API."""
        self.add(
            code,
            message,
            level="error",
            script=rule.script,
            function=rule.function,
            line=rule.line,
            rule=rule.id,
            place=place,
        )

    def entries(self) -> list[dict[str, Any]]:
        """All distinct diagnostics in the order they were first seen; a last one tells how many more were dropped."""
        found = list(self._entries.values())
        if self.dropped:
            found.append(
                {
                    "code": "runtime.diagnostics.dropped",
                    "level": "warning",
                    "message": f"more than {MAX_DIAGNOSTICS} distinct diagnostics; further ones were only counted",
                    "count": self.dropped,
                }
            )
        return found


def raise_if_fatal(fault: BaseException) -> None:
    """Exhausted memory or disk ends the job, wherever it surfaced."""
    if isinstance(fault, MemoryError):
        raise JobError(
            "out_of_memory",
            "a script ran out of memory; work on the batch it is given, or raise engine.defaults.memory_mb",
        ) from None
    if isinstance(fault, OSError) and fault.errno in _DISK_FULL:
        raise JobError(
            "disk_full",
            "the job's scratch space is full; write less to /job, or have the scratch limit raised",
        ) from None


def exception_name(fault: BaseException) -> str:
    """The class name of an exception, reduced to what an identifier may hold."""
    return _IDENTIFIER.sub("_", type(fault).__name__)[:80]


def exception_text(fault: BaseException, limit: int) -> str:
    """The message of an exception, for the author's eyes in events only."""
    try:
        text = str(fault)
    except BaseException as second:  # noqa: BLE001 - a hostile __str__ may raise anything
        raise_if_fatal(second)
        return ""
    return text if len(text) <= limit else text[:limit] + "…"


def locate(fault: BaseException, package: str) -> tuple[str | None, str | None, int | None]:
    """Script, function and line of the deepest frame inside the package."""
    if isinstance(fault, SyntaxError) and fault.filename:
        inside = _inside(fault.filename, package)
        if inside:
            return inside, None, fault.lineno
    found: tuple[str | None, str | None, int | None] = (None, None, None)
    frame: TracebackType | None = fault.__traceback__
    while frame is not None:
        inside = _inside(frame.tb_frame.f_code.co_filename, package)
        if inside:
            found = (inside, frame.tb_frame.f_code.co_name, frame.tb_lineno)
        frame = frame.tb_next
    return found


def _inside(filename: str, package: str) -> str | None:
    prefix = f"{package}/"
    return filename[len(prefix) :] if filename.startswith(prefix) else None


# ---------------------------------------------------------------------------------------------------------------------
# Read-only views


class ReadOnlyDict(dict[str, "Any"]):
    """A dict that refuses to be changed; ``copy()`` gives a plain one."""

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("this object is read-only for scripts; copy it to change it")

    __setitem__ = __delitem__ = update = setdefault = clear = pop = popitem = __ior__ = _refuse  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        return (dict, (dict(self),))


class ReadOnlyList(list["Any"]):
    """A list that refuses to be changed."""

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("this object is read-only for scripts; copy it to change it")

    __setitem__ = __delitem__ = append = extend = insert = remove = pop = clear = sort = reverse = _refuse  # type: ignore[assignment]
    __iadd__ = __imul__ = _refuse  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        return (list, (list(self),))


def read_only(value: Any) -> Any:
    """A deep read-only copy of JSON data, still ``dict`` and ``list`` to ``isinstance`` and ``json``."""
    if isinstance(value, dict):
        return ReadOnlyDict({key: read_only(item) for key, item in value.items()})
    if isinstance(value, (list, tuple)):
        return ReadOnlyList([read_only(item) for item in value])
    return value


# ---------------------------------------------------------------------------------------------------------------------
# Functions and their signatures


@record
class Rule:
    """One function of a script, ready to be called with what its signature declares."""

    id: str
    """``columns.member_id:detect_x``; stable across jobs and used by contributors, issues and diagnostics."""
    kind: str
    script: str
    function: str
    line: int | None
    version: str
    field: str | None
    target: Callable[..., Any]
    names: tuple[str, ...]
    """Declared parameters passed by name; all known ones when the function takes ``**kwargs``."""
    positional: tuple[str, ...]
    """Positional-only parameters, passed by place."""

    def bind(self, known: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """Arguments for one call, taken from ``known``."""
        return [known[name] for name in self.positional], {name: known[name] for name in self.names}

    def __call__(self, known: Mapping[str, Any]) -> Any:
        if self.positional:
            args, kwargs = self.bind(known)
            return self.target(*args, **kwargs)
        return self.target(**{name: known[name] for name in self.names})

    @property
    def impl(self) -> dict[str, Any]:
        entry: dict[str, Any] = {"impl": f"{self.script}:{self.function}", "version": self.version}
        if self.field is not None:
            entry["field"] = self.field
        return entry


_COROUTINE, _ASYNC_GENERATOR, _VARKEYWORDS = 0x80, 0x200, 0x08
"""Flags of a code object, as the documentation of the module ``inspect`` lists them."""


def _is_plain(function: Callable[..., Any]) -> bool:
    """Whether a function's own code tells all about it, as with nearly all scripts; else ``inspect`` does, which is slow to import."""
    return type(function) is FunctionType and not vars(function)


def _is_async(function: Callable[..., Any]) -> bool:
    if _is_plain(function):
        return bool(function.__code__.co_flags & (_COROUTINE | _ASYNC_GENERATOR))
    import inspect

    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


def _line(function: Callable[..., Any]) -> int | None:
    """Where a function begins in its script, seen through decorators."""
    if not _is_plain(function):
        import inspect

        function = inspect.unwrap(function)
    return getattr(getattr(function, "__code__", None), "co_firstlineno", None)


def _parameters(function: Callable[..., Any]) -> Iterator[tuple[str, str, bool]]:
    """Name, how it is passed (``place``, ``name``, ``all names``) and whether it must be. ``*args`` take nothing and are left out."""
    if not _is_plain(function):
        import inspect

        for parameter in inspect.signature(function).parameters.values():
            if parameter.kind is parameter.VAR_KEYWORD:
                yield parameter.name, "all names", False
            elif parameter.kind is not parameter.VAR_POSITIONAL:
                by = "place" if parameter.kind is parameter.POSITIONAL_ONLY else "name"
                yield parameter.name, by, parameter.default is parameter.empty
        return
    code = function.__code__
    by_place, named = code.co_posonlyargcount, code.co_argcount
    optional_from = named - len(function.__defaults__ or ())
    for at, name in enumerate(code.co_varnames[:named]):
        yield name, "place" if at < by_place else "name", at < optional_from
    only_named = code.co_varnames[named : named + code.co_kwonlyargcount]
    for name in only_named:
        yield name, "name", name not in (function.__kwdefaults__ or {})
    if code.co_flags & _VARKEYWORDS:
        yield "", "all names", False


def accepted(function: Callable[..., Any], kind: str, script: str, name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names to pass by name and by place; raises ``package_invalid`` for a parameter that nothing can satisfy."""
    known = PARAMETERS[kind]
    if _is_async(function):
        raise JobError(
            "package_invalid", f"{script}: {name} is async; scripts are called without an event loop", script=script, function=name
        )
    try:
        parameters = list(_parameters(function))
    except (ValueError, TypeError):
        raise JobError("package_invalid", f"{script}: the signature of {name} cannot be read", script=script, function=name) from None
    names: list[str] = []
    positional: list[str] = []
    everything = False
    for parameter, by, required in parameters:
        if by == "all names":
            everything = True
        elif parameter in known:
            (positional if by == "place" else names).append(parameter)
        elif required:
            raise JobError(
                "package_invalid",
                f"{script}: {name} requires the parameter {parameter!r}, which nothing provides; "
                f"known are {', '.join(sorted(known))}",
                script=script,
                function=name,
            )
        elif by == "place":
            break
    if everything:
        names = [one for one in sorted(known) if one not in positional]
    return tuple(names), tuple(positional)


# ---------------------------------------------------------------------------------------------------------------------
# The package


@record
class Scripts:
    """Every function the passes call, in the order they are called."""

    row_detectors: tuple[Rule, ...]
    column_detectors: Mapping[str, tuple[Rule, ...]]
    transforms: Mapping[str, Rule]
    validators: Mapping[str, Rule]

    def registry(self) -> dict[str, dict[str, Any]]:
        """The artifact's ``rules`` block."""
        return {
            "row_types": {rule.id: rule.impl for rule in self.row_detectors},
            "column_detect": {rule.id: rule.impl for rules in self.column_detectors.values() for rule in rules},
            "transform": {rule.id: rule.impl for rule in self.transforms.values()},
            "validate": {rule.id: rule.impl for rule in self.validators.values()},
        }


class Package:
    """An unpacked config package whose scripts can be loaded."""

    def __init__(self, root: str, manifest: Manifest) -> None:
        self.root = root
        self.manifest = manifest
        self._modules: dict[str, ModuleType] = {}

    def load(self) -> Scripts:
        """Loads every script that a pass needs; a script that cannot be loaded fails the job with ``script_error``."""
        fields = self.manifest.enabled_fields
        detectors = {one.id: self.detectors(one) for one in fields}
        return Scripts(
            row_detectors=tuple(rule for script in self.row_scripts() for rule in self.row_detectors(script)),
            column_detectors={name: rules for name, rules in detectors.items() if rules},
            transforms={one.id: rule for one in fields if (rule := self.transform(one))},
            validators={one.id: rule for one in fields if (rule := self.validator(one))},
        )

    def row_scripts(self) -> list[str]:
        """``row_types/*.py`` in name order; names that start with an underscore are helpers."""
        try:
            names = os.listdir(f"{self.root}/row_types")
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [f"row_types/{name}" for name in sorted(names) if name.endswith(".py") and not name.startswith("_")]

    def hook(self, ref: HookRef) -> Rule:
        """Loads one hook; raises :class:`JobError` when it cannot be loaded or has no ``run``."""
        rules = self._rules(ref.script, "hook", "run", None)
        if not rules:
            raise JobError(
                "package_invalid", f"{ref.script}: a hook must define run(...)", script=ref.script, function="run"
            )
        return rules[0]

    def row_detectors(self, script: str) -> tuple[Rule, ...]:
        """The ``detect_*`` functions of one of the :meth:`row_scripts`."""
        return self._rules(script, "row_detector", "detect_", None)

    def detectors(self, one: Field) -> tuple[Rule, ...]:
        """The ``detect_*`` functions of a field's script."""
        return self._field_rules(one, "column_detector", "detect_")

    def transform(self, one: Field) -> Rule | None:
        """``transform`` of a field's script."""
        return next(iter(self._field_rules(one, "transform", "transform")), None)

    def validator(self, one: Field) -> Rule | None:
        """``validate`` of a field's script."""
        return next(iter(self._field_rules(one, "validator", "validate")), None)

    def _field_rules(self, one: Field, kind: str, name: str) -> tuple[Rule, ...]:
        return () if one.script is None else self._rules(one.script, kind, name, one.id)

    def _rules(self, script: str, kind: str, name: str, field: str | None) -> tuple[Rule, ...]:
        """The functions of a script called ``name``, or starting with it when it ends in an underscore, in the order
        they were defined."""
        module = self._module(script)
        prefix = name.endswith("_")
        with open(f"{self.root}/{script}", "rb") as file:
            version = sha256(file.read()).hexdigest()[:12]
        found: list[Rule] = []
        for key, value in list(vars(module).items()):
            if not (key.startswith(name) if prefix else key == name) or not callable(value) or isinstance(value, type):
                continue
            names, positional = accepted(value, kind, script, key)
            found.append(
                Rule(
                    id=f"{module_name(script)}:{key}",
                    kind=kind,
                    script=script,
                    function=key,
                    line=_line(value),
                    version=version,
                    field=field,
                    target=value,
                    names=names,
                    positional=positional,
                )
            )
        return tuple(found)

    def _module(self, script: str) -> ModuleType:
        if script in self._modules:
            return self._modules[script]
        path = f"{self.root}/{script}"
        try:
            module = self._import(module_name(script), path)
        except BaseException as fault:  # noqa: BLE001 - SystemExit at import is the script's fault like any other
            raise_if_fatal(fault)
            where, function, line = locate(fault, self.root)
            raise JobError(
                "script_error",
                f"{script} cannot be loaded: {exception_name(fault)} at {where or script}:{line or 1}",
                script=where or script,
                function=function,
                line=line,
                detail={"exception": exception_name(fault)},
            ) from fault
        self._modules[script] = module
        return module

    def _import(self, name: str, path: str) -> ModuleType:
        known = sys.modules.get(name)
        if known is not None and getattr(known, "__file__", None) == path:
            return known
        import importlib.util  # a job without scripts needs nothing of it

        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise ImportError("not a Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            sys.modules.pop(name, None)
            raise
        return module


def module_name(script: str) -> str:
    """``columns/member_id.py`` → ``columns.member_id``: the folder keeps ``columns/a.py`` and ``hooks/a.py`` apart."""
    return script.removesuffix(".py").replace("/", ".")


@contextmanager
def script_environment(root: str, env: Mapping[str, str]) -> Iterator[None]:
    """What scripts see of the process while they run.

    ``vendor/`` and then the package's own folder go on ``sys.path`` behind the standard library and the runner, before
    anything installed: ``import columns.helpers`` works, ``vendor`` wins over an installed package, and neither can
    shadow the runner, its libraries or the standard library. ``env`` is exported, the package is the working directory,
    and bytecode is not written into the job's scratch space. Everything is put back on exit.
    """
    saved = list(sys.path), dict(os.environ), os.getcwd(), sys.dont_write_bytecode, set(sys.modules)
    at = _after_standard_library()
    ours = [os.path.dirname(os.path.dirname(os.path.abspath(__file__)))]
    sys.path[at:at] = [*[one for one in ours if one not in sys.path[:at]], f"{root}/vendor", root]
    sys.dont_write_bytecode = True
    shadowed = {name: sys.modules.pop(name) for name in CATEGORIES if name in sys.modules}
    os.environ.update(env)
    os.chdir(root)
    try:
        for name in CATEGORIES:
            _category(root, name)
        yield
    finally:
        sys.path[:], environment, directory, sys.dont_write_bytecode, modules = saved
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(directory)
        prefix = f"{root}/"
        for name in set(sys.modules) - modules | set(CATEGORIES):
            module = sys.modules.get(name)
            if name.split(".")[0] in CATEGORIES or str(getattr(module, "__file__", None) or "").startswith(prefix):
                sys.modules.pop(name, None)
        sys.modules.update(shadowed)


def _after_standard_library() -> int:
    library = os.path.dirname(os.__file__)
    standard = {library, os.path.join(library, "lib-dynload")}
    return max((at + 1 for at, one in enumerate(sys.path) if one in standard), default=len(sys.path))


def _category(root: str, name: str) -> None:
    """Makes ``columns``, ``row_types`` and ``hooks`` packages of this job, whatever else is installed under that name.

    Without this, an installed distribution that happens to be called ``columns`` would win over a folder that has no
    ``__init__.py``. An ``__init__.py`` of the folder itself is not executed: scripts are loaded one by one.
    """
    module = ModuleType(name)
    module.__path__ = [f"{root}/{name}"]
    sys.modules[name] = module
