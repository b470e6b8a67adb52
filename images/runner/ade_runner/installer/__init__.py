"""Installs the requirements of a config package into a dependency set. Runs in installer containers only.

An installer never sees a job's data. It resolves the requirements to a lock (one file with one digest for each package), installs
exactly that lock into the volume at ``/deps``, and reports; the engine alone decides whether the set counts as whole.
``docs/developers/dependencies.md`` has the course of it.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import sys
import time
from pathlib import Path
from typing import Any

from ..channel import Channel

LIBRARY = "/opt/ade/installer"
SITE = "site"
WHOLE = "whole"
"""Written last: the digest of the lock that the set holds."""


def install(job: dict[str, Any], folder: str, channel: Channel) -> None:
    """Does the work of an installer container and reports its end over the channel."""
    sys.path.append(LIBRARY)
    # Nothing listens in here: what looks like this machine is the engine's, where an index may well be.
    for name in ("NO_PROXY", "no_proxy"):
        os.environ.pop(name, None)
    from .order import Order
    from .tools import Log, Refused

    root = Path(folder)
    order = Order.of(job, root)
    log = Log(root / "out" / "install.log", channel)
    try:
        report = _install(order, log, channel)
    except Refused as refused:
        log.line(f"failed: {refused.message}")
        log.close()
        channel.result(False, refused.record(log.tail()), None)
        return
    except OSError as error:
        log.close()
        code = "disk_full" if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else "io"
        channel.result(False, Refused("dependency_install_failed", code, _said(error)).record(log.tail()), None)
        return
    log.close()
    text = json.dumps(report, ensure_ascii=False, separators=(",", ":"))
    (root / "out" / "install.json").write_text(text, encoding="utf-8")
    channel.result(True, None, None)


def _install(order: Any, log: Any, channel: Channel) -> dict[str, Any]:
    from .bytecode import Compilation
    from .lock import lock_text
    from .resolve import resolve

    started = time.monotonic()
    channel.phase("resolve")
    resolved = resolve(order, log)
    lock = lock_text(resolved.locked)
    channel.event(
        "deps.resolve", "info", tool=order.tool, source=resolved.source, packages=len(resolved.locked),
        duration_ms=_ms(started),
    )
    report = {
        "tool": order.tool,
        "tool_version": order.driver.version(log),
        "source": resolved.source,
        "lock": lock,
        "packages": [one.record(order.requested) for one in resolved.locked],
    }
    if order.resolve_only:
        return report
    started = time.monotonic()
    channel.phase("install")
    # Building from source runs code of the packages, and may have left something there: a set is its lock and nothing else.
    _clear(order.deps, {".cache", ".tmp"})
    order.driver.install(lock, resolved, log)
    site = order.deps / SITE
    site.mkdir(exist_ok=True)
    (site / ".lock").unlink(missing_ok=True)
    files, size, sources = _readable(site)
    compilation = Compilation(sources, order.workers)
    _check(site, resolved.locked)
    # Removing waits for the disk more than it works.
    _clear(order.deps, {SITE})
    compiled, compiled_size = compilation.finish()
    log.line(f"compiled {compiled} modules")
    report["files"], report["bytes"] = files + compiled, size + compiled_size
    (order.deps / WHOLE).write_text(_sha256(lock), encoding="ascii")
    channel.event(
        "deps.install", "info", packages=len(resolved.locked), bytes=report["bytes"], duration_ms=_ms(started)
    )
    return report


def _clear(folder: Path, kept: set[str]) -> None:
    for entry in folder.iterdir():
        if entry.name in kept:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)


def _check(site: Path, locked: list[Any]) -> None:
    """What was installed is what was locked, and nothing else."""
    from importlib.metadata import distributions

    from .tools import Refused, canonical

    expected = {canonical(one.name): one.version for one in locked}
    found = {canonical(one.metadata["Name"]): one.version for one in distributions(path=[str(site)])}
    odd = sorted(name for name in expected.keys() | found.keys() if name not in found or name not in expected)
    if odd:
        raise Refused(
            "dependency_install_failed", "set_differs", f"the installed set differs from its lock: {', '.join(odd[:5])}"
        )


def _readable(folder: Path) -> tuple[int, int, list[tuple[int, str]]]:
    """Lets everyone read the set, as jobs have other uids; counts its files and bytes, and lists the modules to compile with
    their sizes."""
    from .bytecode import is_tests

    files = size = 0
    sources = []
    for here, _, names in os.walk(folder):
        os.chmod(here, 0o755)
        tests = is_tests(os.path.relpath(here, folder))
        for name in names:
            path = os.path.join(here, name)
            status = os.lstat(path)
            if stat.S_ISREG(status.st_mode):
                files += 1
                size += status.st_blocks * 512
                if status.st_mode & 0o444 != 0o444:
                    os.chmod(path, stat.S_IMODE(status.st_mode) | 0o444)
                if name.endswith(".py") and not tests:
                    sources.append((status.st_size, path))
            elif not stat.S_ISLNK(status.st_mode):
                os.unlink(path)
    return files, size, sources


def _said(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "the dependency set does not fit: the disk of the engine, or the installer's own space, is full"
    return f"the installer failed: {error.strerror}"


def _sha256(text: str) -> str:
    from hashlib import sha256

    return sha256(text.encode()).hexdigest()


def _ms(started: float) -> int:
    return round((time.monotonic() - started) * 1000)
