"""What the passes of one job share."""

from __future__ import annotations

from collections.abc import Mapping

from .artifact import Artifact
from .channel import Channel
from .manifest import Manifest
from .records import fresh, record
from .scripts import Diagnostics, Package, Scripts, read_only
from .spill import Spill
from .tables import Table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

BATCH_ROWS = 50_000
"""Rows per call of a transform or validator in mode ``row_streaming``; larger tables are handed over in batches."""


@record
class JobRun:
    """One job: what it was asked to do, what it knows so far, and what every script is told."""

    job: dict[str, Any]
    root: str
    channel: Channel
    package: Package
    scripts: Scripts
    artifact: Artifact
    diagnostics: Diagnostics
    raw: Spill
    transformed: Spill
    job_context: dict[str, Any] = fresh(dict)
    tables: list[Table] = fresh(list)
    total_rows: int = 0
    batch_rows: int = BATCH_ROWS
    warnings: list[str] = fresh(list)
    _common: dict[str, Any] = fresh(dict)
    _states: dict[tuple[str, str], dict[str, Any]] = fresh(dict)

    @property
    def manifest(self) -> Manifest:
        return self.package.manifest

    @property
    def limits(self) -> Mapping[str, Any]:
        limits: Mapping[str, Any] = self.job.get("limits", {})
        return limits

    @property
    def batch(self) -> int:
        """Rows per call, by the manifest's writer mode."""
        return self.batch_rows if self.manifest.writer.mode == "row_streaming" else max(1, self.total_rows)

    def refresh(self) -> None:
        """Takes a new read-only view of the artifact for the scripts of the next pass."""
        if not self._common:
            inputs = self.job.get("inputs") or [{}]
            self._common = {
                "job_id": self.job.get("job_id"),
                "source_file": inputs[0].get("name"),
                "sheet_name": None,
                "manifest": read_only(self.manifest.raw),
                "env": read_only(self.manifest.env),
                "job_context": self.job_context,
            }
        self._common["artifact"] = read_only(self.artifact.data)

    def common(self, **more: Any) -> dict[str, Any]:
        """The arguments that every script is offered, and ``more``."""
        return {**self._common, **more}

    def state(self, script: str, scope: str) -> dict[str, Any]:
        """The dict that a script keeps between its calls for one table or sheet."""
        return self._states.setdefault((script, scope), {})

    def column_arguments(self, table: Table, index: int, **more: Any) -> dict[str, Any]:
        """What a script is told about one column (0-based) of a table."""
        column = table.columns[index]
        return self.common(
            source_file=table.source_file,
            sheet_name=table.sheet_name,
            header=column.header,
            values_sample=list(column.sample),
            column_index=index + 1,
            table_id=table.id,
            table=table.view,
            **more,
        )
