"""Older spellings of a manifest, and one saved with a byte order mark, mean the same as the published ones."""

from __future__ import annotations

import json
from pathlib import Path

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
