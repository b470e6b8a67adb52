//! The proxy of one container: every connection from its request to its record.

use super::answer::{Code, Refusal};
use super::dial::Dialled;
use super::head::{self, Ask, Head, MAX_HEAD};
use super::hello::ALERT;
use super::relay::{End, Relay, Traffic};
use super::target::Target;
use super::{Egress, Grant};
use crate::network::Purpose;
use crate::sandbox::connections::Connection;
use bytes::BytesMut;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// From a new connection to the end of the head of its request.
const HEAD_BUDGET: Duration = Duration::from_secs(10);
/// Time for a client to take what is under way and close, after the last word of its server.
const LINGER: Duration = Duration::from_secs(2);
/// The same, after a refusal, which is short.
const LINGER_REFUSED: Duration = Duration::from_millis(250);

/// A connection that a process in a container has made: where to, and what became of it.
#[derive(Debug, Clone)]
pub struct Record {
    /// What the container is for.
    pub purpose: Purpose,
    /// Where to, when it came to say so.
    pub target: Option<Target>,
    /// From its first to its last moment, milliseconds.
    pub duration_ms: u64,
    /// What became of it.
    pub ending: Ending,
}

/// What became of a connection.
#[derive(Debug, Clone)]
pub enum Ending {
    /// There was one.
    Connected {
        /// The address that was dialled; none when another proxy has resolved the name.
        address: Option<IpAddr>,
        /// The rule that allowed it.
        rule: String,
        /// Bytes from the client to the server.
        bytes_sent: u64,
        /// Bytes from the server to the client.
        bytes_received: u64,
        /// `done`, `broken`, `idle`, `bytes` or `job_ended`.
        ended: &'static str,
    },
    /// There was none.
    Refused(Refusal),
}

/// The proxy of one container.
#[derive(Debug)]
pub struct Broker {
    egress: Arc<Egress>,
    grant: Grant,
    /// Connections that were taken so far.
    taken: AtomicU16,
    /// Connections that are being served.
    open: AtomicU16,
    bytes: Traffic,
}

/// What is known of a connection while it is served.
#[derive(Debug, Default)]
struct Trace {
    target: OnceLock<Target>,
    connected: OnceLock<(Option<IpAddr>, String)>,
    bytes: Traffic,
}

impl Broker {
    /// A proxy that gives what was granted.
    #[must_use]
    pub fn new(egress: Arc<Egress>, grant: Grant) -> Self {
        Self { egress, grant, taken: AtomicU16::new(0), open: AtomicU16::new(0), bytes: Traffic::default() }
    }

    /// What a client is told when no further connection is recorded.
    #[must_use]
    pub fn exhausted(egress: &Egress) -> Refusal {
        let limit = egress.bounds().in_all;
        let what = format!(
            "this job has made {limit} connections, as many as it may; keep connections open and use them again, or have an admin raise ADE_EGRESS_CONNECTIONS_IN_ALL"
        );
        Refusal::new(Code::ConnectionsInAll, &what)
    }

    /// Serves one connection to its end, or to the end of the job.
    pub async fn serve(&self, connection: Connection, over: CancellationToken) -> Record {
        let began = Instant::now();
        let trace = Trace::default();
        let served = async {
            let ended = self.converse(&connection, &trace).await;
            if let Err(refusal) = &ended {
                match trace.connected.get() {
                    None => connection.write(&refusal.answer()).await.ok(),
                    Some(_) => connection.write(&ALERT).await.ok(),
                };
                connection.end().await.ok();
            }
            ended
        };
        let (ended, is_over) = tokio::select! {
            ended = served => (ended, false),
            () = over.cancelled() => match trace.connected.get() {
                Some(_) => (Ok("job_ended"), true),
                None => (Err(Refusal::new(Code::Abandoned, "the job ended before there was a connection")), true),
            },
        };
        let ending = match ended {
            Err(refusal) => Ending::Refused(refusal),
            Ok(ended) => {
                let (address, rule) = trace.connected.get().cloned().unwrap_or_default();
                let bytes_sent = trace.bytes.sent.load(Ordering::Relaxed);
                let bytes_received = trace.bytes.received.load(Ordering::Relaxed);
                Ending::Connected { address, rule, bytes_sent, bytes_received, ended }
            }
        };
        let duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        if !is_over {
            // A client that is not done reading loses what it was told when the connection is closed at once.
            let patience = if matches!(ending, Ending::Refused(_)) { LINGER_REFUSED } else { LINGER };
            let closing = async move {
                linger(&connection, patience).await;
                connection.close().await;
            };
            tokio::select! {
                () = closing => {}
                () = over.cancelled() => {}
            }
        }
        Record { purpose: self.grant.purpose(), target: trace.target.into_inner(), duration_ms, ending }
    }

    async fn converse(&self, connection: &Connection, trace: &Trace) -> Result<&'static str, Refusal> {
        let _slot = self.admit()?;
        let (Head { target, ask, length }, mut first) =
            timeout(HEAD_BUDGET, read_head(connection)).await.unwrap_or_else(|_| {
                let what = format!("the head of the request did not arrive within {} s", HEAD_BUDGET.as_secs());
                Err(Refusal::new(Code::HeadTimeout, &what))
            })?;
        let target = trace.target.get_or_init(|| target);
        let granted = self.grant.rule(target)?;
        let dialled = tokio::select! {
            dialled = self.egress.dial(target, &ask) => dialled?,
            () = connection.gone() => return Err(abandoned()),
        };
        let Dialled { mut server, address, rule, said } = dialled;
        let rule = match granted {
            Some(pattern) if rule == "public" => pattern,
            Some(pattern) => format!("{pattern}, {rule}"),
            None => rule,
        };
        trace.connected.get_or_init(|| (address, rule));
        let first = first.split_off(length).freeze();
        let body = match &ask {
            Ask::Tunnel => {
                connection.write(b"HTTP/1.1 200 Connection established\r\n\r\n").await.ok();
                None
            }
            Ask::Forward(forward) => {
                let upstream = self.egress.upstream.as_ref().map(|upstream| upstream.authorization.as_deref());
                let head = forward.head(target, upstream);
                trace.bytes.sent.fetch_add(head.len() as u64, Ordering::Relaxed);
                // An error comes up again in the relay.
                server.write_all(&head).await.ok();
                Some(forward.body)
            }
        };
        let bounds = self.egress.bounds();
        let relay = Relay {
            connection,
            target,
            own: &trace.bytes,
            all: &self.bytes,
            limit: bounds.bytes,
            idle: bounds.idle,
            guarded: body.is_none() && self.grant.lists_hosts(),
            body,
        };
        match relay.run(server, first, &said).await {
            End::Done => Ok("done"),
            End::Broken => Ok("broken"),
            End::Idle => Ok("idle"),
            End::Bytes => Ok("bytes"),
            End::Refused(refusal) => Err(refusal),
        }
    }

    /// A place among the connections of the job.
    fn admit(&self) -> Result<Slot<'_>, Refusal> {
        let bounds = self.egress.bounds();
        let taken = self.taken.fetch_add(1, Ordering::Relaxed);
        let open = self.open.fetch_add(1, Ordering::Relaxed);
        let slot = Slot(&self.open);
        if taken >= bounds.in_all {
            return Err(Self::exhausted(&self.egress));
        }
        if open >= bounds.at_once {
            let what = format!(
                "this job has {} connections open, as many as it may; close some, or have an admin raise ADE_EGRESS_CONNECTIONS",
                bounds.at_once
            );
            return Err(Refusal::new(Code::ConnectionsAtOnce, &what));
        }
        let most = self.bytes.sent.load(Ordering::Relaxed).max(self.bytes.received.load(Ordering::Relaxed));
        if most >= bounds.bytes {
            let what = format!(
                "this job has transferred {} MiB, as much as it may; have an admin raise ADE_EGRESS_MB",
                bounds.bytes >> 20
            );
            return Err(Refusal::new(Code::Bytes, &what));
        }
        Ok(slot)
    }
}

struct Slot<'a>(&'a AtomicU16);

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn abandoned() -> Refusal {
    Refusal::new(Code::Abandoned, "the client closed the connection before it had one")
}

/// The head of the request, and all that has arrived with it.
async fn read_head(connection: &Connection) -> Result<(Head, BytesMut), Refusal> {
    let mut arrived = BytesMut::new();
    loop {
        let Ok(Some(bytes)) = connection.receive().await else { return Err(abandoned()) };
        arrived.extend_from_slice(&bytes);
        if let Some(head) = head::parse(&arrived)? {
            // What is behind the head gets its credit when it is sent on.
            connection.taken(head.length.min(MAX_HEAD)).await.map_err(|_| abandoned())?;
            return Ok((head, arrived));
        }
    }
}

/// Waits, for a while, until the client has closed.
async fn linger(connection: &Connection, patience: Duration) {
    let drained = async {
        while let Ok(Some(_)) = connection.receive().await {}
        connection.gone().await;
    };
    timeout(patience, drained).await.ok();
}
