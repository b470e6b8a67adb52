"""Compiles an installed set: jobs have it read-only, and would compile what they import each time anew.

Forked workers share the files, so that nothing is loaded again for each. What nobody imports in a job, tests of packages, is left
out; it can be imported still. Packages are not trusted to be harmless to a compiler: a file that does not compile, takes too long, wants
too much memory or brings the compiler down has no bytecode, and that is all.
"""

from __future__ import annotations

import gc
import marshal
import mmap
import os
import resource
import signal
import stat
import struct
import warnings
from importlib.util import MAGIC_NUMBER, cache_from_source

_FILE_CPU_S = 10.0
_WORKERS = 4
_WORKER_MEMORY = 384 * 1_048_576
"""Address space of a worker: an installer has some more memory, and few files need more than a tenth of this."""
_DEATHS = 8
"""Files of one worker's share that may bring it down; what is left of the share then has no bytecode."""
_TESTS = frozenset({"test", "tests"})
_STATE = struct.Struct("<QQQ")
_HEADER = struct.Struct("<III")
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


def is_tests(folder: str) -> bool:
    """Whether a folder, relative to the set, is one of tests inside of a package."""
    return not _TESTS.isdisjoint(folder.split(os.sep)[1:])


class Compilation:
    """Workers that compile files while their parent does something else."""

    def __init__(self, sources: list[tuple[int, str]], workers: int) -> None:
        """Starts with modules, each with its size."""
        # The largest first, dealt like cards: shares take about the same time.
        workers = min(workers, _WORKERS)
        ordered = [path for _, path in sorted(sources, reverse=True)]
        self._shares = [share for at in range(workers) if (share := ordered[at::workers])]
        # What a worker has done outlives it here: the number of the file that it is at, its files and their bytes on disk.
        self._states = mmap.mmap(-1, max(1, len(self._shares)) * _STATE.size)
        self._deaths = [0] * len(self._shares)
        self._running: dict[int, int] = {}
        gc.freeze()
        for number in range(len(self._shares)):
            self._fork(number)

    def finish(self) -> tuple[int, int]:
        """Waits for the workers; how many files of bytecode there are, and their bytes on disk."""
        while self._running:
            pid, status = os.wait()
            number = self._running.pop(pid, None)
            if number is None or status == 0:
                continue
            at, files, size = self._state(number)
            share = self._shares[number]
            _remove(_target(share[at]))
            self._deaths[number] += 1
            if at + 1 < len(share) and self._deaths[number] < _DEATHS:
                _STATE.pack_into(self._states, number * _STATE.size, at + 1, files, size)
                self._fork(number)
        states = [self._state(number) for number in range(len(self._shares))]
        return sum(files for _, files, _ in states), sum(size for *_, size in states)

    def _state(self, number: int) -> tuple[int, int, int]:
        at, files, size = _STATE.unpack_from(self._states, number * _STATE.size)
        return at, files, size

    def _fork(self, number: int) -> None:
        pid = os.fork()
        if pid != 0:
            self._running[pid] = number
            return
        code = 1
        try:
            self._work(number)
            code = 0
        finally:
            os._exit(code)

    def _work(self, number: int) -> None:
        share, offset = self._shares[number], number * _STATE.size
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (1, 2):
            os.dup2(null, fd)
        os.umask(0o022)
        gc.disable()
        warnings.simplefilter("ignore")
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_AS, (_WORKER_MEMORY, _WORKER_MEMORY))
        first, files, total = self._state(number)
        for at in range(first, len(share)):
            _STATE.pack_into(self._states, offset, at, files, total)
            # Ends the worker: a compiler cannot be interrupted.
            signal.setitimer(signal.ITIMER_PROF, _FILE_CPU_S)
            try:
                total += _compile(share[at])
                files += 1
            except Exception:  # noqa: BLE001 - whatever is wrong with the file, or with the space for its bytecode
                continue
        _STATE.pack_into(self._states, offset, len(share), files, total)


def _compile(path: str) -> int:
    """Compiles a module to where a job looks for it, as it would itself; the bytes on disk."""
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(path)
        source = file.read()
    code = compile(source, path, "exec", dont_inherit=True, optimize=0)
    # PEP 552: valid as long as the source has this time and size.
    header = _HEADER.pack(0, int(status.st_mtime) & 0xFFFFFFFF, len(source) & 0xFFFFFFFF)
    target = _target(path)
    # A package may have brought some along.
    _remove(target)
    try:
        fd = os.open(target, _NEW, 0o644)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(target), 0o755, exist_ok=True)
        fd = os.open(target, _NEW, 0o644)
    try:
        with open(fd, "wb") as file:
            file.write(MAGIC_NUMBER + header + marshal.dumps(code))
            file.flush()
            return os.fstat(fd).st_blocks * 512
    except BaseException:
        # Half of a module would be worse than none.
        _remove(target)
        raise


def _target(path: str) -> str:
    return cache_from_source(path, optimization="")


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass
