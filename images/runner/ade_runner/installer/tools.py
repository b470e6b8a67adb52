"""The programs that resolve and install: uv, or pip. Both get everything by environment and files, never secrets by arguments."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from ..channel import Channel

if TYPE_CHECKING:
    from .order import Order
    from .resolve import Resolved

_PYTHON = "/usr/bin/python3"
_UV = "/opt/ade/installer/bin/uv"
_PIP = "/opt/ade/installer/pip"
_LOG_BYTES = 512 * 1024
_TAIL_LINES = 20
_LINE = 2_000
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def canonical(name: str) -> str:
    """The one spelling of a distribution's name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


class Refused(Exception):
    """The requirements cannot be installed: a stable kind and code, and what a person can do about it."""

    def __init__(self, kind: str, code: str, message: str, line: int | None = None, **detail: object) -> None:
        super().__init__(message)
        self.kind, self.code, self.message, self.line, self.detail = kind, code, message, line, detail

    def record(self, tail: list[str]) -> dict[str, Any]:
        detail = {"code": self.code, **self.detail, "log_tail": tail}
        script = "requirements.txt" if self.line is not None else None
        return {
            "kind": self.kind, "message": self.message, "pass": "install", "script": script, "function": None,
            "line": self.line, "detail": detail,
        }  # fmt: skip


class Log:
    """``install.log``, bounded, and the same lines as events while they come."""

    def __init__(self, path: Path, channel: Channel) -> None:
        self._file = path.open("w", encoding="utf-8", errors="replace")
        self._left = _LOG_BYTES
        self._channel = channel
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)

    def line(self, text: str, *, show: bool = True) -> None:
        text = _ESCAPES.sub("", text).rstrip()[:_LINE]
        if not text:
            return
        self._tail.append(text)
        size = len(text.encode("utf-8", "replace")) + 1
        if self._left >= size:
            self._left -= size
            self._file.write(text + "\n")
        elif self._left > 0:
            self._left = 0
            self._file.write("… the rest was cut off\n")
        if show:
            self._channel.event("log", "info", stream="install", text=text)

    def tail(self) -> list[str]:
        return list(self._tail)

    def close(self) -> None:
        self._file.close()


class Driver(Protocol):
    """One of the two programs."""

    def version(self, log: Log) -> str:
        """Its version."""

    def resolve(self, offline: bool, log: Log) -> tuple[bool, str]:
        """Resolves into :meth:`resolution`; whether it went well, and what was said."""

    def resolution(self) -> Path:
        """The file that a resolution leaves."""

    def install(self, lock: str, resolved: Resolved, log: Log) -> None:
        """Installs exactly the lock; raises :class:`Refused`."""


def driver(order: Order) -> Driver:
    return Uv(order) if order.tool == "uv" else Pip(order)


def _environment(order: Order) -> dict[str, str]:
    temporary = order.deps / ".tmp"
    temporary.mkdir(exist_ok=True)
    # Packages unpack to more than the scratch space, which is memory; the volume is a disk.
    return {**os.environ, "TMPDIR": str(temporary), "HOME": str(order.work)}


def _run(command: list[str], environment: dict[str, str], log: Log, *, show: bool = True) -> tuple[bool, str]:
    """Runs a program to its end, its output line by line into the log; whether it went well, and the end of what it said."""
    said: deque[str] = deque(maxlen=400)
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        cwd="/job/tmp", text=True, encoding="utf-8", errors="replace",
    ) as process:  # fmt: skip
        assert process.stdout is not None
        for line in process.stdout:
            said.append(_ESCAPES.sub("", line)[:_LINE])
            log.line(line, show=show)
    return process.returncode == 0, "".join(said)


def _failed(order: Order, said: str) -> Refused:
    from .diagnose import explain_install

    return explain_install(order, said)


class Uv:
    """uv (https://docs.astral.sh/uv/pip/): resolves in parallel, and never mixes versions of one name from two indexes."""

    def __init__(self, order: Order) -> None:
        self._order = order

    def version(self, log: Log) -> str:
        done = subprocess.run([_UV, "--version"], capture_output=True, text=True, check=False, env=_environment(self._order))
        return done.stdout.strip().split(" ")[1] if done.stdout.startswith("uv ") else "unknown"

    def resolution(self) -> Path:
        return self._order.work / "pylock.toml"

    def _environment(self, offline: bool) -> dict[str, str]:
        environment = _environment(self._order)
        environment |= {
            "UV_CACHE_DIR": str(self._order.deps / ".cache"), "UV_NO_CONFIG": "1", "UV_NO_PROGRESS": "1",
            "UV_PYTHON_DOWNLOADS": "never", "UV_INDEX_STRATEGY": "first-index", "UV_HTTP_TIMEOUT": "30",
        }  # fmt: skip
        if offline:
            return environment | {"UV_OFFLINE": "1"}
        environment["UV_DEFAULT_INDEX"] = self._order.index_url
        if self._order.extra_index_urls:
            environment["UV_INDEX"] = " ".join(self._order.extra_index_urls)
        return environment

    def _common(self, offline: bool) -> list[str]:
        arguments = ["--python", _PYTHON]
        if offline:
            arguments.append("--no-index")
        for wheelhouse in self._order.wheelhouses:
            arguments += ["--find-links", str(wheelhouse)]
        if not self._order.source_builds:
            arguments += ["--only-binary", ":all:"]
        return arguments

    def resolve(self, offline: bool, log: Log) -> tuple[bool, str]:
        command = [_UV, "pip", "compile", str(self._order.source), "--format", "pylock.toml", "--no-header", "--no-annotate"]
        command += ["--quiet", "--output-file", str(self.resolution()), *self._common(offline)]
        self.resolution().unlink(missing_ok=True)
        return _run(command, self._environment(offline), log)

    def install(self, lock: str, resolved: Resolved, log: Log) -> None:
        from .lock import pylock

        offline = resolved.source == "wheelhouse"
        command = [_UV, "pip", "install", "--no-deps", "--target", str(self._order.deps / "site"), *self._common(offline)]
        if (addresses := pylock(resolved.locked)) is not None:
            path = self._order.work / "pylock.lock.toml"
            path.write_text(addresses, encoding="utf-8")
            command += ["--preview-features", "pylock", "--requirements", str(path)]
        else:
            path = self._order.work / "lock.txt"
            path.write_text(lock, encoding="utf-8")
            command += ["--require-hashes", "--requirements", str(path)]
        done, said = _run(command, self._environment(offline), log)
        if not done:
            raise _failed(self._order, said)


class Pip:
    """pip (https://pip.pypa.io/): the published meaning of a requirements file."""

    def __init__(self, order: Order) -> None:
        self._order = order

    def version(self, log: Log) -> str:
        from pip import __version__

        return str(__version__)

    def resolution(self) -> Path:
        return self._order.work / "report.json"

    def _environment(self, offline: bool) -> dict[str, str]:
        environment = _environment(self._order)
        environment |= {
            "PIP_CONFIG_FILE": os.devnull, "PIP_CACHE_DIR": str(self._order.deps / ".cache"), "PIP_NO_INPUT": "1",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_PROGRESS_BAR": "off", "PIP_NO_COLOR": "1",
            "PIP_RETRIES": "2", "PIP_TIMEOUT": "30", "PIP_ROOT_USER_ACTION": "ignore",
        }  # fmt: skip
        if not offline:
            environment["PIP_INDEX_URL"] = self._order.index_url
            index = urlsplit(self._order.index_url)
            if index.scheme == "http":
                # Unless told that it is meant so, pip passes over an index in plain HTTP, and finds nothing.
                environment["PIP_TRUSTED_HOST"] = index.netloc.rpartition("@")[2]
            if "SSL_CERT_FILE" in environment:
                environment["PIP_CERT"] = environment["SSL_CERT_FILE"]
        return environment

    def _command(self, offline: bool, *more: str) -> list[str]:
        command = [sys.executable or _PYTHON, "-S", "-s", "-P", "-B", _PIP, "install", *more]
        if offline:
            command.append("--no-index")
        for wheelhouse in self._order.wheelhouses:
            command += ["--find-links", str(wheelhouse)]
        if not self._order.source_builds:
            command += ["--only-binary", ":all:"]
        return command

    def resolve(self, offline: bool, log: Log) -> tuple[bool, str]:
        self.resolution().unlink(missing_ok=True)
        report = str(self.resolution())
        command = self._command(offline, "--dry-run", "--ignore-installed", "--report", report, "-r", str(self._order.source))
        return _run(command, self._environment(offline), log)

    def install(self, lock: str, resolved: Resolved, log: Log) -> None:
        path = self._order.work / "lock.txt"
        path.write_text(lock, encoding="utf-8")
        offline = resolved.source == "wheelhouse"
        target = str(self._order.deps / "site")
        command = self._command(offline, "--require-hashes", "--no-deps", "--no-compile", "--target", target, "-r", str(path))
        done, said = _run(command, self._environment(offline), log)
        if not done:
            raise _failed(self._order, said)
