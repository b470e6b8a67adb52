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
"""The modules of a parked supervisor, the regular expressions that these compile, and what is in the folders of the standard
library, in one file that assemble.py makes: the size of an index in eight bytes, the index, and the modules' bytecode.

A new container has cold caches, and with some storage drivers every single file costs a millisecond: reading one instead
of four hundred more than halves the start. The modules are in the image as files too, for all else that looks for them.
"""

STAND_INS = ("bz2", "copy", "lzma", "pathlib", "shutil")
"""What ``tarfile`` and ``zipfile`` import for uses that a supervisor has none of. With what these load in turn, it would be a
fifth of its bytecode."""


class Bundled:
    """Finds and loads the modules of the bundle; to the rest of Python they look as if loaded from their files."""

    def __init__(self):
        self._fd = posix.open(BUNDLE, posix.O_RDONLY | posix.O_CLOEXEC)
        size = int.from_bytes(posix.read(self._fd, 8), "little")
        self._modules, self.patterns, self.folders = marshal.loads(posix.read(self._fd, size))
        self._codes = 8 + size

    def close(self):
        """Whoever reloads a module from now on opens the bundle again."""
        posix.close(self._fd)
        self._fd = None

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
        start, size = self._modules[module.__spec__.name][2]
        fd = posix.open(BUNDLE, posix.O_RDONLY | posix.O_CLOEXEC) if self._fd is None else self._fd
        try:
            # One at a time: memory that was written to once is used again for the next.
            code = posix.pread(fd, size, self._codes + start)
        finally:
            if fd != self._fd:
                posix.close(fd)
        exec(marshal.loads(code), module.__dict__)


class Listed(FileFinder):
    """Finds modules in a folder of the standard library, whose names are known: what a script imports of its own package is looked
    for in there first, and such a look makes some storage drivers examine thousands of files."""

    def __init__(self, path, names):
        super().__init__(path, *_get_supported_file_loaders())
        self._names = names

    def find_spec(self, name, target=None):
        return super().find_spec(name, target) if name.rpartition(".")[2] in self._names else None


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


def load(patterns):
    """Loads all that every job needs. ``patterns`` are known regular expressions: text and flags, and what is compiled of them."""
    import _sre
    from re import _compiler

    compile_anew = _compiler.compile

    def compile_known(pattern, flags=0):
        known = patterns.get((pattern, int(flags)))
        return compile_anew(pattern, flags) if known is None else _sre.compile(pattern, *known)

    stand_ins = [StandIn(name) for name in STAND_INS]
    _compiler.compile = compile_known
    try:
        from ade_runner import supervisor

        supervisor.preload()
    finally:
        _compiler.compile = compile_anew
        for stand_in in stand_ins:
            stand_in.leave()
    return supervisor


def start():
    """Loads the bundle, if there is one, and all that every job needs."""
    # Modules are no garbage, and looking for some among them takes longer than loading several.
    gc.disable()
    try:
        bundled = Bundled()
    except FileNotFoundError:
        supervisor = load({})
    else:
        sys.meta_path.insert(0, bundled)
        for path, names in bundled.folders.items():
            sys.path_importer_cache[path] = Listed(path, names)
        supervisor = load(bundled.patterns)
        bundled.close()
    # What is there now stays, so that no child has to look at it, or copies its pages by doing so.
    gc.freeze()
    gc.enable()
    return supervisor


if __name__ == "__main__":
    sys.exit(start().main())
