"""The one thing about files that the ``os`` module leaves to its callers. Paths are plain strings all over the runner: ``pathlib``,
and what it imports to know about URLs and addresses, would be a tenth of what a container loads before it is ready."""

from __future__ import annotations

import os


def discard(path: str) -> None:
    """Removes a file, if it is there."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
