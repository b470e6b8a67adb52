//! Requests that are refused for their heads, before any route sees them, as problems like all others.
//!
//! hyper takes heads of some times the documented bounds, so that most of what is over them is still a request, with an
//! id of its caller's, and is refused by [`layer`]. What hyper's parser refuses itself it answers on its own, with an
//! empty 400, 414 or 431 as the last bytes of the connection. [`Guarded`] keeps these bytes back until hyper has said by its
//! error whose they were; then the problem goes out in their place.

use super::listen::Bounds;
use super::problem::{Code, Problem};
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{CONNECTION, CONTENT_LENGTH, DATE};
use axum::http::{HeaderValue, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use time::OffsetDateTime;
use time::macros::format_description;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How many times the bounds of heads hyper takes, for the rest to be refused here.
pub const ROOM: usize = 4;

/// No answer that hyper makes itself is longer.
const LONGEST_OWN_ANSWER: usize = 256;

/// Marks a request that was refused already; [`layer`] answers it.
#[derive(Debug, Clone)]
pub struct Refused(pub Problem);

/// The middleware, for [`axum::middleware::from_fn`], within the one of [request ids](super::request_id).
pub async fn layer(mut request: Request, next: Next) -> Response {
    match request.extensions_mut().remove::<Refused>() {
        Some(Refused(problem)) => {
            tracing::debug!(%problem, "refused before any route");
            problem.into_response()
        }
        None => next.run(request).await,
    }
}

/// Why a request is refused whose head was read whole; `None` when it is within the bounds.
pub fn too_large<B>(request: &axum::http::Request<B>, bounds: &Bounds) -> Option<Problem> {
    let headers = request.headers();
    let fields: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len()).sum();
    let line = request.method().as_str().len() + written_length(request.uri()) + "  HTTP/1.1\r\n".len();
    let fits = line + fields + "\r\n".len() <= bounds.head_bytes && headers.len() <= bounds.headers;
    (!fits).then(|| header_too_large(bounds))
}

fn written_length(uri: &Uri) -> usize {
    let scheme = uri.scheme_str().map_or(0, |scheme| scheme.len() + "://".len());
    let authority = uri.authority().map_or(0, |authority| authority.as_str().len());
    scheme + authority + uri.path_and_query().map_or(0, |path| path.as_str().len())
}

fn header_too_large(bounds: &Bounds) -> Problem {
    let (bytes, headers) = (bounds.head_bytes, bounds.headers);
    Problem::new(Code::HeaderTooLarge)
        .detail(format!("the request line and the headers may have {bytes} bytes and {headers} headers"))
        .with("max_bytes", bytes)
        .with("max_headers", headers)
}

/// The problem for what hyper's parser refuses.
pub fn unparsed(error: &hyper::Error, bounds: &Bounds) -> Problem {
    if error.is_parse_too_large() {
        return header_too_large(bounds);
    }
    if error.is_parse_version_h2() {
        return Problem::new(Code::BadRequest).detail("this server speaks HTTP/1.1 only");
    }
    Problem::new(Code::BadRequest).detail("the head of the request is not well-formed HTTP/1.1")
}

/// An answer as bytes for a connection that ends with it.
pub async fn last_answer(response: Response) -> Vec<u8> {
    let (mut parts, body) = response.into_parts();
    // A problem's body is in memory: it cannot fail.
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    parts.headers.insert(CONTENT_LENGTH, body.len().into());
    parts.headers.insert(CONNECTION, HeaderValue::from_static("close"));
    if let Some(date) = http_date(OffsetDateTime::now_utc()) {
        parts.headers.insert(DATE, date);
    }
    let reason = parts.status.canonical_reason().unwrap_or_default();
    let mut bytes = format!("HTTP/1.1 {} {reason}\r\n", parts.status.as_str()).into_bytes();
    for (name, value) in &parts.headers {
        bytes.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(&body);
    bytes
}

/// A time as HTTP writes it (RFC 9110, 5.6.7).
fn http_date(at: OffsetDateTime) -> Option<HeaderValue> {
    let form =
        format_description!("[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT");
    HeaderValue::from_str(&at.format(form).ok()?).ok()
}

/// The requests of one connection, counted.
#[derive(Debug, Clone, Default)]
pub struct Requests(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    begun: AtomicU64,
    answered: AtomicU64,
}

impl Requests {
    /// Counts one that begins; it is answered when this and the body with it is dropped.
    #[must_use]
    pub fn begin(&self) -> Underway {
        self.0.begun.fetch_add(1, Ordering::SeqCst);
        Underway(Arc::clone(&self.0))
    }

    fn none_is_underway(&self) -> bool {
        self.0.begun.load(Ordering::SeqCst) == self.0.answered.load(Ordering::SeqCst)
    }

    fn none_ever_was(&self) -> bool {
        self.0.begun.load(Ordering::SeqCst) == 0
    }
}

/// A request that is not wholly answered.
#[derive(Debug)]
pub struct Underway(Arc<Counts>);

impl Drop for Underway {
    fn drop(&mut self) {
        self.0.answered.fetch_add(1, Ordering::SeqCst);
    }
}

/// The body of an answer: when it is dropped, hyper has all of it.
pub struct Answer {
    inner: Body,
    _underway: Underway,
}

impl Answer {
    /// A body that keeps the request counted.
    pub fn new(inner: Body, underway: Underway) -> Self {
        Self { inner, _underway: underway }
    }
}

impl http_body::Body for Answer {
    type Data = bytes::Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A connection that keeps back what may be an answer of hyper's own.
///
/// Such an answer is looked for only while no request is underway, and it is the last that hyper writes. What is kept
/// back and is not the last is written as soon as hyper reads or writes on.
pub struct Guarded<I> {
    inner: I,
    requests: Requests,
    kept: Vec<u8>,
}

impl<I: AsyncWrite + Unpin> Guarded<I> {
    /// Guards `inner`, whose requests are counted in `requests`.
    pub fn new(inner: I, requests: Requests) -> Self {
        Self { inner, requests, kept: Vec::new() }
    }

    /// Once hyper is done with the connection: what is still to be written, and the connection. After an error of hyper's
    /// parser (`refused`) that is nothing of what was kept back, and [`None`] says that no other answer fits either.
    pub fn into_parts(self, refused: Option<&hyper::Error>) -> (Option<Vec<u8>>, I) {
        let rest = match refused {
            None => Some(self.kept),
            // hyper gives no answer to HTTP/2; where that is the first it heard, there is room for one.
            Some(error) if error.is_parse_version_h2() => self.requests.none_ever_was().then(Vec::new),
            Some(_) => (!self.kept.is_empty()).then(Vec::new),
        };
        (rest, self.inner)
    }

    fn poll_release(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.kept.is_empty() {
            let written = ready!(Pin::new(&mut self.inner).poll_write(cx, &self.kept))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.kept.drain(..written);
        }
        Poll::Ready(Ok(()))
    }
}

/// Where in `bytes` an answer begins that has the form of hyper's own and is the end of them.
fn own_answer(bytes: &[u8]) -> Option<usize> {
    const VERSION: &[u8] = b"HTTP/1.";
    let head = bytes.strip_suffix(b"\r\n\r\n")?;
    let from = head.len().saturating_sub(LONGEST_OWN_ANSWER);
    let at = from + head[from..].windows(VERSION.len()).rposition(|window| window == VERSION)?;
    let status = head.get(at + VERSION.len() + 1..)?;
    let own = [&b" 400 "[..], b" 414 ", b" 431 "].iter().any(|own| status.starts_with(own));
    (own && !status.windows(4).any(|window| window == b"\r\n\r\n")).then_some(at)
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncRead for Guarded<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_release(cx))?;
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Guarded<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_release(cx))?;
        let own = if self.requests.none_is_underway() { own_answer(buf) } else { None };
        match own {
            None => Pin::new(&mut self.inner).poll_write(cx, buf),
            // What stands before it belongs to an earlier answer.
            Some(at) if at > 0 => Pin::new(&mut self.inner).poll_write(cx, &buf[..at]),
            Some(_) => {
                self.kept.extend_from_slice(buf);
                Poll::Ready(Ok(buf.len()))
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_release(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut filled = bufs.iter().filter(|buf| !buf.is_empty());
        if let (Some(only), None) = (filled.next(), filled.next()) {
            return self.poll_write(cx, only);
        }
        ready!(self.poll_release(cx))?;
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const OWN: &[u8] = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

    #[test]
    fn an_answer_of_hypers_own_is_known_by_its_form_and_place() {
        assert_eq!(own_answer(OWN), Some(0));
        assert_eq!(own_answer(&[b"tail HTTP/1.1 400 ", OWN].concat()), Some(18));
        assert_eq!(own_answer(b"HTTP/1.0 431 Too Large\r\ndate: x\r\n\r\n"), Some(0));
        for other in [
            &b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"[..],
            &OWN[..OWN.len() - 1],
            &[OWN, b"x"].concat(),
            &[OWN, b"x\r\n\r\n"].concat(),
            b"\r\n\r\n",
            b"HTTP/1.\r\n\r\n",
            b"",
        ] {
            assert_eq!(own_answer(other), None, "{}", String::from_utf8_lossy(other));
        }
    }

    #[test]
    fn times_are_written_as_http_wants_them() {
        let at = OffsetDateTime::from_unix_timestamp(784_111_777).unwrap();
        assert_eq!(http_date(at).unwrap(), "Sun, 06 Nov 1994 08:49:37 GMT");
    }

    #[tokio::test]
    async fn what_only_looks_like_one_is_written_in_its_place() {
        let (near, mut far) = tokio::io::duplex(1000);
        let requests = Requests::default();
        let mut guarded = Guarded::new(near, requests.clone());
        let underway = requests.begin();
        guarded.write_all(OWN).await.unwrap();
        assert!(guarded.kept.is_empty(), "part of an answer that is being given");
        drop(underway);
        guarded.write_all(OWN).await.unwrap();
        assert_eq!(guarded.kept, OWN);
        guarded.write_all(b"next").await.unwrap();
        guarded.write_all(OWN).await.unwrap();
        far.write_all(b"x").await.unwrap();
        assert_eq!(guarded.read_u8().await.unwrap(), b'x');
        guarded.write_all(OWN).await.unwrap();
        let (rest, near) = guarded.into_parts(None);
        assert_eq!(rest.unwrap(), OWN);
        drop(near);
        let mut got = Vec::new();
        far.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, [OWN, OWN, b"next", OWN].concat());
    }
}
