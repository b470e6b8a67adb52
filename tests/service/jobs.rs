//! Submitting, repeating, retrying and cancelling, on both databases.

use crate::schema;
use crate::support::server::{Server, eventually, shared, shared_on_postgres};
use crate::support::{Docker, Package};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Runs every test on both databases.
macro_rules! on_both {
    ($($(#[$meta:meta])* fn $name:ident($server:ident: &Server) $body:block)+) => {
        $(#[track_caller] fn $name($server: &Server) $body)+
        mod sqlite { $(#[test] fn $name() { super::$name(&super::shared()); })+ }
        mod postgres { $(#[test] fn $name() { super::$name(&super::shared_on_postgres()); })+ }
    };
}

/// A script that says that it was the last, and one that takes its time.
fn slow() -> Package {
    Package::attacking("print('begun'); time.sleep(120)")
        .hook("on_job_end", "def run(**_):\n    print('the last hook')\n")
}

on_both! {
    fn a_submitted_job_is_accepted_with_its_place_and_its_record_and_runs(server: &Server) {
        let tenant = server.tenant();
        let (config, document) = (tenant.config(&Package::new()), tenant.names());
        let body = json!({"config_version_id": config.version, "document_ids": [document], "metadata": {"row": "§1"}, "priority": 3});
        let answer = tenant.submit(&body).expect(202);
        let record = answer.json();
        let id = record["job_id"].as_str().unwrap();
        let place = tenant.path(&format!("/jobs/{id}"));
        assert_eq!(answer.header("location"), Some(place.as_str()));
        assert!(answer.header("etag").is_some());
        for (member, value) in [
            ("status", json!("queued")), ("attempt", json!(1)), ("execution", json!(0)), ("workspace_id", json!(tenant.id)),
            ("document_ids", json!([document])), ("metadata", json!({"row": "§1"})), ("priority", json!(3)),
            ("retry_of_job_id", Value::Null), ("error", Value::Null), ("started_at", Value::Null),
        ] {
            assert_eq!(record[member], value, "{member} in {record:#}");
        }
        let record = tenant.end(id);
        assert_eq!(record["status"], "succeeded", "{record:#}");
        assert_eq!((&record["execution"], &record["phase"]), (&json!(1), &Value::Null));
        assert_eq!(record["config_version"]["version"], "v1");
        for (member, route) in [("artifact_uri", "artifact"), ("output_uri", "output"), ("run_request_uri", "run-request"), ("logs_uri", "events")] {
            assert_eq!(record[member], format!("{place}/{route}"), "{member}");
            tenant.viewer.get(record[member].as_str().unwrap()).send().expect(200);
        }
        for (member, of) in [("usage", "run_ms"), ("usage", "cpu_ms"), ("usage", "peak_memory_bytes"), ("timings", "total_ms"), ("timings", "queue_ms")] {
            assert!(record[member][of].is_u64(), "{member}.{of} in {record:#}");
        }
        for time in ["queued_at", "started_at", "completed_at", "last_heartbeat"] {
            assert!(record[time].as_str().is_some_and(|time| time.ends_with('Z')), "{time} in {record:#}");
        }
        schema::assert_valid("JobRecord", &record);
    }

    fn a_job_names_its_package_by_version_by_config_or_not_at_all(server: &Server) {
        let tenant = server.tenant();
        tenant.pause(true);
        let (config, other, document) = (tenant.config(&Package::new()), tenant.config(&Package::new()), tenant.names());
        tenant.submit(&json!({"document_id": document})).problem(400, "no_active_config");
        let by_config = tenant.submit(&json!({"config_id": config.config, "document_id": document})).expect(202).json();
        assert_eq!(by_config["config_version"]["config_version_id"], config.version);
        let mixed = json!({"config_id": other.config, "config_version_id": config.version, "document_id": document});
        assert_eq!(tenant.submit(&mixed).problem(400, "invalid_body")["errors"][0]["pointer"], "/config_version_id");
        for (member, id, code) in [
            ("config_version_id", "cfgv_00000000000000000000000000", "version_not_found"),
            ("config_id", "cfg_00000000000000000000000000", "config_not_found"),
        ] {
            tenant.submit(&json!({member: id, "document_id": document})).problem(404, code);
        }
        assert_eq!(tenant.jobs().len(), 1, "what was refused is not stored");
    }

    fn a_job_needs_documents_that_are_there(server: &Server) {
        let tenant = server.tenant();
        let (config, document) = (tenant.config(&Package::new()), tenant.names());
        let with = |documents: Value| tenant.submit(&json!({"config_version_id": config.version, "document_ids": documents}));
        assert_eq!(with(json!([])).problem(400, "documents_required")["errors"][0]["pointer"], "/document_ids");
        let unknown = "doc_00000000000000000000000000";
        assert_eq!(with(json!([document, unknown])).problem(404, "document_not_found")["errors"][0]["pointer"], "/document_ids/1");
        assert_eq!(with(json!([document, "x"])).problem(400, "invalid_body")["errors"][0]["pointer"], "/document_ids/1");
        let one = json!({"config_version_id": config.version, "document_id": unknown});
        assert_eq!(tenant.submit(&one).problem(404, "document_not_found")["errors"][0]["pointer"], "/document_id");
        tenant.editor.delete(tenant.path(&format!("/documents/{document}"))).send().expect(204);
        with(json!([document])).problem(404, "document_not_found");
        assert!(tenant.jobs().is_empty());
    }

    fn the_same_work_is_one_job_until_it_has_failed(server: &Server) {
        let tenant = server.tenant();
        let (config, document) = (tenant.config(&Package::new()), tenant.names());
        // Another document of the same content is the same work.
        let twin = tenant.document("other-name.csv", "Name\nAda Lovelace\nGrace Hopper\n");
        let job = tenant.job(&config, &document);
        assert_eq!(tenant.job(&config, &twin), job);
        tenant.end(&job);
        assert_eq!(tenant.job(&config, &document), job, "also when it has succeeded");
        let named = |hash: &str| tenant.submit(&json!({"config_version_id": config.version, "document_id": document, "input_hash": hash})).expect(202).json();
        let other = named("mine");
        assert_ne!(other["job_id"], job);
        assert_eq!(other["input_hash"], "mine");
        assert_eq!(named("mine")["job_id"], other["job_id"]);

        let failing = tenant.config(&Package::attacking("raise ValueError('no')"));
        let failed = tenant.job(&failing, &document);
        assert_eq!(tenant.end(&failed)["status"], "failed");
        assert_ne!(tenant.job(&failing, &document), failed, "a failed job is no answer");
    }

    fn twins_at_the_same_moment_are_one_job(server: &Server) {
        let tenant = server.tenant();
        tenant.pause(true);
        let (config, document) = (tenant.config(&Package::new()), tenant.names());
        let all: BTreeSet<String> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..16).map(|_| scope.spawn(|| tenant.job(&config, &document))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(all.len(), 1);
        assert_eq!(tenant.jobs().len(), 1);
    }

    fn an_idempotency_key_gives_the_same_job_again_and_refuses_another_request(server: &Server) {
        let tenant = server.tenant();
        tenant.pause(true);
        let (config, document) = (tenant.config(&Package::new()), tenant.names());
        let send = |key: &str, hash: &str| {
            let body = json!({"config_version_id": config.version, "document_id": document, "input_hash": hash});
            tenant.editor.post(tenant.path("/jobs")).header("Idempotency-Key", key).json(&body).send()
        };
        let first = send("one", "a").expect(202);
        let again = send("one", "a").expect(202);
        assert_eq!(first.json()["job_id"], again.json()["job_id"]);
        assert_eq!(first.header("location"), again.header("location"));
        send("one", "b").problem(422, "idempotency_mismatch");
        assert_eq!(tenant.jobs().len(), 1);
        for wrong in ["", &"x".repeat(256)] {
            send(wrong, "a").problem(400, "invalid_parameter");
        }
        // Keys are a workspace's own.
        let neighbour = server.tenant();
        let (theirs, document) = (neighbour.config(&Package::new()), neighbour.names());
        let body = json!({"config_version_id": theirs.version, "document_id": document});
        neighbour.editor.post(neighbour.path("/jobs")).header("Idempotency-Key", "one").json(&body).send().expect(202);
        // A key whose answer was a twin is remembered as well.
        send("two", "a").expect(202);
        send("two", "c").problem(422, "idempotency_mismatch");
    }

    fn an_idempotency_key_outlives_what_the_request_named(server: &Server) {
        let tenant = server.tenant();
        let (config, document) = (tenant.config(&Package::new()), tenant.names());
        let body = json!({"config_version_id": config.version, "document_id": document});
        let send = || tenant.editor.post(tenant.path("/jobs")).header("Idempotency-Key", "kept").json(&body).send();
        let job = send().expect(202).json()["job_id"].as_str().unwrap().to_owned();
        tenant.end(&job);
        tenant.editor.delete(tenant.path(&format!("/documents/{document}"))).send().expect(204);
        let again = send().expect(202).json();
        assert_eq!((&again["job_id"], &again["status"]), (&json!(job), &json!("succeeded")));
    }

    fn an_idempotency_key_at_the_same_moment_is_one_job_or_in_progress(server: &Server) {
        let tenant = server.tenant();
        tenant.pause(true);
        let (config, document) = (tenant.config(&Package::new()), tenant.names());
        for round in 0..5 {
            let key = format!("round-{round}");
            let body = json!({"config_version_id": config.version, "document_id": document, "input_hash": key});
            std::thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| {
                        let answer = tenant.editor.post(tenant.path("/jobs")).header("Idempotency-Key", &key).json(&body).send();
                        if answer.status != 202 {
                            answer.problem(409, "idempotency_in_progress");
                        }
                    });
                }
            });
        }
        assert_eq!(tenant.jobs().len(), 5);
    }

    fn a_retry_is_a_new_job_of_the_same_work(server: &Server) {
        let tenant = server.tenant();
        let (config, document) = (tenant.config(&Package::attacking("raise ValueError('no')")), tenant.names());
        let body = json!({"config_version_id": config.version, "document_id": document, "metadata": {"a": 1}, "priority": -2});
        let first = tenant.submit(&body).expect(202).json();
        let id = first["job_id"].as_str().unwrap();
        tenant.end(id);
        let answer = tenant.editor.post(tenant.path(&format!("/jobs/{id}/retry"))).send().expect(202);
        let second = answer.json();
        let new = second["job_id"].as_str().unwrap();
        assert_ne!(new, id);
        assert_eq!(answer.header("location"), Some(tenant.path(&format!("/jobs/{new}")).as_str()));
        assert_eq!((&second["attempt"], &second["retry_of_job_id"], &second["status"]), (&json!(2), &json!(id), &json!("queued")));
        for same in ["document_ids", "input_hash", "config_version", "metadata", "priority"] {
            assert_eq!(second[same], first[same], "{same}");
        }
        tenant.end(new);
        let third = tenant.editor.post(tenant.path(&format!("/jobs/{new}/retry"))).send().expect(202).json();
        assert_eq!((&third["attempt"], &third["retry_of_job_id"]), (&json!(3), &json!(new)));
        let log = tenant.viewer.get(tenant.path(&format!("/jobs/{new}/events"))).send().expect(200).text();
        assert_eq!(log.lines().take(2).map(|line| serde_json::from_str::<Value>(line).unwrap()["event"].clone()).collect::<Vec<_>>(), ["enqueue", "retry"]);
        tenant.end(third["job_id"].as_str().unwrap());
    }

    fn an_answer_with_a_job_that_was_there_before_says_so(server: &Server) {
        let tenant = server.tenant();
        let (config, document) = (tenant.config(&Package::new()), tenant.names());
        let body = json!({"config_version_id": config.version, "document_id": document});
        let submit = |key: &str| tenant.editor.post(tenant.path("/jobs")).header("Idempotency-Key", key).json(&body).send().expect(202);
        let new = submit("a");
        assert_eq!(new.header("idempotency-replayed"), None);
        for again in [submit("a"), submit("b"), tenant.submit(&body).expect(202)] {
            assert_eq!(again.header("idempotency-replayed"), Some("true"));
            assert_eq!(again.json()["job_id"], new.json()["job_id"]);
        }
        tenant.end(new.json()["job_id"].as_str().unwrap());
        assert_eq!(submit("a").header("idempotency-replayed"), Some("true"));
    }

    fn two_who_retry_a_job_at_the_same_moment_get_the_same_next_attempt(server: &Server) {
        let tenant = server.tenant();
        let job = tenant.finished();
        tenant.pause(true);
        let retry = || tenant.editor.post(tenant.path(&format!("/jobs/{job}/retry"))).send().expect(202);
        let answers: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..6).map(|_| scope.spawn(retry)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(answers.iter().filter(|answer| answer.header("idempotency-replayed").is_none()).count(), 1);
        for answer in &answers {
            let record = answer.json();
            assert_eq!((&record["job_id"], &record["attempt"], &record["retry_of_job_id"]), (&answers[0].json()["job_id"], &json!(2), &json!(job)));
        }
        assert_eq!(tenant.jobs().len(), 2);
        tenant.pause(false);
        tenant.end(answers[0].json()["job_id"].as_str().unwrap());
        let third = retry();
        assert_eq!((third.header("idempotency-replayed"), &third.json()["attempt"]), (None, &json!(3)));
        tenant.end(third.json()["job_id"].as_str().unwrap());
    }

    fn the_list_of_files_has_size_and_hash_of_all_once_the_log_is_stored(server: &Server) {
        let tenant = server.tenant();
        let job = tenant.finished();
        let log = || {
            let outputs = tenant.viewer.get(tenant.path(&format!("/jobs/{job}/outputs"))).send().expect(200).json();
            let items = outputs["items"].as_array().unwrap().clone();
            items.into_iter().find(|item| item["name"] == "events.ndjson").unwrap()
        };
        let began = Instant::now();
        while log()["sha256"].is_null() {
            assert!(began.elapsed() < Duration::from_secs(15), "{:#}", log());
            std::thread::sleep(Duration::from_millis(50));
        }
        let (log, text) = (log(), tenant.viewer.get(tenant.path(&format!("/jobs/{job}/events"))).send().expect(200).text());
        assert_eq!((&log["bytes"], &log["sha256"]), (&json!(text.len()), &json!(format!("{:x}", Sha256::digest(&text)))));
    }

    fn a_waiting_job_is_cancelled_at_once(server: &Server) {
        let tenant = server.tenant();
        tenant.pause(true);
        let job = tenant.job(&tenant.config(&Package::new()), &tenant.names());
        let cancel = || tenant.editor.post(tenant.path(&format!("/jobs/{job}/cancel"))).send();
        for _ in 0..2 {
            let record = cancel().expect(202).json();
            assert_eq!((&record["status"], &record["error"]["kind"], &record["execution"]), (&json!("cancelled"), &json!("cancelled"), &json!(0)));
        }
        assert!(tenant.record(&job).get("queue_position").is_none());
        let workspace = tenant.viewer.get(&tenant.base).send().expect(200).json();
        assert_eq!((&workspace["queued"], &workspace["running"]), (&json!(0), &json!(0)));
    }

    fn a_running_job_is_cancelled_within_the_grace_time_and_its_last_hook_runs(server: &Server) {
        let tenant = server.tenant();
        let job = tenant.job(&tenant.config(&slow()), &tenant.names());
        tenant.running(&job);
        let docker = Docker::connect();
        eventually("its container has its name", || docker.containers_of(&job).len() == 1);
        let began = Instant::now();
        let cancel = || tenant.editor.post(tenant.path(&format!("/jobs/{job}/cancel"))).send();
        assert_eq!(cancel().expect(202).json()["status"], "cancelling");
        cancel().expect(202);
        tenant.editor.post(tenant.path(&format!("/jobs/{job}/retry"))).send().problem(409, "job_not_finished");
        let record = tenant.end(&job);
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
        assert_eq!((&record["status"], &record["error"]["kind"]), (&json!("cancelled"), &json!("cancelled")), "{record:#}");
        assert_eq!(record["error_message"], record["error"]["message"]);
        eventually("its container is gone", || docker.containers_of(&job).is_empty());
        let log = tenant.viewer.get(tenant.path(&format!("/jobs/{job}/events"))).send().expect(200).text();
        assert!(log.contains("the last hook"), "{log}");
        tenant.viewer.get(tenant.path(&format!("/jobs/{job}/output"))).send().problem(404, "not_found");
        tenant.viewer.get(tenant.path(&format!("/jobs/{job}/artifact"))).send().expect(200);
        cancel().expect(202);
    }

    fn a_job_that_fails_says_why_and_keeps_its_artifact(server: &Server) {
        let tenant = server.tenant();
        let document = tenant.names();
        let limits = json!({"engine": {"defaults": {"timeout_ms": 1500, "memory_mb": 96}}});
        for (package, kind) in [
            (Package::attacking("raise ValueError('no')"), "hook_failed"),
            (Package::attacking("time.sleep(60)").manifest(limits.clone()), "timeout"),
            (Package::attacking("x = bytearray(1 << 30)\nfor i in range(0, 1 << 30, 4096): x[i] = 1").manifest(limits.clone()), "out_of_memory"),
        ] {
            let job = tenant.job(&tenant.config(&package), &document);
            let record = tenant.end(&job);
            assert_eq!((&record["status"], &record["error"]["kind"]), (&json!("failed"), &json!(kind)), "{record:#}");
            assert_eq!(record["error_message"], record["error"]["message"]);
            assert!(record["output_uri"].is_null(), "{record:#}");
            let artifact = tenant.viewer.get(record["artifact_uri"].as_str().unwrap()).send().expect(200).json();
            schema::assert_artifact(&artifact);
            assert_eq!(artifact["job"]["error"]["kind"], kind);
        }
    }
}

#[test]
fn another_version_is_other_work() {
    let server = shared();
    let tenant = server.tenant();
    tenant.pause(true);
    let (first, second, document) = (
        tenant.config(&Package::new()),
        tenant.config(&Package::new().manifest(json!({"info": {"version": "2.0.0"}}))),
        tenant.names(),
    );
    let job = tenant.job(&first, &document);
    assert_ne!(tenant.job(&second, &document), job);
}

#[test]
fn bounds_of_a_submission_are_named_with_their_pointer() {
    let server = shared();
    let tenant = server.tenant();
    let (config, document) = (tenant.config(&Package::new()), tenant.names());
    for (member, value) in [
        ("priority", json!(11)),
        ("priority", json!(-11)),
        ("queue_timeout_seconds", json!(0)),
        ("queue_timeout_seconds", json!(2_592_001)),
        ("input_hash", json!("")),
        ("input_hash", json!("x".repeat(256))),
        ("input_hash", json!("nul \u{0}")),
        ("metadata", json!({"x": "y".repeat(17_000)})),
        ("document_id", json!(document)),
        ("priority", json!("high")),
        ("metadata", json!([])),
    ] {
        let mut body = json!({"config_version_id": config.version, "document_ids": [document]});
        body[member] = value.clone();
        let problem = tenant.submit(&body).problem(400, "invalid_body");
        assert_eq!(problem["errors"][0]["pointer"], format!("/{member}"), "{value}");
    }
    let many = vec![document; 10_000];
    let body = json!({"config_version_id": config.version, "document_ids": many});
    assert_eq!(tenant.submit(&body).problem(400, "invalid_body")["errors"][0]["pointer"], "/document_ids");
    assert!(tenant.jobs().is_empty());
}

#[test]
fn a_job_that_waits_too_long_fails_with_queue_timeout() {
    let server = shared();
    let tenant = server.tenant();
    tenant.pause(true);
    let (config, document) = (tenant.config(&Package::new()), tenant.names());
    let body = json!({"config_version_id": config.version, "document_id": document, "queue_timeout_seconds": 1});
    let job = tenant.submit(&body).expect(202).json()["job_id"].as_str().unwrap().to_owned();
    let record = tenant.end(&job);
    assert_eq!(
        (&record["status"], &record["error"]["kind"]),
        (&json!("failed"), &json!("queue_timeout")),
        "{record:#}"
    );
}
