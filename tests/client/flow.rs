//! What goes well.

use super::service::{Service, end, names, signal, text};
use super::support::{Package, Upload, World, ade};
use serde_json::{Value, json};
use std::process::Stdio;
use std::time::Duration;

const WHOLE: [&str; 4] = ["artifact.json", "events.ndjson", "normalized.xlsx", "run-request.json"];

fn example(path: &str) -> String {
    format!("{}/docs/examples/membership{path}", env!("CARGO_MANIFEST_DIR"))
}

fn slow() -> Package {
    Package::attacking("print('at work', flush=True); time.sleep(300)")
}

#[test]
fn from_nothing_to_a_workbook_and_back() {
    let service = Service::start();
    let config = service.json(&["config", "push", &example(""), "--config", "membership"], 0);
    assert_eq!(config["latest_version"]["version"], "v1");
    let output = service.call(&[
        "jobs",
        "submit",
        "--config",
        "membership",
        &example("/examples/roster/roster.xlsx"),
        "--wait",
        "--out",
        "out",
    ]);
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{stdout} {stderr}");
    for word in ["succeeded", "Club membership roster", "152 rows", "member_id", "queue", "normalized.xlsx"] {
        assert!(stdout.contains(word), "{word}: {stdout}");
    }
    for word in ["uploaded roster.xlsx", "structure", "mapping", "transform", "validate", "generate"] {
        assert!(stderr.contains(word), "{word}: {stderr}");
    }
    let out = service.root().join("out");
    assert_eq!(names(&out), WHOLE);

    // The same as `ade run` gives, but for ids and times.
    let mut local = ade();
    local.args(["run", "-q", "--json", &example(""), &example("/examples/roster/roster.xlsx"), "--out"]);
    let local = local.arg(service.root().join("local")).output().unwrap();
    let local: Value = serde_json::from_slice(&local.stdout).unwrap();
    let jobs = service.json(&["jobs", "list"], 0);
    let job = jobs["items"][0]["job_id"].as_str().unwrap();
    let retried = service.json(&["jobs", "retry", job, "--wait"], 0);
    assert_eq!(retried["summary"], local["summary"]);
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&retried), keys(&local));
    assert_eq!(retried["files"], json!({}));

    let record = service.json(&["jobs", "get", job], 0);
    assert_eq!((&record["status"], &record["attempt"]), (&json!("succeeded"), &json!(1)));
    assert_eq!(service.json(&["jobs", "wait", job], 0)["job_id"], job);
    let tailed = text(&service.call(&["jobs", "tail", job, "--json"]).stdout);
    assert_eq!(tailed, std::fs::read_to_string(out.join("events.ndjson")).unwrap());
    assert_eq!(text(&service.call(&["jobs", "tail", job, "-f", "--json"]).stdout), tailed);
    let last = text(&service.call(&["jobs", "tail", job, "--after", "20"]).stdout);
    assert!(last.contains("exit") && last.contains("succeeded") && last.lines().count() == 1, "{last}");

    let files = service.json(&["jobs", "download", job, "--out", "again"], 0);
    assert_eq!(names(&service.root().join("again")), WHOLE);
    assert_eq!(keys(&files["files"]).len(), 4);
    for name in WHOLE {
        let read = |folder: &str| std::fs::read(service.root().join(folder).join(name)).unwrap();
        assert!(read("out") == read("again"), "{name}");
    }
    service.json(&["jobs", "download", job, "artifact.json", "--out", "one"], 0);
    assert_eq!(names(&service.root().join("one")), ["artifact.json"]);
}

#[test]
fn documents_workspaces_keys_and_the_system() {
    let service = Service::start();
    let content: Vec<u8> = (0..5_000_000_u32).map(|number| (number % 251) as u8).collect();
    std::fs::write(service.root().join("a b.csv"), &content).unwrap();
    let uploaded = service.json(&["documents", "upload", "a b.csv"], 0);
    let (id, bytes) = (uploaded["items"][0]["document_id"].as_str().unwrap(), &uploaded["items"][0]["bytes"]);
    assert_eq!(bytes, &json!(content.len()));
    assert_eq!(service.json(&["documents", "get", id], 0)["filename"], "a b.csv");
    let existing = service.json(&["documents", "download", id], 2);
    assert_eq!(existing["error"]["kind"], "file_exists");
    service.json(&["documents", "download", id, "--out", "back.csv"], 0);
    assert!(std::fs::read(service.root().join("back.csv")).unwrap() == content);
    assert_eq!(service.json(&["documents", "list"], 0)["items"].as_array().unwrap().len(), 1);
    assert_eq!(service.json(&["documents", "delete", id], 0)["deleted"], true);
    assert_eq!(service.json(&["documents", "get", id], 2)["error"]["kind"], "document_not_found");

    let acme = service.json(&["workspaces", "create", "acme", "--title", "Acme"], 0);
    let changed = service.json(
        &[
            "workspaces", "set", "--workspace", "acme", "--weight", "7", "--max-queued", "3", "--max-running", "0",
            "--pause",
        ],
        0,
    );
    assert_eq!((&changed["weight"], &changed["max_queued"], &changed["paused"]), (&json!(7), &json!(3), &json!(true)));
    let changed = service.json(&["workspaces", "set", "--workspace", "acme", "--max-queued", "default", "--resume"], 0);
    assert_eq!(
        (&changed["weight"], &changed["max_queued"], &changed["paused"]),
        (&json!(7), &json!(null), &json!(false))
    );
    // Several workspaces: `default` is the one that is meant.
    assert_eq!(service.json(&["workspaces", "get"], 0)["slug"], "default");

    let key = service.json(
        &["keys", "create", "--name", "ci", "--role", "editor", "--expires-in-days", "2", "--workspace", "acme"],
        0,
    );
    let secret = key["key"].as_str().unwrap();
    // A key of a workspace means its own.
    let own = service.json(&["workspaces", "get", "--api-key", secret], 0);
    assert_eq!(own["workspace_id"], acme["workspace_id"]);
    assert_eq!(service.json(&["system", "status", "--api-key", secret], 2)["error"]["kind"], "forbidden");
    service.json(&["keys", "revoke", key["key_id"].as_str().unwrap(), "--workspace", "acme"], 0);
    assert_eq!(service.json(&["workspaces", "get", "--api-key", secret], 2)["error"]["kind"], "key_revoked");
    let admin = service.call(&["keys", "create", "--name", "boss", "--admin"]);
    let secret = text(&admin.stdout);
    assert!(text(&admin.stderr).contains("not shown again"));
    service.json(&["system", "status", "--api-key", secret.trim()], 0);
    assert_eq!(service.json(&["keys", "list", "--admin"], 0)["items"].as_array().unwrap().len(), 2);

    assert_eq!(service.json(&["system", "queue", "paused"], 0)["state"], "paused");
    assert_eq!(service.json(&["system", "queue", "on"], 0)["state"], "on");
    assert_eq!(service.json(&["system", "concurrency", "3"], 0), json!({"max_concurrency": 3, "stored": true}));
    assert_eq!(service.json(&["system", "concurrency", "default"], 0)["stored"], false);
    assert_eq!(service.json(&["system", "safe-mode", "on"], 0)["enabled"], true);
    assert_eq!(service.json(&["system", "safe-mode", "off"], 0)["enabled"], false);
    for args in [
        &["system", "status"][..],
        &["workspaces", "list"],
        &["keys", "list"],
        &["documents", "list"],
        &["config", "list"],
        &["jobs", "list"],
    ] {
        let output = service.call(args);
        assert_eq!(output.status.code(), Some(0), "{args:?} {}", text(&output.stderr));
        assert!(!text(&output.stdout).is_empty(), "{args:?}");
    }
}

#[test]
fn an_interrupt_ends_the_waiting_and_not_the_job() {
    let service = Service::start();
    service.register("slow", &slow());
    let mut submit = service.command(&["jobs", "submit", "--config", "slow", "in.csv", "--wait", "--out", "out"]);
    std::fs::write(service.root().join("in.csv"), "Name\nAda\n").unwrap();
    let process = submit.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let job = loop {
        let jobs = service.json(&["jobs", "list"], 0);
        if let Some(job) = jobs["items"][0]["job_id"].as_str() {
            break job.to_owned();
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    service.wait_until(&job, "running");
    signal(&process, "INT");
    let (code, stdout, stderr) = end(process);
    assert_eq!((code, stdout.as_str()), (Some(130), ""), "{stderr}");
    for word in ["stopped waiting", &job, "goes on", "ade jobs cancel"] {
        assert!(stderr.contains(word), "{word}: {stderr}");
    }
    assert!(!service.root().join("out").exists(), "no folder is left behind");
    assert_eq!(service.json(&["jobs", "get", &job], 0)["status"], "running");

    let late = service.json(&["jobs", "wait", &job, "--timeout", "1s"], 3);
    assert_eq!((&late["error"]["kind"], &late["job_id"]), (&json!("wait_timeout"), &json!(job)));
    let early = service.json(&["jobs", "retry", &job], 2);
    assert_eq!(early["error"]["kind"], "job_not_finished");
    assert_eq!(service.json(&["jobs", "download", &job], 2)["error"]["kind"], "job_not_finished");
    assert_eq!(service.json(&["jobs", "cancel", &job], 0)["status"], "cancelling");
    // It did not succeed, and nothing of this command was interrupted.
    assert_eq!(service.json(&["jobs", "wait", &job], 1)["status"], "cancelled");
    let cancelled = service.json(&["jobs", "list", "--status", "cancelled,failed", "--config", "slow"], 0);
    assert_eq!(cancelled["items"].as_array().unwrap().len(), 1);
    assert_eq!(service.json(&["jobs", "list", "--status", "succeeded"], 0)["items"], json!([]));
}

#[test]
fn a_follower_outlives_a_restart_of_the_service() {
    let mut service = Service::start();
    let package = Package::attacking("print('at work', flush=True); time.sleep(4)");
    service.register("some-time", &package);
    let job = service.submit("some-time");
    service.wait_until(&job, "running");
    let mut tail = service.command(&["jobs", "tail", &job, "-f", "--json"]);
    let process = tail.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let address = service.address();
    service.stop();
    std::thread::sleep(Duration::from_millis(500));
    service.restart(address.trim_start_matches("http://"));
    let (code, stdout, stderr) = end(process);
    assert_eq!(code, Some(0), "{stderr}");
    let events: Vec<Value> = stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (index, event) in events.iter().enumerate() {
        assert_eq!(event["seq"], json!(index + 1), "none is missed and none comes twice: {stdout}");
    }
    assert!(events.iter().any(|event| event["event"] == "requeue"), "{stdout}");
    assert_eq!(events.last().unwrap()["event"], "exit");
}

#[test]
fn what_is_given_with_a_job_comes_back_with_it() {
    let service = Service::start();
    service.register("quick", &Package::new());
    let world = World::new(&Package::new(), &[Upload::names()]);
    let input = world.inputs[0].to_str().unwrap();
    let uploaded = service.json(&["documents", "upload", input], 0);
    let document = uploaded["items"][0]["document_id"].as_str().unwrap();
    let submit = [
        "jobs", "submit", "--config", "quick", "--document", document, "--priority", "-3", "--input-hash", "h",
        "--metadata", r#"{"a":[1]}"#, "--queue-timeout", "600", "--idempotency-key", "k",
    ];
    let job = service.json(&submit, 0);
    assert_eq!((&job["priority"], &job["input_hash"], &job["metadata"]), (&json!(-3), &json!("h"), &json!({"a": [1]})));
    assert!(job["queue_deadline"].is_string());
    assert_eq!(service.json(&submit, 0)["job_id"], job["job_id"]);
    let version = job["config_version"]["config_version_id"].as_str().unwrap();
    let other = service.json(&["jobs", "submit", "--config-version", version, "--document", document, "--wait"], 0);
    assert_ne!(other["job_id"], job["job_id"]);
}

#[test]
fn the_network_policy_is_shown_and_set_and_its_audit_listed() {
    let service = Service::start();
    service.register("rosters", &Package::new());
    service.json(&["workspaces", "create", "acme"], 0);
    let set = |args: &[&str]| service.json(&[&["network", "set"][..], args].concat(), 0);
    let get = |args: &[&str]| service.json(&[&["network", "get"][..], args].concat(), 0);
    let package = ["--package", "rosters"];

    assert_eq!(set(&["--switch", "deny"])["stored"], "deny");
    assert_eq!(get(&["--instance"])["switch"], "deny");
    assert_eq!(set(&["--switch", "default"])["stored"], Value::Null);
    assert_eq!(set(&["--access", "install_only", "--workspace", "acme"])["access"], "install_only");
    assert_eq!(
        (&get(&["--workspace", "acme"])["access"], &get(&[])["access"]),
        (&json!("install_only"), &json!("inherit"))
    );

    let hosts = ["--access", "allow", "--allow-host", "API.example.com:443", "--allow-host", "*.example.org"];
    let layer = set(&[&package[..], &hosts].concat());
    assert_eq!(
        (&layer["access"], &layer["allowed_hosts"]),
        (&json!("allow"), &json!(["api.example.com:443", "*.example.org"]))
    );
    assert_eq!(layer["effective"]["manifest_asks"]["run"]["decided_by"], "package");
    // What is not named stays, and the list is set anew.
    let layer = set(&[&package[..], &["--source-builds", "on", "--allow-host", "example.net"]].concat());
    assert_eq!((&layer["access"], &layer["source_builds"]), (&json!("allow"), &json!(true)));
    assert_eq!(layer["allowed_hosts"], json!(["example.net"]));
    let id = layer["config_id"].as_str().unwrap();
    assert_eq!(set(&["--package", id, "--no-allow-hosts", "--source-builds", "off"])["allowed_hosts"], json!([]));
    assert_eq!(get(&package)["source_builds"], false);

    let shown = text(&service.call(&["network", "get", "--package", "rosters"]).stdout);
    for words in ["every public one", "asks", "does not ask", "the setting of the package allows network"] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    for (args, words) in [
        (&["network", "set"][..], "required"),
        (&["network", "set", "--package", "rosters"], "nothing_to_set"),
        (&["network", "set", "--access", "yes"], "install_only"),
        (&["network", "set", "--switch", "on"], "manifest, default"),
        (&["network", "set", "--switch", "off", "--access", "deny"], "cannot be used with"),
        (&["network", "set", "--access", "allow", "--allow-host", "example.com"], "--package"),
        (&["network", "set", "--package", "rosters", "--allow-host", "https://x.y"], "without scheme or path"),
        (&["network", "set", "--package", "nobody", "--access", "deny"], "config_not_found"),
        (&["network", "get", "--package", "rosters", "--instance"], "cannot be used with"),
    ] {
        let output = service.call(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(text(&output.stderr).contains(words), "{args:?}: {}", text(&output.stderr));
    }

    // The package was registered and the other workspace made; two of the switch, one of the other workspace, three of the package.
    let entries = |args: &[&str]| service.json(&[&["audit"][..], args].concat(), 0)["items"].as_array().unwrap().len();
    assert_eq!((entries(&[]), entries(&["--workspace", "acme"]), entries(&["--workspace", "default"])), (8, 2, 4));
    assert_eq!((entries(&["--limit", "2"]), entries(&["--after", "2999-01-01T00:00:00Z"])), (2, 0));
    assert_eq!((entries(&["--action", "network.set"]), entries(&["--action", "x"])), (6, 0));
    let listed = text(&service.call(&["audit", "--limit", "1"]).stdout);
    assert!(listed.contains("first admin") && listed.contains("source_builds: true -> false"), "{listed}");
    // A key of a workspace sees its own.
    let owner = service.json(&["keys", "create", "--name", "boss", "--role", "owner", "--workspace", "acme"], 0);
    let secret = owner["key"].as_str().unwrap();
    assert_eq!(entries(&["--api-key", secret]), 3, "and the making of the key");
    let refused = service.json(&["network", "set", "--access", "allow", "--api-key", secret], 2);
    assert_eq!(refused["error"]["kind"], "forbidden");
}

#[test]
fn the_audit_is_asked_who_did_what_and_exported_whole() {
    let service = Service::start();
    service.register("plain", &Package::new());
    let job = service.submit("plain");
    service.wait_until(&job, "succeeded");
    let shown = |args: &[&str]| -> Vec<String> {
        let listed = service.json(&[&["audit"][..], args].concat(), 0);
        listed["items"].as_array().unwrap().iter().map(|entry| entry["action"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(shown(&[]), ["job.submit", "document.upload", "config.create"]);
    assert_eq!(shown(&["--target", &job]), ["job.submit"]);
    assert_eq!(shown(&["--action", "config.create,job.submit"]), ["job.submit", "config.create"]);
    let me = service.json(&["keys", "list", "--admin"], 0)["items"][0]["key_id"].as_str().unwrap().to_owned();
    assert_eq!(shown(&["--key", &me]).len(), 3);
    assert!(shown(&["--key", &format!("key_{}", "0".repeat(26))]).is_empty());
    assert!(shown(&["--until", "2020-01-01T00:00:00Z"]).is_empty());
    let listed = text(&service.call(&["audit", "--target", &job]).stdout);
    assert!(listed.contains("job.submit") && listed.contains("config_version_id: cfgv_"), "{listed}");

    let all = service.json(&["audit"], 0)["items"].clone();
    let lines = |output: &[u8]| -> Value {
        text(output).lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect::<Vec<_>>().into()
    };
    let export = service.call(&["audit", "export"]);
    assert_eq!((export.status.code(), lines(&export.stdout)), (Some(0), all.clone()), "{}", text(&export.stderr));
    let file = service.root().join("audit.ndjson");
    let export = service.call(&["audit", "export", "--out", file.to_str().unwrap(), "--workspace", "default"]);
    assert!(export.status.success() && text(&export.stderr).contains("wrote"), "{}", text(&export.stderr));
    assert_eq!(lines(&std::fs::read(&file).unwrap()), all);
    let of_job = service.call(&["audit", "export", "--target", &job]);
    assert_eq!(lines(&of_job.stdout), json!([all[0]]));
    for (args, words) in [
        (&["audit", "--limit", "3", "export"][..], "export_has_all"),
        (&["audit", "export", "--limit", "3"], "unexpected argument"),
        (&["audit", "export", "--after", "yesterday"], "created_after"),
        (&["audit", "--key", "nobody"], "key_01"),
        (&["audit", "export", "--out", "/nowhere/x"], "/nowhere/x"),
    ] {
        let output = service.call(args);
        assert!(!output.status.success() && text(&output.stderr).contains(words), "{args:?}: {}", text(&output.stderr));
    }
}
