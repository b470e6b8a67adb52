//! What `ade bench` measures: a service as its clients see it, against containers of the same machine in which nothing of it runs.
//!
//! [`measure`] measures the [`Section`]s of a [`Plan`], on services of its own or on one that runs ([`Site`]); what there is to
//! measure, and what is wanted of it, is in [`FIGURES`]. Nothing is left behind: services of its own end with it, and [`Site::tidy`]
//! takes back what one that goes on was given.

mod connection;
mod fairness;
mod figures;
mod idle;
mod latency;
mod peer;
mod rows;
mod service;
mod tenant;
mod throughput;
mod workbook;

pub use connection::Connection;
pub use figures::{FIGURES, Figure, Figures, Kind, Section, Wanted, percentile, sorted};
pub use service::{Service, Setup};
pub use tenant::{Done, Tenant, Traces, table_package, trivial_package};

use crate::api::routes::system::SystemStatus;
use crate::client::{Blame, Client, ClientError};
use crate::job::Node;
use crate::service::FIRST_WORKSPACE;
use peer::Peer;
use std::sync::Arc;
use std::time::Duration;

/// Rows of the large table unless told otherwise.
pub const ROWS: u64 = 100_000;
/// Followers of events unless told otherwise.
pub const FOLLOWERS: usize = 1_000;

/// What to measure.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The sections, in the order of [`Section::ALL`].
    pub sections: Vec<Section>,
    /// Whether all of it is small.
    pub quick: bool,
    /// Rows of the large table.
    pub rows: u64,
    /// Whether one with 1,000,000 rows comes after it.
    pub million: bool,
    /// Followers of events.
    pub followers: usize,
}

impl Plan {
    /// One of two numbers: for a real run, or for a quick one.
    const fn of(&self, real: usize, quick: usize) -> usize {
        if self.quick { quick } else { real }
    }
}

/// Where it is measured.
pub struct Site {
    place: Place,
    traces: Arc<Traces>,
}

enum Place {
    /// On services of its own, on this machine.
    Here { setup: Setup, peer: Box<Peer> },
    /// On a service that runs.
    There { client: Arc<Client>, workspace: String },
}

/// A service that is measured.
struct Bench<'a> {
    client: Arc<Client>,
    workspace: &'a str,
    traces: &'a Arc<Traces>,
    own: Option<Own<'a>>,
}

/// A service of its own.
struct Own<'a> {
    service: Service,
    instance: String,
    setup: &'a Setup,
    peer: &'a Peer,
}

impl Site {
    /// This machine, with services that are started as `setup` says. `node` is its engine and image, `docker_host` the engine as it is set.
    pub async fn here(setup: Setup, node: Node, docker_host: Option<String>) -> Self {
        let peer = Box::new(Peer::new(node, docker_host).await);
        Self { place: Place::Here { setup, peer }, traces: Arc::default() }
    }

    /// A service that runs, in this workspace.
    #[must_use]
    pub fn there(client: Client, workspace: String) -> Self {
        Self { place: Place::There { client: Arc::new(client), workspace }, traces: Arc::default() }
    }

    /// The engine and image of this machine, where that is measured.
    #[must_use]
    pub fn node(&self) -> Option<&Node> {
        match &self.place {
            Place::Here { peer, .. } => Some(peer.node()),
            Place::There { .. } => None,
        }
    }

    /// A service: a new one, with further arguments, or the one that runs.
    async fn bench(&self, arguments: &[&str]) -> Result<Bench<'_>, ClientError> {
        let traces = &self.traces;
        match &self.place {
            Place::There { client, workspace } => {
                Ok(Bench { client: Arc::clone(client), workspace, traces, own: None })
            }
            Place::Here { setup, peer } => {
                let mut more = setup.clone();
                more.arguments.extend(arguments.iter().map(Into::into));
                let service = Service::start(&more).await?;
                let client = Arc::new(service.client()?);
                let status: SystemStatus = client.json(client.get(&["system", "status"])).await?;
                let own = Own { service, instance: status.instance_id.to_string(), setup, peer };
                Ok(Bench { client, workspace: FIRST_WORKSPACE, traces, own: Some(own) })
            }
        }
    }

    /// Takes back what is left after an end of any kind: containers on this machine; jobs, documents and configs on a service that
    /// goes on.
    pub async fn tidy(&self) {
        match &self.place {
            Place::Here { peer, .. } => peer.remove().await,
            Place::There { client, .. } => self.traces.remove(client).await,
        }
    }
}

impl Bench<'_> {
    /// Waits until nothing is being made or removed; how many containers are parked, where that can be seen.
    async fn quiet(&self) -> Option<usize> {
        match &self.own {
            Some(own) => Some(own.peer.quiet(&own.instance).await),
            None => {
                // What another machine does cannot be seen: a parked container is made in less.
                tokio::time::sleep(Duration::from_millis(500)).await;
                None
            }
        }
    }

    async fn trivial(&self) -> Result<Tenant, ClientError> {
        Tenant::trivial(&self.client, self.traces, self.workspace).await
    }
}

/// Measures. `say` hears of what is being done.
///
/// # Errors
/// `local_only` when a section cannot be measured on a service that runs; that there is no engine or service; what was refused.
pub async fn measure(site: &Site, plan: &Plan, figures: &mut Figures, say: &dyn Fn(&str)) -> Result<(), ClientError> {
    figures.quick = plan.quick;
    for section in &plan.sections {
        say(&format!("{}: {}", section.as_str(), about(*section)));
        match section {
            Section::Latency => latency::measure(site, plan, figures).await?,
            Section::Throughput => throughput::measure(site, plan, figures, say).await?,
            Section::Rows => rows::measure(site, plan, figures, say).await?,
            Section::Idle => idle::measure(site, plan, figures).await?,
            Section::Fairness => fairness::measure(site, plan, figures).await?,
        }
    }
    Ok(())
}

fn about(section: Section) -> String {
    let help = clap::ValueEnum::to_possible_value(&section).and_then(|value| value.get_help().cloned());
    help.map(|help| help.to_string()).unwrap_or_default()
}

fn local_only(section: Section) -> ClientError {
    let message = format!(
        "{} is measured on a service of the benchmark's own, on this machine: leave out --server and ADE_SERVER, or the section",
        section.as_str()
    );
    ClientError::new(Blame::Request, "local_only", message)
}

/// Milliseconds.
fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// From the least to the most of sorted values, behind something that is said before it.
fn span(before: &str, values: &[f64], digits: usize) -> String {
    match values {
        [first, .., last] if before.is_empty() => format!("{first:.digits$} to {last:.digits$}"),
        [first, .., last] => format!("{before}; {first:.digits$} to {last:.digits$}"),
        _ => before.to_owned(),
    }
}
