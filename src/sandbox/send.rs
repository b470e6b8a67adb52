//! What goes into a container: the job, its input archive, and requests to stop.

use super::archive;
use super::outcome::{Failure, FailureKind};
use super::protocol::{self, StopReason, ToSupervisor};
use crate::egress::{Egress, Grant};
use crate::text::plain;
use bytes::{Bytes, BytesMut};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::path::PathBuf;
use std::pin::Pin;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

/// A file of the input archive.
#[derive(Debug, Clone)]
pub struct InputFile {
    /// Name in the archive: `package/…` or `in/NNNN`; made by the engine, never by a tenant.
    pub name: String,
    /// Where its bytes are.
    pub source: Source,
}

/// Where the bytes of an [`InputFile`] are.
#[derive(Debug, Clone)]
pub enum Source {
    /// In memory; for the small files of a package.
    Bytes(Bytes),
    /// On the host's disk, streamed; must still have this size and hash when it is read.
    File {
        /// Path on the host.
        path: PathBuf,
        /// Bytes.
        size: u64,
        /// Hash, lower-case hex.
        sha256: String,
    },
}

/// The `egress` of a job, and the certificate authorities that its clients trust, where anything can be reached.
#[must_use]
pub fn egress_terms(network: &Egress, grant: &Grant) -> (Value, Option<InputFile>) {
    const CA_BUNDLE: &str = "ca/bundle.pem";
    let file = network
        .ca_bundle(grant)
        .map(|pem| InputFile { name: CA_BUNDLE.to_owned(), source: Source::Bytes(pem.clone()) });
    (network.terms(file.as_ref().map(|_| CA_BUNDLE)), file)
}

impl InputFile {
    fn size(&self) -> u64 {
        match &self.source {
            Source::Bytes(bytes) => bytes.len() as u64,
            Source::File { size, .. } => *size,
        }
    }
}

/// Sends the job and the input archive, then stop requests, and frames of connections; keeps stdin open until it is aborted.
pub async fn write_all(
    mut input: Pin<Box<dyn AsyncWrite + Send>>,
    job: Value,
    files: Vec<InputFile>,
    mut stops: mpsc::Receiver<StopReason>,
    mut frames: mpsc::Receiver<Bytes>,
) -> Result<(), Failure> {
    match send_inputs(&mut input, &job, &files).await {
        Ok(()) => {}
        Err(SendError::Input(failure)) => return Err(failure),
        // The container is gone; what it left behind says why.
        Err(SendError::Pipe) => return Ok(()),
    }
    loop {
        let frame = tokio::select! {
            biased;
            reason = stops.recv() => {
                let Some(reason) = reason else { break };
                let mut frame = BytesMut::new();
                ToSupervisor::Stop(reason).encode(&mut frame);
                frame.freeze()
            }
            Some(frame) = frames.recv() => frame,
        };
        if input.write_all(&frame).await.is_err() || input.flush().await.is_err() {
            break;
        }
    }
    Ok(())
}

enum SendError {
    Input(Failure),
    Pipe,
}

async fn send_inputs(
    input: &mut Pin<Box<dyn AsyncWrite + Send>>,
    job: &Value,
    files: &[InputFile],
) -> Result<(), SendError> {
    let mut out = FrameWriter { input, buffer: BytesMut::new(), pending: BytesMut::new() };
    let payload = job.to_string();
    if payload.len() > protocol::MAX_PAYLOAD {
        return Err(SendError::Input(Failure::new(
            FailureKind::InputTooLarge,
            format!(
                "the job's description has {} bytes, the limit is {}: submit fewer inputs or shorter names",
                payload.len(),
                protocol::MAX_PAYLOAD
            ),
        )));
    }
    ToSupervisor::Job(Bytes::from(payload)).encode(&mut out.buffer);
    for file in files {
        let size = file.size();
        let header = archive::input_header(&file.name, size).map_err(|error| {
            let message = format!(
                "the file name {:?} does not fit into the input archive: {error}; shorten it",
                plain(&file.name, 120)
            );
            SendError::Input(Failure::new(FailureKind::PackageInvalid, message))
        })?;
        out.data(&header).await?;
        match &file.source {
            Source::Bytes(bytes) => out.data(bytes).await?,
            Source::File { path, size, sha256 } => send_file(&mut out, path, *size, sha256).await?,
        }
        out.data(&archive::padding(size)).await?;
    }
    out.data(&archive::trailer()).await?;
    out.end().await
}

async fn send_file(out: &mut FrameWriter<'_>, path: &PathBuf, size: u64, sha256: &str) -> Result<(), SendError> {
    let failed = |what: String| {
        SendError::Input(Failure::new(FailureKind::InputMissing, format!("input {}: {what}", path.display())))
    };
    let mut file = tokio::fs::File::open(path).await.map_err(|error| failed(error.to_string()))?.take(size);
    let mut hash = Sha256::new();
    let mut sent = 0;
    let mut buffer = vec![0; protocol::MAX_PAYLOAD];
    loop {
        let read = file.read(&mut buffer).await.map_err(|error| failed(error.to_string()))?;
        if read == 0 {
            break;
        }
        sent += read as u64;
        hash.update(&buffer[..read]);
        out.data(&buffer[..read]).await?;
    }
    if sent != size || format!("{:x}", hash.finalize()) != sha256 {
        return Err(failed("it changed while it was read; submit it again".into()));
    }
    Ok(())
}

/// Gathers archive bytes into full frames and frames into large writes.
struct FrameWriter<'a> {
    input: &'a mut Pin<Box<dyn AsyncWrite + Send>>,
    /// Frames ready to be written.
    buffer: BytesMut,
    /// Archive bytes of the frame that is being filled.
    pending: BytesMut,
}

impl FrameWriter<'_> {
    async fn data(&mut self, mut bytes: &[u8]) -> Result<(), SendError> {
        while !bytes.is_empty() {
            let room = protocol::MAX_PAYLOAD - self.pending.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.pending.extend_from_slice(now);
            bytes = later;
            if self.pending.len() == protocol::MAX_PAYLOAD {
                self.close_frame();
                self.flush().await?;
            }
        }
        Ok(())
    }

    fn close_frame(&mut self) {
        let payload = self.pending.split().freeze();
        ToSupervisor::Input(payload).encode(&mut self.buffer);
    }

    async fn flush(&mut self) -> Result<(), SendError> {
        self.input.write_all(&self.buffer).await.map_err(|_| SendError::Pipe)?;
        self.buffer.clear();
        self.input.flush().await.map_err(|_| SendError::Pipe)
    }

    async fn end(&mut self) -> Result<(), SendError> {
        self.close_frame();
        ToSupervisor::EndOfInput.encode(&mut self.buffer);
        self.flush().await
    }
}
