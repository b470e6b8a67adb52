"""The program a job container starts: puts the runner on the path, loads it, and hands over to its supervisor.

The interpreter is started without ``site``, so nothing but the standard library is importable until here.
"""

import gc
import marshal
import posix
import sys

# Part of the interpreter, unlike importlib.machinery, which is a file.
from _frozen_importlib import ModuleSpec
from _frozen_importlib_external import ExtensionFileLoader, FileFinder, _get_supported_file_loaders

sys.path[:0] = ["/opt/ade", "/opt/ade/lib"]

BUNDLE = "/opt/ade/bundle"
"""The modules of a supervisor and of a child that waits, the regular expressions that these compile, and what is in the folders of
the standard library, in one file that assemble.py makes: the size of an index in eight bytes, the index, and the modules' bytecode.

A new container has cold caches, and with some storage drivers every single file costs a millisecond: reading one instead
of four hundred more than halves the start. The modules are in the image as files too, for all else that looks for them.
"""

ARCHIVERS = ("tarfile", "zipfile")
STAND_INS = ("bz2", "copy", "lzma", "pathlib", "shutil")
"""What the archivers import for uses that the runner has none of. With what these load in turn, it would be a fifth of its bytecode."""


class StandIn:
    """In the place of a module until somebody wants something of it."""

    __spec__ = None

    def __init__(self, name):
        self._name = name
        sys.modules[name] = self

    def __getattr__(self, attribute):
        self.leave()
        return getattr(__import__(self._name), attribute)

    def leave(self):
        """Whoever imports the module from now on gets itself."""
        if sys.modules.get(self._name) is self:
            del sys.modules[self._name]


class StandIns:
    """While this is entered, what is not loaded of :data:`STAND_INS` is not loaded by its import."""

    def __enter__(self):
        self._all = [StandIn(name) for name in STAND_INS if name not in sys.modules]

    def __exit__(self, *_):
        for one in self._all:
            one.leave()


class Bundled:
    """Finds and loads the modules of the bundle; to the rest of Python they look as if loaded from their files.

    While it is entered, the file stays open; else it is opened for each module."""

    def __init__(self):
        self._fd = None
        with self:
            size = int.from_bytes(posix.read(self._fd, 8), "little")
            self._modules, self._patterns, self.folders = marshal.loads(posix.read(self._fd, size))
        self._codes = 8 + size
        self._sre = self._compiler = self._compile = None

    def __enter__(self):
        self._fd = posix.open(BUNDLE, posix.O_RDONLY | posix.O_CLOEXEC)

    def __exit__(self, *_):
        fd, self._fd = self._fd, None
        posix.close(fd)

    def know(self, sre, compiler):
        """Takes the two modules behind ``re``: what modules of the bundle compile while they are loaded is not compiled anew."""
        self._sre, self._compiler, self._compile = sre, compiler, compiler.compile

    def find_spec(self, name, path=None, target=None):
        entry = self._modules.get(name)
        if entry is None:
            return None
        is_package, origin, place = entry
        # Of a compiled module it is known where it is; it would be looked for in every folder of the path.
        loader = self if place is not None else ExtensionFileLoader(name, origin)
        spec = ModuleSpec(name, loader, origin=origin, is_package=is_package)
        spec.has_location = True
        if is_package:
            spec.submodule_search_locations.append(origin.rpartition("/")[0])
        return spec

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        name = module.__spec__.name
        start, size = self._modules[name][2]
        fd = posix.open(BUNDLE, posix.O_RDONLY | posix.O_CLOEXEC) if self._fd is None else self._fd
        try:
            # One at a time: memory that was written to once is used again for the next.
            code = posix.pread(fd, size, self._codes + start)
        finally:
            if fd != self._fd:
                posix.close(fd)
        code = marshal.loads(code)
        compiler = self._compiler
        if compiler is None:
            exec(code, module.__dict__)
            return
        before, compiler.compile = compiler.compile, self._compile_known
        try:
            if name in ARCHIVERS:
                with StandIns():
                    exec(code, module.__dict__)
            else:
                exec(code, module.__dict__)
        finally:
            compiler.compile = before

    def _compile_known(self, pattern, flags=0):
        known = self._patterns.get((pattern, int(flags)))
        return self._compile(pattern, flags) if known is None else self._sre.compile(pattern, *known)


class Listed(FileFinder):
    """Finds modules in a folder of the standard library, whose names are known: what a script imports of its own package is looked
    for in there first, and such a look makes some storage drivers examine thousands of files."""

    def __init__(self, path, names):
        super().__init__(path, *_get_supported_file_loaders())
        self._names = names

    def find_spec(self, name, target=None):
        return super().find_spec(name, target) if name.rpartition(".")[2] in self._names else None


def start():
    """Loads the supervisor; returns it with the bundle."""
    # Modules are no garbage, and looking for some among them takes longer than loading several.
    gc.disable()
    bundle = Bundled()
    sys.meta_path.insert(0, bundle)
    for path, names in bundle.folders.items():
        sys.path_importer_cache[path] = Listed(path, names)
    with bundle:
        import _sre
        from re import _compiler

        bundle.know(_sre, _compiler)
        from ade_runner import supervisor
    # What is there now stays, so that no child has to look at it, or copies its pages by doing so.
    gc.freeze()
    gc.enable()
    return supervisor, bundle


if __name__ == "__main__":
    supervisor, bundle = start()
    sys.exit(supervisor.main(bundle))
