//! The course of a job between `READY` and its end: clocks, cancels, and what its frames say.

use super::archive::OutputSink;
use super::connections::Connections;
use super::limits::Limits;
use super::outcome::Evidence;
use super::protocol::{self, Done, FromSupervisor, Progress, ProtocolError, RawEvent, StopReason};
use super::report::Notice;
use super::wire::{Wire, cancelled};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

/// From `JOB` to the first frame of a parked container.
const ADOPTION: Duration = Duration::from_secs(5);
/// On top of what `on_job_end` may take: kill, collect, report.
const COLLECT_BUDGET: Duration = Duration::from_secs(30);
/// Bytes of events that one job may send. The supervisor lets through 5,000 lines with 1 Mi characters in all, in JSON at most
/// six bytes each, then a tail of 50 lines, and some dozens of other events: 8 MiB at worst, of which this is twice.
const EVENT_BYTES: u64 = 16 * 1024 * 1024;
/// Bytes of progress that one job may send. It is kept nowhere, so it has a bound of its own: an honest job of 24 hours, the
/// longest that can be set, reports some 55 bytes ten times a second, which is 45 MiB.
const PROGRESS_BYTES: u64 = 64 * 1024 * 1024;

/// Everything between `READY` and the end of the container.
pub struct Course<'a> {
    pub notices: &'a mpsc::Sender<Notice>,
    pub sink: OutputSink,
    pub stop: mpsc::Sender<StopReason>,
    pub connections: Connections,
    pub evidence: &'a mut Evidence,
    /// What is to be told of the supervisor once it is known that it has taken the job.
    pub ready: Option<Notice>,
    /// When the supervisor had read the job.
    pub taken: Option<Instant>,
    event_bytes: u64,
    progress_bytes: u64,
}

impl<'a> Course<'a> {
    pub const fn new(
        notices: &'a mpsc::Sender<Notice>,
        sink: OutputSink,
        stop: mpsc::Sender<StopReason>,
        connections: Connections,
        evidence: &'a mut Evidence,
    ) -> Self {
        Self { notices, sink, stop, connections, evidence, ready: None, taken: None, event_bytes: 0, progress_bytes: 0 }
    }

    pub async fn tell_ready(&mut self) {
        if let Some(notice) = self.ready.take() {
            self.notices.send(notice).await.ok();
        }
    }

    pub async fn until_done(&mut self, wire: &mut Wire, cancel: &mut watch::Receiver<bool>, limits: &Limits) {
        let mut soft = Instant::now() + Duration::from_millis(limits.timeout_ms);
        let grace = Duration::from_millis(limits.on_job_end_ms) + COLLECT_BUDGET;
        let mut hard = soft + grace;
        let adopted_by = Instant::now() + ADOPTION;
        loop {
            let reason = tokio::select! {
                frame = wire.next() => {
                    match frame {
                        Ok(Some(frame)) => match self.take(frame).await {
                            Ok(false) => continue,
                            Ok(true) => return,
                            Err(error) => self.evidence.broken = Some(error),
                        },
                        Ok(None) => self.evidence.lost_contact = wire.lost.take(),
                        Err(error) => self.evidence.broken = Some(error),
                    }
                    return;
                }
                () = cancelled(cancel), if self.evidence.stop != Some(StopReason::Cancelled) => StopReason::Cancelled,
                () = sleep_until(soft), if self.evidence.stop.is_none() => StopReason::Timeout,
                // A parked container that is stuck costs its job no more than this.
                () = sleep_until(adopted_by), if self.ready.is_some() => return,
                () = sleep_until(hard) => {
                    self.evidence.killed = true;
                    return;
                }
            };
            self.evidence.stop = Some(reason);
            soft = Instant::now();
            hard = soft + grace;
            self.notices.send(Notice::Stopping(reason)).await.ok();
            self.stop.try_send(reason).ok();
        }
    }

    /// Takes one frame; true when it was the last.
    async fn take(&mut self, frame: FromSupervisor) -> Result<bool, ProtocolError> {
        self.tell_ready().await;
        match frame {
            FromSupervisor::Taken if self.taken.is_some() => return Err(ProtocolError::Order("TAKEN came twice")),
            FromSupervisor::Taken => self.taken = Some(Instant::now()),
            FromSupervisor::Event(payload) => {
                count(&mut self.event_bytes, payload.len(), "events", EVENT_BYTES)?;
                let event: RawEvent = protocol::parse("EVENT", &payload)?;
                self.notices.send(Notice::Event(event)).await.ok();
            }
            FromSupervisor::Progress(payload) => {
                count(&mut self.progress_bytes, payload.len(), "progress", PROGRESS_BYTES)?;
                // Relayed from the child as it is; one that cannot be read is not worth a failure, and none is worth a wait.
                if let Ok(progress) = protocol::parse::<Progress>("PROGRESS", &payload) {
                    self.notices.try_send(Notice::Progress(progress)).ok();
                }
            }
            FromSupervisor::Output(chunk) => self.sink.push(chunk).await,
            FromSupervisor::EndOfOutput => {}
            FromSupervisor::Open(number) => self.connections.open(number)?,
            FromSupervisor::Connection(number, relayed) => self.connections.take(number, relayed)?,
            FromSupervisor::Done(payload) => {
                self.evidence.done = Some(protocol::parse::<Done>("DONE", &payload)?);
                return Ok(true);
            }
            FromSupervisor::Ready(_) => return Err(ProtocolError::Order("READY came twice")),
        }
        Ok(false)
    }
}

fn count(total: &mut u64, bytes: usize, what: &'static str, limit: u64) -> Result<(), ProtocolError> {
    *total += bytes as u64;
    if *total > limit { Err(ProtocolError::Flood { what, limit }) } else { Ok(()) }
}
