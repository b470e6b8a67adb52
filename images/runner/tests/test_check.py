"""The static check: everything is reported at once, and nothing is executed."""

from __future__ import annotations

from pathlib import Path

import pytest

from ade_runner.channel import ListChannel
from ade_runner.check import check_package
from ade_runner.errors import JobError
from ade_runner.manifest import parse_manifest
from jobs import manifest, write_package


def check(tmp_path: Path, scripts, given=None):
    write_package(tmp_path, given or manifest({"a": {"label": "A", "script": "columns/a.py"}}), scripts)
    channel = ListChannel()
    check_package({}, tmp_path, channel)
    return channel.results[0]


def codes(result):
    return [(one["level"], one["code"], one["path"], one["line"]) for one in result["diagnostics"]]


GOOD = "def transform(values, *, header=None, mine=5, **rest):\n    return {'values': values}\n"


def test_a_good_package_passes_without_diagnostics(tmp_path):
    assert check(tmp_path, {"columns/a.py": GOOD}) == {"ok": True, "error": None, "summary": None, "diagnostics": []}


def test_nothing_is_executed(tmp_path):
    marker = tmp_path / "ran"
    result = check(tmp_path, {"columns/a.py": f"open({str(marker)!r}, 'w')\n{GOOD}"})
    assert result["ok"] and not marker.exists()


@pytest.mark.parametrize(
    ("source", "level", "code", "line"),
    [
        ("def transform(values:\n    pass", "error", "script.syntax", 1),
        ("x = 1\ny = = 2\n", "error", "script.syntax", 2),
        (b"# caf\xe9\n", "error", "script.not_utf8", 1),
        (b"x = 1\n\x00", "error", "script.syntax", None),
        ("x = " + "(" * 5000 + ")" * 5000, "error", "script.syntax", 1),
        ("def other(): ...\n", "warning", "column.no_function", None),
        ("def transform(values, foo): ...\n", "error", "script.unknown_parameter", 1),
        ("def detect_x(values): ...\n", "error", "script.unknown_parameter", 1),
        ("def validate(*, foo): ...\n", "error", "script.unknown_parameter", 1),
        ("async def transform(values): ...\n", "error", "script.async", 1),
        ("if True:\n    def transform(foo): ...\n", "error", "script.unknown_parameter", 2),
    ],
)
def test_a_fault_in_a_column_script_is_named(tmp_path, source, level, code, line):
    result = check(tmp_path, {"columns/a.py": source})
    assert [one[:2] for one in codes(result)] == [(level, code)]
    if line is not None:
        assert result["diagnostics"][0]["line"] == line
    assert result["ok"] is (level == "warning")
    if level == "error":
        assert result["error"]["kind"] == "package_invalid"


def test_the_message_names_what_a_function_may_ask_for(tmp_path):
    found = check(tmp_path, {"columns/a.py": "def transform(values, foo): ...\n"})["diagnostics"][0]
    assert "'foo'" in found["message"]
    assert "values_sample" in found["hint"] and "row_offset" in found["hint"]


def test_everything_is_reported_at_once(tmp_path):
    given = manifest(
        {"a": {"label": "A", "script": "columns/a.py"}, "b": {"label": "B", "script": "columns/b.py"}},
        hooks={"on_job_start": ["hooks/h.py"]},
    )
    scripts = {
        "columns/a.py": "async def transform(values, foo): ...\n",
        "hooks/h.py": "x = 1\n",
        "row_types/r.py": "x = 1\n",
        "row_types/_helper.py": "x = 1\n",
        "vendor/json/__init__.py": "",
        "vendor/ade_runner.py": "",
        "vendor/old.py": "print 'two'\n",
    }
    result = check(tmp_path, scripts, given)
    assert sorted(codes(result)) == sorted(
        [
            ("error", "script.async", "columns/a.py", 1),
            ("error", "script.unknown_parameter", "columns/a.py", 1),
            ("error", "script.missing", "columns/b.py", None),
            ("error", "hook.no_run", "hooks/h.py", None),
            ("error", "vendor.shadows", "vendor/ade_runner.py", None),
            ("error", "vendor.shadows", "vendor/json", None),
            ("warning", "row_types.no_detector", "row_types/r.py", None),
            ("warning", "script.syntax", "vendor/old.py", 1),
        ]
    )


@pytest.mark.parametrize(
    "source",
    [
        "import functools\n@functools.lru_cache\ndef transform(values): ...\n",
        "from columns.b import transform\n",
        "from columns.b import *\n",
        "transform = lambda values: {'values': values}\n",
        "try:\n    import x\nexcept ImportError:\n    def transform(values): ...\n",
    ],
)
def test_other_ways_to_define_a_function_count(tmp_path, source):
    assert check(tmp_path, {"columns/a.py": source, "columns/b.py": GOOD})["diagnostics"] == []


def test_an_unusable_manifest_is_a_diagnostic(tmp_path):
    result = check(tmp_path, {}, {"columns": {"order": ["x"], "meta": {}}})
    assert codes(result) == [("error", "manifest.invalid", "manifest.json", None)]


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"config_script_api_version": "2"}, "/config_script_api_version"),
        ({"env": {"A": 1}}, "/env/A"),
        ({"engine": {"writer": {"mode": "x"}}}, "/engine/writer/mode"),
        ({"engine": {"writer": {"output_sheet": "a/b"}}}, "/engine/writer/output_sheet"),
        ({"engine": {"writer": {"output_sheet": "it's'"}}}, "/engine/writer/output_sheet"),
        ({"engine": {"defaults": {"mapping_score_threshold": -1}}}, "/engine/defaults/mapping_score_threshold"),
        ({"engine": {"defaults": {"min_mapping_confidence": True}}}, "/engine/defaults/min_mapping_confidence"),
        ({"hooks": {"on_never": []}}, "/hooks/on_never"),
        ({"hooks": {"on_job_end": [{"script": "../x.py"}]}}, "/hooks/on_job_end/0/script"),
        ({"hooks": {"on_job_end": [{"script": "/etc/x.py"}]}}, "/hooks/on_job_end/0/script"),
        ({"columns": {"order": ["a", "a"], "meta": {"a": {}}}}, "/columns/order"),
        ({"columns": {"order": ["A"], "meta": {"A": {}}}}, "/columns/meta/A"),
        ({"columns": {"meta": {"a": {"required": "yes"}}}}, "/columns/meta/a/required"),
        ({"columns": {"meta": {"a": {"script": "a.txt"}}}}, "/columns/meta/a/script"),
        ({"columns": 5}, "/columns"),
    ],
)
def test_a_manifest_error_names_the_json_pointer(change, pointer):
    with pytest.raises(JobError) as caught:
        parse_manifest({**manifest(), **change})
    assert caught.value.kind == "package_invalid"
    assert caught.value.detail == {"pointer": pointer}


def test_manifest_defaults_are_the_published_ones():
    parsed = parse_manifest({"columns": {"meta": {"a": {}}}})
    assert parsed.writer.mode == "row_streaming" and parsed.writer.append_unmapped_columns
    assert (parsed.writer.unmapped_prefix, parsed.writer.output_sheet) == ("raw_", "Normalized")
    assert parsed.fields[0].enabled and not parsed.fields[0].required and parsed.fields[0].label == "a"
