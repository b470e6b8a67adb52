"""The program a job container starts: puts the runner on the path and hands over to its supervisor.

The interpreter is started without ``site``, so nothing but the standard library is importable until here.
"""

import sys

sys.path[:0] = ["/opt/ade", "/opt/ade/lib"]

if __name__ == "__main__":
    from ade_runner.supervisor import main

    sys.exit(main())
