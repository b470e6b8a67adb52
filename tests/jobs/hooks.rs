//! The order of things: which hook runs when, what it is told, what of it is kept, and that `on_job_end` always has the last word.

use crate::records::{artifact, passes};
use crate::support::{Package, Run, Upload, run, start};
use serde_json::{Value, json};
use std::time::Duration;

const STAGES: [&str; 6] =
    ["on_job_start", "after_mapping", "on_after_extract", "after_validate", "before_save", "on_job_end"];

/// A hook that says what it was told and gives its stage back.
const TELLS: &str = r#"
import json
def run(*, stage, success, error, **_):
    print(f'{stage} was told: ' + json.dumps([success, error and [error['kind'], error['pass']]]))
    assert error is None or error['message']
    return {'seen': stage}
"#;

/// A package with a hook in every stage, of which some do something else.
fn package(other: &[(&str, &str)]) -> Package {
    STAGES.iter().fold(Package::new(), |package, stage| {
        let body = other
            .iter()
            .find(|(at, _)| at == stage)
            .map(|(_, body)| format!("import os, time\ndef run(**_):\n    {body}\n"));
        package.hook(stage, body.as_deref().unwrap_or(TELLS))
    })
}

/// Hooks and passes as they began (`>`) and ended (`<`, `!` when they failed), in order.
fn course(run: &Run) -> Vec<String> {
    run.events
        .iter()
        .filter_map(|event| {
            let (what, edge) = event["event"].as_str()?.split_once('.')?;
            let name = event["detail"][if what == "hook" { "stage" } else { "pass" }].as_str()?;
            let failed = event["detail"]["ok"] == false;
            Some(format!(
                "{}{name}",
                match edge {
                    "start" => ">",
                    _ if failed => "!",
                    _ => "<",
                }
            ))
        })
        .collect()
}

/// The course of a job that did all of these, one within the other where the first is in brackets.
fn steps(text: &str) -> Vec<String> {
    text.split_whitespace()
        .flat_map(|step| match step.chars().next() {
            Some('>' | '<' | '!') => vec![step.to_owned()],
            _ => vec![format!(">{step}"), format!("<{step}")],
        })
        .collect()
}

/// What `on_job_end` was told, from its log line.
#[track_caller]
fn told(run: &Run, stage: &str) -> Value {
    serde_json::from_str(run.finding(&format!("{stage} was told"))).unwrap()
}

/// Stages of the annotations, a `!` after those of failed hooks.
fn annotated(run: &Run) -> Vec<String> {
    artifact(run)["annotations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| format!("{}{}", one["stage"].as_str().unwrap(), if one["failed"] == true { "!" } else { "" }))
        .collect()
}

#[test]
fn hooks_and_passes_of_a_success_run_in_the_documented_order() {
    let run = run(&package(&[]), &[Upload::names()], &[]);
    run.assert_succeeded();
    assert_eq!(
        course(&run),
        steps(
            "on_job_start structure mapping after_mapping transform on_after_extract validate after_validate >generate before_save <generate on_job_end"
        )
    );
    assert_eq!(annotated(&run), STAGES);
    for (stage, annotation) in STAGES.iter().zip(artifact(&run)["annotations"].as_array().unwrap()) {
        assert_eq!(told(&run, stage), json!([true, null]), "{stage}");
        assert_eq!((&annotation["seen"], &annotation["hook"]), (&json!(stage), &json!(format!("hooks/{stage}.py"))));
        assert!(annotation["annotated_at"].is_string() && annotation["duration_ms"].is_u64(), "{annotation}");
    }
    assert_eq!(passes(&run), ["structure", "mapping", "transform", "validate", "generate"]);
}

/// As a start does not, see tests/image.rs: with some storage drivers such a look takes longer than all passes of a small job.
#[test]
fn a_job_looks_into_no_folder_of_the_standard_library() {
    let hook = "import sys\ndef run(**_):\n    looks = sys.path_importer_cache.items()\n    \
                return {'looked': [path for path, finder in looks if getattr(finder, '_path_mtime', -1) != -1]}\n";
    let run = run(&Package::new().hook("on_job_end", hook), &[Upload::names()], &[]);
    let looked = &artifact(&run)["annotations"][0]["looked"];
    let own =
        |path: &Value| path.as_str().is_some_and(|path| path.starts_with("/job/") || path.starts_with("/opt/ade"));
    assert!(looked.as_array().is_some_and(|paths| paths.iter().all(own)), "{looked}");
}

#[test]
fn a_hook_that_raises_fails_the_job_there_and_the_last_hook_is_told() {
    for (stage, before, done) in [
        ("on_job_start", "", 0),
        ("after_mapping", "on_job_start structure mapping", 2),
        ("on_after_extract", "on_job_start structure mapping after_mapping transform", 3),
        ("after_validate", "on_job_start structure mapping after_mapping transform on_after_extract validate", 4),
        (
            "before_save",
            "on_job_start structure mapping after_mapping transform on_after_extract validate after_validate >generate",
            4,
        ),
    ] {
        let run = run(&package(&[(stage, "raise LookupError('secret cell')")]), &[Upload::names()], &[]);
        run.assert_failed("hook_failed", &[stage, "LookupError", ":3"]);
        assert_eq!(run.code, Some(1));
        let error = &run.json["error"];
        assert_eq!(
            (&error["pass"], &error["script"], &error["function"], &error["line"]),
            (&json!(stage), &json!(format!("hooks/{stage}.py")), &json!("run"), &json!(3))
        );
        let around = if stage == "before_save" { "!generate" } else { "" };
        assert_eq!(course(&run), steps(&format!("{before} >{stage} !{stage} {around} on_job_end")), "{stage}");
        assert_eq!(told(&run, "on_job_end"), json!([false, ["hook_failed", stage]]));
        let annotated = annotated(&run);
        assert_eq!(annotated[annotated.len() - 2..], [format!("{stage}!"), "on_job_end".into()]);
        assert_eq!(passes(&run).len(), done, "{stage}: {:?}", passes(&run));
        // What was raised is for the author's eyes, in the log; the artifact has only its class.
        assert!(run.log().iter().any(|line| line.contains("secret cell")), "{:?}", run.log());
        assert!(!artifact(&run).to_string().contains("secret cell"), "{stage}");
    }
}

#[test]
fn a_last_hook_that_raises_is_recorded_and_changes_nothing() {
    let package = package(&[("on_job_end", "raise ValueError")]).hook("on_job_end", TELLS);
    let run = run(&package, &[Upload::names()], &[]);
    run.assert_succeeded();
    assert_eq!(told(&run, "on_job_end"), json!([true, null]), "the next one still runs");
    let fault = crate::records::diagnostic(&run, "runtime.hook.failed");
    assert_eq!((&fault["script"], &fault["line"]), (&json!("hooks/on_job_end.py"), &json!(3)));
    let annotated = annotated(&run);
    assert_eq!(annotated[5..], ["on_job_end!", "on_job_end"]);
}

#[test]
fn after_a_death_the_last_hook_runs_in_a_fresh_process_and_is_told_why() {
    let before = "on_job_start structure mapping >after_mapping";
    for (body, args, kind) in [
        ("time.sleep(1000)", &["--timeout-ms", "1500"][..], "timeout"),
        ("x = bytearray(1 << 30)\n    x[::4096] = b'x' * (1 << 18)", &["--memory-mb", "96"], "out_of_memory"),
        ("os._exit(0)", &[], "script_error"),
        ("os.kill(os.getpid(), 9)", &[], "script_error"),
    ] {
        let run = run(&package(&[("after_mapping", body)]), &[Upload::names()], args);
        run.assert_failed(kind, &[]);
        assert_eq!((run.code, &run.json["error"]["pass"]), (Some(1), &json!("after_mapping")), "{kind}");
        assert_eq!(told(&run, "on_job_end"), json!([false, [kind, "after_mapping"]]), "{body}");
        assert_eq!(passes(&run), ["structure", "mapping"], "{kind}: what was done is kept");
        let course = course(&run);
        let course: Vec<&String> = course.iter().filter(|step| *step != "!after_mapping").collect();
        assert_eq!(course, steps(&format!("{before} on_job_end")).iter().collect::<Vec<_>>(), "{kind}");
        assert_eq!(artifact(&run)["sheets"][0]["tables"][0]["mapping"][0]["target_field"], "name", "{kind}");
    }
}

#[test]
fn a_cancelled_job_tells_its_last_hook_and_keeps_what_was_done() {
    let package = package(&[("on_after_extract", "print('waiting', flush=True); time.sleep(1000)")]);
    // What the script prints is on disk only at the end, so on a busy machine the interrupt may have come too early.
    let interrupted_after = |patience: u64| {
        let running = start(&package, &[Upload::names()], &[]);
        running.container();
        std::thread::sleep(Duration::from_secs(patience));
        running.signal("INT");
        running.wait()
    };
    let runs = [2, 5, 15].into_iter().map(interrupted_after);
    let run = runs.into_iter().find(|run| run.log().contains(&"waiting")).expect("the hook runs within 15 seconds");
    run.assert_failed("cancelled", &[]);
    assert_eq!((run.status(), run.code), ("cancelled", Some(130)));
    assert_eq!(told(&run, "on_job_end"), json!([false, ["cancelled", "on_after_extract"]]));
    assert_eq!(passes(&run), ["structure", "mapping", "transform"]);
    assert_eq!(run.events_named("cancel").len(), 1);
}

#[test]
fn what_on_job_start_returns_is_seen_by_every_later_script_and_also_after_a_timeout() {
    let sees = |what: &str, name: &str, parameters: &str, answer: &str| {
        format!(
            "def {name}(*, job_context, {parameters}**_):\n    print('{what} sees:', job_context.get('region'), job_context.get('second'))\n    return {answer}\n"
        )
    };
    let package = Package::new()
        .hook("on_job_start", "def run(**_):\n    return {'region': 'north'}\n")
        .hook("on_job_start", "def run(*, job_context, **_):\n    return {'second': job_context['region'] + '!'}\n")
        .row_type(
            "header",
            &sees("row detector", "detect_header", "row_index, ", "{'scores': {'header': float(row_index == 1)}}"),
        )
        .column(
            "name",
            &(sees("column detector", "detect_name", "", "{'scores': {'self': 1.0}}")
                + &sees("transform", "transform", "values, ", "{'values': values}")
                + &sees("validator", "validate", "", "{'issues': []}")),
        )
        .hook("after_mapping", &sees("hook", "run", "", "None"))
        .hook("before_save", "import time\ndef run(**_):\n    time.sleep(1000)\n")
        .hook("on_job_end", &sees("last hook", "run", "", "None"));
    let run = run(&package, &[Upload::names()], &["--timeout-ms", "2500"]);
    run.assert_failed("timeout", &[]);
    for what in ["row detector", "column detector", "transform", "validator", "hook", "last hook"] {
        assert_eq!(run.finding(&format!("{what} sees")), "north north!", "{what}");
    }
}

#[test]
fn hooks_of_a_stage_run_in_the_order_of_the_manifest_and_disabled_ones_do_not() {
    let says = |word: &str| format!("def run(**_):\n    print('{word}')\n");
    let package = Package::new()
        .hook("after_mapping", &says("first"))
        .hook("after_mapping", &says("second"))
        .hook("after_mapping", &says("third"))
        .manifest(json!({"hooks": {
            "after_mapping": [{"script": "hooks/after_mapping_3.py"}, {"script": "hooks/after_mapping_2.py", "enabled": false}, {"script": "hooks/after_mapping.py"}],
            "on_activate": [{"script": "hooks/after_mapping_2.py"}],
        }}));
    let run = run(&package, &[Upload::names()], &[]);
    run.assert_succeeded();
    assert_eq!(run.log(), ["third", "first"], "and nothing of an activation in a job");
}
