"""The one thing about files that the ``os`` module leaves to its callers. Paths are plain strings all over the runner: ``pathlib``,
and what it imports to know about URLs and addresses, would be a tenth of what a container loads before it is ready."""

from __future__ import annotations

import os


def discard(path: str, dir_fd: int | None = None) -> None:
    """Removes a file, if it is there; ``path`` begins in the folder that ``dir_fd`` is open on, where it is given."""
    try:
        os.unlink(path, dir_fd=dir_fd)
    except FileNotFoundError:
        pass
