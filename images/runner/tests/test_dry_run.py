"""Mode ``validate``: what made-up values bring to light, and that no script hides what there is to say about another."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from ade_runner.channel import ListChannel
from ade_runner.dry_run import dry_run
from ade_runner.findings import MAX_DIAGNOSTICS
from jobs import manifest, write_package

GOOD = "def transform(values, **_):\n    return {'values': values}\n"


def tried(root: Path, scripts: dict[str, str], *, seconds: float = 8.0, timeout_ms: int = 60_000, **more: Any) -> list[dict[str, Any]]:
    """What is said of a package whose column scripts are one field each."""
    names = [Path(script).stem for script in scripts if script.startswith("columns/") and "/_" not in script]
    fields = {name: {"label": name.upper(), "script": f"columns/{name}.py"} for name in names}
    write_package(root, manifest(fields or {"a": {"label": "A"}}, **more), scripts)
    channel = ListChannel()
    dry_run({"limits": {"timeout_ms": timeout_ms}}, root, channel, seconds)
    [result] = channel.results
    assert result["ok"] is True and result["error"] is None
    assert all(set(one) == {"code", "path", "line", "function", "message"} for one in result["diagnostics"])
    return list(result["diagnostics"])


def column(root: Path, source: str, **more: Any) -> list[tuple[str, str, int | None, str | None]]:
    """The same of one column script, without its messages; a good one behind it is never held against it."""
    found = tried(root, {"columns/a.py": source, "columns/b.py": GOOD}, **more)
    return [(one["code"], one["path"], one["line"], one["function"]) for one in found]


def test_a_package_by_the_docs_and_one_with_positional_parameters_pass(tmp_path):
    keyword_only = """
        def detect_it(*, header, values_sample, field_meta, **_):
            return {"scores": {"self": 0.5 if header else 0.0}}

        def transform(*, values, state, **_):
            return {"values": list(values), "warnings": []}

        def validate(*, values, **_):
            return {"issues": [{"row_index": 1, "code": "missing", "severity": "error", "message": "no"}]}
    """
    positional = """
        def detect_it(header, values_sample, column_index, table, job_context, env):
            return {"scores": {"self": 1.0 if table["column_count"] >= column_index else 0.0}}

        def transform(values, header, column_index, table, job_context, env):
            return {"values": values}
    """
    rows = """
        def detect_it(row_index, row_values_sample, table_hint, sheet_name, job_context, env):
            return {"scores": {"data": 0.1 * (row_index > 1)}}
    """
    scripts = {"columns/a.py": keyword_only, "columns/b.py": positional, "row_types/r.py": rows}
    assert tried(tmp_path, scripts, env={"A": "b"}) == []


@pytest.mark.parametrize(
    ("source", "code", "line", "function"),
    [
        ("import nowhere\n" + GOOD, "script_import_failed", 1, None),
        ("x = 1\nraise SystemExit(3)\n", "script_import_failed", 2, None),
        ("def detect_a(header):\n    return {'scores': {'self': header + 1}}\n", "runtime.column_detector.exception", 2, "detect_a"),
        ("def detect_a(header):\n    return 5\n", "runtime.column_detector.invalid_result", 1, "detect_a"),
        ("def detect_a():\n    return {'scores': {'self': float('nan')}}\n", "runtime.column_detector.invalid_result", 1, "detect_a"),
        ("def detect_a():\n    return {'scores': {'other': 1}}\n", "runtime.column_detector.unknown_field", 1, "detect_a"),
        ("def transform(values):\n    return {'values': [one.strip() for one in values]}\n", "runtime.transform.exception", 2, None),
        ("def transform(values):\n    return {'values': values[1:]}\n", "runtime.transform.invalid_result", 1, "transform"),
        ("def transform(values):\n    return values\n", "runtime.transform.invalid_result", 1, "transform"),
        ("def validate(values):\n    return 1 / 0\n", "runtime.validator.exception", 2, "validate"),
        ("def validate(values):\n    return {'issues': 3}\n", "runtime.validator.invalid_result", 1, "validate"),
        ("def validate(values):\n    return {'issues': [{'row_index': 0, 'code': 'x'}]}\n", "runtime.validator.invalid_issue", 1, "validate"),
        ("import os\nos._exit(0)\n", "script_crashed", None, None),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n", "script_crashed", None, None),
        ("def deco(f):\n    return lambda foo: f(foo)\n@deco\ndef transform(values): ...\n", "script_refused", None, "transform"),
        ("raise MemoryError\n", "script_memory_limit", None, None),
    ],
)
def test_a_fault_is_named_with_its_place(tmp_path, source, code, line, function):
    found = column(tmp_path, source)
    assert {(one[0], one[1], one[2]) for one in found} == {(code, "columns/a.py", line)}
    if function is not None:
        assert {one[3] for one in found} == {function}


def test_an_exception_is_quoted(tmp_path):
    found = tried(tmp_path, {"columns/a.py": "def transform(values):\n    raise ValueError('no such unit')\n"})
    assert found[0]["message"] == "transform raised ValueError: no such unit"
    assert tried(tmp_path / "b", {"columns/a.py": "import nowhere\n"})[0]["message"].endswith("No module named 'nowhere'")


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("def detect_x(row_index):\n    return {'scores': {'title': 1}}\n", "runtime.row_detector.invalid_result"),
        ("def detect_x(row_values_sample):\n    return row_values_sample[99]\n", "runtime.row_detector.exception"),
    ],
)
def test_row_detectors_are_called(tmp_path, source, code):
    assert {one["code"] for one in tried(tmp_path, {"row_types/r.py": source})} == {code}


def test_hooks_are_imported_and_not_run(tmp_path):
    marker = tmp_path / "ran"
    scripts = {
        "hooks/good.py": f"def run(**_):\n    open({str(marker)!r}, 'w')\n",
        "hooks/bad.py": "import nowhere\ndef run(**_): ...\n",
    }
    found = tried(tmp_path, scripts, hooks={"on_activate": ["good.py"], "on_job_end": ["bad.py"]})
    assert [(one["code"], one["path"]) for one in found] == [("script_import_failed", "hooks/bad.py")]
    assert not marker.exists()


NEEDS_CONTEXT = """
    def detect_a(job_context):
        return {"scores": {"self": job_context["weight"]}}

    def detect_b(job_context):
        return {"scores": {"self": job_context.get("weight")}}

    def transform(values, job_context):
        return {"values": [job_context.get("table").lookup(one) for one in values]}

    def validate(values, job_context):
        return {"issues": 1 / 0}
"""


def test_what_wants_the_result_of_on_job_start_is_not_held_to_what_it_does_without(tmp_path):
    scripts = {"columns/a.py": NEEDS_CONTEXT, "hooks/start.py": "def run():\n    return {'weight': 1}\n"}
    found = tried(tmp_path, scripts, hooks={"on_job_start": ["start.py"]})
    assert [one["code"] for one in found] == ["runtime.validator.exception"]
    without = tried(tmp_path / "without", {"columns/a.py": NEEDS_CONTEXT})
    assert [one["code"] for one in without] == [
        "runtime.column_detector.exception", "runtime.column_detector.invalid_result",
        "runtime.transform.exception", "runtime.validator.exception",
    ]  # fmt: skip


def test_scripts_share_imports_as_in_a_job(tmp_path):
    scripts = {
        "columns/a.py": "from columns._shared import COUNT\nCOUNT.append(1)\n" + GOOD,
        "columns/b.py": "from columns._shared import COUNT\nassert COUNT == [1]\n" + GOOD,
        "columns/_shared.py": "COUNT = []\n",
    }
    assert tried(tmp_path, scripts) == []


def test_one_that_hangs_or_dies_hides_nothing_of_the_others(tmp_path):
    scripts = {
        "columns/a.py": "while True: pass\n",
        "columns/b.py": "import os\nos._exit(7)\n",
        "columns/c.py": "import nowhere\n",
        "columns/d.py": "def transform():\n    import time\n    time.sleep(60)\n",
        "columns/e.py": "def transform(values):\n    return 5\n",
    }
    began = time.monotonic()
    found = tried(tmp_path, scripts, seconds=0.5)
    assert [(one["code"], one["path"]) for one in found] == [
        ("script_time_limit", "columns/a.py"),
        ("script_crashed", "columns/b.py"),
        ("script_import_failed", "columns/c.py"),
        ("script_time_limit", "columns/d.py"),
        ("runtime.transform.invalid_result", "columns/e.py"),
    ]
    assert "exit code 7" in found[1]["message"]
    assert time.monotonic() - began < 10


def test_what_has_no_time_left_is_counted(tmp_path):
    scripts = {f"columns/{name}.py": "import time\ntime.sleep(60)\n" for name in "abcdef"}
    found = tried(tmp_path, scripts, seconds=0.4, timeout_ms=1_000)
    assert [one["code"] for one in found] == ["script_time_limit", "script_time_limit", "dry_run_skipped"]
    assert "3 more" in found[-1]["message"]


FORGED = """
import json, os
for fd in range(3, 300):
    try:
        os.write(fd, PAYLOAD)
    except OSError:
        pass
"""


@pytest.mark.parametrize(
    "payload",
    [
        b"[]\n" * 50, b"{}\n", b"\x00" * 70_000 + b"\n", b"[" * 100_000 + b"\n", b"x" * 400_000,
        b'[{"code": "script_crashed", "path": "columns/b.py", "message": 5}]\n', b"\n",
    ],
)
def test_a_forged_message_is_at_most_its_own_scripts_loss(tmp_path, payload):
    source = FORGED.replace("PAYLOAD", repr(payload)) + "import nowhere\n"
    found = tried(tmp_path, {"columns/a.py": source, "columns/b.py": GOOD})
    assert {one["path"] for one in found} <= {"columns/a.py"}


def test_there_is_a_bound_to_what_is_said(tmp_path):
    source = "".join(f"def detect_{at}():\n    raise ValueError('x' * 10**6)\n" for at in range(400))
    found = tried(tmp_path, {f"columns/{name}.py": source for name in "abc"})
    assert len(found) <= MAX_DIAGNOSTICS + 1 and found[-1]["code"] == "more_diagnostics"
    assert sum(len(str(one)) for one in found) < 65_536


def test_a_script_that_forks_and_comes_back_is_tried_once(tmp_path):
    forks = "import os\nos.fork()\ndef transform(values):\n    return 5\n"
    slow = "import time\ntime.sleep(0.3)\ndef transform(values):\n    return 6\n"
    found = tried(tmp_path, {"columns/a.py": forks, "columns/b.py": slow, "columns/c.py": slow})
    assert [(one["code"], one["path"]) for one in found] == [
        ("runtime.transform.invalid_result", f"columns/{name}.py") for name in "abc"
    ]


def test_what_is_found_is_told_at_once_and_with_the_script_it_is_at(tmp_path):
    scripts = {
        "columns/a.py": "import nowhere\n",
        "columns/b.py": "import os\nos._exit(1)\n",
        "columns/c.py": GOOD,
        "columns/d.py": "def transform():\n    return 5\n",
    }
    names = [Path(script).stem for script in scripts]
    write_package(tmp_path, manifest({name: {"label": name, "script": f"columns/{name}.py"} for name in names}), scripts)
    channel = ListChannel()
    dry_run({"limits": {"timeout_ms": 60_000}}, tmp_path, channel)
    assert channel.findings == channel.results[0]["diagnostics"] and len(channel.findings) == 3
    assert channel.tried == [*scripts]


def test_what_a_script_leaves_running_does_not_hold_it_up(tmp_path):
    source = "import os, time\nif os.fork() == 0:\n    time.sleep(30)\n    os._exit(0)\n" + GOOD
    began = time.monotonic()
    assert tried(tmp_path, {"columns/a.py": source}) == []
    assert time.monotonic() - began < 5


def test_a_manifest_that_cannot_be_read_is_an_error(tmp_path):
    (tmp_path / "package").mkdir()
    channel = ListChannel()
    dry_run({"limits": {"timeout_ms": 1000}}, tmp_path, channel)
    assert channel.results[0]["error"]["kind"] == "package_invalid"


def test_the_process_that_watches_is_left_as_it_was(tmp_path):
    before = os.getcwd(), dict(os.environ), len(os.listdir("/proc/self/fd"))
    tried(tmp_path, {"columns/a.py": GOOD})
    assert (os.getcwd(), dict(os.environ), len(os.listdir("/proc/self/fd"))) == before
