//! Following a job. Whatever happens to the connection, the follower has every event once.

use crate::support::Package;
use crate::support::http::{Api, Open};
use crate::support::server::{Server, Tenant, eventually, shared};
use serde_json::Value;
use std::io::BufRead;
use std::net::Shutdown;

/// A job that says much, a little at a time.
fn talkative(lines: usize, pause: &str) -> Package {
    Package::attacking(&format!(
        "for i in range({lines}):\n    print('line', i, 'ü\\u2028\\r x', flush=True)\n    time.sleep({pause})"
    ))
}

fn path(tenant: &Tenant, job: &str, rest: &str) -> String {
    tenant.path(&format!("/jobs/{job}/events{rest}"))
}

/// What a follower of server-sent events has got.
#[derive(Default)]
struct Follower {
    lines: Vec<String>,
    last: Option<String>,
    progress: usize,
}

impl Follower {
    /// Reads events until there are `count` more, or until the stream ends; whether it ended.
    fn read(&mut self, open: &mut Open, count: usize) -> bool {
        assert_eq!(open.header("content-type"), Some("text/event-stream"));
        let wanted = self.lines.len() + count;
        let (mut id, mut name, mut data) = (None, None, None);
        while self.lines.len() < wanted {
            let mut line = String::new();
            if open.body.read_line(&mut line).unwrap() == 0 {
                assert!(id.is_none() && data.is_none(), "the stream ends between events");
                return true;
            }
            let line = line.trim_end_matches('\n');
            match line.split_once(": ").unwrap_or((line, "")) {
                ("id", value) => assert!(id.replace(value.to_owned()).is_none()),
                ("event", value) => assert!(name.replace(value.to_owned()).is_none()),
                ("data", value) => assert!(data.replace(value.to_owned()).is_none(), "an event is one line"),
                ("", _) => match (id.take(), name.take(), data.take()) {
                    (None, Some(name), Some(_)) if name == "progress" => self.progress += 1,
                    (None, None, None) => {}
                    (Some(id), Some(name), Some(data)) => {
                        let event: Value = serde_json::from_str(&data).unwrap();
                        assert_eq!(event["seq"].to_string(), id);
                        assert_eq!(event["event"], name);
                        self.last = Some(id);
                        self.lines.push(data);
                    }
                    other => panic!("{other:?}"),
                },
                // A comment keeps the connection alive.
                (field, _) => assert!(line.starts_with(':'), "{field}"),
            }
        }
        false
    }

    fn connect(&self, api: &Api, path: &str) -> Open {
        let call = api.get(path).header("Accept", "text/event-stream");
        match &self.last {
            Some(last) => call.header("Last-Event-ID", last).open(),
            None => call.open(),
        }
    }
}

#[track_caller]
fn log(tenant: &Tenant, job: &str) -> Vec<String> {
    let text = tenant.viewer.get(path(tenant, job, "")).send().expect(200).text();
    assert!(text.ends_with('\n'));
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for (seq, line) in (1..).zip(&lines) {
        assert_eq!(serde_json::from_str::<Value>(line).unwrap()["seq"], seq, "numbered without a gap");
    }
    lines
}

fn cut_and_reconnect(server: &Server) {
    let tenant = server.tenant();
    let job = tenant.job(&tenant.config(&talkative(60, "0.02")), &tenant.names());
    let route = path(&tenant, &job, "");
    let followers: Vec<Follower> = std::thread::scope(|scope| {
        let threads: Vec<_> = (1..=4_usize)
            .map(|seed| {
                let (tenant, route) = (&tenant, &route);
                scope.spawn(move || {
                    let (mut follower, mut state) = (Follower::default(), seed * 7919);
                    loop {
                        state = state.wrapping_mul(1_103_515_245).wrapping_add(12_345) % (1 << 31);
                        let mut open = follower.connect(&tenant.viewer, route);
                        assert_eq!(open.status, 200);
                        // The first follower never loses its connection.
                        let ended = follower.read(&mut open, if seed == 1 { usize::MAX / 2 } else { 1 + state % 9 });
                        open.connection.shutdown(Shutdown::Both).ok();
                        if ended {
                            return follower;
                        }
                    }
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let lines = log(&tenant, &job);
    assert!(lines.len() > 60, "{lines:#?}");
    for follower in followers {
        assert_eq!(follower.lines, lines);
    }
    let stored = || {
        server.blobs().iter().any(|(path, _)| path.to_string_lossy().contains(&job) && path.ends_with("events.ndjson"))
    };
    eventually("the log is stored as a file", stored);
    assert_eq!(log(&tenant, &job), lines, "and is the same there");
    // After the end: all of it, the rest of it, nothing.
    for skip in [0, 1, lines.len() / 2, lines.len() - 1, lines.len(), lines.len() + 5] {
        let mut follower = Follower { last: (skip > 0).then(|| skip.to_string()), ..Follower::default() };
        let mut open = follower.connect(&tenant.viewer, &route);
        assert!(follower.read(&mut open, usize::MAX / 2));
        assert_eq!(follower.lines, lines[skip.min(lines.len())..], "after {skip}");
        let rest = tenant.viewer.get(path(&tenant, &job, &format!("?after={skip}"))).send().expect(200).text();
        assert_eq!(rest.lines().collect::<Vec<_>>(), lines[skip.min(lines.len())..], "after {skip}");
    }
}

#[test]
fn a_follower_that_loses_its_connection_misses_nothing_and_gets_nothing_twice() {
    cut_and_reconnect(&shared());
}

#[test]
fn a_follower_on_postgres_misses_nothing_and_gets_nothing_twice() {
    cut_and_reconnect(&crate::support::server::shared_on_postgres());
}

#[test]
fn a_follower_of_lines_gets_them_as_they_come_and_the_end() {
    let server = shared();
    let tenant = server.tenant();
    tenant.pause(true);
    let job = tenant.job(&tenant.config(&talkative(5, "0.05")), &tenant.names());
    let mut open = tenant.viewer.get(path(&tenant, &job, "?follow=true")).open();
    assert_eq!(open.header("content-type"), Some("application/x-ndjson"));
    let mut lines = vec![String::new()];
    open.body.read_line(&mut lines[0]).unwrap();
    assert!(lines[0].contains("\"enqueue\""), "what there is comes before the job runs: {lines:?}");
    assert_eq!(log(&tenant, &job).len(), 1, "without follow, what there is and no more");
    tenant.pause(false);
    lines.extend(open.body.lines().map(|line| line.unwrap() + "\n"));
    let lines: Vec<&str> = lines.iter().map(|line| line.trim_end_matches('\n')).collect();
    assert_eq!(lines, log(&tenant, &job));
    assert!(lines.last().unwrap().contains("\"exit\""));
}

#[test]
fn a_log_of_thousands_of_lines_comes_whole_through_every_way() {
    let server = shared();
    let tenant = server.tenant();
    let job = tenant.job(&tenant.config(&talkative(2500, "0")), &tenant.names());
    let mut follower = Follower::default();
    let mut open = follower.connect(&tenant.viewer, &path(&tenant, &job, ""));
    assert!(follower.read(&mut open, usize::MAX / 2));
    let lines = log(&tenant, &job);
    assert!(lines.len() > 1500, "{}", lines.len());
    assert_eq!(follower.lines.len(), lines.len());
    assert_eq!(follower.lines, lines);
}

#[test]
fn what_a_reader_asks_for_is_checked() {
    let server = shared();
    let tenant = server.tenant();
    tenant.pause(true);
    let job = tenant.job(&tenant.config(&Package::new()), &tenant.names());
    let get = |rest: &str| tenant.viewer.get(path(&tenant, &job, rest));
    get("").header("Accept", "image/png").send().problem(406, "not_acceptable");
    for accept in ["*/*", "application/x-ndjson", "application/json;q=0.5", "text/plain"] {
        assert_eq!(
            get("").header("Accept", accept).send().expect(200).header("content-type"),
            Some("application/x-ndjson")
        );
    }
    let sse = get("?follow=false").header("Accept", "text/html, text/event-stream;q=0.9").send().expect(200);
    assert_eq!(sse.header("content-type"), Some("text/event-stream"));
    for last in ["x", "-1", "1.5", "99999999999999999999999"] {
        let problem = get("").header("Last-Event-ID", last).send().problem(400, "invalid_parameter");
        assert_eq!(problem["errors"][0]["pointer"], "Last-Event-ID");
    }
    for query in ["?after=x", "?after=-1", "?follow=maybe", "?since=1"] {
        get(query).send().problem(400, "invalid_parameter");
    }
    assert_eq!(get("?after=18446744073709551615").send().expect(200).text(), "");
    assert_eq!(get("?after=1").send().expect(200).text(), "");
    assert!(
        get("?after=1").header("Last-Event-ID", "0").send().expect(200).text().contains("enqueue"),
        "the header wins: it is what a client saw last"
    );
}
