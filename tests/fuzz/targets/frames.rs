//! Whatever a container writes, in whatever pieces it arrives: frames or an error, never a panic, and the same either way.

use ade::events::EventLog;
use ade::sandbox::protocol::{
    Decoder, Done, FIRST_CONNECTION, FromSupervisor, MAX_PAYLOAD, Progress, ProtocolError, RawEvent, Ready, Relayed,
    parse,
};

/// All frames up to the first error, which a byte stream cannot recover from.
fn frames(pieces: impl Iterator<Item = Vec<u8>>) -> (Vec<FromSupervisor>, Result<(), ProtocolError>) {
    let mut decoder = Decoder::default();
    let mut found = Vec::new();
    for piece in pieces {
        decoder.feed(&piece);
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => found.push(frame),
                Ok(None) => break,
                Err(error) => return (found, Err(error)),
            }
        }
    }
    let end = decoder.finish();
    (found, end)
}

/// Holds for any input, or panics.
pub fn run(data: &[u8]) {
    // The first byte says how large the pieces are.
    let Some((size, stream)) = data.split_first() else { return };
    let whole = frames(std::iter::once(stream.to_vec()));
    let pieces = frames(stream.chunks(usize::from(*size).max(1)).map(<[u8]>::to_vec));
    assert_eq!(whole, pieces, "the pieces in which a stream arrives do not matter");

    let mut log = EventLog::new(Vec::new(), "job_fuzz", 1, 1, 1);
    for frame in whole.0 {
        match frame {
            FromSupervisor::Ready(payload) => drop(parse::<Ready>("READY", &payload)),
            FromSupervisor::Progress(payload) => drop(parse::<Progress>("PROGRESS", &payload)),
            FromSupervisor::Done(payload) => drop(parse::<Done>("DONE", &payload)),
            FromSupervisor::Output(payload) => assert!(payload.len() <= MAX_PAYLOAD),
            FromSupervisor::Taken | FromSupervisor::EndOfOutput | FromSupervisor::Open(_) => {}
            FromSupervisor::Connection(number, relayed) => {
                assert!(number >= FIRST_CONNECTION);
                if let Relayed::Data(payload) = relayed {
                    assert!((1..=MAX_PAYLOAD).contains(&payload.len()));
                }
            }
            FromSupervisor::Event(payload) => {
                if let Ok(raw) = parse::<RawEvent>("EVENT", &payload)
                    && let Some(event) = log.from_container(&raw.event, raw.level.as_deref(), raw.detail)
                {
                    assert!(ade::events::EVENTS.iter().any(|known| known.name == event.event && known.from_container));
                }
            }
        }
    }
}
