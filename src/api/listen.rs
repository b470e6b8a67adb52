//! The server: an accept loop over hyper that bounds what a client can hold, in number and in time.
//!
//! One bound covers the head of a request and the idle time before it: hyper starts its clock when a connection begins to
//! wait for a request. Heads that are too large or badly written are [refused](refusal).

use super::extract::BodyTimeout;
use super::problem::{Code, Problem};
use super::refusal::{self, Answer, Guarded, Refused, Requests};
use super::request_id;
use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::Request;
use axum::response::{IntoResponse, Response};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::any::Any;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep};
use tower::ServiceExt;
use tower_http::catch_panic::CatchPanicLayer;

/// What clients may hold.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// Connections at once; above it, new ones wait in the kernel's queue.
    pub connections: usize,
    /// Time for the head of a request to be whole, the idle time of a kept connection before it included.
    pub head: Duration,
    /// Largest head, request line included, bytes.
    pub head_bytes: usize,
    /// Most headers of a request.
    pub headers: usize,
    /// Time without a byte of a body that is being read.
    pub body_stall: Duration,
    /// Time without a byte of an answer being taken by the client.
    pub write_stall: Duration,
    /// Time for what is in flight to end after the shutdown began.
    pub grace: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections: 4096,
            head: Duration::from_secs(30),
            head_bytes: 32 * 1024,
            headers: 100,
            body_stall: Duration::from_secs(30),
            write_stall: Duration::from_secs(30),
            grace: Duration::from_secs(30),
        }
    }
}

/// How long to leave the listener alone after it failed, most likely for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long a client whose request was refused unread may go on sending it. A connection that is closed with bytes unread
/// is reset, and the answer may be lost with it.
const LINGER: Duration = Duration::from_secs(1);

/// Gives a router what every router needs: problems for unknown paths, wrong methods, panics and
/// [heads that are refused](refusal), and [request ids](request_id). Call it after all routes and other layers.
pub fn finish(router: Router) -> Router {
    router
        .fallback(|| async { Problem::new(Code::NotFound) })
        .method_not_allowed_fallback(|| async { Problem::new(Code::MethodNotAllowed) })
        .layer(CatchPanicLayer::custom(panicked))
        .layer(axum::middleware::from_fn(refusal::layer))
        .layer(axum::middleware::from_fn(request_id::layer))
}

fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    tracing::error!(panic = text.unwrap_or("of an unknown type"), "a handler panicked");
    Problem::new(Code::Internal).into_response()
}

/// Serves `router` until `shutdown` is ready and then, for [`Bounds::grace`] at most, what is still in flight. Gives the
/// number of connections that had to be cut after it.
///
/// The router is taken as it is: see [`finish`]. Handlers find the client's address as
/// [`ConnectInfo<SocketAddr>`](ConnectInfo).
pub async fn serve(
    listener: TcpListener,
    router: Router,
    bounds: Bounds,
    shutdown: impl Future<Output = ()> + Send,
) -> usize {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(bounds.head)
        .max_header_size(bounds.head_bytes.saturating_mul(refusal::ROOM))
        .max_headers(bounds.headers.saturating_mul(refusal::ROOM));
    let slots = Arc::new(Semaphore::new(bounds.connections));
    let (close, closing) = watch::channel(false);
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut shutdown => break,
            // Reaps what has ended, so that the set does not grow.
            Some(_) = connections.join_next() => continue,
            accepted = accept(&listener, &slots) => accepted,
        };
        let Some((stream, peer, slot)) = accepted else { continue };
        let connection = Connection { http: http.clone(), router: router.clone(), bounds: bounds.clone(), peer };
        let closing = closing.clone();
        connections.spawn(async move {
            connection.serve(stream, closing).await;
            drop(slot);
        });
    }
    // No new connections from here on: the kernel refuses them.
    drop(listener);
    close.send_replace(true);
    let all = async { while connections.join_next().await.is_some() {} };
    let ended = tokio::time::timeout(bounds.grace, all).await.is_ok();
    while connections.try_join_next().is_some() {}
    let cut = if ended { 0 } else { connections.len() };
    connections.shutdown().await;
    cut
}

/// What one connection is served with.
struct Connection {
    http: http1::Builder,
    router: Router,
    bounds: Bounds,
    peer: SocketAddr,
}

impl Connection {
    /// Answers requests until the connection ends; once `closing` says so, after the one that is being answered.
    async fn serve(self, stream: TcpStream, mut closing: watch::Receiver<bool>) {
        let requests = Requests::default();
        let io = Brisk { inner: stream, stall: self.bounds.write_stall, clock: None };
        let io = TokioIo::new(Guarded::new(io, requests.clone()));
        let service = hyper::service::service_fn(|request| Box::pin(self.answer(request, requests.clone())));
        let mut connection = self.http.serve_connection(io, service);
        let closed = async { drop(closing.wait_for(|closing| *closing).await) };
        let ended = tokio::select! {
            ended = poll_fn(|cx| connection.poll_without_shutdown(cx)) => ended,
            () = closed => {
                Pin::new(&mut connection).graceful_shutdown();
                poll_fn(|cx| connection.poll_without_shutdown(cx)).await
            }
        };
        let error = ended.err();
        if let Some(error) = &error {
            tracing::debug!(peer = %self.peer, %error, "a connection ended early");
        }
        let unparsed = error.as_ref().filter(|error| error.is_parse());
        let (rest, mut io) = connection.into_parts().io.into_inner().into_parts(unparsed);
        let last = match (rest, unparsed) {
            (Some(_), Some(error)) => self.refuse(error).await,
            (rest, _) => rest.unwrap_or_default(),
        };
        // Where this fails, the client is gone.
        if io.write_all(&last).await.is_ok() && io.shutdown().await.is_ok() && unparsed.is_some() {
            let mut unread = [0; 4096];
            let drained = async { while io.read(&mut unread).await.is_ok_and(|read| read > 0) {} };
            tokio::time::timeout(LINGER, drained).await.ok();
        }
    }

    async fn answer(&self, request: Request<Incoming>, requests: Requests) -> Result<Response<Answer>, Infallible> {
        let underway = requests.begin();
        let stall = self.bounds.body_stall;
        let refused = refusal::too_large(&request, &self.bounds);
        let mut request = request.map(|body| Body::new(Patient { inner: body, stall, clock: None }));
        request.extensions_mut().insert(ConnectInfo(self.peer));
        if let Some(problem) = refused {
            request.extensions_mut().insert(Refused(problem));
        }
        let response = self.router.clone().oneshot(request).await?;
        Ok(response.map(|body| Answer::new(body, underway)))
    }

    /// The answer to bytes that are no request, as bytes. A request that stands for them goes through the layers.
    async fn refuse(&self, error: &hyper::Error) -> Vec<u8> {
        let mut request = Request::new(Body::empty());
        request.extensions_mut().insert(ConnectInfo(self.peer));
        request.extensions_mut().insert(Refused(refusal::unparsed(error, &self.bounds)));
        match self.router.clone().oneshot(request).await {
            Ok(response) => refusal::last_answer(response).await,
            Err(never) => match never {},
        }
    }
}

/// The next connection, once there is a slot for it. `None` after a failure and a pause.
async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    // The semaphore is never closed.
    let slot = Arc::clone(slots).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => {
            // Answers are written whole; waiting for more to send with them only delays them.
            let _ = stream.set_nodelay(true);
            Some((stream, peer, slot))
        }
        Err(error) => {
            tracing::warn!(%error, "cannot accept a connection");
            sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

/// A clock that runs while something is awaited.
type Clock = Option<Pin<Box<Sleep>>>;

/// Whether `clock`, started now if it does not run yet, has run for `limit`.
fn expired(clock: &mut Clock, limit: Duration, cx: &mut Context<'_>) -> bool {
    let clock = clock.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + limit)));
    clock.as_mut().poll(cx).is_ready()
}

/// A request's body that fails with [`BodyTimeout`] once no byte came for a while, however long the whole takes.
struct Patient {
    inner: Incoming,
    stall: Duration,
    clock: Clock,
}

impl http_body::Body for Patient {
    type Data = bytes::Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = &mut *self;
        match Pin::new(&mut this.inner).poll_frame(cx) {
            Poll::Ready(frame) => {
                this.clock = None;
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
            Poll::Pending if expired(&mut this.clock, this.stall, cx) => {
                this.clock = None;
                Poll::Ready(Some(Err(BodyTimeout(this.stall).into())))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A connection whose writes fail once the client has taken no byte for a while.
struct Brisk {
    inner: TcpStream,
    stall: Duration,
    clock: Clock,
}

impl Brisk {
    fn judge<T>(&mut self, written: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        match written {
            Poll::Ready(result) => {
                self.clock = None;
                Poll::Ready(result)
            }
            Poll::Pending if expired(&mut self.clock, self.stall, cx) => {
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes no bytes")))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for Brisk {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for Brisk {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.judge(written, cx)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(cx);
        // Flushing a socket is always done at once: it says nothing about the client, so the clock runs on.
        if flushed.is_pending() { self.judge(flushed, cx) } else { flushed }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.judge(shut, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.judge(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::{get, post};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::oneshot;
    use tokio::task::JoinHandle;

    const QUICK: Duration = Duration::from_millis(300);

    struct Server {
        address: SocketAddr,
        stop: oneshot::Sender<()>,
        task: JoinHandle<usize>,
    }

    fn bounds() -> Bounds {
        Bounds { head: QUICK, body_stall: QUICK, write_stall: QUICK, grace: QUICK, ..Bounds::default() }
    }

    async fn start(bounds: Bounds) -> Server {
        let endless = || async {
            Body::from_stream(futures_util::stream::repeat_with(|| Ok::<_, io::Error>(vec![0_u8; 65_536])))
        };
        let router = Router::new()
            .route("/", get(|| async { "hello" }))
            .route(
                "/echo",
                post(
                    |super::super::Body(value): super::super::Body<serde_json::Value>| async move { value.to_string() },
                ),
            )
            .route(
                "/panic",
                get(|| async {
                    if true {
                        panic!("secret")
                    }
                }),
            )
            .route(
                "/slow",
                get(|| async {
                    sleep(Duration::from_millis(200)).await;
                    "slow"
                }),
            )
            .route("/hang", get(|| async { sleep(Duration::from_secs(600)).await }))
            .route("/endless", get(endless));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(serve(listener, finish(router), bounds, async move {
            let _ = stopped.await;
        }));
        Server { address, stop, task }
    }

    impl Server {
        async fn send(&self, text: &str) -> TcpStream {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            stream.write_all(text.as_bytes()).await.unwrap();
            stream
        }

        /// What comes back until the server closes, and that it does.
        async fn exchange(&self, text: &str) -> String {
            rest(&mut self.send(text).await).await
        }
    }

    async fn rest(stream: &mut TcpStream) -> String {
        let mut bytes = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut bytes)).await;
        // A reset after the answer is a close as well.
        let _ = read.expect("the server closes the connection");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    #[tokio::test]
    async fn a_head_that_never_ends_is_cut_off_and_so_is_an_idle_connection() {
        let server = start(bounds()).await;
        assert_eq!(server.exchange("GET / HTTP/1.1\r\nHost: x\r\n").await, "");
        assert_eq!(server.exchange("").await, "");
        let kept = server.exchange("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(kept.starts_with("HTTP/1.1 200") && kept.ends_with("hello"), "{kept}");
    }

    #[tokio::test]
    async fn half_a_body_is_a_408_problem_and_the_end_of_the_connection() {
        let server = start(bounds()).await;
        let head = "POST /echo HTTP/1.1\r\nHost: x\r\nX-Request-ID: me\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n{\"a\"";
        let answer = server.exchange(head).await;
        assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
        assert!(
            answer.contains("\"code\":\"request_timeout\"") && answer.contains("\"request_id\":\"me\""),
            "{answer}"
        );
    }

    #[tokio::test]
    async fn a_body_that_keeps_coming_may_take_longer_than_the_stall() {
        let server = start(bounds()).await;
        let mut stream = server
            .send("POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: 7\r\n\r\n")
            .await;
        for byte in ["{", "\"a\"", ":", "1", "}"] {
            sleep(QUICK / 3).await;
            stream.write_all(byte.as_bytes()).await.unwrap();
        }
        assert!(rest(&mut stream).await.ends_with("{\"a\":1}"));
    }

    #[tokio::test]
    async fn a_head_that_is_too_large_is_refused() {
        let server = start(bounds()).await;
        let long = format!("GET / HTTP/1.1\r\nHost: x\r\nX-Request-ID: me\r\nX: {}\r\n\r\n", "x".repeat(40_000));
        let refused =
            |answer: &str| answer.starts_with("HTTP/1.1 431") && answer.contains("\"code\":\"header_too_large\"");
        let answer = server.exchange(&long).await;
        assert!(refused(&answer) && answer.contains("\"request_id\":\"me\""), "{answer}");
        let many = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "X: y\r\n".repeat(200));
        assert!(refused(&server.exchange(&many).await));
        let huge = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(1_000_000));
        assert!(refused(&server.exchange(&huge).await));
    }

    #[tokio::test]
    async fn a_client_that_keeps_sending_what_was_refused_is_cut_off() {
        let server = start(bounds()).await;
        let mut stream = server.send("?\r\n\r\n").await;
        assert!(rest(&mut stream).await.starts_with("HTTP/1.1 400"));
        let sending = async { while stream.write_all(&[b'x'; 1000]).await.is_ok() {} };
        tokio::time::timeout(LINGER * 3, sending).await.expect("the server gives up");
    }

    #[tokio::test]
    async fn a_panic_is_a_500_problem_and_the_server_lives() {
        let server = start(bounds()).await;
        let answer = server.exchange("GET /panic HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 500") && answer.contains("\"code\":\"internal\""), "{answer}");
        assert!(answer.contains("x-request-id: ") && !answer.contains("secret"), "{answer}");
        assert!(server.exchange("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.contains("hello"));
    }

    #[tokio::test]
    async fn unknown_paths_and_methods_are_problems() {
        let server = start(bounds()).await;
        let answer = server.exchange("GET /nope HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 404") && answer.contains("\"not_found\""), "{answer}");
        let answer = server.exchange("DELETE / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 405") && answer.contains("\"method_not_allowed\""), "{answer}");
        assert!(answer.contains("allow: GET,HEAD"), "{answer}");
    }

    #[tokio::test]
    async fn idle_connections_take_slots_until_their_time_is_over_and_the_next_one_waits() {
        let server = start(Bounds { connections: 1000, head: Duration::from_secs(2), ..bounds() }).await;
        let mut idle = Vec::new();
        for _ in 0..1000 {
            idle.push(server.send("").await);
        }
        let mut next = server.send("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
        let early = tokio::time::timeout(Duration::from_millis(200), next.read_u8()).await;
        assert!(early.is_err(), "answered although every slot was taken");
        assert!(rest(&mut next).await.ends_with("hello"));
    }

    #[tokio::test]
    async fn a_client_that_takes_no_bytes_is_cut_off() {
        let server = start(bounds()).await;
        let _stalled = server.send("GET /endless HTTP/1.1\r\nHost: x\r\n\r\n").await;
        sleep(QUICK * 3).await;
        server.stop.send(()).unwrap();
        assert_eq!(server.task.await.unwrap(), 0, "it was gone before the shutdown");
    }

    #[tokio::test]
    async fn a_shutdown_lets_requests_end_and_cuts_what_does_not() {
        let server = start(bounds()).await;
        let mut slow = server.send("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let mut hang = server.send("GET /hang HTTP/1.1\r\nHost: x\r\n\r\n").await;
        sleep(Duration::from_millis(50)).await;
        server.stop.send(()).unwrap();
        assert!(rest(&mut slow).await.ends_with("slow"));
        assert_eq!(server.task.await.unwrap(), 1);
        assert_eq!(rest(&mut hang).await, "");
        assert!(TcpStream::connect(server.address).await.is_err());
    }
}
