"""The manifest as the runner reads it: older spellings, defaults, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ade_runner.errors import JobError
from ade_runner.manifest import load_manifest, parse_manifest
from jobs import manifest


def test_a_manifest_with_a_byte_order_mark_is_read_like_one_without(tmp_path: Path) -> None:
    text = json.dumps(manifest()).encode()
    (tmp_path / "manifest.json").write_bytes(text)
    plain = load_manifest(tmp_path)
    (tmp_path / "manifest.json").write_bytes(b"\xef\xbb\xbf" + text)
    assert load_manifest(tmp_path) == plain


def test_older_spellings_mean_the_same_as_the_published_ones() -> None:
    hook = [{"script": "hooks/a.py"}]
    old = manifest(
        engine={"defaults": {"allow_net": True, "min_mapping_confidence": 0.7}},
        hooks={"on_prepare": hook, "after_transform": hook},
    )
    new = manifest(
        engine={"defaults": {"runtime_network_access": True, "mapping_score_threshold": 0.7}},
        hooks={"on_activate": hook, "on_after_extract": hook},
    )
    one, other = parse_manifest(old), parse_manifest(new)
    assert (one.hooks, one.mapping_threshold) == (other.hooks, other.mapping_threshold)


def test_a_bare_hook_name_is_a_file_in_hooks() -> None:
    bare = parse_manifest(manifest(hooks={"on_job_start": ["a.py", {"script": "b.py"}]}))
    full = parse_manifest(manifest(hooks={"on_job_start": [{"script": "hooks/a.py"}, {"script": "hooks/b.py"}]}))
    assert bare.hooks == full.hooks


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
