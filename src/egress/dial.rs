//! From a target to a connection, by way of addresses that were checked.

use super::Egress;
use super::answer::{Code, Refusal};
use super::head::Ask;
use super::target::{Host, Target};
use super::upstream::Upstream;
use futures_util::future::BoxFuture;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

/// Addresses of one name that are tried.
const TRIES: usize = 4;
/// Largest answer of another proxy to `CONNECT`, bytes.
const MAX_ANSWER: usize = 16 * 1024;

/// From a name to its addresses.
#[derive(Clone)]
pub struct Resolver(Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> + Send + Sync>);

impl Resolver {
    /// The resolver of the machine.
    #[must_use]
    pub fn system() -> Self {
        Self::new(|name| {
            Box::pin(async move { Ok(tokio::net::lookup_host((name, 0)).await?.map(|address| address.ip()).collect()) })
        })
    }

    /// A resolver of one's own.
    #[must_use]
    pub fn new(
        resolve: impl Fn(String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(resolve))
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}

/// A connection to a server, or to another proxy that leads there.
#[derive(Debug)]
pub struct Dialled {
    /// The connection.
    pub server: TcpStream,
    /// The address that was checked and dialled; none when another proxy resolves the name.
    pub address: Option<IpAddr>,
    /// The rule that allows the address.
    pub rule: String,
    /// What the server has said already.
    pub said: Vec<u8>,
}

impl Egress {
    /// Connects to a target within the time that there is. `own` are the job's own turns to look up names, so that none takes all
    /// of the node's.
    ///
    /// # Errors
    /// Every way in which that fails.
    pub(super) async fn dial(&self, target: &Target, ask: &Ask, own: &Semaphore) -> Result<Dialled, Refusal> {
        let within = self.bounds.connect;
        let dialled = async {
            match &self.upstream {
                None => self.straight(target, own).await,
                Some(upstream) => self.through(upstream, target, ask, own).await,
            }
        };
        tokio::time::timeout(within, dialled).await.unwrap_or_else(|_| {
            let what = format!("{target} does not answer within {} s (ADE_EGRESS_CONNECT_SECONDS)", within.as_secs());
            Err(Refusal::new(Code::ConnectTimeout, &what))
        })
    }

    async fn straight(&self, target: &Target, own: &Semaphore) -> Result<Dialled, Refusal> {
        let addresses = self.resolve(target, own).await?;
        let permitted = self.permitted(target, &addresses)?;
        let mut last = String::new();
        for (address, rule) in permitted.into_iter().take(TRIES) {
            match TcpStream::connect(SocketAddr::new(address, target.port)).await {
                Ok(server) => return Ok(Dialled { server, address: Some(address), rule, said: Vec::new() }),
                Err(error) => last = error.to_string(),
            }
        }
        Err(Refusal::new(Code::ConnectFailed, &format!("{target} does not take the connection: {last}")))
    }

    /// Through the instance's proxy. It makes the connection, so that what it resolves the name to is for it to judge; what the
    /// engine can tell of the address it judges itself.
    async fn through(
        &self,
        upstream: &Upstream,
        target: &Target,
        ask: &Ask,
        own: &Semaphore,
    ) -> Result<Dialled, Refusal> {
        let failed = |what: String| Refusal::new(Code::UpstreamProxy, &format!("the proxy of this instance: {what}"));
        let rule = match self.resolve(target, own).await {
            Ok(addresses) => self.permitted(target, &addresses)?.swap_remove(0).1,
            Err(refusal) if refusal.code == Code::NameNotResolved => "upstream proxy".to_owned(),
            Err(refusal) => return Err(refusal),
        };
        let Target { host, port } = &upstream.target;
        let proxy = match host {
            Host::Address(address) => TcpStream::connect((*address, *port)).await,
            Host::Name(name) => TcpStream::connect((name.as_str(), *port)).await,
        };
        let mut server = proxy.map_err(|error| failed(format!("it does not take the connection: {error}")))?;
        let mut said = Vec::new();
        if *ask == Ask::Tunnel {
            let authorization = upstream.authorization.as_ref();
            let authorization =
                authorization.map_or_else(String::new, |value| format!("Proxy-Authorization: {value}\r\n"));
            let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{authorization}\r\n");
            server.write_all(request.as_bytes()).await.map_err(|error| failed(error.to_string()))?;
            said = tunnelled(&mut server).await.map_err(failed)?;
        }
        Ok(Dialled { server, address: None, rule, said })
    }

    async fn resolve(&self, target: &Target, own: &Semaphore) -> Result<Vec<IpAddr>, Refusal> {
        let name = match &target.host {
            Host::Address(address) => return Ok(vec![*address]),
            Host::Name(name) => name,
        };
        let found = {
            let _own = own.acquire().await;
            let _turn = self.lookups.acquire().await;
            (self.resolver.0)(name.clone()).await
        };
        match found {
            Ok(addresses) if !addresses.is_empty() => Ok(addresses),
            Ok(_) => Err(Refusal::new(Code::NameNotResolved, &format!("the name {name} has no address"))),
            Err(error) => {
                Err(Refusal::new(Code::NameNotResolved, &format!("the name {name} does not resolve: {error}")))
            }
        }
    }

    /// Those of the addresses that may be dialled, in the form in which they are, at least one. Which they are is no business of a
    /// job that may dial none of them.
    fn permitted(&self, target: &Target, addresses: &[IpAddr]) -> Result<Vec<(IpAddr, String)>, Refusal> {
        let permitted: Vec<_> =
            addresses.iter().filter_map(|address| Some((address.to_canonical(), self.permits(*address)?))).collect();
        if permitted.is_empty() {
            tracing::debug!(%target, ?addresses, "no public address");
            let what = match &target.host {
                Host::Address(_) => format!("{target} is no public address"),
                Host::Name(_) => format!("{} has no public address", target.host),
            };
            let way_out = "an admin can list private ones in ADE_EGRESS_ALLOW_CIDRS";
            return Err(Refusal::new(Code::AddressNotPublic, &format!("{what}; {way_out}")));
        }
        Ok(permitted)
    }
}

/// Reads the answer to `CONNECT`; gives what came behind it.
async fn tunnelled(server: &mut TcpStream) -> Result<Vec<u8>, String> {
    let mut answer = Vec::new();
    loop {
        let mut fields = [httparse::EMPTY_HEADER; 100];
        let mut response = httparse::Response::new(&mut fields);
        match response.parse(&answer).map_err(|error| format!("its answer is not HTTP/1.1: {error}"))? {
            httparse::Status::Complete(length) => {
                let (code, reason) = (response.code.unwrap_or(0), response.reason.unwrap_or_default());
                return match code {
                    200..=299 => Ok(answer.split_off(length)),
                    _ => Err(format!("it answers {code} {reason}")),
                };
            }
            httparse::Status::Partial if answer.len() < MAX_ANSWER => {}
            httparse::Status::Partial => return Err("its answer does not end".into()),
        }
        match server.read_buf(&mut answer).await {
            Ok(0) => return Err("it closed the connection".into()),
            Ok(_) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
}
