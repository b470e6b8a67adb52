//! Frames of the container protocol, the engine's side. Specified in `docs/developers/protocol.md`.
//!
//! Whatever is decoded here was written inside a container and is hostile: lengths are bounded before anything is
//! allocated, and an unknown frame is an error, never skipped.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

/// Version of the protocol that this engine speaks; `READY` names the supervisor's.
pub const VERSION: u32 = 3;
/// Largest payload of one frame, bytes.
pub const MAX_PAYLOAD: usize = 65_536;
/// Bytes of a frame's header.
pub const HEADER_LEN: usize = 8;

/// Number of the first relayed connection of a job; the others follow without gaps.
pub const FIRST_CONNECTION: u16 = 16;
/// Bytes of a relayed connection that the engine may send before the supervisor has passed them on: the credit that it begins
/// with, and the most that it can have. Several milliseconds pass before it gets more, through Docker and back.
pub const DOWN_WINDOW: u32 = 1024 * 1024;
/// The same, for the supervisor; what it sends is the engine's to hold.
pub const UP_WINDOW: u32 = 256 * 1024;

const INPUT: u16 = 1;
const OUTPUT: u16 = 2;

const DATA: u8 = 0x02;
const END: u8 = 0x03;
const RESET: u8 = 0x05;
const CREDIT: u8 = 0x06;
const OPEN: u8 = 0x84;
const TAKEN: u8 = 0x85;

/// A frame that the engine sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToSupervisor {
    /// The job, as JSON.
    Job(Bytes),
    /// A piece of the input archive, at most [`MAX_PAYLOAD`] bytes.
    Input(Bytes),
    /// The input archive is complete.
    EndOfInput,
    /// Stop the job; `DONE` still follows.
    Stop(StopReason),
    /// About a relayed connection.
    Connection(u16, Relayed),
}

/// What either side says about a relayed connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Relayed {
    /// Bytes, at least one and at most [`MAX_PAYLOAD`].
    Data(Bytes),
    /// No more bytes come from this side.
    End,
    /// The last frame of this side.
    Reset,
    /// So many bytes more may be sent.
    Credit(u32),
}

/// Why the engine stops a job that still runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// The wall-clock limit has passed.
    Timeout,
    /// A person or program asked for it.
    Cancelled,
}

/// A frame that arrives from the supervisor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromSupervisor {
    /// The supervisor is parked and waits for a job.
    Ready(Bytes),
    /// The supervisor has read the job.
    Taken,
    /// An event of the job, JSON.
    Event(Bytes),
    /// Rows done so far, JSON; shown, never stored.
    Progress(Bytes),
    /// A piece of the output archive.
    Output(Bytes),
    /// The output archive is complete.
    EndOfOutput,
    /// The completion record, JSON; the last frame.
    Done(Bytes),
    /// A process in the container has made a connection, which gets this number.
    Open(u16),
    /// About a relayed connection.
    Connection(u16, Relayed),
}

/// The container broke the protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// A header with an unknown kind, flags, a wrong stream, or a payload over [`MAX_PAYLOAD`].
    #[error("frame header {kind:#04x} flags {flags} stream {stream} length {length} is not of protocol {VERSION}")]
    Header {
        /// Frame kind byte.
        kind: u8,
        /// Flags byte.
        flags: u8,
        /// Stream number.
        stream: u16,
        /// Announced payload length, bytes.
        length: u32,
    },
    /// A frame stands where the order of things does not allow it.
    #[error("{0}")]
    Order(&'static str),
    /// A payload is not the JSON that its frame demands.
    #[error("the payload of {frame} is not what the protocol says: {reason}")]
    Payload {
        /// Name of the frame.
        frame: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The stream ended inside a frame.
    #[error("the stream ended inside a frame, {0} bytes were left")]
    Truncated(usize),
    /// More bytes than any job may send.
    #[error("the container sent more than {limit} bytes of {what}")]
    Flood {
        /// What there was too much of.
        what: &'static str,
        /// The limit, bytes.
        limit: u64,
    },
}

impl ToSupervisor {
    /// Appends the frame to `out`. `Input` payloads longer than [`MAX_PAYLOAD`] are split over several frames.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Job(json) => put(out, 0x01, 0, json),
            Self::Input(data) => {
                for chunk in data.chunks(MAX_PAYLOAD) {
                    put(out, DATA, INPUT, chunk);
                }
            }
            Self::EndOfInput => put(out, END, INPUT, &[]),
            Self::Stop(reason) => {
                let json: &[u8] = match reason {
                    StopReason::Timeout => br#"{"reason":"timeout"}"#,
                    StopReason::Cancelled => br#"{"reason":"cancelled"}"#,
                };
                put(out, 0x04, 0, json);
            }
            Self::Connection(stream, Relayed::Data(data)) => put(out, DATA, *stream, data),
            Self::Connection(stream, Relayed::End) => put(out, END, *stream, &[]),
            Self::Connection(stream, Relayed::Reset) => put(out, RESET, *stream, &[]),
            Self::Connection(stream, Relayed::Credit(bytes)) => put(out, CREDIT, *stream, &bytes.to_be_bytes()),
        }
    }
}

fn put(out: &mut BytesMut, kind: u8, stream: u16, payload: &[u8]) {
    out.reserve(HEADER_LEN + payload.len());
    out.put_u8(kind);
    out.put_u8(0);
    out.put_u16(stream);
    // Callers keep payloads under MAX_PAYLOAD; a job header over it is refused before it gets here.
    out.put_u32(u32::try_from(payload.len()).unwrap_or(u32::MAX));
    out.put_slice(payload);
}

/// The header of a `DATA` frame of a relayed connection, for a payload that stands behind it already.
#[must_use]
pub fn data_header(stream: u16, length: usize) -> [u8; HEADER_LEN] {
    let ([s0, s1], [l0, l1, l2, l3]) = (stream.to_be_bytes(), u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    [DATA, 0, s0, s1, l0, l1, l2, l3]
}

/// Incremental decoder; holds at most one frame and one chunk.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: BytesMut,
}

impl Decoder {
    /// Adds what was read from the container.
    pub fn feed(&mut self, chunk: &[u8]) {
        self.buffer.extend_from_slice(chunk);
    }

    /// The next whole frame, `None` when more bytes are needed.
    ///
    /// # Errors
    /// [`ProtocolError::Header`] at the first bad header; the decoder must not be used after it.
    pub fn next_frame(&mut self) -> Result<Option<FromSupervisor>, ProtocolError> {
        let Some(header) = self.buffer.first_chunk::<HEADER_LEN>() else {
            return Ok(None);
        };
        let [kind, flags, s0, s1, l0, l1, l2, l3] = *header;
        let stream = u16::from_be_bytes([s0, s1]);
        let length = u32::from_be_bytes([l0, l1, l2, l3]);
        let connection = stream >= FIRST_CONNECTION;
        let size = usize::try_from(length).unwrap_or(usize::MAX);
        let fits = match (kind, stream) {
            (0x81 | 0x82 | 0x83 | 0x86, 0) | (DATA, OUTPUT) => size <= MAX_PAYLOAD,
            (END, OUTPUT) | (TAKEN, 0) => size == 0,
            (DATA, _) => connection && (1..=MAX_PAYLOAD).contains(&size),
            (END | RESET | OPEN, _) => connection && size == 0,
            (CREDIT, _) => connection && size == size_of::<u32>(),
            _ => false,
        };
        if !fits || flags != 0 {
            return Err(ProtocolError::Header { kind, flags, stream, length });
        }
        if self.buffer.len() < HEADER_LEN + size {
            return Ok(None);
        }
        self.buffer.advance(HEADER_LEN);
        let payload = self.buffer.split_to(size).freeze();
        Ok(Some(match kind {
            0x81 => FromSupervisor::Ready(payload),
            0x82 => FromSupervisor::Event(payload),
            0x83 => FromSupervisor::Progress(payload),
            0x86 => FromSupervisor::Done(payload),
            TAKEN => FromSupervisor::Taken,
            OPEN => FromSupervisor::Open(stream),
            DATA if connection => FromSupervisor::Connection(stream, Relayed::Data(payload)),
            END if connection => FromSupervisor::Connection(stream, Relayed::End),
            RESET => FromSupervisor::Connection(stream, Relayed::Reset),
            CREDIT => {
                let bytes = payload.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
                FromSupervisor::Connection(stream, Relayed::Credit(bytes))
            }
            DATA => FromSupervisor::Output(payload),
            _ => FromSupervisor::EndOfOutput,
        }))
    }

    /// Says whether the stream may end here.
    ///
    /// # Errors
    /// [`ProtocolError::Truncated`] when part of a frame is left.
    pub fn finish(&self) -> Result<(), ProtocolError> {
        match self.buffer.len() {
            0 => Ok(()),
            left => Err(ProtocolError::Truncated(left)),
        }
    }
}

/// `READY`.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct Ready {
    /// Protocol version of the supervisor.
    pub protocol: u32,
    /// Version of the runner in the image.
    pub runner_version: String,
    /// Version of the image's Python.
    pub python: String,
}

/// An event as the container sent it; the engine adds time, sequence and ids.
#[derive(Debug, Clone, Deserialize)]
pub struct RawEvent {
    /// Name; checked against the list of names that a container may emit.
    pub event: String,
    /// `debug`, `info`, `warning` or `error`.
    #[serde(default)]
    pub level: Option<String>,
    /// Small JSON object.
    #[serde(default)]
    pub detail: serde_json::Map<String, serde_json::Value>,
}

/// Rows done so far in one pass.
#[derive(Debug, Clone, Deserialize)]
pub struct Progress {
    /// Name of the pass.
    pub pass: String,
    /// Rows done.
    pub rows: u64,
    /// Rows in all, when known.
    #[serde(default)]
    pub total: Option<u64>,
}

/// How the supervisor saw the job end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReportedOutcome {
    /// The child said `ok` and exited by itself.
    Completed,
    /// The child reported an error.
    Failed,
    /// The child ended without a completion record.
    Died,
    /// `STOP` was obeyed.
    Stopped,
    /// The input archive could not be unpacked.
    SetupFailed,
}

/// An error as the runner reports it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReportedError {
    /// Claimed kind; unknown ones become `runner_crashed`.
    pub kind: String,
    /// Text for people.
    pub message: String,
    /// Pass during which it happened.
    pub pass: Option<String>,
    /// Script of the package at fault.
    pub script: Option<String>,
    /// Function at fault.
    pub function: Option<String>,
    /// Line in the script.
    pub line: Option<u32>,
    /// Small JSON object for programs.
    pub detail: Option<serde_json::Value>,
}

/// How the child process ended.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct ChildEnd {
    /// Exit code, when it exited.
    pub exit_code: Option<i32>,
    /// Signal number, when it was killed.
    pub signal: Option<i32>,
    /// Processes that the kernel killed for want of memory.
    pub oom_kills: u64,
    /// What the child was doing.
    pub phase: Option<String>,
}

/// What the container used.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerUsage {
    /// CPU time of all processes, milliseconds.
    pub cpu_ms: Option<u64>,
    /// Peak memory with tmpfs, bytes.
    pub peak_memory_bytes: Option<u64>,
}

/// An output that the supervisor refused to send.
#[derive(Debug, Clone, Deserialize)]
pub struct Rejected {
    /// File name.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// Totals of a job that ran to its end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunSummary {
    /// Data rows in `normalized.xlsx`.
    pub rows_written: u64,
    /// Columns in `normalized.xlsx`.
    pub columns_written: u64,
    /// Issues that validators reported.
    pub issues_found: u64,
}

/// `DONE`, the completion record.
#[derive(Debug, Clone, Deserialize)]
pub struct Done {
    /// How the supervisor saw it.
    pub outcome: ReportedOutcome,
    /// Error, when there was one.
    #[serde(default)]
    pub error: Option<ReportedError>,
    /// Totals.
    #[serde(default)]
    pub summary: Option<RunSummary>,
    /// How the child ended.
    #[serde(default)]
    pub child: Option<ChildEnd>,
    /// What was used.
    #[serde(default)]
    pub usage: ContainerUsage,
    /// Outputs that were refused.
    #[serde(default)]
    pub rejected: Vec<Rejected>,
    /// Diagnostics of a `validate`.
    #[serde(default)]
    pub diagnostics: Option<Vec<serde_json::Value>>,
}

/// Parses a frame's JSON payload.
///
/// # Errors
/// [`ProtocolError::Payload`] naming `frame`.
pub fn parse<'a, T: Deserialize<'a>>(frame: &'static str, payload: &'a [u8]) -> Result<T, ProtocolError> {
    // The error quotes the payload, which is the container's.
    serde_json::from_slice(payload)
        .map_err(|error| ProtocolError::Payload { frame, reason: crate::text::plain(&error.to_string(), 200) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(kind: u8, stream: u16, payload: &[u8]) -> Vec<u8> {
        let mut out = BytesMut::new();
        put(&mut out, kind, stream, payload);
        out.to_vec()
    }

    fn all(bytes: &[u8], step: usize) -> Result<Vec<FromSupervisor>, ProtocolError> {
        let mut decoder = Decoder::default();
        let mut frames = Vec::new();
        for chunk in bytes.chunks(step) {
            decoder.feed(chunk);
            while let Some(frame) = decoder.next_frame()? {
                frames.push(frame);
            }
        }
        decoder.finish()?;
        Ok(frames)
    }

    #[test]
    fn frames_survive_any_chunking() {
        let mut bytes = frame(0x81, 0, b"{}");
        bytes.extend(frame(0x85, 0, b""));
        bytes.extend(frame(0x02, 2, &[7; 300]));
        bytes.extend(frame(0x03, 2, b""));
        bytes.extend(frame(0x86, 0, b"{}"));
        for step in [1, 2, 7, 8, 9, 1000] {
            let frames = all(&bytes, step).unwrap();
            assert_eq!(frames.len(), 5, "step {step}");
            assert_eq!(frames[1], FromSupervisor::Taken);
            assert_eq!(frames[2], FromSupervisor::Output(Bytes::from(vec![7; 300])));
        }
    }

    #[test]
    fn a_payload_over_the_limit_is_refused_before_it_is_buffered() {
        let mut header = vec![0x82, 0, 0, 0];
        header.extend(u32::MAX.to_be_bytes());
        assert!(matches!(all(&header, 8), Err(ProtocolError::Header { length: u32::MAX, .. })));
    }

    #[test]
    fn unknown_kinds_flags_and_streams_are_refused() {
        for bytes in [
            frame(0x01, 0, b"{}"),
            frame(0x90, 0, b"{}"),
            frame(0x02, 1, b"x"),
            frame(0x82, 2, b"{}"),
            frame(0x03, 2, b"x"),
            frame(0x84, 15, b""),
            frame(0x84, 16, b"x"),
            frame(0x02, 16, b""),
            frame(0x02, 15, b"x"),
            frame(0x03, 16, b"x"),
            frame(0x05, 2, b""),
            frame(0x06, 16, b"abc"),
            vec![0x82, 1, 0, 0, 0, 0, 0, 0],
        ] {
            assert!(matches!(all(&bytes, 64), Err(ProtocolError::Header { .. })), "{bytes:?}");
        }
    }

    #[test]
    fn frames_of_connections_are_what_was_encoded() {
        let said = [Relayed::Data(Bytes::from_static(b"abc")), Relayed::Credit(70_000), Relayed::End, Relayed::Reset];
        let mut bytes = BytesMut::from(frame(0x84, 16, b"").as_slice());
        for relayed in said.clone() {
            ToSupervisor::Connection(16, relayed).encode(&mut bytes);
        }
        let mut expected = vec![FromSupervisor::Open(16)];
        expected.extend(said.map(|relayed| FromSupervisor::Connection(16, relayed)));
        assert_eq!(all(&bytes, 3).unwrap(), expected);
        assert_eq!(data_header(16, 3), bytes[8..16]);
    }

    #[test]
    fn a_stream_that_ends_inside_a_frame_is_named() {
        assert_eq!(all(&frame(0x82, 0, b"{}")[..9], 64), Err(ProtocolError::Truncated(9)));
    }

    #[test]
    fn long_input_is_split() {
        let mut out = BytesMut::new();
        ToSupervisor::Input(Bytes::from(vec![1; MAX_PAYLOAD + 5])).encode(&mut out);
        assert_eq!(out.len(), MAX_PAYLOAD + 5 + 2 * HEADER_LEN);
    }

    #[test]
    fn deeply_nested_json_is_an_error_not_a_crash() {
        let bomb = "[".repeat(60_000);
        assert!(parse::<serde_json::Value>("EVENT", bomb.as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_fail_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000), step in 1usize..64) {
            if let Ok(frames) = all(&bytes, step) {
                for frame in frames {
                    if let FromSupervisor::Done(payload) = frame {
                        let _ = parse::<Done>("DONE", &payload);
                    }
                }
            }
        }

        #[test]
        fn what_is_encoded_is_decoded(payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..500), 0..10), step in 1usize..700) {
            let mut bytes = Vec::new();
            for payload in &payloads {
                bytes.extend(frame(0x82, 0, payload));
            }
            let frames = all(&bytes, step).unwrap();
            let expected: Vec<_> = payloads.into_iter().map(|p| FromSupervisor::Event(Bytes::from(p))).collect();
            prop_assert_eq!(frames, expected);
        }
    }
}
