"""Assembles the root file system of the runner image from the Debian system this script runs in.

Both routes to the image end here: the Dockerfile runs it in its build stage, bootstrap.sh in a freshly extracted Debian.
What is not named below does not get in. That is why the image has no shell, no package manager, and no setuid file:
nothing is stripped afterwards, everything is chosen.

The result depends on file contents only: fixed times, modes and owner, sorted order, and bytecode that is checked
against no timestamp.
"""

from __future__ import annotations

import argparse
import ast
import compileall
import importlib.util
import marshal
import os
import py_compile
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import time
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

EPOCH = 946_684_800
"""Every file's modification time, seconds: 2000-01-01, because zip archives cannot say anything before 1980."""

HOME = "/usr"
"""The PYTHONHOME of the image: an interpreter that is told where it is at home does not look for it."""

LEFT_OUT_OF_STDLIB = {
    "__pycache__", "dist-packages", "ensurepip", "idlelib", "lib2to3", "site-packages", "test", "tests", "tkinter",
    "turtle.py", "turtledemo", "sitecustomize.py",
}  # fmt: skip
"""Names dropped at any depth: tests, graphics, installers, and what a Debian or a site administrator hooks in."""

LIBRARIES_FOR_WHEELS = (
    "libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2", "librt.so.1", "libutil.so.1", "libresolv.so.2",
    "libgcc_s.so.1", "libstdc++.so.6", "libz.so.1", "libexpat.so.1",
)  # fmt: skip
"""What binary wheels may expect of the system (PEP 600), whether or not the interpreter itself needs it."""

LEFT_OUT_OF_DYNLOAD = re.compile(r"_tkinter\.|_test|_ctypes_test|_xxtest|xxlimited")
"""Extension modules for tests, and the one for graphics: the official slim image has it without the libraries it needs."""

ESSENTIAL_MODULES = {"_bz2", "_ctypes", "_decimal", "_hashlib", "_lzma", "_sqlite3", "_ssl", "_uuid", "pyexpat", "zlib"}
"""Extension modules that must load. Others may lack their library in a slim base, and are left out then."""

INSTALLERS = {"pip", "uv"}
"""Wheels of requirements.lock that go to /opt/ade/installer, out of the way of the runner's own."""

MODULE = "ade_native.abi3.so"
"""The runner's compiled module, in the context."""

MACHINES = {0x3E: "amd64", 0xB7: "arm64"}
"""The field e_machine of an ELF file → architecture, of those that there are wheels for."""

SHELL_NAMES = re.compile(r"(ba|da|z|k|fi|c|tc)?sh|busybox|toybox")


class AssemblyError(Exception):
    """The system this runs in cannot yield the image; the message names the missing thing."""


def loader() -> Path:
    """The dynamic loader at the path that executables ask for, which differs by architecture."""
    for pattern in ("/lib64/ld-linux-*.so.*", "/lib/ld-linux-*.so.*"):
        found = sorted(Path("/").glob(pattern.lstrip("/")))
        if found:
            return found[0]
    raise AssemblyError("no dynamic loader /lib*/ld-linux-*: only Debian on glibc can be a base")


def is_elf(path: Path) -> bool:
    """Whether a regular file is an executable or a shared library."""
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def architecture(path: Path) -> str:
    """What an ELF file runs on."""
    with path.open("rb") as file:
        machine = int.from_bytes(file.read(20)[18:20], sys.byteorder)
    return MACHINES.get(machine, f"machine {machine}")


def needed(binary: Path) -> Iterator[Path]:
    """The shared libraries one binary loads, as the dynamic loader itself resolves them (there may be no ldd)."""
    listing = subprocess.run([loader(), "--list", binary], capture_output=True, text=True, check=False)
    if "not a dynamic executable" in listing.stderr + listing.stdout or "statically linked" in listing.stdout:
        return
    if listing.returncode != 0:
        raise AssemblyError(f"{binary}: {listing.stderr.strip() or listing.stdout.strip()}")
    for line in listing.stdout.splitlines():
        name, arrow, found = line.strip().partition(" => ")
        if not arrow:
            continue
        if found.startswith("not found"):
            raise AssemblyError(f"{binary} needs {name}, which the base system does not have")
        yield Path(found.split(" (")[0])


class Root:
    """The file system under construction; paths given to it are absolute paths inside the image."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True)

    def at(self, inside: str | Path) -> Path:
        """Where an absolute path of the image lies on this system."""
        return self.path / str(inside).lstrip("/")

    def directory(self, inside: str | Path) -> None:
        """Creates a directory and its parents."""
        self.at(inside).mkdir(parents=True, exist_ok=True)

    def link(self, inside: str, target: str) -> None:
        """Creates a symbolic link."""
        self.directory(Path(inside).parent)
        self.at(inside).symlink_to(target)

    def text(self, inside: str, content: str) -> None:
        """Writes a small text file."""
        self.directory(Path(inside).parent)
        self.at(inside).write_text(content, encoding="utf-8")

    def copy(self, source: Path, inside: str | Path, *, executable: bool = False) -> None:
        """Copies one file's content, following links, and nothing else of it."""
        self.directory(Path(inside).parent)
        shutil.copyfile(source, self.at(inside))
        self.at(inside).chmod(0o755 if executable else 0o644)

    def tree(self, source: Path, inside: str, leave_out: Iterable[str] = ()) -> None:
        """Copies a directory. Links inside it stay links; links that lead out become what they point to."""
        skipped = set(leave_out)
        for folder, folders, files in os.walk(source):
            folders[:] = sorted(name for name in folders if name not in skipped)
            here = Path(folder)
            there = Path(inside) / here.relative_to(source)
            self.directory(there)
            for name in sorted(files):
                if name in skipped or name.endswith(".pyc"):
                    continue
                item = here / name
                if item.is_symlink() and not os.path.isabs(os.readlink(item)) and ".." not in Path(os.readlink(item)).parts:
                    self.link(str(there / name), os.readlink(item))
                elif item.is_file():
                    self.copy(item, there / name)


def python(root: Root) -> str:
    """The interpreter at its own prefix, and the two names by which the image promises it. Returns the standard library's path."""
    executable = Path(sys.executable).resolve()
    root.copy(executable, executable, executable=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for name in ("python3", version):
        if executable != Path("/usr/bin", name):
            root.link(f"/usr/bin/{name}", os.path.relpath(executable, "/usr/bin"))
    stdlib = sysconfig.get_path("stdlib")
    configuration = {path.name for path in Path(stdlib).glob("config-*")}
    useless = {path.name for path in Path(stdlib, "lib-dynload").iterdir() if LEFT_OUT_OF_DYNLOAD.match(path.name)}
    root.tree(Path(stdlib), stdlib, LEFT_OUT_OF_STDLIB | configuration | useless)
    return stdlib


def module(root: Root, source: Path) -> None:
    """The runner's compiled module, if it is for this system."""
    own, given = architecture(Path(sys.executable).resolve()), architecture(source)
    if given != own:
        raise AssemblyError(
            f"the runner's module is for {given} and the image for {own}: build the image with an ade that was compiled for {own}"
        )
    root.copy(source, f"/opt/ade/lib/{MODULE}")
    command = [sys.executable, "-S", "-s", "-P", "-B", "-c", "import sys; sys.path[:0] = sys.argv[1:]; import ade_native"]
    done = subprocess.run([*command, str(root.at("/opt/ade/lib"))], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        why = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise AssemblyError(f"the runner's module cannot be loaded, so ade must be compiled on an older system: {why}")


def runner(root: Root, context: Path, wheels: Path) -> None:
    """The runner, and the wheels it depends on, already verified against requirements.lock by pip."""
    root.tree(context / "ade_runner", "/opt/ade/ade_runner", {"__pycache__"})
    root.copy(context / "boot.py", "/opt/ade/boot.py")
    module(root, context / MODULE)
    found = sorted(wheels.glob("*.whl"))
    missing = INSTALLERS - {wheel.name.partition("-")[0] for wheel in found}
    if missing or len(found) == len(INSTALLERS):
        raise AssemblyError(f"{wheels} lacks wheels that requirements.lock names: {', '.join(sorted(missing)) or 'all of the runner'}")
    for wheel in found:
        folder = "/opt/ade/installer" if wheel.name.partition("-")[0] in INSTALLERS else "/opt/ade/lib"
        with zipfile.ZipFile(wheel) as archive:
            for member in sorted(archive.namelist()):
                if member.endswith("/"):
                    continue
                if member.startswith("/") or ".." in Path(member).parts:
                    raise AssemblyError(f"{wheel.name} has a member outside itself: {member}")
                destination = root.at(f"{folder}/{member}")
                destination.parent.mkdir(parents=True, exist_ok=True)
                destination.write_bytes(archive.read(member))
    program = next(root.at("/opt/ade/installer").glob("uv-*.data/scripts/uv"), None)
    if program is None:
        raise AssemblyError("the wheel of uv holds no program of this name")
    root.copy(program, "/opt/ade/installer/bin/uv", executable=True)
    shutil.rmtree(program.parents[1])


def libraries(root: Root) -> None:
    """Every shared library that the interpreter, its modules and the wheels load, in the loader's default directory."""
    interpreter = loader()
    libc = next((path for path in needed(Path(sys.executable).resolve()) if path.name == "libc.so.6"), None)
    if libc is None:
        raise AssemblyError("the interpreter does not load libc.so.6: only Debian on glibc can be a base")
    directory = f"/usr/lib/{libc.parent.name}"
    root.copy(interpreter, f"/usr{interpreter}", executable=True)
    root.link(str(interpreter.parent), f"usr{interpreter.parent}")
    if interpreter.parent != Path("/lib"):
        root.link("/lib", "usr/lib")
    binaries = [path for path in sorted(root.path.rglob("*")) if path.is_file() and not path.is_symlink() and is_elf(path)]
    found: dict[str, Path] = {}
    for binary in binaries:
        try:
            found |= {path.name: path for path in needed(binary)}
        except AssemblyError as error:
            module = binary.name.partition(".")[0]
            if binary.parent.name != "lib-dynload" or module in ESSENTIAL_MODULES:
                raise
            print(f"assemble: left out {module}: {error}", file=sys.stderr)
            binary.unlink()
    for name in LIBRARIES_FOR_WHEELS:
        present = next((path for path in (Path(directory, name), libc.parent / name) if path.exists()), None)
        if present is None:
            raise AssemblyError(f"the base system lacks {name}, which binary wheels may expect")
        found[name] = present
        found |= {path.name: path for path in needed(present)}
    for name, path in sorted(found.items()):
        if name != interpreter.name:
            root.copy(path, f"{directory}/{name}")
    loader_cache(root, directory)


def loader_cache(root: Root, directory: str) -> None:
    """Where the loader finds the libraries. It would find them without, in its default directory, but looks into some twenty others
    before that, at every start."""
    root.text("/etc/ld.so.conf", f"{directory}\n")
    done = subprocess.run(["/sbin/ldconfig", "-X", "-r", root.path], capture_output=True, text=True, check=False)
    if done.returncode != 0 or not root.at("/etc/ld.so.cache").is_file():
        raise AssemblyError(f"ldconfig: {done.stderr.strip() or 'no cache was written'}")
    shutil.rmtree(root.at("/var"), ignore_errors=True)


def data(root: Root) -> None:
    """Certificates, time zones, and the few files that libc asks for."""
    bundle = "/etc/ssl/certs/ca-certificates.crt"
    # Extracted packages have run no maintainer script, so the bundle is put together here, on both routes alike.
    authorities = sorted(Path("/usr/share/ca-certificates").rglob("*.crt"))
    if not authorities:
        raise AssemblyError("the base system has no CA certificates (package ca-certificates)")
    root.text(bundle, "".join(path.read_text(encoding="ascii").rstrip("\n") + "\n" for path in authorities))
    root.link("/usr/lib/ssl/certs", "/etc/ssl/certs")
    root.link("/usr/lib/ssl/cert.pem", bundle)

    zones = Path("/usr/share/zoneinfo")
    if not (zones / "Europe").is_dir():
        raise AssemblyError("the base system has no time zones (package tzdata)")
    root.tree(zones, str(zones), {"posix", "right", "localtime", "posixrules"})
    # No link: what is read at every start lies in no large folder.
    root.copy(zones / "Etc/UTC", "/etc/localtime")

    root.text("/etc/passwd", "root:x:0:0:root:/:/nonexistent\nade:x:65532:65532:ade:/job/tmp:/nonexistent\n")
    root.text("/etc/group", "root:x:0:\nade:x:65532:\n")
    root.text("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n")

    for mount_point in ("/dev", "/proc", "/sys", "/job", "/deps", "/wheelhouse", "/wheelhouse/workspace", "/wheelhouse/instance"):
        root.directory(mount_point)
    root.link("/tmp", "/job/tmp")


def bytecode(root: Root, folders: Iterable[str]) -> None:
    """Compiles ahead of time: the image's root is read-only at run time, so nothing would ever be cached there."""
    for folder in folders:
        done = compileall.compile_dir(
            root.at(folder),
            maxlevels=32,
            quiet=1,
            stripdir=str(root.path),
            prependdir="/",
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )
        if not done:
            raise AssemblyError(f"{folder}: some module does not compile, see above")


def codecs(root: Root, stdlib: str) -> None:
    """All of ``encodings`` in the archive that an interpreter looks at before any folder, below the PYTHONHOME of the image.

    An interpreter needs three of these modules to start. With some storage drivers the first look into a folder examines every
    file in it; so there is none into the standard library's.
    """
    library = f"{HOME}/lib/{Path(stdlib).name}"
    if library != stdlib:
        root.link(library, stdlib)
    folder = root.at(f"{stdlib}/encodings/__pycache__")
    with zipfile.ZipFile(root.at(f"{library.replace('.', '')}.zip"), "w") as archive:
        for path in sorted(folder.iterdir()):
            entry = zipfile.ZipInfo(f"encodings/{path.name.partition('.')[0]}.pyc", time.gmtime(EPOCH)[:6])
            archive.writestr(entry, path.read_bytes())


LIST_LOADED = """
import sys
before = set(sys.modules)
sys.path[:0] = sys.argv[1:]
from re import _compiler
import _sre, boot
anew, asked, patterns = _compiler.compile, [], {}

def compile(text, flags=0):
    asked.append((text, int(flags)))
    return anew(text, flags)

class Watched:
    def __getattr__(self, name):
        return getattr(_sre, name)

    def compile(self, text, flags, code, groups, by_name, names):
        patterns[asked[-1]] = int(flags), [int(part) for part in code], groups, dict(by_name), names
        return _sre.compile(text, flags, code, groups, by_name, names)

_compiler.compile, _compiler._sre = compile, Watched()
with boot.StandIns():
    from ade_runner import supervisor, child
    child.load()
specs = [(name, getattr(module, "__spec__", None)) for name, module in sys.modules.items() if name not in before and name != "boot"]
print(([(name, spec.submodule_search_locations is not None, spec.origin) for name, spec in specs if spec], patterns))
"""
"""What a supervisor and a child that waits have loaded, and what regular expressions they have compiled to what, asked of the interpreter
that the image gets. Nothing is imported before it looks at what is there, which would be missing from the answer."""


def bundle(root: Root, stdlib: str) -> None:
    """What a supervisor and a child that waits load and compile, in the one file that boot.py reads."""
    command = [sys.executable, "-S", "-s", "-P", "-B", "-X", "utf8", "-c", LIST_LOADED]
    paths = [str(root.at("/opt/ade")), str(root.at("/opt/ade/lib"))]
    listing = subprocess.run(command + paths, capture_output=True, text=True, check=False)
    if listing.returncode != 0:
        raise AssemblyError(f"the supervisor cannot be loaded: {listing.stderr.strip()}")
    loaded, patterns = ast.literal_eval(listing.stdout)
    modules: dict[str, tuple[bool, str, tuple[int, int] | None]] = {}
    codes = b""
    # In the order in which they are loaded, so that the file is read from its begin to its end.
    for name, is_package, origin in loaded:
        if origin is None or not origin.endswith((".py", ".so")):
            continue
        inside = origin.removeprefix(str(root.path))
        place = None
        if origin.endswith(".py"):
            # The 16 bytes before the code are the file's own header (PEP 552).
            code = root.at(importlib.util.cache_from_source(inside)).read_bytes()[16:]
            place = (len(codes), len(code))
            codes += code
        elif not inside.startswith("/opt/ade/"):
            # A copy of its own, in no large folder.
            inside = f"/opt/ade/start/{Path(origin).name}"
            root.copy(Path(origin), inside)
        modules[name] = (is_package, inside, place)
    # The standard library's folders by their names on the path of the image's interpreter. To /opt/ade/lib an image that is built
    # upon this one may add.
    library = f"{HOME}/lib/{Path(stdlib).name}"
    places = {library: stdlib, f"{library}/lib-dynload": f"{stdlib}/lib-dynload"}
    folders = {path: frozenset(item.name.partition(".")[0] for item in root.at(place).iterdir()) for path, place in places.items()}
    index = marshal.dumps((modules, patterns, folders))
    root.at("/opt/ade/bundle").write_bytes(len(index).to_bytes(8, "little") + index + codes)


def settle(root: Root) -> None:
    """Fixed modes and times; refuses anything that this image must never hold."""
    for path in sorted(root.path.rglob("*"), reverse=True):
        if SHELL_NAMES.fullmatch(path.name) and "bin" in path.parts:
            raise AssemblyError(f"a shell got into the image: {path}")
        if not path.is_symlink():
            runs = path.is_dir() or bool(path.stat().st_mode & 0o100)
            path.chmod(0o755 if runs else 0o644)
        os.utime(path, (EPOCH, EPOCH), follow_symlinks=False)
    # A new volume takes over the mode of the folder it is mounted on, and an installer has a uid of its own.
    root.at("/deps").chmod(0o777)
    root.path.chmod(0o755)
    os.utime(root.path, (EPOCH, EPOCH))


def archive(root: Root, target: Path) -> None:
    """Writes the tree as a tar that is the same, byte for byte, whenever the tree is."""
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(root.path.rglob("*")):
            entry = tar.gettarinfo(path, str(path.relative_to(root.path)))
            entry.uid = entry.gid = 0
            entry.uname = entry.gname = ""
            entry.mtime = EPOCH
            if entry.isreg():
                with path.open("rb") as file:
                    tar.addfile(entry, file)
            else:
                tar.addfile(entry)


def main() -> None:
    """Assembles into ``--root`` and, when asked, writes ``--tar``."""
    arguments = argparse.ArgumentParser(description="Assemble the runner image's root file system.")
    arguments.add_argument("--context", type=Path, required=True, help="the build context: boot.py and ade_runner/")
    arguments.add_argument("--wheels", type=Path, required=True, help="verified wheels to unpack into /opt/ade/lib")
    arguments.add_argument("--root", type=Path, required=True, help="a directory to create")
    arguments.add_argument("--tar", type=Path, help="a tar archive to write as well")
    given = arguments.parse_args()

    root = Root(given.root)
    stdlib = python(root)
    runner(root, given.context, given.wheels)
    libraries(root)
    data(root)
    bytecode(root, (stdlib, "/opt/ade"))
    # What is run, and not imported, has its bytecode nowhere that Python would look for it.
    root.copy(root.at(importlib.util.cache_from_source("/opt/ade/boot.py")), "/opt/ade/boot.pyc")
    codecs(root, stdlib)
    bundle(root, stdlib)
    settle(root)
    if given.tar:
        archive(root, given.tar)


if __name__ == "__main__":
    try:
        main()
    except AssemblyError as error:
        sys.exit(f"assemble: {error}")
