"""The ADE runner: what runs inside a job container.

Modules that every container loads take ``typing`` for type checkers only, behind a ``TYPE_CHECKING`` of their own: it is the largest
module of all, and most that is wanted of it are names for annotations, which nobody evaluates.
"""

RUNNER_VERSION = "1.0.0"
