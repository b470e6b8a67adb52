//! What meets in a service on PostgreSQL, with the order forced: the test holds a row that both need.

use crate::api::eventually;
use crate::proxy::Proxy;
use crate::site::Site;
use crate::support::postgres::EmptyDatabase;
use crate::truth::{self, Db, Must, assert_at_rest, assert_job};
use std::time::Duration;

#[test]
fn a_cancel_as_the_job_ends_is_either_accepted_and_kept_or_refused() {
    let database = EmptyDatabase::create();
    let site = Site::new(&["--database-url", database.url()]);
    let node = site.start().ready();
    let (db, config) = (Db::of(&site), node.config("default"));
    let cancel = |job: &str| {
        let (api, job) = (node.again(), job.to_owned());
        std::thread::spawn(move || {
            let answer = api.cancel(&job).expect("the service answers");
            (answer.status, answer.code())
        })
    };

    // The cancel was asked for before the container ended by itself with a workbook.
    let job = node.submit(&config, "sleep 2");
    node.running(&job);
    let held = db.hold(&format!("SELECT 1 FROM jobs WHERE id = '{job}' FOR UPDATE"));
    let asked = cancel(&job);
    db.until_blocked("SELECT * FROM jobs WHERE id = $1 FOR NO KEY UPDATE");
    eventually("the container has ended", 10, || site.containers().is_empty());
    held.commit();
    assert_eq!(asked.join().unwrap(), (202, String::new()));
    assert_job(&node, &job, Must::Cancel);

    // The container had ended, and the job was sealed, before the cancel was looked at.
    let job = node.submit(&config, "sleep 1");
    node.running(&job);
    let held = db.hold("SELECT 1 FROM instance FOR UPDATE");
    let asked = cancel(&job);
    db.until_blocked("%FROM instance FOR UPDATE");
    eventually("it is sealed", 10, || db.number(&format!("SELECT sealed FROM jobs WHERE id = '{job}'")) == 1);
    held.commit();
    let (status, code) = asked.join().unwrap();
    assert!(status == 409 && ["job_finishing", "job_finished"].contains(&code.as_str()), "{status} {code}");
    assert_job(&node, &job, Must::Succeed);

    // With nothing forced: whatever the answer is, it is true.
    let mut kept = 0;
    for round in 0..8 {
        let job = node.submit(&config, "sleep 0.2");
        node.running(&job);
        std::thread::sleep(Duration::from_millis(40 * round));
        let (status, code) = cancel(&job).join().unwrap();
        let must = match (status, code.as_str()) {
            (202, _) => Must::Cancel,
            (409, "job_finishing" | "job_finished") => Must::Succeed,
            other => panic!("{other:?}"),
        };
        kept += usize::from(must == Must::Cancel);
        assert_job(&node, &job, must);
    }
    eprintln!("{kept} of 8 were cancelled");
    // What is only right in the end because something mended it was not right.
    for mended in ["gave back", "fenced off"] {
        assert!(!site.log().contains(mended), "{mended}");
    }
    assert_at_rest(&site);
    node.stop();
}

#[test]
fn after_an_outage_longer_than_a_lease_every_node_that_lives_keeps_its_jobs() {
    let database = EmptyDatabase::create();
    let shared = tempfile::Builder::new().prefix("ade-recovery-shared-").tempdir().unwrap();
    let blobs = shared.path().join("blobs");
    let wires = [Proxy::to(database.address()), Proxy::to(database.address())];
    let mut sites = wires.each_ref().map(|wire| {
        let url = database.url_at(&wire.address);
        let blobs = blobs.to_str().unwrap();
        Site::new(&["--max-concurrency", "1", "--lease-seconds", "3", "--database-url", &url, "--blob-url", blobs])
    });
    let first = sites[0].start().ready();
    let key = std::fs::read_to_string(first.site.data().join("admin-key")).unwrap().trim().to_owned();
    drop(first);
    sites[1].key = Some(key);
    let [a, b] = [sites[0].start().ready(), sites[1].start().ready()];
    let config = a.config("default");
    let jobs = [a.submit(&config, "sleep 14"), a.submit(&config, "sleep 14")];
    for job in &jobs {
        a.running(job);
    }
    let db = Db::at(database.url());
    let of = |site: &Site, what: &str| {
        db.column(&format!("SELECT {what} FROM jobs WHERE node_id = '{}' AND state = 'running'", site.node_id())).pop()
    };
    let expired = |site: &Site| {
        let sql = "CASE WHEN lease_expires_at < extract(epoch FROM clock_timestamp()) * 1000 THEN 'yes' ELSE 'no' END";
        of(site, sql).expect("the job runs there") == "yes"
    };
    assert_ne!(of(a.site, "id"), of(b.site, "id"), "one each");

    wires.iter().for_each(Proxy::cut);
    std::thread::sleep(Duration::from_secs(5));
    assert!(expired(a.site) && expired(b.site));
    // A is back first. It keeps its own job, and leaves that of B, which may be on its way, alone for now.
    wires[0].mend();
    eventually("A has its lease again", 10, || !expired(a.site));
    std::thread::sleep(Duration::from_millis(500));
    assert!(expired(b.site), "still B's, and still without a lease");
    wires[1].mend();
    eventually("B has its lease again", 10, || !expired(b.site));
    for job in &jobs {
        let record = assert_job(&a, job, Must::Succeed);
        assert_eq!(record["execution"], 1, "{record:#}");
    }

    // A node that stays away is none that lives: its job is taken over once the other has been back for a lease's time.
    let job = a.submit(&config, "sleep 10");
    a.running(&job);
    let (away, stays) = if db.text(&format!("SELECT node_id FROM jobs WHERE id = '{job}'")) == a.site.node_id() {
        (0, &b)
    } else {
        (1, &a)
    };
    wires.iter().for_each(Proxy::cut);
    std::thread::sleep(Duration::from_secs(4));
    wires[1 - away].mend();
    stays.job_when(&job, "taken over", |record| record["execution"] == 2);
    wires[away].mend();
    assert_eq!(assert_job(stays, &job, Must::Succeed)["execution"], 2);
    truth::assert_at_rest(a.site);
    b.stop();
    a.stop();
}
