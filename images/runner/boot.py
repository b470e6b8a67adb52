"""The program a job container starts: puts the runner on the path and hands over to its supervisor.

The interpreter is started without ``site``, so nothing but the standard library is importable until here.
"""

import gc
import marshal
import sys

sys.path[:0] = ["/opt/ade", "/opt/ade/lib"]

BUNDLE = "/opt/ade/bundle"
"""The bytecode of every module that a parked supervisor has loaded, in one file that assemble.py makes.

A new container has cold caches, and with some storage drivers every single file costs a millisecond: reading one instead
of four hundred more than halves the start. The modules are in the image as files too, for all else that looks for them.
"""


class Bundled:
    """Finds and loads the modules of the bundle; to the rest of Python they look as if loaded from their files."""

    def __init__(self, modules):
        self._modules = modules

    def find_spec(self, name, path=None, target=None):
        entry = self._modules.get(name)
        if entry is None:
            return None
        is_package, origin, _ = entry
        spec = type(sys.__spec__)(name, self, origin=origin, is_package=is_package)
        spec.has_location = True
        if is_package:
            spec.submodule_search_locations.append(origin.rpartition("/")[0])
        return spec

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        exec(marshal.loads(self._modules[module.__spec__.name][2]), module.__dict__)


if __name__ == "__main__":
    # Modules are no garbage, and looking for some among them takes longer than loading several.
    gc.disable()
    try:
        with open(BUNDLE, "rb") as file:
            sys.meta_path.insert(0, Bundled(marshal.load(file)))
    except FileNotFoundError:
        pass

    from ade_runner.supervisor import main

    sys.exit(main())
