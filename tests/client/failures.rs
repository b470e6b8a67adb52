//! What goes wrong, and what is said and left then.

use super::service::{Service, end, names, object, signal, text};
use super::support::{Package, ade};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Stdio;
use std::time::{Duration, Instant};

#[test]
fn exit_codes_tell_the_job_the_request_and_the_environment_apart() {
    let service = Service::start();
    service.register("raises", &Package::attacking("raise KeyError('x')"));
    std::fs::write(service.root().join("in.csv"), "Name\nAda\n").unwrap();
    let submit = ["jobs", "submit", "--config", "raises", "in.csv", "--wait", "--out", "out"];
    let failed = service.json(&submit, 1);
    assert_eq!((&failed["status"], &failed["error"]["kind"]), (&json!("failed"), &json!("hook_failed")));
    assert_eq!(names(&service.root().join("out")), ["artifact.json", "events.ndjson", "run-request.json"]);
    let job = failed["job_id"].as_str().unwrap();
    assert_eq!(service.json(&["jobs", "wait", job], 1)["status"], "failed");
    let people = service.call(&["jobs", "wait", job]);
    for word in ["hook_failed", "hooks/on_job_start.py", "KeyError"] {
        assert!(text(&people.stderr).contains(word), "{word}: {}", text(&people.stderr));
    }

    let unknown = "01J8Z3K4M5N6P7Q8R9S0T1V2W3";
    for (args, kind) in [
        (vec!["jobs", "get", &format!("job_{unknown}")], "job_not_found"),
        (vec!["jobs", "tail", "-f", &format!("job_{unknown}")], "job_not_found"),
        (vec!["documents", "download", &format!("doc_{unknown}")], "document_not_found"),
        (vec!["config", "get", &format!("cfg_{unknown}")], "config_not_found"),
        (vec!["config", "get", "no-such"], "config_not_found"),
        (vec!["jobs", "list", "--workspace", "no-such"], "workspace_not_found"),
        (vec!["jobs", "submit", "in.csv"], "no_active_config"),
        (vec!["jobs", "submit", "--config", "raises", "nowhere.csv"], "input_unreadable"),
        (vec!["jobs", "submit", "--config", "raises", "data"], "input_unreadable"),
        (vec!["jobs", "download", job, "nowhere.txt"], "not_found"),
        (vec!["config", "push", "data", "--config", "x"], "package_invalid"),
        (vec!["config", "clone", "raises", "raises"], "slug_taken"),
        (vec!["jobs", "list", "--api-key", "nonsense"], "unauthorized"),
        (vec!["jobs", "list", "--server", "nonsense"], "server_invalid"),
        (vec!["jobs", "list", "--server", "https://ade.example.org"], "no_api_key"),
    ] {
        let said = service.json(&args, 2);
        assert_eq!(said["error"]["kind"], kind, "{said}");
        assert!(said["error"]["message"].is_string(), "{said}");
    }
    let people = service.call(&["jobs", "list", "--api-key", "nonsense"]);
    for word in ["error[unauthorized]", "ADE_API_KEY", "admin-key", "request 0"] {
        assert!(text(&people.stderr).contains(word), "{word}: {}", text(&people.stderr));
    }
    let people = service.call(&["workspaces", "set", "--weight", "0"]);
    assert!(text(&people.stderr).contains("at /weight: must be from 1"), "{}", text(&people.stderr));
    for args in [
        &["jobs", "get", "job_1"][..],
        &["jobs", "submit"],
        &["jobs", "wait", job, "--timeout", "soon"],
        &["keys", "create", "--name", "x"],
    ] {
        assert_eq!(service.call(args).status.code(), Some(2), "{args:?}");
    }
    let nowhere = service.json(&["jobs", "list", "--server", "http://127.0.0.1:1"], 3);
    assert_eq!(nowhere["error"]["kind"], "server_unreachable");
    assert!(nowhere["error"]["message"].as_str().unwrap().contains("ade serve"));
    let without_key =
        object(&ade().args(["jobs", "list", "--json", "--data-dir", "/nonexistent"]).output().unwrap(), 2);
    assert_eq!(without_key["error"]["kind"], "no_api_key");
}

#[test]
fn forms_may_be_as_large_as_raw_bodies() {
    let service = Service::start();
    // Random bytes do not shrink in a zip.
    let mut random = vec![0; 3_000_000];
    std::fs::File::open("/dev/urandom").unwrap().read_exact(&mut random).unwrap();
    let name = "resources/table.bin";
    let package = Package::new().file(name, &random);
    service.register("large", &package);
}

/// A service that gives these answers to the requests that it gets, by the end of their path; the first that fits, and where
/// several do, each once. After an answer that ends in `HOLD` the connection stays open.
fn pretend(mut answers: Vec<(&'static str, Vec<u8>)>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let (mut request, mut byte) = (Vec::new(), [0]);
            while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) > 0 {
                request.push(byte[0]);
            }
            let head = String::from_utf8_lossy(&request).into_owned();
            let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
            let fitting: Vec<usize> = (0..answers.len()).filter(|index| path.ends_with(answers[*index].0)).collect();
            let answer = match fitting[..] {
                [] => b"HTTP/1.1 418 x\r\ncontent-length: 0\r\n\r\n".to_vec(),
                [only] => answers[only].1.clone(),
                [first, ..] => answers.remove(first).1,
            };
            stream.write_all(&answer).ok();
            if answer.ends_with(b"HOLD") {
                std::mem::forget(stream);
            }
        }
    });
    address
}

fn answer(body: &Value) -> Vec<u8> {
    let body = body.to_string();
    format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

#[test]
fn a_download_that_breaks_off_or_is_not_what_it_should_be_leaves_nothing() {
    let job = "job_01J8Z3K4M5N6P7Q8R9S0T1V2W3";
    let sha256 = "0".repeat(64);
    let outputs = json!({"items": [
        {"name": "artifact.json", "bytes": 2, "sha256": sha256, "uri": "/x"},
        {"name": "normalized.xlsx", "bytes": 100, "sha256": sha256, "uri": "/x"},
    ]});
    let address = pretend(vec![
        ("/outputs", answer(&outputs)),
        ("/outputs/artifact.json", answer(&json!({}))),
        ("/outputs/normalized.xlsx", b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nPK-half".to_vec()),
    ]);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("artifact.json"), "mine").unwrap();
    let download = |name: &str| {
        let mut command = ade();
        command.args(["jobs", "download", job, name, "--json", "--workspace", "w", "--server", &address]);
        object(&command.args(["--api-key", "ade_x", "--out"]).arg(folder.path()).output().unwrap(), 3)
    };
    assert_eq!(download("artifact.json")["error"]["kind"], "hash_mismatch");
    assert_eq!(download("normalized.xlsx")["error"]["kind"], "connection_lost");
    assert_eq!(names(folder.path()), ["artifact.json"]);
    assert_eq!(std::fs::read_to_string(folder.path().join("artifact.json")).unwrap(), "mine");
}

#[test]
fn an_interrupted_download_leaves_nothing() {
    let outputs = json!({"items": [{"name": "normalized.xlsx", "bytes": 100, "sha256": "0".repeat(64), "uri": "/x"}]});
    let half = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nPK-HOLD".to_vec();
    let address = pretend(vec![("/outputs", answer(&outputs)), ("/normalized.xlsx", half)]);
    let folder = tempfile::tempdir().unwrap();
    let mut command = ade();
    command.args(["jobs", "download", "job_01J8Z3K4M5N6P7Q8R9S0T1V2W3", "--workspace", "w", "--server", &address]);
    command.args(["--api-key", "ade_x", "--out"]).arg(folder.path());
    let process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    while names(folder.path()).is_empty() {
        std::thread::sleep(Duration::from_millis(10));
    }
    signal(&process, "INT");
    let (code, stdout, stderr) = end(process);
    assert_eq!((code, stdout.as_str()), (Some(130), ""), "{stderr}");
    assert!(names(folder.path()).is_empty());
}

#[test]
fn a_submission_is_tried_again_when_the_service_says_so() {
    let refusal = |status: &str, code: &str, more: &str| {
        let body = json!({"type": "/x", "title": "x", "status": status[..3].parse::<u16>().unwrap(), "code": code})
            .to_string();
        let length = body.len();
        format!("HTTP/1.1 {status}\r\nconnection: close\r\n{more}content-length: {length}\r\n\r\n{body}").into_bytes()
    };
    let answers = || {
        vec![
            ("/jobs", refusal("429 x", "queue_full", "retry-after: 1\r\n")),
            ("/jobs", refusal("503 x", "draining", "retry-after: 1\r\n")),
            ("/jobs", refusal("503 x", "safe_mode", "")),
        ]
    };
    let submit = |patience: &str| {
        let mut command = ade();
        command.args(["jobs", "submit", "--document", "doc_01J8Z3K4M5N6P7Q8R9S0T1V2W3", "--retry-for", patience]);
        let address = pretend(answers());
        command.args(["--workspace", "w", "--server", &address, "--api-key", "ade_x"]).output().unwrap()
    };
    let began = Instant::now();
    let patient = submit("1m");
    let stderr = text(&patient.stderr);
    assert_eq!((patient.status.code(), stderr.matches("trying again in 1 s").count()), (Some(3), 2), "{stderr}");
    assert!(stderr.contains("error[safe_mode]") && began.elapsed() >= Duration::from_secs(2), "{stderr}");
    let hasty = submit("0");
    assert_eq!(hasty.status.code(), Some(2));
    assert!(text(&hasty.stderr).contains("error[queue_full]"), "{}", text(&hasty.stderr));
}

#[test]
fn a_name_that_leads_out_of_the_folder_is_not_followed() {
    let outputs = json!({"items": [{"name": "../evil", "bytes": 2, "sha256": "0".repeat(64), "uri": "/x"}]});
    let address = pretend(vec![("/outputs", answer(&outputs)), ("evil", answer(&json!({})))]);
    let folder = tempfile::tempdir().unwrap();
    let mut command = ade();
    command.args([
        "jobs", "download", "job_01J8Z3K4M5N6P7Q8R9S0T1V2W3", "--json", "--workspace", "w", "--server", &address,
    ]);
    let said =
        object(&command.args(["--api-key", "ade_x", "--out"]).arg(folder.path().join("out")).output().unwrap(), 3);
    assert_eq!(said["error"]["kind"], "unexpected_answer");
    assert!(names(folder.path()).is_empty());
}

#[test]
fn something_else_that_answers_is_no_service() {
    let address = pretend(vec![]);
    let output = ade().args(["jobs", "list", "--json", "--server", &address, "--api-key", "ade_x"]).output().unwrap();
    let said = object(&output, 3);
    assert_eq!(said["error"]["kind"], "unexpected_answer");
    assert!(said["error"]["message"].as_str().unwrap().contains("418"), "{said}");
}
