"""The same work with openpyxl: read a workbook, run the package's detectors, transforms and validators, write the result.

baseline.py PACKAGE INPUT OUTPUT — what a user would write by hand, without a container, an artifact or limits."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

from openpyxl import Workbook, load_workbook


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main(package: Path, source: Path, target: Path) -> None:
    manifest = json.loads((package / "manifest.json").read_text())
    meta = manifest["columns"]["meta"]
    modules = {field: load(package / meta[field]["script"]) for field in manifest["columns"]["order"]}
    rows = load_workbook(source, read_only=True)["Data"].iter_rows(values_only=True)
    header = next(rows)
    columns = [list(column) for column in zip(*rows)]

    mapped: dict[str, int] = {}
    for index, name in enumerate(header):
        scores = {
            field: sum(
                getattr(module, detector)(header=name, values_sample=columns[index][:8], field_meta=meta[field])["scores"].get(field, 0)
                for detector in ("detect_header", "detect_values")
            )
            for field, module in modules.items()
        }
        best = max(scores, key=lambda field: scores[field])
        if scores[best] >= 0.5:
            mapped[best] = index

    issues = 0
    out: list[list[object]] = []
    for field, module in modules.items():
        values = module.transform(values=columns[mapped[field]], field_meta=meta[field])["values"]
        issues += len(module.validate(values=values, field_meta=meta[field])["issues"])
        out.append(values)
    unmapped = [index for index in range(len(header)) if index not in mapped.values()]
    out.extend(columns[index] for index in unmapped)

    book = Workbook(write_only=True)
    sheet = book.create_sheet("Normalized")
    sheet.append([meta[field]["label"] for field in modules] + [f"raw_{header[index]}" for index in unmapped])
    for values in zip(*out):
        sheet.append(values)
    book.save(target)
    print(f"{len(columns[0])} rows, {len(out)} columns, {issues} issues")


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:4]))
