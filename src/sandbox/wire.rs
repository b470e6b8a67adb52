//! What comes out of a container: frames from stdout, a tail of stderr.

use super::protocol::{self, Decoder, FromSupervisor, ProtocolError, Ready};
use bollard::container::LogOutput;
use futures_util::{Stream, StreamExt};
use std::pin::Pin;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// From start to `READY`.
pub const START_BUDGET: Duration = Duration::from_secs(60);
const STDERR_TAIL: usize = 4096;

/// The container's output: frames from stdout, a tail of stderr.
pub struct Wire {
    output: Pin<Box<dyn Stream<Item = Result<LogOutput, bollard::errors::Error>> + Send>>,
    decoder: Decoder,
    stderr: Vec<u8>,
    /// Set when the connection to Docker broke, rather than the container ended.
    pub lost: Option<String>,
}

impl Wire {
    pub fn new(output: Pin<Box<dyn Stream<Item = Result<LogOutput, bollard::errors::Error>> + Send>>) -> Self {
        Self { output, decoder: Decoder::default(), stderr: Vec::new(), lost: None }
    }

    /// The next frame; `None` when the container has ended or Docker has gone.
    pub async fn next(&mut self) -> Result<Option<FromSupervisor>, ProtocolError> {
        loop {
            if let Some(frame) = self.decoder.next_frame()? {
                return Ok(Some(frame));
            }
            match self.output.next().await {
                Some(Ok(LogOutput::StdErr { message })) => {
                    self.stderr.extend_from_slice(&message);
                    let excess = self.stderr.len().saturating_sub(STDERR_TAIL);
                    self.stderr.drain(..excess);
                }
                Some(Ok(output)) => self.decoder.feed(&output.into_bytes()),
                Some(Err(error)) => {
                    self.lost = Some(error.to_string());
                    return Ok(None);
                }
                None => {
                    self.decoder.finish()?;
                    return Ok(None);
                }
            }
        }
    }

    /// What is still to come, for whoever speaks the protocol instead of this.
    pub fn into_output(self) -> Pin<Box<dyn Stream<Item = Result<LogOutput, bollard::errors::Error>> + Send>> {
        self.output
    }

    /// Completes when the container has ended, whatever it still says.
    pub async fn ended(mut self) {
        while let Some(Ok(_)) = self.output.next().await {}
    }

    pub fn stderr_tail(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }
}

/// Why a supervisor is not ready.
#[derive(Debug, thiserror::Error)]
pub enum NotReady {
    #[error("its start was cancelled")]
    Cancelled,
    #[error("it was not ready within {} s; is the machine overloaded?", START_BUDGET.as_secs())]
    Silent,
    #[error("it ended at once")]
    Ended,
    #[error(transparent)]
    Broken(ProtocolError),
}

pub async fn wait_until_ready(wire: &mut Wire, cancel: &mut watch::Receiver<bool>) -> Result<Ready, NotReady> {
    let deadline = Instant::now() + START_BUDGET;
    tokio::select! {
        frame = wire.next() => match frame {
            Ok(Some(FromSupervisor::Ready(payload))) => protocol::parse("READY", &payload).map_err(NotReady::Broken),
            Ok(Some(_)) => Err(NotReady::Broken(ProtocolError::Order("the first frame was not READY"))),
            Ok(None) => Err(NotReady::Ended),
            Err(error) => Err(NotReady::Broken(error)),
        },
        () = cancelled(cancel) => Err(NotReady::Cancelled),
        () = sleep_until(deadline) => Err(NotReady::Silent),
    }
}

/// Completes when `cancel` turns true; never when its sender is gone.
pub async fn cancelled(cancel: &mut watch::Receiver<bool>) {
    if cancel.wait_for(|cancelled| *cancelled).await.is_err() {
        std::future::pending::<()>().await;
    }
}
