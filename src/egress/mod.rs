//! Brokered egress: the only way from a job container to the network.
//!
//! A container has no network interface. Its supervisor relays the connections that a proxy on loopback takes
//! (`sandbox::connections`), and this module is that proxy: it reads the request (`head`), asks
//! the [`Grant`] of the container, resolves the name, refuses every address that is not public (`address`), dials the very
//! address that it has checked (`dial`), relays (`relay`) and records. `docs/operations/egress.md` is for admins.

mod address;
mod answer;
mod broker;
mod dial;
mod grant;
mod head;
mod hello;
mod relay;
mod target;
mod upstream;

pub use answer::{Code, Refusal};
pub use broker::{Broker, Ending, Record};
pub use dial::Resolver;
pub use grant::Grant;
pub use target::{Host, Target};
pub use upstream::Upstream;

use crate::sandbox::{Failure, FailureKind};
use crate::settings::Settings;
use bytes::Bytes;
use ipnet::IpNet;
use serde_json::{Value, json};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::Semaphore;

/// Where Linux distributions keep the certificate authorities that they trust.
const SYSTEM_BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// Largest bundle, bytes; those of distributions have some 220 KB.
const BUNDLE_BYTES: u64 = 4 * 1024 * 1024;
/// Connections that may be told at once that there are too many.
const REFUSED_AT_ONCE: u16 = 64;
/// Names that are looked up at once on a node: each takes a thread.
const LOOKUPS: usize = 32;

/// What one container may use.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Connections at once.
    pub at_once: u16,
    /// Connections in all; each is recorded.
    pub in_all: u16,
    /// Bytes of all its connections together, each way.
    pub bytes: u64,
    /// From a name to a connection.
    pub connect: Duration,
    /// Time without any byte, either way.
    pub idle: Duration,
}

impl Bounds {
    /// Connections that a supervisor may relay at once: some more than it may have, so that their clients are told.
    #[must_use]
    pub const fn relayed_at_once(&self) -> u16 {
        self.at_once.saturating_add(REFUSED_AT_ONCE)
    }

    /// Connections that a supervisor may relay in all: one more than it may have, to be recorded; it tells the clients of later
    /// ones by itself.
    #[must_use]
    pub const fn relayed_in_all(&self) -> u16 {
        self.in_all.saturating_add(1)
    }
}

/// How a node reaches the network for its containers.
#[derive(Debug)]
pub struct Egress {
    allowed: Vec<IpNet>,
    upstream: Option<Upstream>,
    bounds: Bounds,
    ca_bundle: Option<Bytes>,
    resolver: Resolver,
    lookups: Semaphore,
}

impl Egress {
    /// As the settings say. Reads the bundle of certificate authorities.
    ///
    /// # Errors
    /// `host_io` when the bundle or the upstream proxy that an admin named cannot be used.
    pub fn new(settings: &Settings) -> Result<Self, Failure> {
        let bounds = Bounds {
            at_once: settings.egress_connections,
            in_all: settings.egress_connections_in_all,
            bytes: settings.egress_mb * 1024 * 1024,
            connect: Duration::from_secs(settings.egress_connect_seconds),
            idle: Duration::from_secs(settings.egress_idle_seconds),
        };
        let upstream = settings.upstream_proxy.clone().transpose().map_err(|error| {
            Failure::new(FailureKind::HostIo, format!("ADE_UPSTREAM_PROXY cannot be used: {error}"))
        })?;
        let allowed = settings.egress_allow_cidrs.clone();
        Ok(Self { ca_bundle: ca_bundle(settings.ca_bundle.as_deref())?, ..Self::within(bounds, allowed, upstream) })
    }

    /// Within these bounds, to public addresses and the allowed ones, through the other proxy if there is one; without a bundle.
    #[must_use]
    pub fn within(bounds: Bounds, allowed: Vec<IpNet>, upstream: Option<Upstream>) -> Self {
        let (resolver, lookups) = (Resolver::system(), Semaphore::new(LOOKUPS));
        Self { allowed, upstream, bounds, ca_bundle: None, resolver, lookups }
    }

    /// The same, with another way from names to addresses.
    #[must_use]
    pub fn resolving(mut self, resolver: Resolver) -> Self {
        self.resolver = resolver;
        self
    }

    /// What one container may use.
    #[must_use]
    pub const fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    /// What a supervisor is told: the `egress` of its job.
    #[must_use]
    pub fn terms(&self, ca_bundle: Option<&str>) -> Value {
        json!({
            "connections": self.bounds.relayed_at_once(),
            "in_all": self.bounds.relayed_in_all(),
            "exhausted": String::from_utf8_lossy(&Broker::exhausted(self).answer()),
            "ca_bundle": ca_bundle,
        })
    }

    /// The certificate authorities for clients in a container that was granted this, PEM; none where nothing can be reached.
    #[must_use]
    pub fn ca_bundle(&self, grant: &Grant) -> Option<&Bytes> {
        self.ca_bundle.as_ref().filter(|_| grant.is_given())
    }
}

fn ca_bundle(named: Option<&Path>) -> Result<Option<Bytes>, Failure> {
    let found = SYSTEM_BUNDLES.iter().map(PathBuf::from).find(|path| path.is_file());
    let Some(path) = named.map(Path::to_owned).or(found) else { return Ok(None) };
    let mut pem = Vec::new();
    let read = std::fs::File::open(&path).and_then(|file| file.take(BUNDLE_BYTES + 1).read_to_end(&mut pem));
    let failure = |what: &str| {
        let path = path.display();
        Failure::new(
            FailureKind::HostIo,
            format!("cannot use {path} as certificate authorities (ADE_CA_BUNDLE): {what}"),
        )
    };
    match read {
        Err(error) => Err(failure(&error.to_string())),
        Ok(_) if pem.len() as u64 > BUNDLE_BYTES => Err(failure("it is larger than 4 MiB")),
        Ok(_) => Ok(Some(pem.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{Access, Decision, Layers, Switch, decide};

    /// An egress with an allow-list of networks and small bounds.
    pub fn egress(allowed: &[&str]) -> Egress {
        let bounds = Bounds {
            at_once: 4,
            in_all: 8,
            bytes: 1 << 20,
            connect: Duration::from_secs(2),
            idle: Duration::from_millis(500),
        };
        Egress::within(bounds, allowed.iter().map(|net| net.parse().unwrap()).collect(), None)
    }

    /// The decision about a package that asks for network or not, with an allow-list of hosts.
    pub fn decision(manifest: bool, hosts: &[&str]) -> Decision {
        decide(&Layers {
            instance: Switch::Manifest,
            workspace: Access::Inherit,
            package: Access::Inherit,
            allowed_hosts: hosts.iter().map(|host| host.parse().unwrap()).collect(),
            manifest,
        })
    }
}
