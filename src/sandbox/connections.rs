//! The engine's end of the connections that a supervisor relays: one table, one task per connection, credit both ways.
//!
//! The table is fed by whoever reads the container's output, and never waits: what arrives is put down where the task of the
//! connection finds it, within the credit that the supervisor was given. Only the tasks wait, for their servers and for room in
//! what goes in to the container.

use super::protocol::{
    DOWN_WINDOW, FIRST_CONNECTION, HEADER_LEN, MAX_PAYLOAD, ProtocolError, Relayed, ToSupervisor, UP_WINDOW,
    data_header,
};
use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// What is taken from a connection before the supervisor gets new credit for it, bytes.
const CREDIT_STEP: u32 = UP_WINDOW / 4;
/// Time for tasks to say what became of their connections when the job is over.
const CLOSE_BUDGET: Duration = Duration::from_secs(2);

/// The supervisor closed the connection, or the container is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone;

/// Handles one connection.
pub type Serve = Box<dyn Fn(Connection, CancellationToken) -> BoxFuture<'static, ()> + Send>;

/// Connections of one container.
pub struct Connections {
    /// Does the work on one; its token is cancelled at the end of the job.
    serve: Serve,
    /// Connections that one side or both may still say something about.
    open: HashMap<u16, Arc<End>>,
    /// How many may be open.
    at_once: usize,
    /// Number of the next one.
    next: u16,
    /// The number that the next one never has: there are no more.
    last: u16,
    out: mpsc::Sender<Bytes>,
    tasks: JoinSet<()>,
    over: CancellationToken,
}

impl Connections {
    /// No connection yet. At most `at_once` can be open, and at most `in_all` can ever be made. `out` takes frames to the
    /// supervisor.
    pub fn new(at_once: usize, in_all: u16, out: mpsc::Sender<Bytes>, serve: Serve) -> Self {
        Self {
            serve,
            open: HashMap::new(),
            at_once,
            next: FIRST_CONNECTION,
            last: FIRST_CONNECTION.saturating_add(in_all),
            out,
            tasks: JoinSet::new(),
            over: CancellationToken::new(),
        }
    }

    /// Takes a new connection.
    ///
    /// # Errors
    /// A number out of turn, or more connections than there may be.
    pub fn open(&mut self, number: u16) -> Result<(), ProtocolError> {
        while self.tasks.try_join_next().is_some() {}
        if number != self.next {
            return Err(ProtocolError::Order("a connection was opened out of turn"));
        }
        if number >= self.last {
            return Err(ProtocolError::Order("more connections were opened than a job may make"));
        }
        if self.open.len() >= self.at_once {
            self.open.retain(|_, end| !end.state().is_over());
        }
        if self.open.len() >= self.at_once {
            return Err(ProtocolError::Order("more connections were opened at once than a job may have"));
        }
        self.next += 1;
        let end = Arc::new(End::default());
        self.open.insert(number, Arc::clone(&end));
        let connection = Connection { number, end, out: self.out.clone() };
        self.tasks.spawn((self.serve)(connection, self.over.clone()));
        Ok(())
    }

    /// Takes what the supervisor says about a connection.
    ///
    /// # Errors
    /// What it may not say.
    pub fn take(&mut self, number: u16, relayed: Relayed) -> Result<(), ProtocolError> {
        let end = self.open.get(&number).ok_or(ProtocolError::Order("a frame of a connection that is not open"))?;
        let over = {
            let mut state = end.state();
            state.take(relayed)?;
            state.is_over()
        };
        end.changed.notify_waiters();
        if over {
            self.open.remove(&number);
        }
        Ok(())
    }

    /// Ends every connection and waits until each has said what became of it.
    pub async fn close(mut self) {
        self.over.cancel();
        let all = async { while self.tasks.join_next().await.is_some() {} };
        tokio::time::timeout(CLOSE_BUDGET, all).await.ok();
    }
}

/// What both the table and the task of a connection know of it.
#[derive(Debug, Default)]
struct End {
    state: Mutex<State>,
    changed: Notify,
}

impl End {
    fn state(&self) -> MutexGuard<'_, State> {
        // A state is changed in single steps; one that a panic left behind is still whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct State {
    /// What arrived and was not taken yet.
    inbox: BytesMut,
    /// Bytes that may still arrive.
    receive: u32,
    /// Bytes that were taken, and for which the supervisor has no new credit yet.
    owed: u32,
    /// Bytes that may still be sent.
    send: u32,
    they_ended: bool,
    they_reset: bool,
    we_reset: bool,
}

impl Default for State {
    fn default() -> Self {
        Self {
            inbox: BytesMut::new(),
            receive: UP_WINDOW,
            owed: 0,
            send: DOWN_WINDOW,
            they_ended: false,
            they_reset: false,
            we_reset: false,
        }
    }
}

impl State {
    const fn is_over(&self) -> bool {
        self.they_reset && self.we_reset
    }

    /// What arrives after our own `RESET` was sent before it was read there: it is held to the same bounds, and dropped.
    fn take(&mut self, relayed: Relayed) -> Result<(), ProtocolError> {
        if self.they_reset {
            return Err(ProtocolError::Order("a frame of a connection after its RESET"));
        }
        match relayed {
            Relayed::Data(_) | Relayed::End if self.they_ended => {
                return Err(ProtocolError::Order("a frame of a connection after its END"));
            }
            Relayed::Data(data) => {
                let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
                let left = self.receive.checked_sub(length);
                self.receive = left.ok_or(ProtocolError::Order("more bytes of a connection than it had credit for"))?;
                // Copied, so that small frames do not keep large buffers alive.
                if !self.we_reset {
                    self.inbox.extend_from_slice(&data);
                }
            }
            Relayed::End => self.they_ended = true,
            Relayed::Credit(more) => {
                let sum = self.send.checked_add(more).filter(|sum| more > 0 && *sum <= DOWN_WINDOW);
                self.send = sum.ok_or(ProtocolError::Order("more credit for a connection than there can be"))?;
            }
            Relayed::Reset => {
                self.they_reset = true;
                self.inbox = BytesMut::new();
            }
        }
        Ok(())
    }
}

/// A connection that a process in the container has made, as the engine's code has it. Dropping it closes it.
#[derive(Debug)]
pub struct Connection {
    number: u16,
    end: Arc<End>,
    out: mpsc::Sender<Bytes>,
}

impl Connection {
    /// The next bytes, `None` after the last.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn receive(&self) -> Result<Option<Bytes>, Gone> {
        self.until(|state| {
            if state.they_reset {
                Some(Err(Gone))
            } else if !state.inbox.is_empty() {
                Some(Ok(Some(state.inbox.split().freeze())))
            } else if state.they_ended {
                Some(Ok(None))
            } else {
                None
            }
        })
        .await
    }

    /// Lets the other side send as many bytes again as were taken.
    ///
    /// # Errors
    /// When the container is gone.
    pub async fn taken(&self, bytes: usize) -> Result<(), Gone> {
        let credit = {
            let mut state = self.end.state();
            state.owed += u32::try_from(bytes).unwrap_or(u32::MAX).min(UP_WINDOW);
            let due = state.owed >= CREDIT_STEP && !state.they_ended && !state.they_reset && !state.we_reset;
            let credit = if due { std::mem::take(&mut state.owed) } else { 0 };
            state.receive += credit;
            credit
        };
        if credit > 0 { self.say(Relayed::Credit(credit)).await } else { Ok(()) }
    }

    /// Waits until something may be sent, and says how much fits into a frame.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn room(&self) -> Result<usize, Gone> {
        self.until(|state| {
            if state.they_reset {
                Some(Err(Gone))
            } else {
                let room = usize::try_from(state.send).unwrap_or(MAX_PAYLOAD).min(MAX_PAYLOAD);
                (room > 0).then_some(Ok(room))
            }
        })
        .await
    }

    /// An empty buffer for [`Self::send`]: what is appended to it is the payload.
    #[must_use]
    pub fn frame(room: usize) -> BytesMut {
        let mut frame = BytesMut::with_capacity(HEADER_LEN + room);
        frame.resize(HEADER_LEN, 0);
        frame
    }

    /// Sends a frame that was begun by [`Self::frame`] and has no more payload than there was [`Self::room`]; gives the length of
    /// the payload.
    ///
    /// # Errors
    /// When the container is gone.
    pub async fn send(&self, mut frame: BytesMut) -> Result<usize, Gone> {
        let length = frame.len() - HEADER_LEN;
        if length > 0 {
            frame[..HEADER_LEN].copy_from_slice(&data_header(self.number, length));
            {
                let mut state = self.end.state();
                state.send = state.send.saturating_sub(u32::try_from(length).unwrap_or(u32::MAX));
            }
            self.out.send(frame.freeze()).await.map_err(|_| Gone)?;
        }
        Ok(length)
    }

    /// Sends all of a text.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn write(&self, mut text: &[u8]) -> Result<(), Gone> {
        while !text.is_empty() {
            let (now, later) = text.split_at(self.room().await?.min(text.len()));
            let mut frame = Self::frame(now.len());
            frame.extend_from_slice(now);
            self.send(frame).await?;
            text = later;
        }
        Ok(())
    }

    /// Says that nothing more is sent.
    ///
    /// # Errors
    /// When the container is gone.
    pub async fn end(&self) -> Result<(), Gone> {
        self.say(Relayed::End).await
    }

    /// Completes when the other side has closed the connection.
    pub async fn gone(&self) {
        self.until(|state| state.they_reset.then_some(())).await;
    }

    /// Closes the connection; what was not taken yet is lost, on both sides.
    pub async fn close(self) {
        self.we_reset();
        self.say(Relayed::Reset).await.ok();
    }

    /// Whether this side has just closed.
    fn we_reset(&self) -> bool {
        let mut state = self.end.state();
        state.inbox = BytesMut::new();
        !std::mem::replace(&mut state.we_reset, true)
    }

    async fn say(&self, relayed: Relayed) -> Result<(), Gone> {
        let mut frame = BytesMut::new();
        ToSupervisor::Connection(self.number, relayed).encode(&mut frame);
        self.out.send(frame.freeze()).await.map_err(|_| Gone)
    }

    async fn until<T>(&self, mut ready: impl FnMut(&mut State) -> Option<T>) -> T {
        loop {
            let changed = self.end.changed.notified();
            tokio::pin!(changed);
            // Before the look at the state, so that no change between the two is missed.
            changed.as_mut().enable();
            let found = ready(&mut self.end.state());
            match found {
                Some(value) => return value,
                None => changed.await,
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.we_reset() {
            let mut frame = BytesMut::new();
            ToSupervisor::Connection(self.number, Relayed::Reset).encode(&mut frame);
            self.out.try_send(frame.freeze()).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Served = mpsc::UnboundedReceiver<Connection>;

    fn table(at_once: usize, in_all: u16) -> (Connections, mpsc::Receiver<Bytes>, Served) {
        let (out, frames) = mpsc::channel(64);
        let (served, connections) = mpsc::unbounded_channel();
        let serve = move |connection, _| -> BoxFuture<'static, ()> {
            served.send(connection).ok();
            Box::pin(std::future::ready(()))
        };
        (Connections::new(at_once, in_all, out, Box::new(serve)), frames, connections)
    }

    fn data(bytes: usize) -> Relayed {
        Relayed::Data(Bytes::from(vec![7; bytes]))
    }

    #[tokio::test]
    async fn numbers_come_in_turn_and_are_bounded_at_once_and_in_all() {
        let (mut table, _frames, mut served) = table(2, 3);
        assert!(table.open(17).is_err());
        table.open(16).unwrap();
        assert!(table.open(16).is_err());
        table.open(17).unwrap();
        assert!(table.open(18).is_err(), "two are open");
        served.recv().await.unwrap().close().await;
        assert!(table.open(18).is_err(), "the supervisor has not said that it is done with it");
        table.take(16, Relayed::Reset).unwrap();
        table.open(18).unwrap();
        drop(served);
        table.take(17, Relayed::Reset).unwrap();
        table.take(18, Relayed::Reset).unwrap();
        assert!(table.open(19).is_err(), "three in all");
    }

    #[tokio::test]
    async fn what_a_supervisor_may_not_say_is_a_violation() {
        let wrong: [&[Relayed]; 7] = [
            &[Relayed::End, Relayed::End],
            &[Relayed::End, data(1)],
            &[Relayed::Reset, data(1)],
            &[Relayed::Reset, Relayed::Reset],
            &[Relayed::Credit(1)],
            &[Relayed::Credit(0)],
            &[data(65_536), data(65_536), data(65_536), data(65_536), data(1)],
        ];
        for frames in wrong {
            let (mut table, _frames, _served) = table(1, 1);
            assert!(table.take(16, frames[0].clone()).is_err(), "nothing is open");
            table.open(16).unwrap();
            let (last, first) = frames.split_last().unwrap();
            for frame in first {
                table.take(16, frame.clone()).unwrap();
            }
            assert!(table.take(16, last.clone()).is_err(), "{frames:?}");
        }
    }

    #[tokio::test]
    async fn what_was_under_way_when_the_engine_closed_is_tolerated_within_its_credit() {
        let (mut table, mut frames, mut served) = table(1, 9);
        table.open(16).unwrap();
        served.recv().await.unwrap().close().await;
        assert_eq!(frames.recv().await.unwrap()[0], 0x05);
        for _ in 0..4 {
            table.take(16, data(65_536)).unwrap();
        }
        assert!(table.take(16, data(1)).is_err());
        table.take(16, Relayed::End).unwrap();
        table.take(16, Relayed::Reset).unwrap();
        assert!(table.take(16, Relayed::Reset).is_err());
    }

    #[tokio::test]
    async fn credit_flows_back_as_bytes_are_taken_and_nothing_is_sent_without() {
        let (mut table, mut frames, mut served) = table(1, 1);
        table.open(16).unwrap();
        let connection = served.recv().await.unwrap();
        table.take(16, data(65_536)).unwrap();
        let received = connection.receive().await.unwrap().unwrap();
        connection.taken(received.len()).await.unwrap();
        assert_eq!(frames.recv().await.unwrap()[..], [0x06, 0, 0, 16, 0, 0, 0, 4, 0, 1, 0, 0]);
        for _ in 0..16 {
            assert_eq!(connection.room().await.unwrap(), MAX_PAYLOAD);
            connection.write(&[1; MAX_PAYLOAD]).await.unwrap();
        }
        let blocked = tokio::time::timeout(Duration::from_millis(20), connection.room()).await;
        assert!(blocked.is_err());
        table.take(16, Relayed::Credit(5)).unwrap();
        assert_eq!(connection.room().await.unwrap(), 5);
        table.take(16, Relayed::Reset).unwrap();
        assert_eq!((connection.room().await, connection.receive().await), (Err(Gone), Err(Gone)));
    }
}
