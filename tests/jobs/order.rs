//! The order of everything: which events a job has, in which order, when it goes well and when it fails in each way there is;
//! and what hooks are called with. `docs/developers/hooks.md` shows what is found here; with `ADE_REWRITE_LISTINGS=1` these
//! tests write it anew rather than compare.

use crate::records::project;
use crate::support::server::shared;
use crate::support::{Package, Run, Upload, run, start};
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use std::time::Duration;

const STAGES: [&str; 6] =
    ["on_job_start", "after_mapping", "on_after_extract", "after_validate", "before_save", "on_job_end"];
const RAISES: &str = "raise LookupError";
const DIES: &str = "os._exit(3)";
const WIDTH: usize = 118;

/// A package with a hook in every stage and a script for every pass, of which one function does something else.
fn package(at: &str, body: &str) -> Package {
    let function = |name: &str, answer: &str| {
        let body = if name == at { body } else { "pass" };
        format!("import os, time\ndef {name}(**given):\n    {body}\n    return {answer}\n")
    };
    let hook = |stage: &str| {
        let body = if stage == at { body } else { "pass" };
        format!("import os, time\ndef run(**given):\n    {body}\n")
    };
    let package = STAGES.iter().fold(Package::new(), |package, stage| package.hook(stage, &hook(stage)));
    let import = if at == "import" { format!("{body}\n") } else { String::new() };
    package
        .row_type("rows", &function("detect_header", "{'scores': {'header': float(given['row_index'] == 1)}}"))
        .column(
            "name",
            &[
                import,
                function("detect_name", "{'scores': {'self': 1.0}}"),
                function("transform", "{'values': given['values']}"),
                function("validate", "{'issues': []}"),
            ]
            .concat(),
        )
}

/// The events of a job, in order: names, and of what; no times.
fn order(run: &Run) -> Vec<String> {
    let one = |event: &Value| {
        let detail = &event["detail"];
        let of = match event["event"].as_str().unwrap() {
            "hook.start" | "hook.exit" => &detail["stage"],
            "pass.start" | "pass.exit" => &detail["pass"],
            "log" => &detail["stream"],
            "error" => &detail["kind"],
            "exit" => &event["state"],
            _ => &Value::Null,
        };
        let failed = if detail["ok"] == false { " failed" } else { "" };
        format!("{} {}{failed}", event["event"].as_str().unwrap(), of.as_str().unwrap_or_default()).trim().to_owned()
    };
    run.events.iter().map(one).collect()
}

fn wrapped(steps: &[String]) -> String {
    let mut lines = vec![String::from("   ")];
    for (place, step) in steps.iter().enumerate() {
        let step = if place + 1 < steps.len() { format!(" {step} >") } else { format!(" {step}") };
        if lines.last().unwrap().len() + step.len() > WIDTH {
            lines.push(String::from("   "));
        }
        lines.last_mut().unwrap().push_str(&step);
    }
    lines.join("\n")
}

struct Case {
    title: &'static str,
    at: &'static str,
    body: &'static str,
    args: &'static [&'static str],
    status: &'static str,
}

const fn case(title: &'static str, at: &'static str, body: &'static str, status: &'static str) -> Case {
    Case { title, at, body, args: &[], status }
}

const CASES: &[Case] = &[
    case("It succeeds", "", "", "succeeded"),
    case("A script cannot be imported", "import", RAISES, "failed"),
    case("A hook of on_job_start raises", "on_job_start", RAISES, "failed"),
    case("A row detector ends its process", "detect_header", DIES, "failed"),
    case("A column detector ends its process", "detect_name", DIES, "failed"),
    case("A hook of after_mapping raises", "after_mapping", RAISES, "failed"),
    case("A hook of after_mapping ends its process", "after_mapping", DIES, "failed"),
    case("A transform ends its process", "transform", DIES, "failed"),
    case("A hook of on_after_extract raises", "on_after_extract", RAISES, "failed"),
    case("A validator raises: a diagnostic, and no failure", "validate", RAISES, "succeeded"),
    case("A validator ends its process", "validate", DIES, "failed"),
    case("A hook of after_validate raises", "after_validate", RAISES, "failed"),
    case("A hook of before_save raises", "before_save", RAISES, "failed"),
    case("A hook of before_save ends its process", "before_save", DIES, "failed"),
    case("A hook of on_job_end raises", "on_job_end", RAISES, "succeeded"),
    Case {
        title: "The time is up within on_after_extract",
        at: "on_after_extract",
        body: "time.sleep(1000)",
        args: &["--timeout-ms", "2500"],
        status: "failed",
    },
    Case {
        title: "The memory is used up within a transform",
        at: "transform",
        body: "x = bytearray(1 << 30); x[::4096] = b'x' * (1 << 18)",
        args: &["--memory-mb", "96"],
        status: "failed",
    },
    Case {
        title: "It is cancelled within after_validate",
        at: "after_validate",
        body: "time.sleep(1000)",
        args: &[],
        status: "cancelled",
    },
];

fn course(case: &Case) -> Run {
    let package = package(case.at, case.body);
    if case.status != "cancelled" {
        return run(&package, &[Upload::names()], case.args);
    }
    // What happens inside is on disk only at the end, so on a busy machine the interrupt may have come too early.
    let interrupted_after = |patience: u64| {
        let running = start(&package, &[Upload::names()], case.args);
        running.container();
        std::thread::sleep(Duration::from_secs(patience));
        running.signal("INT");
        running.wait()
    };
    let mut runs = [3, 8, 20].into_iter().map(interrupted_after);
    let reached = |run: &Run| run.events_named("hook.start").iter().any(|hook| hook["stage"] == case.at);
    runs.find(reached).expect("the hook runs within 20 seconds")
}

/// A file of the project with a part that a test makes: between the first line that begins with `from` and the next one that
/// begins with `to`, both left as they are.
fn assert_shows(file: &str, from: &str, to: &str, made: &str) {
    let path: PathBuf = project().join(file);
    let text = std::fs::read_to_string(&path).unwrap();
    let head = text.find(&format!("\n{from}")).unwrap_or_else(|| panic!("{file} has no {from}")) + 1;
    let head = head + text[head..].find('\n').unwrap() + 1;
    let tail = head + text[head..].find(to).unwrap();
    if std::env::var_os("ADE_REWRITE_LISTINGS").is_some() {
        std::fs::write(&path, format!("{}{made}{}", &text[..head], &text[tail..])).unwrap();
        return;
    }
    assert!(text[head..tail] == *made, "{file} should have, by ADE_REWRITE_LISTINGS=1:\n{made}");
}

#[test]
fn every_job_has_the_events_that_are_documented_in_that_order() {
    let runs: Vec<(&Case, Run)> = CASES
        .chunks(3)
        .flat_map(|cases| {
            std::thread::scope(|scope| {
                let jobs: Vec<_> = cases.iter().map(|case| scope.spawn(move || (case, course(case)))).collect();
                jobs.into_iter().map(|job| job.join().unwrap()).collect::<Vec<_>>()
            })
        })
        .collect();
    let mut listing = String::new();
    for (case, run) in &runs {
        assert_eq!(run.status(), case.status, "{}: {}", case.title, run.json);
        let ends = run.events_named("hook.start").iter().filter(|hook| hook["stage"] == "on_job_end").count();
        assert_eq!(ends, 1, "{}: the last hook has its word once", case.title);
        listing.push_str(&format!("{}\n{}\n", case.title, wrapped(&order(run))));
    }
    assert_shows("tests/fixtures/hooks/order.txt", "--", "==", &listing);
    assert_shows("docs/developers/hooks.md", "```order", "```", &listing);
}

/// Prints what it is called with: names, and of each value its kind.
const RECORDS: &str = r#"
import json
def kind(value):
    if value is None or isinstance(value, bool):
        return str(value)
    if isinstance(value, (dict, list)):
        name = 'dict' if isinstance(value, dict) else 'list'
        return name if value else 'empty ' + name
    return type(value).__name__
def run(**given):
    print('given: ' + json.dumps({name: kind(value) for name, value in given.items()}))
    return {'region': 'north'}
"#;

/// What every hook of a stage was given, in the order they ran.
fn given<'a>(lines: impl IntoIterator<Item = &'a str>) -> Vec<Map<String, Value>> {
    let records = lines.into_iter().filter_map(|line| line.strip_prefix("given: "));
    records.map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn hooks_are_called_with_what_is_documented() {
    let warns = "def transform(values, **_):\n    return {'values': values, 'warnings': ['seen']}\n";
    let base = || Package::new().column("name", warns).manifest(json!({"env": {"REGION": "north"}}));
    let package = STAGES.iter().fold(base(), |package, stage| package.hook(stage, RECORDS));
    let success = run(&package, &[Upload::names()], &[]);
    success.assert_succeeded();
    let failing = base().hook("after_validate", "def run(**_):\n    raise LookupError\n").hook("on_job_end", RECORDS);
    let failure = run(&failing, &[Upload::names()], &[]);
    failure.assert_failed("hook_failed", &[]);

    let server = shared();
    let tenant = server.tenant();
    let registered = tenant.config(&base().hook("on_activate", RECORDS));
    let path = format!("/configs/{}/versions/{}/activate", registered.config, registered.version);
    let record = tenant.owner.post(tenant.path(&path)).send().expect(200).json();
    let lines = record["hook_output"]["lines"].as_array().unwrap().clone();
    let printed = lines.iter().map(|line| line["text"].as_str().unwrap());

    let columns = [given(printed), given(success.log()), given(failure.log())].concat();
    assert_eq!(columns.len(), 8, "{columns:?}");
    let names: Vec<&String> = columns[0].keys().collect();
    for column in &columns {
        assert_eq!(column.keys().collect::<Vec<_>>(), names, "every hook is given the same");
    }
    let mut table = String::from("| --- |");
    table.push_str(&" --- |".repeat(columns.len()));
    for name in names {
        let cells = columns.iter().map(|column| format!(" {} |", column[name].as_str().unwrap()));
        table.push_str(&format!("\n| `{name}` |{}", cells.collect::<String>()));
    }
    assert_shows("docs/developers/hooks.md", "| argument |", "\n\n", &table);
}
