//! kill -9 at any moment: an accepted job is never lost, never ends twice, and leaves nothing.

use crate::api::{Api, eventually, package};
use crate::site::{Node, Site};
use crate::truth::{self, Must, assert_at_rest, assert_job};
use serde_json::{Value, json};
use std::sync::Mutex;
use std::time::Duration;

/// A small generator, so that a seed tells the whole story (xorshift64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}

/// What was accepted, and how it has to end.
#[derive(Default)]
struct Ledger(Mutex<Vec<(String, Must)>>);

impl Ledger {
    fn accept(&self, job: &str, must: Must) {
        self.0.lock().unwrap().push((job.to_owned(), must));
    }

    fn change(&self, job: &str, to: Must) {
        let mut ledger = self.0.lock().unwrap();
        ledger.iter_mut().find(|entry| entry.0 == job).unwrap().1 = to;
    }

    fn entries(&self) -> Vec<(String, Must)> {
        self.0.lock().unwrap().clone()
    }
}

/// Submits and cancels until the process is gone.
fn clients(api: &Api, config: &str, ledger: &Ledger, mut dice: Dice) {
    loop {
        let (does, must) = match dice.roll(10) {
            0..5 => ("Ada", Must::Succeed),
            5..7 => ("sleep 1.2", Must::Succeed),
            7 => ("fail", Must::Fail),
            _ => ("sleep 60", Must::Cancel),
        };
        let Ok(answer) = api.try_submit("default", config, does, &json!({})) else { return };
        if answer.status != 202 {
            assert_eq!((answer.status, answer.code().as_str()), (503, "database_unavailable"));
            continue;
        }
        let job = answer.json()["job_id"].as_str().unwrap().to_owned();
        ledger.accept(&job, must);
        std::thread::sleep(Duration::from_millis(dice.roll(700)));
        if must == Must::Cancel && api.cancel(&job).map(|answer| assert_eq!(answer.status, 202)).is_err() {
            // Sent, perhaps heard, not answered; the end of the test cancels it again.
            ledger.change(&job, Must::Either);
            return;
        }
    }
}

#[test]
fn nothing_that_was_accepted_is_lost_when_the_process_is_killed_again_and_again() {
    let seed = std::env::var("ADE_TEST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(20_251_124);
    eprintln!("ADE_TEST_SEED={seed}");
    let mut dice = Dice(seed);
    // However often a job is hit, it must come to its own end.
    let site = Site::new(&["--max-executions", "100", "--rate-limit", "0"]);
    let ledger = Ledger::default();
    let mut config = String::new();
    for round in 0..12 {
        let node = site.start();
        if config.is_empty() {
            config = node.config("default");
        }
        let moment = if round % 3 == 2 { dice.roll(300) } else { 500 + dice.roll(3000) };
        let (api, theirs) = (node.again(), Dice(dice.roll(u64::MAX)));
        std::thread::scope(|scope| {
            scope.spawn(|| clients(&api, &config, &ledger, theirs));
            std::thread::sleep(Duration::from_millis(moment));
            node.kill();
        });
    }
    let node = site.start();
    let entries = ledger.entries();
    for (job, _) in entries.iter().filter(|entry| entry.1 == Must::Either) {
        node.cancel(job).unwrap();
    }
    for (job, must) in &entries {
        assert_job(&node, job, *must);
    }
    let listed = truth::Db::of(&site).number("SELECT count(*) FROM jobs");
    eprintln!("{} jobs were accepted, {listed} are stored", entries.len());
    assert!(listed >= i64::try_from(entries.len()).unwrap());
    let sql = "SELECT count(*) FROM jobs WHERE state NOT IN ('succeeded', 'failed', 'cancelled')";
    let db = truth::Db::of(&site);
    // A job whose answer was cut off may be stored as well.
    for job in db.column("SELECT id FROM jobs WHERE state NOT IN ('succeeded', 'failed', 'cancelled')") {
        node.cancel(&job).unwrap();
    }
    eventually("every job has ended", 60, || db.number(sql) == 0);
    assert_at_rest(&site);
    node.stop();
    assert_at_rest(&site);
}

/// Kills the process as soon as a job is in `phase`, and expects what must be true afterwards.
fn killed_in(phase: &str, does: &str) {
    let site = Site::new(&["--max-concurrency", "1"]);
    let node = site.start().ready();
    // Large enough that opening it takes a while, and not compressible.
    let mut dice = Dice(7);
    let ballast: Vec<u8> = std::iter::repeat_with(|| dice.roll(256) as u8).take(1_800_000).collect();
    let config = node.config_of("default", package().file("resources/ballast.bin", ballast).zip());
    let job = node.submit(&config, does);
    let waiting = node.submit(&config, "Grace");
    let ended = "succeeded failed cancelled";
    let sql = format!("SELECT COALESCE(phase, state) FROM jobs WHERE id = '{job}'");
    let seen = truth::Db::of(&site).watch(&sql, |now| now == phase || ended.contains(now));
    node.kill();
    assert_eq!(seen, phase, "the job was never seen in this phase");
    let node = site.start();
    let record = assert_job(&node, &job, Must::Succeed);
    assert_eq!(record["execution"], 2, "{record:#}");
    let events = node.events(&job);
    let requeue = events.iter().find(|event| event["event"] == "requeue").unwrap();
    assert_eq!(requeue["detail"]["reason"], "node_lost");
    assert_eq!(assert_job(&node, &waiting, Must::Succeed)["execution"], 1, "it only waited");
    assert_at_rest(&site);
    node.stop();
}

#[test]
fn a_job_that_is_being_prepared_survives_a_kill() {
    killed_in("preparing", "Ada");
}

#[test]
fn a_job_whose_container_is_being_started_survives_a_kill() {
    killed_in("starting", "Ada");
}

#[test]
fn a_job_whose_scripts_run_survives_a_kill() {
    killed_in("running", "sleep 1");
}

#[test]
fn a_job_whose_outputs_are_being_stored_survives_a_kill() {
    killed_in("collecting", "Ada");
}

#[test]
fn a_job_that_waits_survives_a_kill_and_keeps_its_place() {
    let site = Site::new(&["--max-concurrency", "1"]);
    let node = site.start().ready();
    node.put("/api/v1/system/queue", &json!({"state": "paused"})).expect(200);
    let config = node.config("default");
    let jobs: Vec<String> = (0..3).map(|_| node.submit(&config, "Ada")).collect();
    let cancelled = node.submit(&config, "Ada");
    node.cancel(&cancelled).unwrap().expect(202);
    node.kill();
    let node = site.start().ready();
    assert!(jobs.iter().all(|job| node.job(job)["status"] == "queued"), "a pause is kept over a restart");
    node.put("/api/v1/system/queue", &json!({"state": "on"})).expect(200);
    let records: Vec<Value> = jobs.iter().map(|job| assert_job(&node, job, Must::Succeed)).collect();
    assert!(records.is_sorted_by_key(|record| record["started_at"].as_str().unwrap().to_owned()));
    assert!(records.iter().all(|record| record["execution"] == 1));
    assert_job(&node, &cancelled, Must::Cancel);
    assert_at_rest(&site);
    node.stop();
}

#[test]
fn a_job_that_was_being_cancelled_ends_as_cancelled_after_a_kill() {
    let site = Site::new(&[]);
    let node = site.start().ready();
    let config = node.config("default");
    let job = node.submit(&config, "sleep 60");
    node.running(&job);
    node.cancel(&job).unwrap().expect(202);
    node.kill();
    let node = site.start();
    assert_job(&node, &job, Must::Cancel);
    assert_at_rest(&site);
    node.stop();
}

#[test]
fn a_job_that_always_takes_the_process_down_fails_in_the_end() {
    let site = Site::new(&["--max-executions", "2"]);
    let mut node: Node<'_> = site.start().ready();
    let config = node.config("default");
    let job = node.submit(&config, "sleep 60");
    for _ in 0..2 {
        node.running(&job);
        node.kill();
        node = site.start();
    }
    let record = node.ended(&job);
    assert_eq!((&record["status"], &record["error"]["kind"]), (&json!("failed"), &json!("node_lost")), "{record:#}");
    assert_eq!(record["execution"], 2);
    truth::assert_events(&node.events(&job), &record);
    assert_at_rest(&site);
    node.stop();
}

#[test]
fn an_upload_that_a_kill_cut_off_leaves_no_document_and_no_file() {
    let site = Site::new(&[]);
    let node = site.start();
    let address = std::fs::read_to_string(site.data().join("address")).unwrap();
    let address = address.trim().strip_prefix("http://").unwrap().to_owned();
    let key = std::fs::read_to_string(site.data().join("admin-key")).unwrap();
    let mut upload = std::net::TcpStream::connect(&address).unwrap();
    use std::io::Write;
    let path = "/api/v1/workspaces/default/documents?filename=a.csv";
    let key = key.trim();
    write!(upload, "POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Type: text/csv\r\n")
        .unwrap();
    write!(upload, "Content-Length: 20000000\r\n\r\n").unwrap();
    upload.write_all(&vec![b'x'; 12_000_000]).unwrap();
    let there = || truth::files(&site.data().join("blobs")).into_iter().any(|file| file.contains("/documents/"));
    eventually("a part of the upload is on the disk", 10, there);
    node.kill();
    let node = site.start();
    assert_eq!(node.get("/api/v1/workspaces/default/documents").expect(200).json()["items"], json!([]));
    assert_at_rest(&site);
    node.stop();
}

#[test]
fn a_job_that_only_the_database_knows_to_run_here_is_given_back() {
    let site = Site::new(&[]);
    let node = site.start().ready();
    node.put("/api/v1/system/queue", &json!({"state": "paused"})).expect(200);
    let config = node.config("default");
    let job = node.submit(&config, "Ada");
    // As if a claim's commit had gone through and its answer had not.
    let db = truth::Db::of(&site);
    let lease = 4_000_000_000_000_i64;
    db.execute(&format!(
        "BEGIN IMMEDIATE; UPDATE jobs SET state = 'running', phase = 'preparing', execution = 1, node_id = '{}', \
         lease_expires_at = {lease} WHERE id = '{job}'; \
         UPDATE instance SET queued = queued - 1, claimed = claimed + 1; \
         UPDATE workspaces SET queued = queued - 1, running = running + 1, claimed = claimed + 1; \
         UPDATE configs SET queued = queued - 1, running = running + 1; COMMIT",
        site.node_id()
    ));
    node.put("/api/v1/system/queue", &json!({"state": "on"})).expect(200);
    assert_eq!(assert_job(&node, &job, Must::Succeed)["execution"], 2);
    assert_at_rest(&site);
    node.stop();
}
