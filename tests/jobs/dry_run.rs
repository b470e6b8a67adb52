//! `ade config validate` with its dry run: what it finds in a real container, and what hostile packages make of one.

use crate::support::{Package, Sets, World, ade};
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};

const GOOD: &str = "def transform(values, **_):\n    return {'values': values}\n";

/// What `ade config validate` says of a package, and its exit code.
#[track_caller]
fn said(package: &Package, args: &[&str]) -> (Value, i32) {
    let world = World::new(package, &[]);
    let (said, code) = said_of(&world.package, args);
    world.assert_untouched(None, None);
    (said, code)
}

#[track_caller]
fn said_of(package: &Path, args: &[&str]) -> (Value, i32) {
    let sets = Sets::default();
    let mut command = ade();
    command.args(["config", "validate", "--json"]).args(args).arg(package).env("ADE_DEPS_DIR", sets.folder());
    let output = command.output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let said: Value = serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout} {stderr}"));
    assert_eq!(stderr, "");
    (said, output.status.code().unwrap())
}

/// Each diagnostic as its level, code, path and line, in order.
fn listed(said: &Value) -> Vec<(&str, &str, &str, Option<u64>)> {
    let text = |one: &'static str, diagnostic: &Value| diagnostic[one].as_str().unwrap().to_owned().leak() as &str;
    let all = said["diagnostics"].as_array().unwrap_or_else(|| panic!("{said:#}"));
    all.iter().map(|one| (text("level", one), text("code", one), text("path", one), one["line"].as_u64())).collect()
}

#[test]
fn packages_by_the_docs_and_with_positional_parameters_pass() {
    let package = Package::new()
        .column("name", "def detect_it(*, header, values_sample, **_):\n    return {'scores': {'self': 0.5}}\n\ndef transform(*, values, **_):\n    return {'values': values}\n")
        .column("other", "def detect_it(header, values_sample, column_index, table, job_context, env):\n    return {'scores': {'self': 1.0}}\n\ndef transform(values, header, column_index, table, job_context, env):\n    return {'values': values}\n")
        .hook("on_job_end", "def run(*, success, **_):\n    raise RuntimeError('hooks are not run')\n");
    let (found, code) = said(&package, &["--require-dry-run"]);
    assert_eq!((code, &found["valid"], &found["dry_run"]), (0, &json!(true), &json!(true)), "{found:#}");
    assert_eq!(listed(&found), []);
    for example in ["membership", "invoices", "price_list"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/examples").join(example);
        let (found, code) = said_of(&path, &["--require-dry-run"]);
        assert_eq!((code, listed(&found).len()), (0, 0), "{example}: {found:#}");
    }
}

#[test]
fn every_fault_is_found_at_once_with_script_and_line() {
    let package = Package::new()
        .column("name", &format!("import nowhere_to_be_found\n{GOOD}"))
        .column("a", "def transform(values):\n    return {'values': [value.strip() for value in values]}\n")
        .column("b", "\ndef validate(values):\n    return {'issues': 5}\n")
        .column("c", "def detect_c(header):\n    return {'scores': {'self': float('inf')}}\n")
        .column("d", GOOD)
        .row_type("rows", "def detect_row(row_values_sample):\n    return {'scores': {'title': 1}}\n")
        .hook("on_activate", "import sys\nsys.exit(3)\ndef run(**_): ...\n");
    let (found, code) = said(&package, &[]);
    assert_eq!((code, &found["valid"]), (2, &json!(false)));
    let mut all = listed(&found);
    all.sort_unstable_by_key(|one| one.2);
    assert_eq!(
        all,
        [
            ("warning", "runtime.transform.exception", "columns/a.py", Some(2)),
            ("error", "runtime.validator.invalid_result", "columns/b.py", Some(2)),
            ("error", "runtime.column_detector.invalid_result", "columns/c.py", Some(1)),
            ("error", "script_import_failed", "columns/name.py", Some(1)),
            ("error", "script_import_failed", "hooks/on_activate.py", Some(2)),
            ("error", "runtime.row_detector.invalid_result", "row_types/rows.py", Some(1)),
        ]
    );
    let message = found["diagnostics"].as_array().unwrap().iter().find(|one| one["path"] == "columns/a.py").unwrap();
    assert!(message["message"].as_str().unwrap().contains("AttributeError"), "{message}");
}

#[test]
fn nothing_is_run_of_a_package_with_errors_that_need_no_container() {
    let package = Package::new().column("name", "def transform(foo): ...\n").column("b", "import nowhere\n");
    let (found, code) = said(&package, &[]);
    assert_eq!((code, &found["dry_run"]), (2, &json!(false)));
    assert_eq!(
        listed(&found),
        [
            ("error", "script_unknown_parameter", "columns/name.py", Some(1)),
            ("warning", "script_no_function", "columns/b.py", None),
        ]
    );
}

/// Each of these is named, and hides nothing of the script behind it.
#[test]
fn what_hangs_dies_or_eats_ends_in_time_and_hides_nothing() {
    for (source, codes) in [
        ("while True:\n    pass\n", &["script_time_limit"][..]),
        ("import time\ntime.sleep(3600)\n", &["script_time_limit"]),
        ("import os\nos._exit(0)\n", &["script_crashed"]),
        ("import os\nos.kill(os.getpid(), 9)\n", &["script_crashed"]),
        ("x = []\nwhile True:\n    x.append(bytearray(1 << 24))\n", &["script_memory_limit"]),
        ("import os\nwhile True:\n    os.fork()\n", &["script_import_failed", "script_crashed", "script_time_limit"]),
        ("raise RecursionError('x' * 10**7)\n", &["script_import_failed"]),
    ] {
        let package = Package::new()
            .column("name", &format!("{source}{GOOD}"))
            .column("later", &format!("import nowhere\n{GOOD}"))
            .manifest(json!({"engine": {"defaults": {"memory_mb": 128}}}));
        let began = Instant::now();
        let (found, code) = said(&package, &["--require-dry-run"]);
        assert!(began.elapsed() < Duration::from_secs(60), "{source}: {:?}", began.elapsed());
        let all = listed(&found);
        let of = |path: &str| all.iter().filter(|one| one.2 == path).map(|one| one.1).collect::<Vec<_>>();
        let first = of("columns/name.py");
        assert_eq!(code, 2, "{source}: {found:#}");
        assert!(!first.is_empty() && first.iter().all(|code| codes.contains(code)), "{source}: {found:#}");
        assert_eq!(of("columns/later.py"), ["script_import_failed"], "{source}: {found:#}");
    }
}

/// The worst that a package can do to its dry run is to spoil it: then that is what is said.
#[test]
fn a_forged_result_is_at_most_the_packages_own_loss() {
    for source in [
        // On stdout, on every descriptor that is open, and on those of the process above.
        "import os\nfor fd in range(1, 300):\n    try:\n        os.write(fd, b'\\x90\\0\\0\\0\\0\\0\\0\\x0b' + b'{\"ok\":true}')\n    except OSError:\n        pass\n",
        "import os\nfor fd in os.listdir(f'/proc/{os.getppid()}/fd'):\n    open(f'/proc/{os.getppid()}/fd/{fd}', 'wb').write(b'[]\\n' * 100)\n",
        "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\nimport time\ntime.sleep(60)\n",
        "import os\nwhile True:\n    os.write(3, b'x' * 65536)\n",
        "print('x' * 10**7)\nimport sys\nsys.stderr.write('y' * 10**7)\n",
        "import os\nos.makedirs('/job/out/validation.json', exist_ok=True)\nos.write(1, b'\\x86\\0\\0\\0\\0\\0\\0\\2{}')\n",
    ] {
        let package = Package::new()
            .column("name", &format!("{source}{GOOD}"))
            .column("later", &format!("import nowhere\n{GOOD}"));
        let (found, code) = said(&package, &["--require-dry-run"]);
        assert!(matches!(code, 0 | 2), "{source}: {found:#}");
        if source.contains("os.write(fd") {
            let all = listed(&found);
            let later = all.iter().any(|one| (one.1, one.2) == ("script_import_failed", "columns/later.py"));
            assert!(later, "no descriptor leads to the process that watches, or to the supervisor: {found:#}");
        }
        if source.contains("/proc/") {
            let message = found["diagnostics"][0]["message"].as_str().unwrap_or_default();
            assert!(message.contains("PermissionError"), "the watching process is out of reach: {found:#}");
        }
        let known = ["script_import_failed", "script_crashed", "script_time_limit", "dry_run_failed"];
        assert!(listed(&found).iter().all(|one| known.contains(&one.1)), "{source}: {found:#}");
    }
}

/// A script may kill the process that watches; it takes back nothing of what was found before, and is named.
#[test]
fn what_was_found_before_the_watching_process_was_killed_is_said() {
    let package = Package::new()
        .column("a", &format!("import nowhere_to_be_found\n{GOOD}"))
        .column("b", "def transform(values):\n    return 5\n")
        .column("c", &format!("import os, signal, time\nos.kill(os.getppid(), signal.SIGKILL)\ntime.sleep(60)\n{GOOD}"))
        .column("d", &format!("import never_tried\n{GOOD}"));
    let (found, code) = said(&package, &["--require-dry-run"]);
    assert_eq!((code, &found["valid"], &found["dry_run"]), (2, &json!(false), &json!(true)), "{found:#}");
    let mut all = listed(&found);
    all.sort_unstable_by_key(|one| one.2);
    assert_eq!(
        all,
        [
            ("error", "script_import_failed", "columns/a.py", Some(1)),
            ("error", "runtime.transform.invalid_result", "columns/b.py", Some(1)),
            ("error", "script_crashed", "columns/c.py", None),
            ("error", "dry_run_failed", "manifest.json", None),
        ],
        "{found:#}"
    );
    let killer = found["diagnostics"].as_array().unwrap().iter().find(|one| one["path"] == "columns/c.py").unwrap();
    assert!(killer["message"].as_str().unwrap().contains("signal 9"), "{killer}");
}

#[test]
fn scripts_that_are_tried_out_have_no_network_and_see_no_secret() {
    let source = "import os, socket\n\
                  assert os.listdir('/sys/class/net') == ['lo'], os.listdir('/sys/class/net')\n\
                  assert not [key for key in os.environ if 'PROXY' in key.upper()], os.environ\n\
                  assert not os.listdir('/job/in'), os.listdir('/job/in')\n\
                  try:\n    socket.create_connection(('127.0.0.1', 3128), 1)\n\
                  except ConnectionRefusedError:\n    pass\nelse:\n    raise AssertionError('somebody listens')\n";
    let package = Package::new().column("name", &format!("{source}{GOOD}")).asking_for_network();
    let (found, code) = said(&package, &["--require-dry-run"]);
    assert_eq!((code, listed(&found).len()), (0, 0), "{found:#}");
}

#[test]
fn dependencies_that_cannot_be_had_leave_the_dry_run_out_with_a_warning() {
    let package =
        Package::new().file("requirements.txt", "six==1.16.0\n").column("name", &format!("import six\n{GOOD}"));
    let (found, code) = said(&package, &["--network", "deny"]);
    assert_eq!((code, &found["valid"], &found["dry_run"]), (0, &json!(true), &json!(false)), "{found:#}");
    assert_eq!(listed(&found), [("warning", "dry_run_skipped", "requirements.txt", None)]);
    let message = found["diagnostics"][0]["message"].as_str().unwrap();
    assert!(message.contains("six"), "{message}");
    let (_, code) = said(&package, &["--network", "deny", "--require-dry-run"]);
    assert_eq!(code, 3);
}

#[test]
fn two_hundred_scripts_are_tried_in_one_container() {
    let joined = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/examples/membership/columns/member_id.py");
    let source = std::fs::read_to_string(joined).unwrap();
    let words = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/examples/membership/vendor/header_words.py");
    let mut package = Package::new().file("vendor/header_words.py", std::fs::read(words).unwrap());
    for number in 0..200 {
        package = package.column(&format!("f{number}"), &source);
    }
    let began = Instant::now();
    let (found, code) = said(&package, &["--require-dry-run"]);
    assert_eq!(code, 0, "{found:#}");
    // Of a debug build on a busy machine.
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[test]
fn an_interrupt_ends_it() {
    let package = Package::new().column("name", "import time\ntime.sleep(60)\n");
    let world = World::new(&package, &[]);
    let mut child = ade()
        .args(["config", "validate", "--json"])
        .arg(&world.package)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_secs(3));
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let began = Instant::now();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(began.elapsed() < Duration::from_secs(20));
}
