"""What the documentation shows is what the runner does."""

from __future__ import annotations

import json
import re
from pathlib import Path

from ade_runner.scripts import PARAMETERS
from jobs import VALIDATOR, Bench, manifest

DOCS = Path(__file__).resolve().parents[3] / "docs"


def test_the_example_artifact_is_valid():
    text = (DOCS / "developers/14-job_artifact_json.md").read_text(encoding="utf-8")
    found = re.search(r"```json\n(.*?)\n```", text, re.DOTALL)
    assert found
    VALIDATOR.validate(json.loads(found[1]))


def test_the_example_scripts_work_together(tmp_path):
    text = (DOCS / "users/script-api.md").read_text(encoding="utf-8")
    scripts = dict(re.findall(r"^`([a-z_/]+\.py)`\n```python\n(.*?)```", text, re.DOTALL | re.MULTILINE))
    assert set(scripts) == {"row_types/header.py", "columns/member_id.py", "hooks/audit.py"}
    fields = {
        "member_id": {"label": "Member ID", "script": "columns/member_id.py", "pattern": "^[A-Z][0-9]+$"},
        "name": {"label": "Name"},
    }
    given = manifest(fields, hooks={"after_mapping": [{"script": "hooks/audit.py"}]})
    done = Bench(tmp_path).table([["Member ID", "Name"], [" a1", "Ada"], [None, "Bob"], ["?", "Cyd"]], given, scripts)
    assert done.ok and not done.codes(), done.artifact["diagnostics"]
    assert done.rows == [["Member ID", "Name"], ["A1", "Ada"], [None, "Bob"], ["?", "Cyd"]]
    issues = done.tables[0]["validation"]["issues"]
    assert [(one["a1"], one["code"]) for one in issues] == [("A3", "required_missing"), ("A4", "pattern_mismatch")]
    assert done.artifact["annotations"][0]["notes"] == "2 columns at after_mapping"


def test_every_argument_is_documented():
    text = (DOCS / "users/script-api.md").read_text(encoding="utf-8")
    for name in frozenset().union(*PARAMETERS.values()):
        assert f"`{name}`" in text, name


def test_every_diagnostic_code_is_documented():
    text = (DOCS / "developers/pipeline.md").read_text(encoding="utf-8")
    expanded = re.sub(
        r"`([a-z_.]*)\{([a-z_,]+)\}(?:\.\{([a-z_,]+)\})?`",
        lambda m: " ".join(
            f"{m[1]}{left}{'.' + right if right else ''}" for left in m[2].split(",") for right in (m[3] or "").split(",")
        ),
        text,
    )
    sources = Path(__file__).resolve().parents[1] / "ade_runner"
    codes = {
        code
        for path in sources.rglob("*.py")
        for code in re.findall(r'"((?:structure|runtime|output)\.[a-z_.]+)"', path.read_text(encoding="utf-8"))
    }
    assert len(codes) > 15
    assert not [code for code in sorted(codes) if code not in expanded]
