"""Bytecode of installed sets: the interpreter takes it, tests of packages have none, and no file ends the install."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from importlib.util import cache_from_source
from pathlib import Path

import pytest
from ade_runner.installer import _readable, bytecode


def site(folder: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def compiled(folder: Path, workers: int = 2) -> list[str]:
    """Compiles what is to be compiled; the modules that have bytecode then."""
    *_, sources = _readable(folder)
    files, size = bytecode.Compilation(sources, workers).finish()
    found = sorted(path for path in folder.rglob("*.py") if os.path.isfile(cache_from_source(str(path))))
    assert files == len(found) and (size > 0) == (files > 0)
    return [str(path.relative_to(folder)) for path in found]


def test_the_interpreter_takes_what_is_compiled(tmp_path: Path) -> None:
    site(tmp_path, {"alpha/__init__.py": "from . import beta", "alpha/beta.py": "VALUE = 1", "gamma.py": ""})
    assert compiled(tmp_path) == ["alpha/__init__.py", "alpha/beta.py", "gamma.py"]
    cache = tmp_path / "alpha/__pycache__"
    assert cache.stat().st_mode & 0o777 == 0o755 and {path.stat().st_mode & 0o777 for path in cache.iterdir()} == {0o644}
    command = [sys.executable, "-v", "-B", "-c", "import sys; sys.path.insert(0, sys.argv[1]); import alpha.beta, gamma"]
    said = subprocess.run([*command, str(tmp_path)], check=True, capture_output=True, text=True).stderr
    for path in ("alpha/__init__.py", "alpha/beta.py", "gamma.py"):
        assert f"code object from {cache_from_source(str(tmp_path / path))!r}" in said, path


def test_tests_of_packages_have_none_and_a_package_of_that_name_has(tmp_path: Path) -> None:
    names = ["alpha/__init__.py", "alpha/tests/test_one.py", "alpha/sub/test/data/two.py", "alpha/testing/three.py", "alpha/test.py"]
    names += ["test/__init__.py", "test/tests/four.py"]
    site(tmp_path, {name: "" for name in names})
    assert compiled(tmp_path) == ["alpha/__init__.py", "alpha/test.py", "alpha/testing/three.py", "test/__init__.py"]


def test_what_does_not_compile_is_left_out(tmp_path: Path) -> None:
    site(
        tmp_path,
        {
            "good.py": "x = 1 is 1",  # a warning, which nobody wants to read
            "two.py": "print 'Python 2'", "nul.py": b"a\x00b", "latin.py": "é = 1".encode("latin-1"),
            "coding.py": "# coding: klingon", "deep.py": "-" * 100_000 + "1", "nested.py": "[" * 150 + "]" * 150,
            "attributes.py": "a" + ".a" * 100_000, "template.py/x.txt": "a folder",
        },
    )  # fmt: skip
    os.mkfifo(tmp_path / "fifo.py")
    (tmp_path / "link.py").symlink_to("/etc/passwd")
    (tmp_path / "blocked.py").touch()
    (tmp_path / "__pycache__").mkdir()
    Path(cache_from_source(str(tmp_path / "blocked.py"))).mkdir()
    assert compiled(tmp_path) == ["good.py", "nested.py"]


def test_bytecode_that_a_package_brings_along_is_replaced(tmp_path: Path) -> None:
    site(tmp_path, {"alpha.py": "", "__pycache__/alpha.cpython-311.pyc": b"junk"})
    Path(cache_from_source(str(tmp_path / "alpha.py"))).write_bytes(b"junk")
    compiled(tmp_path)
    assert Path(cache_from_source(str(tmp_path / "alpha.py"))).read_bytes() != b"junk"


def test_a_worker_that_dies_costs_the_file_it_was_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site(tmp_path, {f"m{number:02}.py": "" for number in range(20)})
    real = bytecode._compile

    def crash(path: str) -> int:
        size = real(path)
        if path.endswith(("m03.py", "m10.py")):
            os.kill(os.getpid(), signal.SIGKILL)
        return size

    monkeypatch.setattr(bytecode, "_compile", crash)
    assert compiled(tmp_path) == [f"m{number:02}.py" for number in range(20) if number not in (3, 10)]


def test_workers_that_always_die_are_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site(tmp_path, {f"m{number:02}.py": "" for number in range(40)})
    tried = tmp_path / "tried"

    def crash(path: str) -> int:
        with tried.open("a") as file:
            file.write(f"{path}\n")
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    monkeypatch.setattr(bytecode, "_compile", crash)
    assert compiled(tmp_path) == []
    assert len(tried.read_text().splitlines()) == 2 * bytecode._DEATHS


def test_a_file_has_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bytecode, "_FILE_CPU_S", 0.3)
    monkeypatch.setattr(bytecode, "_WORKER_MEMORY", resource.RLIM_INFINITY)
    slow = "".join(f"def f{number}(a): return a[{number}] + {number}\n" for number in range(100_000))
    site(tmp_path, {"slow.py": slow, **{f"m{number}.py": "" for number in range(10)}})
    assert compiled(tmp_path) == [f"m{number}.py" for number in range(10)]


def test_a_file_has_its_memory(tmp_path: Path) -> None:
    site(tmp_path, {"large.py": "a = [" + "b,\n" * 3_000_000 + "]", **{f"m{number}.py": "" for number in range(10)}})
    assert compiled(tmp_path) == [f"m{number}.py" for number in range(10)]


def test_nothing_to_compile_is_no_work(tmp_path: Path) -> None:
    assert compiled(tmp_path) == []
