//! Lending parked containers to commands on the same machine, so that `ade run` is as quick as a running service.
//!
//! The service listens on a socket in its data folder, which only its own user can enter. A command says in one line of JSON of
//! which class it wants a container; the answer is one line as well, and when it names a container, the connection is from then
//! on the container's stdio: bytes for its stdin one way; the other way what it says, in pieces behind a header of one byte for the
//! kind and four for the length. The container goes when the connection does, whoever ends it.

use super::container::Opened;
use super::ledger::Held;
use super::pool::Pool;
use super::protocol::Ready;
use super::spec::Class;
use super::wire::Wire;
use bollard::Docker;
use bollard::container::LogOutput;
use bytes::Bytes;
use futures_util::stream::try_unfold;
use futures_util::{Stream, StreamExt};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// The socket, inside of the data folder of a service.
pub const SOCKET: &str = "pool.sock";
/// For the two lines. A command does not wait for a service that is too busy to answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// Longest line, bytes.
const LINE: u64 = 64 * 1024;
/// Containers that are lent at once.
const AT_ONCE: usize = 64;
/// Largest piece of output, bytes; Docker's are 32 KiB.
const PIECE: u32 = 1024 * 1024;

const STDOUT: u8 = 1;
const STDERR: u8 = 2;
/// The container has ended; without it the service has.
const ENDED: u8 = 0;

/// What a command wants.
#[derive(Debug, Serialize, Deserialize)]
struct Wanted {
    class: Class,
    /// Under which name the container goes on.
    name: String,
    /// The engine that the command uses, as it is set.
    docker_host: Option<String>,
}

/// What it gets.
#[derive(Debug, Serialize, Deserialize)]
struct Lent {
    /// Docker's id.
    container: String,
    ready: Ready,
}

/// Lends containers of the pool that `pool` gives, until the future is dropped; those that are lent go on to the end of the pool.
/// `docker_host` is the setting of the service.
pub async fn lend(listener: UnixListener, docker_host: Option<String>, pool: impl Fn() -> Option<Pool>) {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        let Ok((connection, _)) = listener.accept().await else {
            // Out of file descriptors, most likely.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (Some(pool), Ok(place)) = (pool(), Arc::clone(&places).try_acquire_owned()) else { continue };
        let docker_host = docker_host.clone();
        pool.clone().spawn(async move {
            let _place = place;
            if let Err(error) = serve(connection, docker_host, &pool).await {
                tracing::debug!(%error, "a container was not lent to its end");
            }
        });
    }
}

async fn serve(connection: UnixStream, docker_host: Option<String>, pool: &Pool) -> io::Result<()> {
    let (from, mut to) = connection.into_split();
    let mut from = BufReader::new(from);
    let wanted: Wanted = timeout(PATIENCE, read_line(&mut from)).await??;
    let parked = if wanted.docker_host == docker_host { pool.take(&wanted.class) } else { None };
    let Some(Opened { mut held, mut input, wire, ready: Ok(ready), .. }) = parked else {
        return to.write_all(b"null\n").await;
    };
    held.rename(&wanted.name);
    let _busy = pool.busy();
    let lent = Lent { container: held.reference().to_owned(), ready };
    to.write_all(format!("{}\n", serde_json::to_string(&lent)?).as_bytes()).await?;
    let up = async {
        // Its end is the end of the command.
        tokio::io::copy_buf(&mut from, &mut input).await.ok();
    };
    let down = async {
        let mut output = wire.into_output();
        while let Some(said) = output.next().await {
            let (kind, message) = match said {
                Ok(LogOutput::StdErr { message }) => (STDERR, message),
                Ok(said) => (STDOUT, said.into_bytes()),
                Err(error) => return Err(io::Error::other(error)),
            };
            to.write_u8(kind).await?;
            to.write_u32(u32::try_from(message.len()).unwrap_or(u32::MAX)).await?;
            to.write_all(&message).await?;
        }
        to.write_all(&[ENDED; 5]).await
    };
    tokio::select! {
        () = up => Ok(()),
        done = down => done,
        () = pool.closed() => Ok(()),
    }
}

/// A parked container of a service on this machine, if there is one.
pub async fn borrow(
    socket: &Path,
    docker: &Docker,
    docker_host: Option<&str>,
    class: &Class,
    name: &str,
) -> Option<Opened> {
    let wanted = Wanted { class: class.clone(), name: name.to_owned(), docker_host: docker_host.map(str::to_owned) };
    let asking = async {
        let (from, mut to) = UnixStream::connect(socket).await?.into_split();
        to.write_all(format!("{}\n", serde_json::to_string(&wanted)?).as_bytes()).await?;
        let mut from = BufReader::new(from);
        let lent: Option<Lent> = read_line(&mut from).await?;
        Ok::<_, io::Error>(lent.map(|lent| (lent, from, to)))
    };
    let (Lent { container, ready }, from, to) = timeout(PATIENCE, asking).await.ok()?.ok()??;
    Some(Opened {
        held: Held::lent(docker, container),
        input: Box::pin(to),
        wire: Wire::new(Box::pin(pieces(from))),
        ready: Ok(ready),
        creating: Duration::ZERO,
        starting: Duration::ZERO,
    })
}

async fn read_line<T: serde::de::DeserializeOwned>(from: &mut (impl AsyncBufReadExt + Unpin)) -> io::Result<T> {
    let mut line = Vec::new();
    from.take(LINE).read_until(b'\n', &mut line).await?;
    serde_json::from_slice(&line).map_err(io::Error::from)
}

/// What a lent container says.
fn pieces(
    from: impl AsyncRead + Unpin + Send + 'static,
) -> impl Stream<Item = Result<LogOutput, bollard::errors::Error>> + Send {
    try_unfold(from, |mut from| async move {
        let gone = |error: io::Error| io::Error::new(error.kind(), "the service that had lent the container is gone");
        let (kind, length) = (from.read_u8().await.map_err(gone)?, from.read_u32().await.map_err(gone)?);
        if kind == ENDED || length > PIECE {
            return Ok(None);
        }
        let mut message = vec![0; usize::try_from(length).unwrap_or_default()];
        from.read_exact(&mut message).await.map_err(gone)?;
        let message = Bytes::from(message);
        let said = if kind == STDERR { LogOutput::StdErr { message } } else { LogOutput::StdOut { message } };
        Ok(Some((said, from)))
    })
}
