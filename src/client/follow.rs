//! Following a job's events over lost connections, without missing one or hearing one twice.

use super::sse::{Message, Parser};
use super::{Client, ClientError};
use crate::api::routes::job_record::JobRecord;
use crate::events::Event;
use crate::ids::JobId;
use crate::sandbox::protocol::Progress;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How long a service may be away before its follower gives up.
const AWAY: Duration = Duration::from_secs(120);
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LAST_PAUSE: Duration = Duration::from_secs(5);

/// What a follower hears.
#[derive(Debug)]
pub enum News {
    /// An event, and the line that it stands on in the log.
    Event(Box<Event>, String),
    /// Rows done.
    Progress(Progress),
    /// The connection was lost; the follower tries to get it back.
    Lost(String),
}

/// A reader of one job's events, with what it has seen.
pub struct Follower<'a> {
    client: &'a Client,
    workspace: &'a str,
    id: &'a JobId,
    after: u64,
    stream: Option<BoxStream<'static, reqwest::Result<bytes::Bytes>>>,
    parser: Parser,
    ready: VecDeque<News>,
    /// Whether this connection has brought an event.
    fresh: bool,
    ended: bool,
    away_since: Option<Instant>,
    pause: Duration,
}

impl<'a> Follower<'a> {
    /// A reader of the events after `after`, until the job has ended.
    pub fn new(client: &'a Client, workspace: &'a str, id: &'a JobId, after: u64) -> Self {
        Self {
            client,
            workspace,
            id,
            after,
            stream: None,
            parser: Parser::default(),
            ready: VecDeque::new(),
            fresh: false,
            ended: false,
            away_since: None,
            pause: FIRST_PAUSE,
        }
    }

    /// What comes next; `None` when the job has ended and all was heard.
    ///
    /// # Errors
    /// When the service refuses, or stays away for too long.
    pub async fn next(&mut self) -> Result<Option<News>, ClientError> {
        loop {
            if let Some(news) = self.ready.pop_front() {
                return Ok(Some(news));
            }
            if self.ended {
                return Ok(None);
            }
            let Some(stream) = &mut self.stream else {
                if let Err(error) = self.connect().await {
                    return self.away(error).await.map(Some);
                }
                continue;
            };
            match stream.next().await {
                Some(Ok(bytes)) => {
                    self.away_since = None;
                    self.pause = FIRST_PAUSE;
                    for message in self.parser.push(&bytes) {
                        self.hear(message);
                    }
                }
                Some(Err(error)) => {
                    self.stream = None;
                    let error = self.client.lost(&error);
                    return self.away(error).await.map(Some);
                }
                // The service ends a stream after the last event, but also when it stops itself.
                None => {
                    self.stream = None;
                    if !self.fresh {
                        match self.has_ended().await {
                            Ok(true) => return Ok(None),
                            Ok(false) => tokio::time::sleep(self.next_pause()).await,
                            Err(error) => return self.away(error).await.map(Some),
                        }
                    }
                }
            }
        }
    }

    async fn connect(&mut self) -> Result<(), ClientError> {
        let mut request = self
            .client
            .get(&["workspaces", self.workspace, "jobs", self.id.as_str(), "events"])
            .header("Accept", "text/event-stream");
        if self.after > 0 {
            request = request.header("Last-Event-ID", self.after);
        }
        self.stream = Some(self.client.send(request).await?.bytes_stream().boxed());
        self.parser = Parser::default();
        self.fresh = false;
        Ok(())
    }

    fn hear(&mut self, message: Message) {
        if message.event == "progress" && message.id.is_none() {
            self.ready.extend(serde_json::from_str(&message.data).ok().map(News::Progress));
            return;
        }
        let Ok(event) = serde_json::from_str::<Event>(&message.data) else { return };
        if event.seq > self.after {
            self.after = event.seq;
            self.fresh = true;
            self.ended = event.event == "exit";
            self.ready.push_back(News::Event(Box::new(event), message.data));
        }
    }

    async fn has_ended(&self) -> Result<bool, ClientError> {
        let request = self.client.get(&["workspaces", self.workspace, "jobs", self.id.as_str()]);
        Ok(self.client.json::<JobRecord>(request).await?.status.is_final())
    }

    fn next_pause(&mut self) -> Duration {
        let pause = self.pause;
        self.pause = (pause * 2).min(LAST_PAUSE);
        pause
    }

    /// Waits before the next try, or gives up.
    async fn away(&mut self, error: ClientError) -> Result<News, ClientError> {
        let since = *self.away_since.get_or_insert_with(Instant::now);
        if !error.is_passing() || since.elapsed() > AWAY {
            return Err(error.of_job(self.id));
        }
        let pause = self.next_pause();
        tokio::time::sleep(error.retry_after.unwrap_or(pause)).await;
        Ok(News::Lost(error.message))
    }
}
