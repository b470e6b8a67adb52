//! The head of a request to the proxy.

use super::answer::{Code, Refusal};
use super::target::Target;
use axum::http::Uri;
use std::fmt::Write as _;

/// Largest head, bytes.
pub const MAX_HEAD: usize = 16 * 1024;
/// Most header fields.
const MAX_FIELDS: usize = 100;
/// Header fields that concern one connection only (RFC 9110, section 7.6.1), and those that this proxy writes itself.
const DROPPED: [&str; 9] = [
    "connection", "proxy-connection", "keep-alive", "proxy-authorization", "proxy-authenticate", "te", "trailer",
    "upgrade", "host",
];
/// Fields that say where the body ends: never dropped, whatever `Connection` names.
const FRAMING: [&str; 2] = ["content-length", "transfer-encoding"];

/// What a client asks the proxy for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// `CONNECT`: bytes both ways.
    Tunnel,
    /// One request in plain HTTP.
    Forward(Forward),
}

/// One request in plain HTTP, to be sent on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    method: String,
    path: String,
    minor: u8,
    fields: Vec<u8>,
    /// How much of what follows the head belongs to it.
    pub body: Body,
}

/// How much of what follows a head belongs to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// So many bytes.
    Length(u64),
    /// Chunks, of which the server knows the last.
    Chunked,
}

/// A whole head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Where to.
    pub target: Target,
    /// What for.
    pub ask: Ask,
    /// Bytes of the head; what follows them is the client's data.
    pub length: usize,
}

/// Reads the head at the beginning of `bytes`; `None` when more of it is needed.
///
/// # Errors
/// `request_invalid` or `head_too_large`.
pub fn parse(bytes: &[u8]) -> Result<Option<Head>, Refusal> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    let length = match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) if length <= MAX_HEAD => length,
        Ok(httparse::Status::Partial) if bytes.len() <= MAX_HEAD => return Ok(None),
        Ok(_) | Err(httparse::Error::TooManyHeaders) => {
            let what = format!("the head of the request has more than {MAX_HEAD} bytes or {MAX_FIELDS} fields");
            return Err(Refusal::new(Code::HeadTooLarge, &what));
        }
        Err(error) => return Err(invalid(&format!("the request is not HTTP/1.1: {error}"))),
    };
    let (Some(method), Some(path), Some(minor)) = (request.method, request.path, request.version) else {
        return Err(invalid("the request has no request line"));
    };
    if method == "CONNECT" {
        let target = Target::parse(path, None).map_err(|what| invalid(&format!("CONNECT {path}: {what}")))?;
        return Ok(Some(Head { target, ask: Ask::Tunnel, length }));
    }
    let uri: Uri = path.parse().map_err(|error| invalid(&format!("{path}: {error}")))?;
    let (Some("http"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(invalid(
            "this is the proxy of the job: it takes CONNECT, and requests with a whole http:// URL; https:// goes through CONNECT",
        ));
    };
    let target =
        Target::parse(authority.as_str(), Some(80)).map_err(|what| invalid(&format!("{authority}: {what}")))?;
    let forward = Forward {
        method: method.to_owned(),
        path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
        minor,
        fields: kept(request.headers),
        body: body(request.headers)?,
    };
    Ok(Some(Head { target, ask: Ask::Forward(forward), length }))
}

fn invalid(what: &str) -> Refusal {
    Refusal::new(Code::RequestInvalid, what)
}

fn kept(headers: &[httparse::Header<'_>]) -> Vec<u8> {
    let named: Vec<String> = headers
        .iter()
        .filter(|header| header.name.eq_ignore_ascii_case("connection"))
        .flat_map(|header| {
            String::from_utf8_lossy(header.value)
                .split(',')
                .map(|name| name.trim().to_ascii_lowercase())
                .collect::<Vec<_>>()
        })
        .collect();
    let mut fields = Vec::new();
    for header in headers {
        let name = header.name.to_ascii_lowercase();
        let hop = DROPPED.contains(&name.as_str()) || named.contains(&name);
        if FRAMING.contains(&name.as_str()) || !hop {
            fields.extend_from_slice(header.name.as_bytes());
            fields.extend_from_slice(b": ");
            fields.extend_from_slice(header.value);
            fields.extend_from_slice(b"\r\n");
        }
    }
    fields
}

/// The one thing that the fields say about the body; two that differ are how requests are smuggled.
fn body(headers: &[httparse::Header<'_>]) -> Result<Body, Refusal> {
    let values = |wanted: &str| -> Vec<&[u8]> {
        headers.iter().filter(|header| header.name.eq_ignore_ascii_case(wanted)).map(|header| header.value).collect()
    };
    match (values("content-length").as_slice(), values("transfer-encoding").as_slice()) {
        ([], []) => Ok(Body::Length(0)),
        ([], [coding]) if coding.eq_ignore_ascii_case(b"chunked") => Ok(Body::Chunked),
        ([length], []) if length.iter().all(u8::is_ascii_digit) => {
            let length = std::str::from_utf8(length).ok().and_then(|length| length.parse().ok());
            length.map(Body::Length).ok_or_else(|| invalid("Content-Length is no number"))
        }
        _ => Err(invalid("a request says once how long its body is: Content-Length, or Transfer-Encoding: chunked")),
    }
}

impl Forward {
    /// The head as the server gets it; as another proxy gets it, with its credentials, when there is one.
    pub fn head(&self, target: &Target, proxy: Option<Option<&str>>) -> Vec<u8> {
        let Self { method, path, minor, .. } = self;
        let authority = if target.port == 80 { target.host.to_string() } else { target.to_string() };
        let mut text = match proxy {
            None => format!("{method} {path} HTTP/1.{minor}\r\nHost: {authority}\r\n"),
            Some(_) => format!("{method} http://{authority}{path} HTTP/1.{minor}\r\nHost: {authority}\r\n"),
        };
        if let Some(Some(authorization)) = proxy {
            let _ = write!(text, "Proxy-Authorization: {authorization}\r\n");
        }
        let mut head = text.into_bytes();
        head.extend_from_slice(&self.fields);
        head.extend_from_slice(b"Connection: close\r\n\r\n");
        head
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn code(text: &str) -> &'static str {
        parse(text.as_bytes()).unwrap_err().code.as_str()
    }

    fn forwarded(text: &str) -> String {
        let head = parse(text.as_bytes()).unwrap().unwrap();
        let Ask::Forward(forward) = head.ask else { panic!("a tunnel") };
        String::from_utf8(forward.head(&head.target, None)).unwrap()
    }

    #[test]
    fn a_tunnel_is_asked_for_by_host_and_port() {
        let text = "CONNECT pypi.org:443 HTTP/1.1\r\nHost: other.example:1\r\n\r\n\x16\x03";
        let head = parse(text.as_bytes()).unwrap().unwrap();
        assert_eq!(
            (head.target.to_string().as_str(), head.length, head.ask),
            ("pypi.org:443", text.len() - 2, Ask::Tunnel)
        );
        assert_eq!(parse(&text.as_bytes()[..40]), Ok(None));
    }

    #[test]
    fn a_request_is_rewritten_for_the_server_of_its_url() {
        let text = "POST http://Example.com:8080/a?b=c HTTP/1.1\r\nHost: evil.example\r\nHost: again\r\nAccept: */*\r\n\
                    Proxy-Authorization: Basic x\r\nConnection: keep-alive, X-Hop, Content-Length\r\nX-Hop: 1\r\n\
                    Proxy-Connection: keep-alive\r\nTE: trailers\r\nUpgrade: h2c\r\nContent-Length: 3\r\n\r\nabc";
        assert_eq!(
            forwarded(text),
            "POST /a?b=c HTTP/1.1\r\nHost: example.com:8080\r\nAccept: */*\r\nContent-Length: 3\r\nConnection: close\r\n\r\n"
        );
        assert_eq!(
            forwarded("GET http://a.b HTTP/1.0\r\n\r\n"),
            "GET / HTTP/1.0\r\nHost: a.b\r\nConnection: close\r\n\r\n"
        );
        let head = parse(b"GET http://a.b/c HTTP/1.1\r\n\r\n").unwrap().unwrap();
        let Ask::Forward(forward) = head.ask else { panic!("a tunnel") };
        let through = String::from_utf8(forward.head(&head.target, Some(Some("Basic x")))).unwrap();
        assert!(
            through.starts_with("GET http://a.b/c HTTP/1.1\r\nHost: a.b\r\nProxy-Authorization: Basic x\r\n"),
            "{through}"
        );
    }

    #[test]
    fn a56_what_could_be_read_in_two_ways_is_refused() {
        for text in [
            "GET / HTTP/1.1\r\nHost: a.b\r\n\r\n",
            "GET https://a.b/ HTTP/1.1\r\n\r\n",
            "GET ftp://a.b/ HTTP/1.1\r\n\r\n",
            "GET http://user@a.b/ HTTP/1.1\r\n\r\n",
            "GET http://good.example@10.0.0.1/ HTTP/1.1\r\n\r\n",
            "GET http://2130706433/ HTTP/1.1\r\n\r\n",
            "GET http://0x7f.1/ HTTP/1.1\r\n\r\n",
            "GET http://a.b:99999/ HTTP/1.1\r\n\r\n",
            "CONNECT user:x@a.b:443 HTTP/1.1\r\n\r\n",
            "CONNECT http://a.b:443 HTTP/1.1\r\n\r\n",
            "CONNECT a.b HTTP/1.1\r\n\r\n",
            "CONNECT / HTTP/1.1\r\n\r\n",
            "GET http://a.b/ HTTP/2.0\r\n\r\n",
            "GET http://a.b/\r\n\r\n",
            "\x16\x03\x01\x02\r\n\r\n",
            "SSH-2.0-x\r\n\r\n",
            "GET http://a.b/ HTTP/1.1\r\nA : b\r\n\r\n",
            "GET http://a.b/ HTTP/1.1\r\nA: b\r\n c\r\n\r\n",
            "GET http://a.b/ HTTP/1.1\r\nA: b\0c\r\n\r\n",
            "POST http://a.b/ HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "POST http://a.b/ HTTP/1.1\r\nContent-Length: +1\r\n\r\n",
            "POST http://a.b/ HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST http://a.b/ HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n",
        ] {
            assert_eq!(code(text), "request_invalid", "{text:?}");
        }
    }

    #[test]
    fn a_head_is_bounded() {
        let long = format!("GET http://a.b/{} HTTP/1.1\r\n", "x".repeat(MAX_HEAD));
        assert_eq!(code(&long), "head_too_large");
        let many = format!("GET http://a.b/ HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(MAX_FIELDS + 1));
        assert_eq!(code(&many), "head_too_large");
        assert_eq!(parse(&vec![b'A'; MAX_HEAD]), Ok(None));
        assert_eq!(code(&"A".repeat(MAX_HEAD + 1)), "head_too_large");
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_head_or_not_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            drop(parse(&bytes));
            let mut text = b"GET http://a.b/ HTTP/1.1\r\n".to_vec();
            text.extend(&bytes);
            drop(parse(&text));
        }
    }
}
