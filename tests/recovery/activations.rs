//! Activations when nodes do them at once, and when there is nothing to do them with.

use crate::api::{Answer, Api, eventually};
use crate::nodes::Pair;
use crate::proxy::Proxy;
use crate::site::Site;
use crate::support::Package;
use crate::truth::assert_at_rest;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// A package of its own whose activation takes so many seconds.
fn taking(seconds: f64, title: &str) -> Package {
    let hook = format!("import time\n\n\ndef run(**context):\n    time.sleep({seconds})\n");
    let package = if seconds > 0.0 { Package::new().hook("on_activate", &hook) } else { Package::new() };
    package.manifest(json!({"info": {"title": title}}))
}

/// A config, and its one version.
struct Registered {
    config: String,
    version: String,
}

fn register(api: &Api, package: &Package) -> Registered {
    let config = api.config_of("default", package.zip());
    let record = api.get(&format!("/api/v1/workspaces/default/configs/{config}")).expect(200).json();
    let version = record["latest_version"]["config_version_id"].as_str().unwrap().to_owned();
    Registered { config, version }
}

fn activate(api: &Api, one: &Registered) -> Answer {
    let Registered { config, version } = one;
    api.post(&format!("/api/v1/workspaces/default/configs/{config}/versions/{version}/activate"), &json!({}))
}

fn active(api: &Api) -> Value {
    api.get("/api/v1/workspaces/default").expect(200).json()["active_version_id"].clone()
}

/// What was active before and after each activation, the earliest first.
fn moves(api: &Api) -> Vec<(Value, Value)> {
    let audit = api.get("/api/v1/workspaces/default/audit?action=config.activate&limit=200").expect(200).json();
    let of = |entry: &Value, side: &str| entry["detail"][side]["active_version_id"].clone();
    let entries = audit["items"].as_array().unwrap().iter().rev();
    entries.map(|entry| (of(entry, "before"), of(entry, "after"))).collect()
}

#[test]
fn of_two_nodes_that_activate_at_once_one_is_first_and_the_other_is_told() {
    let mut pair = Pair::new(&[]);
    let (a, b) = pair.start();
    let (slow, slower) = (register(&a, &taking(1.0, "slow")), register(&a, &taking(2.0, "slower")));
    let (first, second) = std::thread::scope(|scope| {
        let (a, b) = (a.again(), b.again());
        let (slow, slower) = (&slow, &slower);
        let first = scope.spawn(move || activate(&a, slow));
        let second = scope.spawn(move || activate(&b, slower));
        (first.join().unwrap(), second.join().unwrap())
    });
    first.expect(200);
    assert_eq!((second.status, second.code().as_str()), (409, "conflict"));
    assert_eq!(second.json()["active_version_id"], json!(slow.version));
    assert_eq!(moves(&a), [(Value::Null, json!(slow.version))]);
    eventually("both nodes know", 5, || [active(&a), active(&b)] == [json!(slow.version), json!(slow.version)]);
    // Asked for again, now that it knows what it replaces, it is done.
    activate(&b, &slower).expect(200);

    // Many at once: whoever has succeeded follows another that has, without a gap.
    let quick: Vec<Registered> = (0..6).map(|number| register(&a, &taking(0.0, &number.to_string()))).collect();
    let answers: Vec<(usize, Answer)> = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..quick.len())
            .map(|number| {
                let (api, one) = (if number % 2 == 0 { a.again() } else { b.again() }, &quick[number]);
                scope.spawn(move || (number, activate(&api, one)))
            })
            .collect();
        asked.into_iter().map(|asked| asked.join().unwrap()).collect()
    });
    let moves = moves(&b);
    assert!(moves.windows(2).all(|two| two[0].1 == two[1].0), "each follows the one before: {moves:?}");
    let done: Vec<&(usize, Answer)> = answers.iter().filter(|(_, answer)| answer.status == 200).collect();
    assert!(!done.is_empty());
    assert_eq!(moves.len(), 2 + done.len(), "an answer for each move, and a move for each answer");
    for (number, answer) in &done {
        let (before, after) = (&answer.json()["previous_version_id"], json!(quick[*number].version));
        assert!(moves.contains(&(before.clone(), after)), "{} is in {moves:?}", answer.json());
    }
    for (_, answer) in answers.iter().filter(|(_, answer)| answer.status != 200) {
        assert_eq!((answer.status, answer.code().as_str()), (409, "conflict"), "{:#}", answer.json());
    }
    let last = &moves.last().unwrap().1;
    eventually("both nodes know", 5, || [&active(&a), &active(&b)] == [last, last]);
    for site in [a.site, b.site] {
        eventually("no container is left", 10, || site.containers().is_empty());
    }
    b.stop();
    a.stop();
}

#[test]
fn without_docker_nothing_is_activated_and_the_earlier_version_stays() {
    let sockets = tempfile::Builder::new().prefix("ade-recovery-").tempdir().unwrap();
    let proxy = Proxy::to_docker(sockets.path());
    let site = Site::new(&["--docker-host", &proxy.address]);
    let node = site.start().ready();
    let (first, slow) = (register(&node, &taking(0.0, "first")), register(&node, &taking(20.0, "slow")));
    activate(&node, &first).expect(200);
    let refused = |answer: &Answer| {
        assert_eq!((answer.status, answer.code().as_str()), (503, "engine_unavailable"), "{:#}", answer.json());
        assert_eq!(answer.headers["retry-after"], "5");
        assert_eq!(active(&node), json!(first.version), "nothing has changed");
    };

    // It goes while a hook runs.
    let cut_off = std::thread::scope(|scope| {
        let (api, slow) = (node.again(), &slow);
        let asked = scope.spawn(move || activate(&api, slow));
        eventually("its container runs", 20, || !site.containers().is_empty());
        std::thread::sleep(Duration::from_millis(500));
        proxy.cut();
        asked.join().unwrap()
    });
    refused(&cut_off);
    // It is not there at all.
    eventually("/readyz says so", 10, || node.not_ready() == ["docker", "image"]);
    let asked = Instant::now();
    refused(&activate(&node, &slow));
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    // What needs no container goes on.
    assert_eq!(register(&node, &taking(0.0, "second")).version.len(), first.version.len());

    proxy.mend();
    eventually("/readyz says so", 10, || node.not_ready().is_empty());
    let second = register(&node, &taking(0.0, "third"));
    let record = activate(&node, &second).expect(200).json();
    assert_eq!(record["previous_version_id"], json!(first.version));
    assert_eq!(moves(&node).len(), 2);
    eventually("what was cut off is removed", 30, || site.containers().is_empty());
    assert_at_rest(&site);
    node.stop();
}
