//! Bytes both ways between a client in a container and a server, counted and bounded.

use super::answer::Refusal;
use super::head::Body;
use super::hello::Guard;
use super::target::Target;
use crate::sandbox::connections::{Connection, Gone};
use bytes::{BufMut, Bytes};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::{Instant, sleep_until};

/// Time without any byte after which a client that says no more is taken for gone: a socket that was closed looks like one that
/// was half-closed, until something is sent to it.
const HALF_CLOSED: Duration = Duration::from_secs(10);

/// Bytes both ways.
#[derive(Debug, Default)]
pub struct Traffic {
    /// From the client to the server.
    pub sent: AtomicU64,
    /// From the server to the client.
    pub received: AtomicU64,
}

/// Why a relayed connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Both sides were done, or the client wanted no more.
    Done,
    /// One side broke it off.
    Broken,
    /// No byte came for too long.
    Idle,
    /// The job has transferred as many bytes as it may.
    Bytes,
    /// What the client asked its server for is not what it asked the proxy for.
    Refused(Refusal),
}

impl From<Gone> for End {
    fn from(_: Gone) -> Self {
        Self::Broken
    }
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        Self::Broken
    }
}

/// One relayed connection.
pub struct Relay<'a> {
    pub connection: &'a Connection,
    pub target: &'a Target,
    /// Bytes of this connection.
    pub own: &'a Traffic,
    /// Bytes of all connections of the job.
    pub all: &'a Traffic,
    /// How many of them there may be, each way.
    pub limit: u64,
    pub idle: Duration,
    /// Whether a TLS client is held to the target.
    pub guarded: bool,
    /// What of the client's bytes goes to the server; everything in a tunnel.
    pub body: Option<Body>,
}

impl Relay<'_> {
    /// Relays until both sides are done or something ends it. `first` is what the client has sent already, `said` what the server
    /// has.
    pub async fn run(&self, server: TcpStream, first: Bytes, said: &[u8]) -> End {
        // Small messages of either side are worth more than full packets.
        server.set_nodelay(true).ok();
        let (from, to) = server.into_split();
        let half_closed = AtomicBool::new(false);
        let both = async { tokio::try_join!(self.up(to, first, &half_closed), self.down(from, said)) };
        tokio::select! {
            end = both => match end.err() {
                // A server that resets a connection which its client has closed is usual, and nothing is lost.
                Some(End::Broken) if half_closed.load(Ordering::Relaxed) => End::Done,
                end => end.unwrap_or(End::Done),
            },
            () = self.connection.gone() => End::Done,
            end = self.silence(&half_closed) => end,
        }
    }

    async fn up(&self, mut to: OwnedWriteHalf, first: Bytes, half_closed: &AtomicBool) -> Result<(), End> {
        let mut guard = Guard::new(self.guarded);
        let mut left = match self.body {
            Some(Body::Length(length)) => length,
            Some(Body::Chunked) | None => u64::MAX,
        };
        let mut next = Some(first);
        while let Some(mut bytes) = next {
            let taken = bytes.len();
            bytes.truncate(usize::try_from(left).unwrap_or(usize::MAX));
            left -= bytes.len() as u64;
            let passed = guard.pass(bytes, self.target).map_err(End::Refused)?;
            count(&self.own.sent, &self.all.sent, passed.len(), self.limit)?;
            to.write_all(&passed).await?;
            if left == 0 {
                // More than the request is nobody's, and a client that closes has the answer or wants none.
                while self.connection.receive().await?.is_some() {}
                return Err(End::Done);
            }
            self.connection.taken(taken).await?;
            next = self.connection.receive().await?;
        }
        half_closed.store(true, Ordering::Relaxed);
        to.shutdown().await?;
        Ok(())
    }

    async fn down(&self, mut from: OwnedReadHalf, said: &[u8]) -> Result<(), End> {
        if !said.is_empty() {
            count(&self.own.received, &self.all.received, said.len(), self.limit)?;
            self.connection.write(said).await?;
        }
        loop {
            let room = self.connection.room().await?;
            // Without this, an idle connection would hold a whole frame.
            from.readable().await?;
            let mut frame = Connection::frame(room).limit(room);
            let read = from.read_buf(&mut frame).await?;
            if read == 0 {
                self.connection.end().await?;
                // One answer is all that there is to one request.
                return if self.body.is_some() { Err(End::Done) } else { Ok(()) };
            }
            count(&self.own.received, &self.all.received, read, self.limit)?;
            self.connection.send(frame.into_inner()).await?;
        }
    }

    /// Completes when no byte has come for too long.
    async fn silence(&self, half_closed: &AtomicBool) -> End {
        let seen = || self.own.sent.load(Ordering::Relaxed) + self.own.received.load(Ordering::Relaxed);
        let (mut last, mut since) = (seen(), Instant::now());
        let step = (self.idle / 4).min(Duration::from_secs(1));
        loop {
            sleep_until(Instant::now() + step).await;
            let now = seen();
            if now != last {
                (last, since) = (now, Instant::now());
            } else if since.elapsed() >= self.idle {
                return End::Idle;
            } else if half_closed.load(Ordering::Relaxed) && since.elapsed() >= HALF_CLOSED {
                return End::Broken;
            }
        }
    }
}

fn count(own: &AtomicU64, all: &AtomicU64, bytes: usize, limit: u64) -> Result<(), End> {
    own.fetch_add(bytes as u64, Ordering::Relaxed);
    let before = all.fetch_add(bytes as u64, Ordering::Relaxed);
    if before + bytes as u64 > limit { Err(End::Bytes) } else { Ok(()) }
}
