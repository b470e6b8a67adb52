//! Looking at jobs: records, waiting for a change, lists.

use crate::support::Package;
use crate::support::server::{Tenant, ids, shared};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

fn submit(tenant: &Tenant, version: &str, document: &str, hash: &str) -> String {
    let body = json!({"config_version_id": version, "document_id": document, "input_hash": hash});
    tenant.submit(&body).expect(202).json()["job_id"].as_str().unwrap().to_owned()
}

#[test]
fn an_entity_tag_is_the_same_until_the_record_changes() {
    let server = shared();
    let tenant = server.tenant();
    tenant.pause(true);
    let job = tenant.job(&tenant.config(&Package::new()), &tenant.names());
    let get = || tenant.viewer.get(tenant.path(&format!("/jobs/{job}")));
    let first = get().send().expect(200);
    let etag = first.header("etag").unwrap().to_owned();
    let same = get().header("If-None-Match", &etag).send().expect(304);
    assert_eq!(same.header("etag"), Some(etag.as_str()));
    assert!(same.body.is_empty());
    tenant.editor.post(tenant.path(&format!("/jobs/{job}/cancel"))).send().expect(202);
    let second = get().header("If-None-Match", &etag).send().expect(200);
    assert_ne!(second.header("etag"), Some(etag.as_str()));
    assert_eq!(second.json()["status"], "cancelled");
}

#[test]
fn waiting_ends_with_the_change_or_with_the_time_that_was_asked_for() {
    let server = shared();
    let tenant = server.tenant();
    tenant.pause(true);
    let job = tenant.job(&tenant.config(&Package::new()), &tenant.names());
    let wait = |wait: &str| tenant.viewer.get(tenant.path(&format!("/jobs/{job}"))).header("Prefer", wait);
    let began = Instant::now();
    let answer = wait("wait=1").send().expect(200);
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(950) && took < Duration::from_secs(4), "{took:?}");
    assert_eq!(answer.header("preference-applied"), Some("wait=1"));
    let etag = answer.header("etag").unwrap().to_owned();
    wait("wait=1").header("If-None-Match", &etag).send().expect(304);
    let began = Instant::now();
    wait("wait=30").header("If-None-Match", "\"old\"").send().expect(200);
    wait("wait=later").send().expect(200);
    assert!(began.elapsed() < Duration::from_secs(3), "nothing to wait for");
    assert_eq!(
        wait("wait=9999").header("If-None-Match", "\"old\"").send().header("preference-applied"),
        Some("wait=60")
    );

    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            let began = Instant::now();
            (wait("wait=30").send().expect(200).json(), began.elapsed())
        });
        // The waiter must have begun; whether it has is seen from the streams that are open.
        std::thread::sleep(Duration::from_millis(300));
        tenant.editor.post(tenant.path(&format!("/jobs/{job}/cancel"))).send().expect(202);
        let (record, took) = waiter.join().unwrap();
        assert_eq!(record["status"], "cancelled");
        assert!(took < Duration::from_secs(5), "{took:?}");
    });
    let began = Instant::now();
    wait("wait=30").send().expect(200);
    assert!(began.elapsed() < Duration::from_secs(3), "a job that has ended does not change any more");
}

#[test]
fn a_waiting_job_has_its_place_by_priority_and_time() {
    let server = shared();
    let tenant = server.tenant();
    tenant.pause(true);
    let (config, document) = (tenant.config(&Package::new()), tenant.names());
    let low = submit(&tenant, &config.version, &document, "a");
    let same = submit(&tenant, &config.version, &document, "b");
    let body = json!({"config_version_id": config.version, "document_id": document, "input_hash": "c", "priority": 5});
    let high = tenant.submit(&body).expect(202).json()["job_id"].as_str().unwrap().to_owned();
    let place = |job: &str| tenant.record(job)["queue_position"].clone();
    assert_eq!([place(&high), place(&low), place(&same)], [json!(1), json!(2), json!(3)]);
    tenant.editor.post(tenant.path(&format!("/jobs/{low}/cancel"))).send().expect(202);
    assert_eq!([place(&high), place(&same)], [json!(1), json!(2)]);
    let listed = tenant.viewer.get(tenant.path("/jobs")).send().expect(200).json();
    assert!(listed["items"][0].get("queue_position").is_none(), "a list does not count for each");
}

#[test]
fn pages_have_every_job_once_whatever_is_submitted_meanwhile() {
    let server = shared();
    let tenant = server.tenant();
    tenant.pause(true);
    let (config, document) = (tenant.config(&Package::new()), tenant.names());
    let mut made: Vec<String> =
        (0..23).map(|n| submit(&tenant, &config.version, &document, &format!("before-{n}"))).collect();
    made.reverse();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0.. {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                submit(&tenant, &config.version, &document, &format!("during-{n}"));
            }
        });
        for limit in [1, 4, 7] {
            let (mut seen, mut next) = (Vec::new(), tenant.path(&format!("/jobs?limit={limit}")));
            loop {
                let page: Value = tenant.viewer.get(&next).send().expect(200).json();
                seen.extend(ids(&page, "job_id"));
                let Some(cursor) = page["next_cursor"].as_str() else { break };
                next = tenant.path(&format!("/jobs?limit={limit}&cursor={cursor}"));
            }
            let unique: BTreeSet<&String> = seen.iter().collect();
            assert_eq!(unique.len(), seen.len(), "none comes twice");
            let old: Vec<&String> = seen.iter().filter(|job| made.contains(job)).collect();
            assert_eq!(old, made.iter().collect::<Vec<_>>(), "those that were there come all, newest first");
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_list_is_filtered_by_state_config_document_and_time() {
    let server = shared();
    let tenant = server.tenant();
    let first = tenant.finished();
    let middle = tenant.record(&first)["queued_at"].as_str().unwrap().to_owned();
    tenant.pause(true);
    let (config, document) = (tenant.config(&Package::new()), tenant.document("b.csv", "Name\nB\n"));
    let second = tenant.job(&config, &document);
    let list = |query: &str| {
        ids(&tenant.viewer.get(tenant.path(&format!("/jobs?{query}"))).send().expect(200).json(), "job_id")
    };
    let both = [second.clone(), first.clone()];
    assert_eq!(list(""), both);
    assert_eq!(list("status=queued"), [second.as_str()]);
    assert_eq!(list("status=queued,succeeded"), both);
    assert_eq!(list("status=failed"), [""; 0]);
    assert_eq!(list(&format!("config_id={}", config.config)), [second.as_str()]);
    assert_eq!(list(&format!("document_id={document}")), [second.as_str()]);
    assert_eq!(list(&format!("document_id={document}&status=succeeded")), [""; 0]);
    assert_eq!(list(&format!("created_after={middle}")), [second.as_str()]);
    assert_eq!(list("created_after=2999-01-01T00:00:00Z"), [""; 0]);
    assert_eq!(list("created_after=0001-01-01T00:00:00%2B05:00"), both);
    for (query, name) in [
        ("status=done", "status"),
        ("status=", "status"),
        ("config_id=x", "config_id"),
        ("document_id=x", "document_id"),
        ("created_after=yesterday", "created_after"),
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=x", "limit"),
        ("limit=99999999999999999999", "limit"),
        ("unknown=1", "unknown"),
    ] {
        let problem =
            tenant.viewer.get(tenant.path(&format!("/jobs?{query}"))).send().problem(400, "invalid_parameter");
        assert_eq!(problem["errors"][0]["pointer"], name, "{query}: {problem}");
    }
    for cursor in ["x", "AAAA", "%00", &"A".repeat(500)] {
        let problem =
            tenant.viewer.get(tenant.path(&format!("/jobs?cursor={cursor}"))).send().problem(400, "invalid_cursor");
        assert_eq!(problem["errors"][0]["pointer"], "cursor");
    }
}
