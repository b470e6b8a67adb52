//! Jobs run by the library in the test's own process, for what the binary has no flag for.

use super::docker::Docker;
use super::package::Package;
use super::run::image_id;
use super::world::{Upload, World};
use ade::deps::{Deps, Index, Sets};
use ade::egress::{Bounds, Egress, Resolver};
use ade::events::Event;
use ade::job::{self, Node, Observer};
use ade::network::{Access, Decision, HostPattern, Layers, Switch, decide};
use ade::sandbox::protocol::Progress;
use ade::sandbox::{Caps, Outcome, Pool, Requested};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;

/// Where and with what jobs of a test run.
pub fn node(egress: Egress) -> Node {
    let docker = match std::env::var("DOCKER_HOST") {
        Ok(host) if !host.is_empty() => bollard::Docker::connect_with_host(&host),
        _ => bollard::Docker::connect_with_local_defaults(),
    };
    let docker = docker.unwrap();
    Node {
        pool: Pool::of_a_command(&docker, None),
        docker,
        image: "the image".into(),
        image_digest: image_id(),
        runtime: None,
        caps: Caps::default(),
        egress: Arc::new(egress),
        instance: "ade-test".into(),
        node: Some("node_of_the_test".into()),
        // Its jobs have no requirements.
        deps: Deps::new(Index::default(), Sets::new("/nonexistent".into(), 0)),
    }
}

/// Bounds as they are by default.
pub const BOUNDS: Bounds = Bounds {
    at_once: 64,
    in_all: 1000,
    bytes: 4 << 30,
    connect: Duration::from_secs(15),
    idle: Duration::from_secs(120),
};

/// An egress to public addresses and these networks.
pub fn egress(bounds: Bounds, allowed: &[&str]) -> Egress {
    Egress::within(bounds, allowed.iter().map(|net| net.parse().unwrap()).collect(), None)
}

/// A resolver that knows these names: each look gives the next of the addresses, and the last one again.
#[derive(Clone, Default)]
pub struct Names(Arc<Mutex<HashMap<String, Vec<IpAddr>>>>, Arc<Mutex<Vec<String>>>);

impl Names {
    /// Adds a name.
    #[must_use]
    pub fn with(self, name: &str, addresses: &[&str]) -> Self {
        let mut addresses: Vec<IpAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
        addresses.reverse();
        self.0.lock().unwrap().insert(name.to_owned(), addresses);
        self
    }

    /// Names that were looked up.
    pub fn looks(&self) -> Vec<String> {
        self.1.lock().unwrap().clone()
    }

    /// As the engine takes it.
    pub fn resolver(&self) -> Resolver {
        let Self(names, looks) = self.clone();
        Resolver::new(move |name| {
            looks.lock().unwrap().push(name.clone());
            let mut names = names.lock().unwrap();
            let found = match names.get_mut(&name) {
                Some(addresses) if addresses.len() > 1 => Ok(addresses.pop().into_iter().collect()),
                Some(addresses) => Ok(addresses.clone()),
                None => Err(io::Error::other("no such name in this test")),
            };
            Box::pin(std::future::ready(found))
        })
    }
}

/// What became of a job.
#[derive(Debug)]
pub struct Within {
    /// Its end.
    pub outcome: Outcome,
    /// Its events.
    pub events: Vec<Value>,
}

impl Within {
    /// The details of all events of a name, in order.
    pub fn events_named(&self, name: &str) -> Vec<&Value> {
        self.events.iter().filter(|event| event["event"] == name).map(|event| &event["detail"]).collect()
    }

    /// The lines `name: value` that a probe printed.
    pub fn findings(&self) -> BTreeMap<&str, &str> {
        let lines = self.events_named("log").into_iter().filter_map(|detail| detail["text"].as_str());
        lines.filter_map(|line| line.split_once(": ")).collect()
    }

    /// One finding of a probe.
    #[track_caller]
    pub fn finding(&self, name: &str) -> &str {
        self.findings().get(name).copied().unwrap_or_else(|| {
            panic!("the probe did not report {name}: {:?} {:?}", self.outcome, self.events_named("log"))
        })
    }
}

struct Silent;

impl Observer for Silent {
    fn event(&mut self, _: &Event) {}
    fn progress(&mut self, _: &Progress) {}
}

/// The decision that gives a package network to these hosts, every public one when there are none.
pub fn granted(hosts: &[&str]) -> impl FnOnce(bool) -> Decision {
    let allowed_hosts: Vec<HostPattern> = hosts.iter().map(|host| host.parse().unwrap()).collect();
    move |manifest| {
        let (instance, access) = (Switch::Manifest, Access::Inherit);
        decide(&Layers { instance, workspace: access, package: access, allowed_hosts, manifest })
    }
}

/// Runs a package that asks for network.
pub fn run_within(package: &Package, hosts: &[&str], egress: Egress) -> Within {
    run_on(&node(egress), package, hosts)
}

/// The same on a node of the test's own making.
pub fn run_on(node: &Node, package: &Package, hosts: &[&str]) -> Within {
    let world = World::new(&package.clone().asking_for_network(), &[Upload::names()]);
    let staging = std::sync::Arc::new(tempfile::tempdir().unwrap());
    let job = job::prepare(
        &world.package,
        &world.inputs,
        Requested::default(),
        &Caps::default(),
        &node.egress,
        granted(hosts),
    );
    let job = job.map_err(|refusal| refusal.failure).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (_keep, cancel) = watch::channel(false);
    let report = runtime.block_on(job::run(node, &job, &staging, cancel, &mut Silent)).unwrap();
    assert!(report.left_behind.is_none());
    assert!(Docker::connect().containers_of(job.identity().job_id.as_str()).is_empty(), "no container is left");
    let events = std::fs::read_to_string(staging.path().join("events.ndjson")).unwrap();
    let events = events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    Within { outcome: report.outcome, events }
}
