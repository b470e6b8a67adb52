"""Hooks, the completion record, and what a job leaves behind when it fails."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from ade_runner.channel import ListChannel
from ade_runner.pipeline import run_activation, run_job, run_job_end
from jobs import Bench, finished, manifest

SHEET = [["Member ID", "Name"], ["A1", "Ada"], ["A2", "Bob"]]
STAGES = ["on_job_start", "after_mapping", "on_after_extract", "after_validate", "before_save", "on_job_end"]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def hooked(sources: dict[str, str], **more):
    hooks = {stage: [{"script": f"hooks/{stage}.py"}] for stage in sources}
    return manifest(hooks=hooks, **more), {f"hooks/{stage}.py": source for stage, source in sources.items()}


SAY = "def run(stage, success, error):\n    print(stage, success, error and (error['kind'], error['pass']))\n"
FAIL = "def run():\n    raise ValueError('why')\n"


def test_hooks_run_in_the_published_order(bench):
    done = bench.table(SHEET, *hooked({stage: SAY for stage in reversed(STAGES)}))
    assert done.logs() == [f"{stage} True None" for stage in STAGES]
    assert [one["stage"] for one in done.artifact["annotations"]] == STAGES
    phases = ["load", "on_job_start", "structure", "mapping", "after_mapping", "transform", "on_after_extract", "validate",
              "after_validate", "generate", "before_save", "generate", "on_job_end"]  # fmt: skip
    assert done.channel.phases == phases
    assert [one["stage"] for one in done.channel.named("hook.exit")] == STAGES


def test_aliases_name_the_same_stages(bench):
    given = manifest(hooks={"after_transform": [{"script": "hooks/a.py"}], "on_prepare": [{"script": "hooks/a.py"}]})
    done = bench.table(SHEET, given, {"hooks/a.py": SAY})
    assert done.logs() == ["on_after_extract True None"]


@pytest.mark.parametrize("failing", STAGES[:-1])
def test_a_failing_hook_fails_the_job_and_on_job_end_still_runs(bench, failing):
    sources = {stage: FAIL if stage == failing else SAY for stage in STAGES}
    done = bench.table(SHEET, *hooked(sources))
    error = done.error
    assert (error["kind"], error["pass"], error["script"], error["line"]) == ("hook_failed", failing, f"hooks/{failing}.py", 2)
    ran = [line.split()[0] for line in done.logs() if "why" not in line]
    assert ran == [*STAGES[: STAGES.index(failing)], "on_job_end"]
    assert done.logs()[-1] == f"on_job_end False ('hook_failed', '{failing}')"
    assert done.artifact["job"]["status"] == "failed"
    assert not (done.root / "out/normalized.xlsx").exists()
    assert "why" in str(done.logs()) and "why" not in json.dumps(done.artifact)


def test_the_completion_record_is_sent_before_on_job_end_and_its_failure_changes_nothing(bench):
    given, scripts = hooked({"on_job_end": FAIL})
    given["hooks"]["on_job_end"].append({"script": "hooks/second.py"})
    done = bench.table(SHEET, given, {**scripts, "hooks/second.py": SAY})
    assert done.ok and done.artifact["job"]["status"] == "succeeded"
    assert "ValueError" in done.diagnostic("runtime.hook.failed")["message"]
    assert done.logs()[-1] == "on_job_end True None"


def test_disabled_hooks_do_not_run(bench):
    done = bench.table(SHEET, manifest(hooks={"on_job_start": [{"script": "hooks/x.py", "enabled": False}]}))
    assert done.ok and done.artifact["annotations"] == []


def test_what_on_job_start_returns_is_every_later_scripts_context(bench):
    given = manifest(
        {"name": {"label": "Name", "script": "columns/name.py"}},
        hooks={"on_job_start": [{"script": "hooks/start.py"}], "on_job_end": [{"script": "hooks/end.py"}]},
    )
    scripts = {
        "hooks/start.py": "def run():\n    return {'suffix': '!'}\n",
        "columns/name.py": "def transform(values, job_context):\n    return {'values': [v + job_context['suffix'] for v in values]}\n",
        "hooks/end.py": "def run(job_context, output, mapping, job):\n    print(job_context, output['sheet'], sorted(mapping), job['job_id'])\n",
    }
    sheet = [["Name", "Age"], ["Ada", 1], ["Bob", 2]]
    done = bench.table(sheet, given, scripts)
    assert not done.codes(), done.artifact["diagnostics"]
    assert [one["target_field"] for one in done.tables[0]["mapping"]] == ["name", None]
    assert [row[0] for row in done.rows] == ["Name", "Ada!", "Bob!"]
    assert done.artifact["annotations"][0]["suffix"] == "!"
    assert done.logs() == ["{'suffix': '!'} Normalized ['sheet_1.table_1'] job_1"]


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("return 5", "runtime.hook.invalid_result"),
        ("return {1: 2}", "runtime.hook.invalid_result"),
        ("return {'x': object()}", "runtime.hook.annotation_dropped"),
        ("return {'x': float('nan')}", "runtime.hook.annotation_dropped"),
        ("return {'x': 'y' * 70000}", "runtime.hook.annotation_dropped"),
    ],
)
def test_what_a_hook_may_not_return_is_a_diagnostic_and_not_kept(bench, source, code):
    done = bench.table(SHEET, *hooked({"after_mapping": f"def run():\n    {source}\n"}))
    assert done.ok
    assert done.diagnostic(code)["script"] == "hooks/after_mapping.py"
    assert set(done.artifact["annotations"][0]) == {"stage", "hook", "annotated_at", "duration_ms"}


def test_a_hook_cannot_forge_its_annotations_own_members(bench):
    done = bench.table(SHEET, *hooked({"after_mapping": "def run():\n    return {'stage': 'x', 'note': 1}\n"}))
    assert (done.artifact["annotations"][0]["stage"], done.artifact["annotations"][0]["note"]) == ("after_mapping", 1)


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("raise MemoryError", "out_of_memory"),
        ("import errno; raise OSError(errno.ENOSPC, 'x')", "disk_full"),
        ("raise OSError(2, 'x')", "hook_failed"),
        ("raise SystemExit(0)", "hook_failed"),
    ],
)
def test_exhausted_resources_are_told_apart_from_other_failures(bench, source, kind):
    done = bench.table(SHEET, *hooked({"on_job_start": f"def run():\n    {source}\n"}))
    assert done.error["kind"] == kind


def test_exhausted_memory_in_a_detector_fails_the_job(bench):
    given = manifest({"name": {"label": "Name", "script": "columns/name.py"}})
    done = bench.table(SHEET, given, {"columns/name.py": "def detect_x():\n    raise MemoryError\n"})
    assert (done.error["kind"], done.error["pass"]) == ("out_of_memory", "mapping")
    assert [one["name"] for one in done.artifact["pass_history"]] == ["structure"]


def test_a_script_that_cannot_be_imported_fails_the_job_and_on_job_end_runs(bench):
    given, scripts = hooked({"on_job_end": SAY})
    given["columns"]["meta"]["name"]["script"] = "columns/name.py"
    done = bench.table(SHEET, given, {**scripts, "columns/name.py": "x = 1\nimport nowhere_to_be_found\ndef transform(values): ...\n"})
    error = done.error
    assert (error["kind"], error["script"], error["line"]) == ("script_error", "columns/name.py", 2)
    assert done.logs() == ["on_job_end False ('script_error', 'load')"]


def test_a_function_that_asks_for_what_nobody_passes_fails_the_load(bench):
    given, scripts = hooked({stage: SAY for stage in STAGES})
    given["columns"]["meta"]["name"]["script"] = "columns/name.py"
    done = bench.table(SHEET, given, {**scripts, "columns/name.py": "def transform(values, foo):\n    pass\n"})
    assert done.error["kind"] == "package_invalid"
    assert (done.error["script"], done.error["function"]) == ("columns/name.py", "transform")
    assert "'foo'" in done.error["message"] and "values_sample" in done.error["message"]
    assert done.logs() == ["on_job_end False ('package_invalid', 'load')"]


def test_the_read_only_views_refuse_changes(bench):
    source = """
        import json
        def run(artifact, manifest, env):
            for attempt in (lambda: artifact["job"].update(status="x"), lambda: manifest["columns"]["order"].append("x"),
                            lambda: env.__setitem__("a", "b"), lambda: artifact.pop("job")):
                try:
                    attempt()
                except TypeError:
                    continue
                raise AssertionError
            json.dumps(artifact)
            assert isinstance(artifact["sheets"], list) and isinstance(artifact, dict)
        """
    assert bench.table(SHEET, *hooked({"after_mapping": source})).ok


def test_on_job_end_in_a_fresh_child_sees_the_saved_artifact_and_the_error(bench):
    given, scripts = hooked({"on_job_start": "def run():\n    return {'k': 'v'}\n", "on_job_end": "def run(success, error, artifact, job_context):\n    print(success, error['kind'], len(artifact['sheets']), job_context)\n    return {'told': True}\n"})
    root, job = bench.prepare({"b.xlsx": SHEET}, given, scripts)
    run_job(job, root, ListChannel())
    channel = ListChannel()
    run_job_end(job, root, channel, {"kind": "timeout", "message": "too slow", "pass": "mapping"})
    done = finished(root, channel)
    assert channel.results == [] and channel.phases == ["on_job_end"]
    assert done.logs() == ["False timeout 1 {'k': 'v'}"]
    assert done.artifact["job"]["status"] == "failed" and done.artifact["job"]["error"]["kind"] == "timeout"
    assert done.artifact["annotations"][-1]["told"] is True


@pytest.mark.parametrize("content", [None, b"{", b"[]", b'{"sheets": 5}', b"\xff"])
def test_on_job_end_runs_without_a_usable_artifact(bench, content):
    root, job = bench.prepare({"b.xlsx": SHEET}, *hooked({"on_job_end": SAY}))
    if content is not None:
        (root / "out/artifact.json").write_bytes(content)
    channel = ListChannel()
    run_job_end(job, root, channel, {"kind": "cancelled", "message": "m", "pass": None})
    done = finished(root, channel)
    assert done.logs() == ["on_job_end False ('cancelled', None)"]
    assert done.artifact["job"]["status"] == "cancelled"


def test_an_artifact_that_a_script_added_to_is_still_json(bench):
    root, job = bench.prepare({"b.xlsx": SHEET}, *hooked({"on_job_end": SAY}))
    run_job(job, root, ListChannel())
    path = root / "out/artifact.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {'a "key"': 1}))
    run_job_end(job, root, ListChannel(), {"kind": "timeout", "message": "m", "pass": None})
    assert json.loads(path.read_text())['a "key"'] == 1


def test_print_becomes_events_of_bounded_length(bench):
    source = """
        import sys
        def run():
            for at in range(10): print("line", at)
            print("x" * 10000)
            print("no newline", end="")
            print(" err", file=sys.stderr)
            sys.stdout.buffer.write(b"bytes\\n")
        """
    done = bench.table(SHEET, *hooked({"on_job_start": source}))
    texts = done.logs()
    assert texts[:2] == ["line 0", "line 1"]
    assert len(texts[10]) == 4097
    assert "no newlinebytes" in texts
    assert [level for name, level, detail in done.channel.events if detail.get("stream") == "stderr"] == ["warning"]


def test_the_process_is_put_back_as_it_was(bench):
    before = list(sys.path), dict(os.environ), os.getcwd(), set(sys.modules)
    given, scripts = hooked({"on_job_start": "import os, sys\ndef run(env):\n    assert os.environ['A'] == env['A'] == 'b'\n    assert os.getcwd().endswith('package')\n    sys.path.clear()\n"}, env={"A": "b"})
    done = bench.table(SHEET, given, scripts)
    assert done.ok, done.result
    assert (list(sys.path), dict(os.environ), os.getcwd()) == before[:3]
    assert not [name for name in set(sys.modules) - before[3] if name.startswith(("hooks", "columns"))]


def test_a_vendored_module_cannot_take_the_place_of_the_runners_library(bench):
    done = bench.table(SHEET, None, {"vendor/python_calamine.py": "raise RuntimeError\n"})
    assert done.ok, done.result


def test_vendored_modules_and_the_packages_own_are_importable(bench):
    given, scripts = hooked({"on_job_start": "import tool\nfrom columns.shared import X\ndef run():\n    print(tool.NAME, X)\n"})
    scripts |= {
        "vendor/tool/__init__.py": "NAME = 'vendored'\n",
        "columns/shared.py": "X = 7\n",
        "columns/on_job_start.py": "",
    }
    done = bench.table(SHEET, given, scripts)
    assert done.ok, done.result
    assert done.logs() == ["vendored 7"]


def test_scripts_of_the_same_name_in_different_folders_do_not_clash(bench):
    given = manifest({"name": {"label": "Name", "script": "columns/a.py"}}, hooks={"on_job_start": [{"script": "hooks/a.py"}]})
    scripts = {"columns/a.py": "WHO = 'column'\ndef transform(values):\n    print(WHO)\n    return {'values': values}\n", "hooks/a.py": "WHO = 'hook'\ndef run():\n    print(WHO)\n"}
    done = bench.table([["Name", "Age"], ["Ada", 1]], given, scripts)
    assert done.logs() == ["hook", "column"]


def test_the_job_is_saved_after_every_pass(bench):
    source = "import json, pathlib\ndef run(stage):\n    data = json.loads(pathlib.Path('../out/artifact.json').read_text())\n    print([one['name'] for one in data['pass_history']])\n"
    done = bench.table(SHEET, *hooked({stage: source for stage in STAGES}))
    passes = ["structure", "mapping", "transform", "validate", "generate"]
    assert done.logs() == [str(passes[:at]) for at in (0, 2, 3, 4, 4, 5)]


def test_activation_runs_its_hooks_and_fails_with_them(bench):
    for source, ok in ((SAY, True), (FAIL, False)):
        root, job = bench.prepare({}, *hooked({"on_activate": source}))
        channel = ListChannel()
        run_activation({**job, "inputs": []}, root, channel)
        assert channel.results[0]["ok"] is ok
        record = json.loads((root / "out" / "activation.json").read_text(encoding="utf-8"))
        assert [one["stage"] for one in record["annotations"]] == ["on_activate"]


def test_files_of_the_job_taken_away_by_a_script_fail_it_cleanly(bench):
    done = bench.table(SHEET, *hooked({"on_job_start": "import os\ndef run():\n    os.remove('../in/0001')\n"}))
    assert done.error["kind"] in ("script_error", "input_corrupt", "input_not_workbook")
