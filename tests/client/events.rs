//! Events for people: the timeline of a job on a service and of its log in a file, and what is said about it.

use super::service::{Service, end, object, signal, text};
use super::support::{Package, ade};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Output, Stdio};

/// Runs `ade events` with these arguments.
fn events(args: &[&str]) -> Output {
    ade().arg("events").args(args).output().unwrap()
}

fn event(seq: u64, name: &str, more: &Value) -> String {
    let mut event = json!({"ts": "2026-01-01T12:00:00.000Z", "seq": seq, "event": name, "level": "info", "job_id": "job_1", "attempt": 1, "execution": 1});
    event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    format!("{event}\n")
}

#[test]
fn a_failed_job_is_shown_and_explained_the_same_by_the_service_and_from_its_files() {
    let service = Service::start();
    let package = Package::new()
        .hook("on_job_start", "import sys\ndef run(**_):\n    print('careful', file=sys.stderr)\n")
        .hook("after_mapping", "def run(**_):\n    raise LookupError('no such region')\n");
    service.register("fails", &package);
    let job = service.submit("fails");
    service.wait_until(&job, "failed");
    service.json(&["jobs", "download", &job, "--out", "out"], 0);
    let out = service.root().join("out");
    let log = out.join("events.ndjson");
    let (out, log) = (out.to_str().unwrap(), log.to_str().unwrap());

    let shown = text(&events(&[log]).stdout);
    let tail = |args: &[&str]| text(&service.call(&[&["jobs", "tail", &job][..], args].concat()).stdout);
    assert_eq!(tail(&[]), shown, "one renderer");
    assert_eq!(tail(&["-f"]), shown);
    assert_eq!(text(&events(&[out]).stdout), shown, "a folder is as good");
    let last = shown.lines().last().unwrap();
    assert!(
        last.starts_with("error hook_failed: ")
            && last.ends_with("(hooks/after_mapping.py:2, in run, during after_mapping)"),
        "{shown}"
    );
    for phase in ["queue", "start", "run", "collect", "end"] {
        assert_eq!(
            shown.lines().filter(|line| line.get(14..).is_some_and(|rest| rest.starts_with(phase))).count(),
            1,
            "{phase}: {shown}"
        );
    }
    let after = tail(&["--after", "4", "--event", "exit"]);
    let ended = |lines: &str| {
        let line = lines.lines().find(|line| line.contains(" exit ")).unwrap();
        line.split_whitespace().next().unwrap().parse::<f64>().unwrap()
    };
    assert!((ended(&after) - ended(&shown)).abs() < 0.5, "times still count from the start: {after} {shown}");

    let whole = std::fs::read_to_string(log).unwrap();
    assert_eq!(text(&events(&[log, "--json"]).stdout), whole);
    let chosen = text(&events(&[log, "--json", "--level", "warning"]).stdout);
    assert!(
        chosen.lines().count() >= 4 && chosen.lines().all(|line| whole.lines().any(|whole| whole == line)),
        "{chosen}"
    );
    assert!(chosen.contains("careful") && !chosen.contains("pass.start"), "{chosen}");
    assert_eq!(tail(&["--json", "--level", "warning"]), chosen);
    let hook = text(&events(&[log, "--hook", "on_job_start"]).stdout);
    assert!(hook.contains("careful") && hook.lines().count() == 4, "start, line, exit, and why it failed: {hook}");

    for said in [text(&service.call(&["jobs", "explain", &job]).stdout), text(&events(&[out, "--explain"]).stdout)] {
        for words in [
            &format!("{job} failed after "),
            "hook_failed: hook hooks/after_mapping.py",
            "no such region",
            "Where the time went",
            "queue",
            "hook hooks/on_job_start.py (on_job_start)",
            "What to do\n  See the `hook.exit` event",
        ] {
            assert!(said.contains(words), "{words}: {said}");
        }
    }
    let told = service.json(&["jobs", "explain", &job], 0);
    assert_eq!(
        (&told["status"], &told["error"]["kind"], &told["job_id"]),
        (&json!("failed"), &json!("hook_failed"), &json!(job))
    );
    assert!(
        told["time"]["total_ms"].as_u64() >= told["time"]["run_ms"].as_u64() && told["time"]["run_ms"].is_u64(),
        "{told}"
    );
    let steps: Vec<&str> =
        told["slowest"].as_array().unwrap().iter().map(|step| step["name"].as_str().unwrap()).collect();
    assert!(steps.contains(&"structure") && steps.contains(&"hooks/after_mapping.py (after_mapping)"), "{steps:?}");
    assert_eq!(told["advice"].as_array().unwrap().len(), 1, "{told}");
}

#[test]
fn a_job_that_waits_is_explained_too() {
    let service = Service::start();
    service.register("plain", &Package::new());
    service.call(&["system", "queue", "paused"]);
    let job = service.submit("plain");
    let told = service.json(&["jobs", "explain", &job], 0);
    assert_eq!(told["status"], "queued");
    assert!(told["what"][0].as_str().unwrap().contains("waits; it is number 1 in the queue"), "{told}");
    assert_eq!(told["advice"], json!([]));
}

#[test]
fn a_damaged_log_is_read_as_far_as_it_goes() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("events.ndjson");
    let evil = json!({"detail": {"text": "\u{1b}]0;owned\u{7}\u{202e}"}});
    let content = format!(
        "{}not json\n\0\0\0\n{}{}\n{}{{\"ts\":\"2026",
        event(1, "start", &json!({})),
        event(2, "log", &evil),
        "x".repeat(1_100_000),
        event(3, "exit", &json!({"state": "succeeded"})),
    );
    std::fs::write(&log, &content).unwrap();
    let log = log.to_str().unwrap();
    let output = events(&[log]);
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert_eq!(stdout.lines().count(), 3, "{stdout}");
    assert!(!stdout.contains(['\u{1b}', '\u{7}', '\u{202e}']), "{stdout:?}");
    for words in ["line 2 is no event", "line 3 has NUL bytes", "line 5 has more than 1 MiB", "line 7 is cut off"] {
        assert!(stderr.contains(words), "{words}: {stderr}");
    }
    // The same from a pipe.
    let mut piped = ade()
        .args(["events", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    piped.stdin.take().unwrap().write_all(content.as_bytes()).unwrap();
    let (code, again, _) = end(piped);
    assert_eq!((code, again), (Some(0), stdout));

    let many = format!("{}{}", "garbage\n".repeat(1_000), event(1, "start", &json!({})));
    std::fs::write(log, many).unwrap();
    let stderr = text(&events(&[log]).stderr);
    assert!(stderr.lines().count() == 11 && stderr.contains("990 more damaged lines"), "{stderr}");

    std::fs::write(log, "garbage\n").unwrap();
    let said = events(&[log, "-q", "--json"]);
    assert_eq!(object(&said, 2)["error"]["kind"], "events_invalid");
    assert_eq!(object(&events(&["/nonexistent", "--json"]), 2)["error"]["kind"], "input_unreadable");
    assert_eq!(events(&[log, "--level", "loud"]).status.code(), Some(2));
}

#[test]
fn a_log_is_followed_over_rotation_until_the_job_ends() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.ndjson");
    let append = |path: &Path, text: &str| {
        File::options().append(true).create(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
    };
    append(&path, &event(1, "start", &json!({})));
    let mut process = ade()
        .args(["events", "-f", path.to_str().unwrap()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let mut next = || lines.next().unwrap().unwrap();
    assert!(next().contains("start"));
    let half = event(2, "pass.start", &json!({"detail": {"pass": "structure"}}));
    append(&path, &half[..30]);
    std::thread::sleep(std::time::Duration::from_millis(500));
    append(&path, &half[30..]);
    assert!(next().contains("structure"));
    std::fs::rename(&path, folder.path().join("old")).unwrap();
    append(&path, &event(3, "pass.start", &json!({"detail": {"pass": "mapping"}})));
    assert!(next().contains("mapping"));
    std::fs::write(&path, "").unwrap();
    std::thread::sleep(std::time::Duration::from_millis(500));
    append(&path, &event(4, "exit", &json!({"state": "succeeded"})));
    assert!(next().contains("exit"));
    assert!(lines.next().is_none());
    let output = process.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let stderr = text(&output.stderr);
    assert!(stderr.contains("another file has its name") && stderr.contains("the file was cut"), "{stderr}");

    // One that does not end is ended by Ctrl-C.
    append(&path, &event(5, "start", &json!({})));
    let mut process = ade().args(["events", "-f", path.to_str().unwrap()]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    assert!(lines.by_ref().take(2).all(|line| line.is_ok()));
    signal(&process, "INT");
    assert!(!process.wait().unwrap().success());
}

#[test]
fn colours_are_for_terminals_or_on_request() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("events.ndjson");
    std::fs::write(&log, event(1, "exit", &json!({"state": "succeeded"}))).unwrap();
    let log = log.to_str().unwrap();
    let coloured = |args: &[&str]| text(&events(&[&[log][..], args].concat()).stdout).contains('\u{1b}');
    assert!(!coloured(&[]) && coloured(&["--color", "always"]) && !coloured(&["--color=never"]));
    let no_color = ade().args(["events", log]).env("NO_COLOR", "1").env("CLICOLOR_FORCE", "1").output().unwrap();
    assert!(!text(&no_color.stdout).contains('\u{1b}'));
}
