//! The queue's bounds and switches: what is refused, what waits, and what an admin can change while everything runs.

use crate::support::Package;
use crate::support::server::{Server, eventually, ids, shared};
use serde_json::json;
use std::time::Duration;

const SLEEP: &str = "time.sleep(120)";

#[test]
fn a_full_workspace_refuses_with_when_to_come_back_and_stores_nothing() {
    let server = shared();
    let tenant = server.tenant();
    tenant.admin.patch(&tenant.base).json(&json!({"paused": true, "max_queued": 2})).send().expect(200);
    let (config, document) = (tenant.config(&Package::new()), tenant.names());
    let submit = |hash: &str| {
        tenant.submit(&json!({"config_version_id": config.version, "document_id": document, "input_hash": hash}))
    };
    submit("a").expect(202);
    submit("b").expect(202);
    let before = tenant.jobs();
    let answer = submit("c");
    let problem = answer.problem(429, "queue_full");
    assert_eq!(answer.header("retry-after"), Some(problem["retry_after"].to_string().as_str()));
    assert!((1..=3600).contains(&problem["retry_after"].as_i64().unwrap()), "{problem}");
    for (member, value) in
        [("queue_size", json!(2)), ("max_size", json!(2)), ("max_concurrency", json!(3)), ("scope", json!("workspace"))]
    {
        assert_eq!(problem[member], value, "{member}");
    }
    assert_eq!(tenant.jobs(), before);
    submit("a").expect(202);
    assert_eq!(tenant.jobs(), before, "a twin needs no room");
    tenant.editor.post(tenant.path(&format!("/jobs/{}/cancel", before[0]))).send().expect(202);
    submit("c").expect(202);
    // A neighbour has room.
    let neighbour = server.tenant();
    neighbour.pause(true);
    neighbour.job(&neighbour.config(&Package::new()), &neighbour.names());
}

#[test]
fn a_full_instance_refuses_every_workspace_and_retries_too() {
    let server = Server::start(&["--queue-size", "1"]);
    let tenant = server.tenant();
    let job = tenant.finished();
    server.queue("paused");
    let neighbour = server.tenant();
    let (config, document) = (neighbour.config(&Package::new()), neighbour.names());
    let waiting = neighbour.job(&config, &document);
    let answer = tenant.editor.post(tenant.path(&format!("/jobs/{job}/retry"))).send();
    assert_eq!(answer.problem(429, "queue_full")["scope"], "instance");
    assert_eq!(tenant.jobs(), [job.as_str()]);
    server.admin.put("/api/v1/system/queue").json(&json!({"max_queued": 2})).send().expect(200);
    tenant.editor.post(tenant.path(&format!("/jobs/{job}/retry"))).send().expect(202);
    server.admin.put("/api/v1/system/queue").json(&json!({"max_queued": null})).send().expect(200);
    let status = server.admin.get("/api/v1/system/queue").send().expect(200).json();
    assert_eq!(status, json!({"state": "paused", "queued": 2, "running": 0, "max_queued": 1}));
    assert_eq!(neighbour.record(&waiting)["queue_position"], 1);
}

#[test]
fn a_paused_queue_accepts_and_waits_and_an_off_one_refuses() {
    let server = Server::start(&[]);
    let tenant = server.tenant();
    let (config, document) = (tenant.config(&Package::new()), tenant.names());
    let submit = |hash: &str| {
        tenant.submit(&json!({"config_version_id": config.version, "document_id": document, "input_hash": hash}))
    };
    server.queue("paused");
    let first = submit("a").expect(202).json();
    assert_eq!(server.status()["queue"]["queued"], 1);
    server.queue("off");
    submit("b").problem(503, "queue_off");
    server.admin.put("/api/v1/system/safe-mode").json(&json!({"enabled": true})).send().expect(200);
    submit("b").problem(503, "safe_mode");
    let job = first["job_id"].as_str().unwrap();
    tenant.editor.post(tenant.path(&format!("/jobs/{job}/retry"))).send().problem(409, "job_not_finished");
    server.queue("on");
    submit("b").problem(503, "safe_mode");
    assert_eq!(tenant.record(job)["status"], "queued", "safe mode hands nothing out");
    assert_eq!(tenant.jobs(), [job]);
    server.admin.put("/api/v1/system/safe-mode").json(&json!({"enabled": false})).send().expect(200);
    assert_eq!(tenant.end(job)["status"], "succeeded", "it goes on with what had waited");
}

#[test]
fn what_the_settings_turn_off_no_request_turns_on() {
    let mut server = Server::start(&["--safe-mode"]);
    let tenant = server.tenant();
    let body = json!({"config_version_id": tenant.config(&Package::new()).version, "document_id": tenant.names()});
    tenant.submit(&body).problem(503, "safe_mode");
    let still = server.admin.put("/api/v1/system/safe-mode").json(&json!({"enabled": false})).send().expect(200);
    assert_eq!(still.json(), json!({"enabled": true}));
    tenant.submit(&body).problem(503, "safe_mode");
    server.restart(&["--queue", "off"]);
    let tenant = crate::support::server::Tenant { editor: server.admin.clone(), ..tenant };
    tenant.submit(&body).problem(503, "queue_off");
}

#[test]
fn concurrency_changes_at_run_time_and_is_kept_over_a_restart() {
    let mut server = Server::start(&["--max-concurrency", "1"]);
    let tenant = server.tenant();
    let (config, document) = (tenant.config(&Package::attacking(SLEEP)), tenant.names());
    for hash in ["a", "b", "c"] {
        let body = json!({"config_version_id": config.version, "document_id": document, "input_hash": hash});
        tenant.submit(&body).expect(202);
    }
    let running = |count: usize| {
        let page = server.admin.get(tenant.path("/jobs?status=running")).send().expect(200).json();
        ids(&page, "job_id").len() == count
    };
    eventually("one runs", || running(1));
    let set = server.admin.put("/api/v1/system/concurrency").json(&json!({"max_concurrency": 2})).send().expect(200);
    assert_eq!(set.json()["max_concurrency"], 2);
    eventually("two run", || running(2));
    // Above the bound nothing is claimed, however long one looks; this looks for as long as a claim took just now, and more.
    std::thread::sleep(Duration::from_millis(500));
    assert!(running(2));
    for state in ["queued", "running"] {
        let page = server.admin.get(tenant.path(&format!("/jobs?status={state}"))).send().expect(200).json();
        for job in ids(&page, "job_id") {
            server.admin.post(tenant.path(&format!("/jobs/{job}/cancel"))).send();
        }
    }
    eventually("all are cancelled", || {
        let page = server.admin.get(tenant.path("/jobs?status=cancelled")).send().expect(200).json();
        ids(&page, "job_id").len() == 3
    });
    server.admin.put("/api/v1/system/concurrency").json(&json!({"max_concurrency": 0})).send().expect(200);
    server.restart(&["--max-concurrency", "1"]);
    let kept = server.admin.get("/api/v1/system/concurrency").send().expect(200).json();
    assert_eq!(kept["max_concurrency"], 0, "{kept}");
    for wrong in [json!({"max_concurrency": -1}), json!({"max_concurrency": 10_001}), json!({"max_concurrency": 1.5})] {
        server.admin.put("/api/v1/system/concurrency").json(&wrong).send().problem(400, "invalid_body");
    }
    let reset = server.admin.put("/api/v1/system/concurrency").json(&json!({"max_concurrency": null})).send();
    assert_eq!(reset.expect(200).json()["max_concurrency"], 1, "null goes back to the setting");
}
