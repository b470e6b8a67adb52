//! One kept connection to a service on this machine: no more of HTTP than is needed, where the client must cost next to nothing,
//! because it shares the machine with what is measured, or because there are thousands of it.

use crate::client::{Blame, ClientError};
use crate::text::plain;
use serde_json::Value;
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A connection.
pub struct Connection {
    stream: TcpStream,
    key: String,
    read: Vec<u8>,
}

fn lost(error: &io::Error) -> ClientError {
    ClientError::new(Blame::Environment, "connection_lost", format!("the connection to the service was lost: {error}"))
}

impl Connection {
    /// Connects to an address, `host:port`.
    ///
    /// # Errors
    /// `connection_lost`.
    pub async fn open(address: &str, key: &str) -> Result<Self, ClientError> {
        let stream = TcpStream::connect(address).await.map_err(|error| lost(&error))?;
        stream.set_nodelay(true).map_err(|error| lost(&error))?;
        Ok(Self { stream, key: key.to_owned(), read: Vec::new() })
    }

    /// Sends a request and reads the answer, JSON or nothing.
    ///
    /// # Errors
    /// `connection_lost`, or `request_refused` when the status is no 2xx.
    pub async fn call(&mut self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, ClientError> {
        let body = body.map(Value::to_string).unwrap_or_default();
        self.send(method, path, "application/json", body.as_bytes()).await
    }

    /// The same, with a body of another kind.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn send(&mut self, method: &str, path: &str, kind: &str, body: &[u8]) -> Result<Value, ClientError> {
        let (start, head) = self.ask(method, path, kind, "application/json", body).await?;
        let length =
            head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0_usize);
        while self.read.len() < start + length {
            self.more().await?;
        }
        let body = &self.read[start..start + length];
        self.check(method, path, &head, body)?;
        Ok(serde_json::from_slice(body).unwrap_or_default())
    }

    /// Asks for a stream of events and waits for the first one. The stream goes on until this is dropped.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn follow(&mut self, path: &str) -> Result<(), ClientError> {
        let (start, head) = self.ask("GET", path, "application/json", "text/event-stream", b"").await?;
        self.check("GET", path, &head, &self.read[start..])?;
        while !self.read[start..].windows(2).any(|window| window == b"\n\n") {
            self.more().await?;
        }
        // Thousands of these are kept.
        self.read = Vec::new();
        Ok(())
    }

    /// Sends a request and reads the head of the answer; where its body begins in what was read, and the head in lower case.
    async fn ask(
        &mut self,
        method: &str,
        path: &str,
        kind: &str,
        accept: &str,
        body: &[u8],
    ) -> Result<(usize, String), ClientError> {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {}\r\nAccept: {accept}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
            self.key,
            body.len()
        );
        self.stream.write_all(&[head.as_bytes(), body].concat()).await.map_err(|error| lost(&error))?;
        self.read.clear();
        loop {
            if let Some(end) = self.read.windows(4).position(|window| window == b"\r\n\r\n") {
                return Ok((end + 4, String::from_utf8_lossy(&self.read[..end]).to_ascii_lowercase()));
            }
            self.more().await?;
        }
    }

    fn check(&self, method: &str, path: &str, head: &str, body: &[u8]) -> Result<(), ClientError> {
        if head.as_bytes().get(9) == Some(&b'2') {
            return Ok(());
        }
        let said = plain(&String::from_utf8_lossy(body), 300);
        let status = head.lines().next().unwrap_or_default();
        Err(ClientError::new(Blame::Environment, "request_refused", format!("{method} {path}: {status}: {said}")))
    }

    async fn more(&mut self) -> Result<(), ClientError> {
        match self.stream.read_buf(&mut self.read).await {
            Ok(0) => Err(lost(&io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => Ok(()),
            Err(error) => Err(lost(&error)),
        }
    }
}
