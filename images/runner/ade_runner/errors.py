"""The one exception that ends a job, and the kinds it may carry.

A kind is a stable machine code. The engine publishes the full catalogue (docs/developers/error-kinds.md); a kind that
is not in it is reported as ``runner_crashed``.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any



class JobError(Exception):
    """Ends the job as failed.

    ``kind`` is the stable code, ``message`` a sentence for people that names the thing, the limit and the way out.
    ``script``, ``function`` and ``line`` point into the config package when a script is at fault; ``detail`` is a small
    JSON object for programs. None of them may hold a cell value.
    """

    def __init__(
        self,
        kind: str,
        message: str,
        *,
        script: str | None = None,
        function: str | None = None,
        line: int | None = None,
        detail: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.script = script
        self.function = function
        self.line = line
        self.detail = detail

    def as_dict(self, pass_name: str | None = None) -> dict[str, Any]:
        """The error as it stands in the completion record and in ``on_job_end``'s ``error``."""
        return {
            "kind": self.kind,
            "message": self.message,
            "pass": pass_name,
            "script": self.script,
            "function": self.function,
            "line": self.line,
            "detail": self.detail,
        }
