//! Scripts with mistakes in them. A detector, transform or validator that fails is neutral: the job succeeds, and a
//! diagnostic says which script, function and line. Anything that the job cannot go on without fails it, and says as much.

use crate::records::{artifact, diagnostic, passes};
use crate::support::{Package, Run, Upload, World, run};
use crate::workbook;
use serde_json::{Value, json};

/// A script of one function that stands in line 2 and does `body` in line 3.
fn script(signature: &str, body: &str) -> String {
    format!("import math, os, sys, time\ndef {signature}:\n    {body}\n")
}

/// The table of [`Upload::names`] came through as it was.
#[track_caller]
fn assert_unharmed(run: &Run, what: &str) {
    assert_eq!((run.status(), run.code), ("succeeded", Some(0)), "{what}: {} {:?}", run.json["error"], run.log());
    assert_eq!(workbook::read(run).column("Name"), ["Ada Lovelace", "Grace Hopper"], "{what}");
}

/// Asserts a diagnostic of a code that points to a script, a function and line.
#[track_caller]
fn assert_diagnosed(run: &Run, code: &str, place: (&str, &str, u64), what: &str) {
    let found = diagnostic(run, code);
    let (script, function, line) = place;
    assert_eq!(found["script"], script, "{what}: {found}");
    assert_eq!(found["function"], function, "{what}: {found}");
    assert_eq!(found["line"], line, "{what}: {found}");
    assert!(found["count"].as_u64() >= Some(1) && found["message"].is_string(), "{what}: {found}");
}

#[test]
fn a_row_detector_that_fails_in_any_way_is_neutral() {
    for (body, code, line) in [
        ("raise ValueError('cell ' + str(_['row_values_sample']))", "exception", 3),
        ("return 1 / 0", "exception", 3),
        ("return detect_it(**_)", "exception", 3),
        ("sys.exit(3)", "exception", 3),
        ("return 7", "invalid_result", 2),
        ("return {'scores': [1]}", "invalid_result", 2),
        ("return {'scores': {'header': math.nan}}", "invalid_result", 2),
        ("return {'scores': {'header': '1'}}", "invalid_result", 2),
        ("return {'scores': {'footer': 1.0}}", "invalid_result", 2),
    ] {
        let package = Package::new()
            .row_type(
                "header",
                "def detect_first(*, row_index, **_):\n    return {'scores': {'header': float(row_index == 1)}}\n",
            )
            .row_type("odd", &script("detect_it(**_)", body));
        let run = run(&package, &[Upload::names()], &[]);
        assert_unharmed(&run, body);
        let code = format!("runtime.row_detector.{code}");
        assert_diagnosed(&run, &code, ("row_types/odd.py", "detect_it", line), body);
        assert!(!artifact(&run)["diagnostics"].to_string().contains("Lovelace"), "{body}: no cell value");
    }
}

#[test]
fn a_column_detector_that_fails_in_any_way_is_neutral() {
    for (body, code, line) in [
        ("raise KeyError(_['values_sample'][0])", "exception", 3),
        ("exit()", "exception", 3),
        ("return 'name'", "invalid_result", 2),
        ("return {'scores': {'self': math.inf}}", "invalid_result", 2),
        ("return {'scores': {'self': None}}", "invalid_result", 2),
        ("return {'scores': {'nmae': 1.0}}", "unknown_field", 2),
    ] {
        // A second field asks; the first one is found by its header all the same.
        let package = Package::new().column("other", &script("detect_it(**_)", body));
        let run = run(&package, &[Upload::names()], &[]);
        assert_unharmed(&run, body);
        let code = format!("runtime.column_detector.{code}");
        assert_diagnosed(&run, &code, ("columns/other.py", "detect_it", line), body);
        assert!(!artifact(&run)["diagnostics"].to_string().contains("Lovelace"), "{body}: no cell value");
    }
}

#[test]
fn a_transform_that_fails_in_any_way_leaves_the_values_as_they_were() {
    for (body, code, line) in [
        ("raise RuntimeError(values[0])", "exception", 3),
        ("return transform(values)", "exception", 3),
        ("raise SystemExit", "exception", 3),
        ("return None", "invalid_result", 2),
        ("return values", "invalid_result", 2),
        ("return {'values': values[1:]}", "invalid_result", 2),
        ("return {'values': values + ['more']}", "invalid_result", 2),
        ("return {'values': [[value] for value in values]}", "invalid_result", 2),
        ("return {'values': 'ab'}", "invalid_result", 2),
        ("return {'values': values, 'warnings': [1]}", "invalid_result", 2),
    ] {
        let package = Package::new().column("name", &script("transform(values, **_)", body));
        let run = run(&package, &[Upload::names()], &[]);
        assert_unharmed(&run, body);
        assert_diagnosed(&run, &format!("runtime.transform.{code}"), ("columns/name.py", "transform", line), body);
        assert!(!artifact(&run)["diagnostics"].to_string().contains("Lovelace"), "{body}: no cell value");
    }
}

#[test]
fn numbers_that_a_worksheet_cannot_hold_do_not_break_the_workbook() {
    let body = "return {'values': [math.nan, math.inf, -math.inf, 10**400, 1e308]}";
    let package = Package::new().column("name", &script("transform(values, **_)", body));
    let run = run(&package, &[Upload::csv("Name\na\nb\nc\nd\ne\n")], &[]);
    run.assert_succeeded();
    let sheet = workbook::read(&run);
    assert_eq!(sheet.rows.len(), 5, "every row is there, and the workbook can be read");
    assert!(workbook::is(&sheet.rows[4][0], "1e308"), "{:?}", sheet.rows);
}

#[test]
fn a_validator_that_fails_in_any_way_is_neutral() {
    let issue = |row: &str, code: &str, severity: &str| {
        format!("return {{'issues': [{{'row_index': {row}, 'code': {code}, 'severity': {severity}, 'message': 'm'}}]}}")
    };
    for (body, code, line) in [
        ("raise ValueError(values[0])".to_owned(), "exception", 3),
        ("os.kill(os.getpid(), 0); sys.exit(0)".to_owned(), "exception", 3),
        ("return {'issues': 5}".to_owned(), "invalid_result", 2),
        ("return []".to_owned(), "invalid_result", 2),
        ("return {'issues': ['bad']}".to_owned(), "invalid_issue", 2),
        (issue("0", "'x'", "'error'"), "invalid_issue", 2),
        (issue("3", "'x'", "'error'"), "invalid_issue", 2),
        (issue("True", "'x'", "'error'"), "invalid_issue", 2),
        (issue("1", "None", "'error'"), "invalid_issue", 2),
        (issue("1", "'x'", "'fatal'"), "invalid_issue", 2),
    ] {
        let package = Package::new().column("name", &script("validate(values, **_)", &body));
        let run = run(&package, &[Upload::names()], &[]);
        assert_unharmed(&run, &body);
        assert_eq!(run.json["summary"]["issues_found"], 0, "{body}");
        assert_diagnosed(&run, &format!("runtime.validator.{code}"), ("columns/name.py", "validate", line), &body);
        assert!(!artifact(&run)["diagnostics"].to_string().contains("Lovelace"), "{body}: no cell value");
    }
}

#[test]
fn everything_at_once_is_still_a_success_with_a_diagnostic_each() {
    let package = Package::new()
        .row_type(
            "header",
            "def detect_first(*, row_index, **_):\n    return {'scores': {'header': float(row_index == 1)}}\n",
        )
        .row_type("odd", &script("detect_row(**_)", "raise ValueError"))
        .column(
            "name",
            &format!(
                "{}{}",
                script("transform(values, **_)", "raise ValueError"),
                "def validate(**_):\n    raise ValueError\n"
            ),
        )
        .column("other", &script("detect_column(**_)", "raise ValueError"));
    let run = run(&package, &[Upload::names()], &[]);
    assert_unharmed(&run, "everything raises");
    for kind in ["row_detector", "column_detector", "transform", "validator"] {
        assert!(diagnostic(&run, &format!("runtime.{kind}.exception"))["line"].is_u64());
    }
    assert_eq!(passes(&run), ["structure", "mapping", "transform", "validate", "generate"]);
}

#[test]
fn a_script_that_cannot_be_loaded_fails_the_job_with_file_and_line() {
    let broken = "x = 1\nraise ValueError('at import')\ndef run(**_): pass\ndef detect_x(**_): pass\n";
    for (package, name) in [
        (Package::new().column("name", broken), "columns/name.py"),
        (Package::new().row_type("rows", broken), "row_types/rows.py"),
        (Package::new().hook("on_job_start", broken), "hooks/on_job_start.py"),
        (Package::new().hook("before_save", broken), "hooks/before_save.py"),
        (Package::new().column("name", "\nimport nowhere_to_be_found\ndef transform(**_): pass\n"), "columns/name.py"),
        (Package::new().column("name", "\nimport sys; sys.exit(0)\ndef transform(**_): pass\n"), "columns/name.py"),
    ] {
        let run = run(&package, &[Upload::names()], &[]);
        run.assert_failed("script_error", &[name, ":2"]);
        assert_eq!(run.code, Some(1), "{name}");
        let error = &run.json["error"];
        assert_eq!(
            (&error["script"], &error["line"], &error["pass"]),
            (&json!(name), &json!(2), &json!("load")),
            "{error}"
        );
        assert!(passes(&run).is_empty());
    }
}

#[test]
fn a_hook_that_returns_the_wrong_thing_is_told_and_not_believed() {
    for (body, code) in [
        ("return 7", "runtime.hook.invalid_result"),
        ("return {1: 2}", "runtime.hook.invalid_result"),
        ("return {'score': math.nan}", "runtime.hook.annotation_dropped"),
        ("return {'object': object()}", "runtime.hook.annotation_dropped"),
        ("return {'much': 'x' * 100_000}", "runtime.hook.annotation_dropped"),
    ] {
        let run = run(&Package::new().hook("after_mapping", &script("run(**_)", body)), &[Upload::names()], &[]);
        assert_unharmed(&run, body);
        assert_diagnosed(&run, code, ("hooks/after_mapping.py", "run", 2), body);
        let annotation = &artifact(&run)["annotations"][0];
        assert_eq!(annotation["stage"], "after_mapping");
        assert!(["score", "object", "much"].iter().all(|key| annotation.get(key).is_none()), "{annotation}");
    }
}

#[test]
fn megabytes_of_print_are_cut_with_a_mark_and_a_tail_and_change_nothing() {
    let body = "for n in range(200_000): print('line', n, 'x' * 40)\n    return {'values': values}";
    let package = Package::new().column("name", &script("transform(values, **_)", body));
    let run = run(&package, &[Upload::names()], &[]);
    assert_unharmed(&run, "200,000 lines");
    let cut = run.events_named("truncated");
    assert_eq!(cut.len(), 1, "{cut:?}");
    assert!(cut[0]["lines"].as_u64() > Some(100_000), "{cut:?}");
    let log = run.log();
    assert!(log[0].starts_with("line 0 ") && log.iter().any(|line| line.starts_with("line 199999 ")), "head and tail");
    assert!(log.len() < 6000, "{} lines", log.len());
    let size = run.out.join("events.ndjson").metadata().unwrap().len();
    assert!(size < 4 << 20, "{size} bytes of events");
    // One line without an end.
    let package = Package::new().column(
        "name",
        &script("transform(values, **_)", "print('y' * 5_000_000, end='')\n    return {'values': values}"),
    );
    let run = crate::support::run(&package, &[Upload::names()], &[]);
    assert_unharmed(&run, "a line of 5 MB");
    assert!(run.log().iter().all(|line| line.chars().count() <= 4200));
}

#[test]
fn a_script_that_never_returns_is_a_timeout_that_says_where() {
    for (package, pass) in [
        (Package::new().column("name", &script("transform(values, **_)", "while True: pass")), "transform"),
        (Package::new().column("name", &script("validate(values, **_)", "time.sleep(1000)")), "validate"),
        (Package::new().column("name", "while True:\n    pass\n"), "load"),
    ] {
        let run = run(&package, &[Upload::names()], &["--timeout-ms", "1500"]);
        run.assert_failed("timeout", &["1500 ms", "--timeout-ms"]);
        assert_eq!((run.code, &run.json["error"]["pass"]), (Some(1), &json!(pass)), "{}", run.json["error"]);
        assert!(!passes(&run).contains(&pass));
    }
}

#[test]
fn a_process_that_ends_inside_a_script_is_a_script_error_that_says_where() {
    for (body, pass) in
        [("os._exit(0)", "transform"), ("os.abort()", "transform"), ("os.kill(os.getpid(), 11)", "transform")]
    {
        let package = Package::new().column("name", &script("transform(values, **_)", body));
        let run = run(&package, &[Upload::names()], &[]);
        run.assert_failed("script_error", &[]);
        assert_eq!(run.json["error"]["pass"], pass, "{body}: {}", run.json["error"]);
        assert_eq!(passes(&run), ["structure", "mapping"], "{body}");
    }
}

#[test]
fn a_recursion_deep_enough_to_break_the_interpreter_ends_the_job_and_no_more() {
    let body = "sys.setrecursionlimit(10**9); transform.__wrapped__ = None; return transform(values)";
    let package = Package::new().column("name", &script("transform(values, **_)", body));
    let run = run(&package, &[Upload::names()], &["--timeout-ms", "30000"]);
    assert!(matches!(run.kind(), "script_error" | "out_of_memory"), "{}: {}", run.kind(), run.message());
}

#[test]
fn a_package_with_syntax_errors_is_refused_with_every_line_before_anything_starts() {
    let package = Package::new()
        .hook("on_job_start", "print('executed')\ndef run(**_): pass\n")
        .hook("on_job_end", "print('executed')\ndef run(**_): print('executed')\n")
        .column("name", "print('executed')\n\ndef transform(values, **_)\n    return values\n")
        .row_type("rows", "print('executed')\ndef detect_x(**_):\nreturn 1\n");
    let run = refused_at_once(&package);
    run.assert_failed("package_invalid", &["ade config validate"]);
    assert!(matches!(run.json["error"]["script"].as_str(), Some("columns/name.py")), "{}", run.stdout);
    let mut found: Vec<(&str, u64, &str)> = run.json["diagnostics"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["path"].as_str().unwrap(), one["line"].as_u64().unwrap(), one["code"].as_str().unwrap()))
        .collect();
    found.sort_unstable();
    assert_eq!(found, [("columns/name.py", 3, "script_syntax"), ("row_types/rows.py", 3, "script_syntax")]);
}

/// What a package is refused with before any container, Docker or not.
#[track_caller]
fn refused_at_once(package: &Package) -> Run {
    let world = World::new(package, &[Upload::names()]);
    let run = crate::support::Running::start(world, &["--docker-host", "unix:///nonexistent/docker.sock"], |_| {})
        .wait_unchecked();
    assert_eq!((run.code, run.job_id()), (Some(2), None), "{}", run.stdout);
    assert!(!run.out.exists(), "nothing was written");
    run
}

fn codes(run: &Run) -> Vec<&str> {
    run.json["diagnostics"].as_array().unwrap().iter().filter_map(|one| one["code"].as_str()).collect()
}

#[test]
fn missing_scripts_and_unknown_keys_are_all_listed_before_anything_starts() {
    let package = Package::new().manifest(json!({
        "hooks": {"on_job_start": [{"script": "hooks/strat.py"}], "on_job_finish": []},
        "columns": {"meta": {"name": {"label": "Name", "script": "columns/nmae.py", "requird": true}}},
        "engine": {"defaults": {"timeout": 5}},
    }));
    let run = refused_at_once(&package);
    run.assert_failed("package_invalid", &["ade config validate"]);
    let codes = codes(&run);
    assert_eq!(codes.iter().filter(|code| **code == "script_missing").count(), 2, "{codes:?}");
    assert!(codes.iter().filter(|code| **code == "unknown_key").count() == 3, "{codes:?}");
    let told: Vec<&Value> = run.json["diagnostics"].as_array().unwrap().iter().collect();
    for word in ["hooks/strat.py", "columns/nmae.py", "on_job_finish", "requird", "timeout"] {
        let one = told.iter().find(|one| one["message"].as_str().unwrap().contains(word));
        let one = one.unwrap_or_else(|| panic!("nothing says {word}: {told:#?}"));
        assert!(one["line"].is_u64() && one["path"] == "manifest.json", "{one}");
    }
}

#[test]
fn requirements_that_cannot_be_met_are_refused_and_comments_are_not_requirements() {
    let asks = Package::new().file("requirements.txt", "# what we use\r\n\r\npandas==2.2.0\r\n");
    let run = crate::support::run(&asks, &[Upload::names()], &[]);
    let parts = ["pandas==2.2.0", "no wheelhouse is set up", "runtime_network_access"];
    run.assert_failed("dependency_network_denied", &parts);
    assert_eq!((&run.json["error"]["script"], &run.json["error"]["line"]), (&json!("requirements.txt"), &json!(3)));
    for text in ["", "\u{feff}# nothing\n\n   # at all\n"] {
        let run = crate::support::run(&Package::new().file("requirements.txt", text), &[Upload::names()], &[]);
        assert_unharmed(&run, text);
        assert_eq!(artifact(&run)["dependencies"]["status"], "none");
    }
}

#[test]
fn the_network_decision_is_recorded_everywhere_and_a_package_that_is_denied_what_it_asks_for_is_warned() {
    let look = "def run(**_):\n    print('interfaces:', [line.split(':')[0].strip() for line in list(open('/proc/net/dev'))[2:]])\n";
    let event = |run: &Run| run.events.iter().find(|event| event["event"] == "network.decision").unwrap().clone();
    let hosts = ["--allow-host", "*.Example.com:443", "--allow-host", "2001:db8::1"];
    let reason = "the setting of the package denies network";
    for (key, args, run_allowed, by, reason) in [
        ("runtime_network_access", &[][..], true, "manifest", "the manifest asks for network, and nothing denies it"),
        ("allow_net", &["--network", "deny"], false, "package", reason),
        (
            "allow_net",
            &[&["--network", "allow"], &hosts[..]].concat(),
            true,
            "package",
            "the setting of the package allows network",
        ),
        (
            "allow_net",
            &[&["--network", "allow", "--runtime-network-access", "off"], &hosts[..]].concat(),
            false,
            "instance",
            "network is switched off on this machine, by the setting ADE_RUNTIME_NETWORK_ACCESS",
        ),
    ] {
        let package = Package::new().hook("on_job_start", look).manifest(json!({"engine": {"defaults": {key: true}}}));
        let run = run(&package, &[Upload::names()], args);
        assert_unharmed(&run, key);
        assert_eq!(run.finding("interfaces"), "['lo']", "an interface is never there");
        let event = event(&run);
        let request = std::fs::read(run.out.join("run-request.json")).unwrap();
        let request: Value = serde_json::from_slice(&request).unwrap();
        let recorded = &artifact(&run)["network"];
        assert_eq!((recorded, recorded), (&request["network"], &event["detail"]));
        let patterns =
            if run_allowed && args.len() > 2 { json!(["*.example.com:443", "[2001:db8::1]"]) } else { json!([]) };
        let expected = json!({
            "install": run_allowed, "run": run_allowed, "allowed_hosts": patterns, "decided_by": by, "reason": reason,
            "install_decided_by": by, "install_reason": reason,
        });
        assert_eq!(recorded, &expected);
        assert_eq!(event["level"], if run_allowed { "info" } else { "warning" });
    }
    let quiet = run(&Package::new(), &[Upload::names()], &["--network", "deny"]);
    assert_eq!(event(&quiet)["level"], "info", "it lacks nothing that it asked for");
}
